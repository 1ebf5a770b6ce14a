"""The power-loss recorder tells the truth: what was synced stays, what was not is lost, and nothing escapes it."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.crash.disk import Disk, Loss, tree_of
from tests.crash.powerloss import Recorder, compile_recorder


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the recorder."""
    compiled = compile_recorder(tmp_path_factory.mktemp("powerloss"))
    if compiled is None:
        pytest.skip("NO C COMPILER: the power-loss recorder is not tested here")
    return compiled


@pytest.fixture
def recorder(library: Path, tmp_path: Path) -> Recorder:
    """Record the empty directory `tree`."""
    (tmp_path / "tree").mkdir()
    return Recorder(library, tmp_path / "tree", tmp_path / "record")


def start(recorder: Recorder, program: str) -> subprocess.Popen[bytes]:
    """Start a Python program in the tree, under the recorder."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=recorder.tree,
        env={**os.environ, **recorder.environment},
        stdout=subprocess.PIPE,
        text=True,
    )


def run(recorder: Recorder, program: str) -> Disk:
    """Run a program to its end; the record of it must tell the tree as it really is."""
    with start(recorder, program) as process:
        assert process.wait(timeout=60) == 0
    disk = recorder.replay()
    assert disk.tree(Loss.none()) == tree_of(recorder.tree)
    return disk


FILE_SYNC = "fd = os.open('a', os.O_RDONLY); os.fsync(fd); os.close(fd)\n"
DIRECTORY_SYNC = "fd = os.open('.', os.O_RDONLY | os.O_DIRECTORY); os.fsync(fd); os.close(fd)\n"


def test_a_write_without_a_sync_is_lost(recorder: Recorder) -> None:
    """Neither name nor bytes of a file that was never synced survive."""
    assert run(recorder, "open('a', 'wb').write(b'x' * 10)").tree(Loss.worst()) == {}


def test_a_synced_file_in_an_unsynced_directory_is_lost(recorder: Recorder) -> None:
    """A sync of a new file says nothing about its name."""
    assert run(recorder, "import os\nopen('a', 'wb').write(b'x')\n" + FILE_SYNC).tree(Loss.worst()) == {}


def test_an_unsynced_file_in_a_synced_directory_is_empty(recorder: Recorder) -> None:
    """A sync of a directory says nothing about the bytes of its files."""
    disk = run(recorder, "import os\nopen('a', 'wb').write(b'x')\n" + DIRECTORY_SYNC)
    assert disk.tree(Loss.worst()) == {"a": b""}


def test_a_synced_file_in_a_synced_directory_stays(recorder: Recorder) -> None:
    """Both syncs make a file durable under every loss."""
    disk = run(recorder, "import os\nopen('a', 'wb').write(b'x')\n" + FILE_SYNC + DIRECTORY_SYNC)
    for loss in (Loss.worst(), Loss.contents(), *(Loss.some(random.Random(seed)) for seed in range(20))):
        assert disk.tree(loss) == {"a": b"x"}


def test_a_dropped_directory_sync_loses_the_name(recorder: Recorder) -> None:
    """The replay can be told that a sync never was."""
    run(recorder, "import os\nopen('a', 'wb').write(b'x')\n" + FILE_SYNC + DIRECTORY_SYNC)
    assert [(sync.kind, sync.number, sync.path) for sync in recorder.replay().syncs] == [
        ("file", 1, "a"),
        ("directory", 1, ""),
    ]
    assert recorder.replay(drop=lambda sync: sync.kind == "directory").tree(Loss.worst()) == {}


def test_a_replaced_file_is_the_old_one_or_the_new_one(recorder: Recorder) -> None:
    """Write aside, sync, rename, sync the directory: at no point is there anything but the old or the new file."""
    run(
        recorder,
        "import os\nopen('a', 'wb').write(b'old')\n" + FILE_SYNC + DIRECTORY_SYNC + "open('b', 'wb').write(b'new')\n"
        "fd = os.open('b', os.O_RDWR); os.fsync(fd); os.close(fd)\n"
        "os.replace('b', 'a')\n" + DIRECTORY_SYNC,
    )
    first = next(n for n in range(recorder.seq) if recorder.replay(until=n).tree(Loss.worst()) == {"a": b"old"})
    found = set()
    for until in range(first, recorder.seq + 1):
        for seed in range(10):
            found.add(recorder.replay(until=until).tree(Loss.some(random.Random(seed)))["a"])
    assert found == {b"old", b"new"}
    assert recorder.replay().tree(Loss.worst()) == {"a": b"new"}


def test_a_rename_without_a_sync_of_the_file_leaves_it_empty(recorder: Recorder) -> None:
    """The known trap: the name is durable and the bytes are not."""
    disk = run(
        recorder,
        "import os\nopen('a', 'wb').write(b'old')\n" + FILE_SYNC + DIRECTORY_SYNC + "open('b', 'wb').write(b'new')\n"
        "os.rename('b', 'a')\n" + DIRECTORY_SYNC,
    )
    assert disk.tree(Loss.worst()) == {"a": b""}


def test_a_removed_file_comes_back_until_the_directory_is_synced(recorder: Recorder) -> None:
    """An unlink is undone together with the bytes that were synced."""
    made = "import os\nopen('a', 'wb').write(b'x')\n" + FILE_SYNC + DIRECTORY_SYNC
    assert run(recorder, made + "os.unlink('a')").tree(Loss.worst()) == {"a": b"x"}
    assert run(recorder, "import os\n" + DIRECTORY_SYNC).tree(Loss.worst()) == {}


def test_a_link_is_durable_with_its_directory(recorder: Recorder) -> None:
    """Create-only link of a synced temporary file, then a sync of the directory: the pattern of the snapshot store."""
    program = "import os\nos.mkdir('d')\nopen('d/t', 'wb').write(b'x')\n" + FILE_SYNC.replace("'a'", "'d/t'")
    program += "os.link('d/t', 'd/a')\nos.unlink('d/t')\n" + DIRECTORY_SYNC
    assert run(recorder, program).tree(Loss.worst()) == {"d": None}
    again = "import os\n" + DIRECTORY_SYNC.replace("'.'", "'d'")
    assert run(recorder, again).tree(Loss.worst()) == {"d": None, "d/a": b"x"}


def test_a_file_in_a_directory_whose_name_was_not_synced_is_lost(recorder: Recorder) -> None:
    """A new directory needs a sync of its parent, whatever is synced inside."""
    program = "import os\nos.mkdir('d')\nopen('d/a', 'wb').write(b'x')\n" + FILE_SYNC.replace("'a'", "'d/a'")
    assert run(recorder, program + DIRECTORY_SYNC.replace("'.'", "'d'")).tree(Loss.worst()) == {}


def test_a_partly_synced_file_keeps_what_was_synced(recorder: Recorder) -> None:
    """What was written before the sync stays, under every loss; what came later may be cut, zero or there."""
    disk = run(
        recorder,
        """
        import os
        fd = os.open('a', os.O_CREAT | os.O_WRONLY)
        os.write(fd, b'1' * 10_000)
        os.fdatasync(fd)
        os.write(fd, b'2' * 10_000)
        fd = os.open('.', os.O_RDONLY); os.fsync(fd)
        """,
    )
    assert disk.tree(Loss.worst()) == {"a": b"1" * 10_000}
    lengths, zeros = set(), 0
    for seed in range(100):
        content = disk.tree(Loss.some(random.Random(seed)))["a"]
        assert content is not None
        assert content[:10_000] == b"1" * 10_000
        lengths.add(len(content))
        zeros += b"\0" in content
    assert {10_000, 20_000} < lengths
    assert zeros


def test_every_way_to_write_is_seen(recorder: Recorder) -> None:
    """The record tells the same tree as the file system, whatever call made it."""
    run(
        recorder,
        """
        import ctypes, os, shutil
        import numpy as np
        fd = os.open('a', os.O_CREAT | os.O_RDWR)
        os.write(fd, b'abc'); os.writev(fd, [b'de', b'f']); os.pwrite(fd, b'Z', 1); os.pwritev(fd, [b'Y', b'X'], 10)
        os.ftruncate(fd, 11); os.posix_fallocate(fd, 0, 5000); os.truncate('a', 4990)
        log = os.open('log', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        twin = os.open('log', os.O_WRONLY | os.O_APPEND)
        os.write(log, b'one'); os.write(twin, b'two'); os.write(os.dup(log), b'three')
        np.arange(1000).tofile('numpy')
        with open('numpy-too', 'wb') as file:
            file.write(b'head'); file.flush(); np.arange(1000).tofile(file); file.write(b'tail')
        np.save('array.npy', np.arange(1000))
        shutil.copyfile('numpy', 'copy')
        source = os.open('a', os.O_RDONLY); target = os.open('ranges', os.O_CREAT | os.O_WRONLY)
        os.copy_file_range(source, target, 100, 0, 50); os.sendfile(target, source, 5, 20)
        os.makedirs('x/y'); os.rename('copy', 'x/y/copy'); os.link('x/y/copy', 'x/linked'); os.replace('x/y', 'z')
        with open('x/linked', 'r+b') as file: file.write(b'through the link')
        os.mkdir('gone'); os.rmdir('gone'); os.remove('numpy-too')
        folder = os.open('x', os.O_RDONLY)
        low = os.open('low', os.O_CREAT | os.O_WRONLY, dir_fd=folder); os.write(low, b'low'); os.close(low)
        os.rename('low', 'lower', src_dir_fd=folder, dst_dir_fd=folder); os.mkdir('deep', dir_fd=folder)
        os.symlink  # symbolic links are not followed and not recorded
        try: os.open('a', os.O_CREAT | os.O_EXCL)
        except FileExistsError: pass
        try: os.link('a', 'log')
        except FileExistsError: pass
        libc = ctypes.CDLL(None)
        libc.fopen.restype = ctypes.c_void_p
        file = ctypes.c_void_p(libc.fopen(b'stdio', b'w'))
        libc.fputs(b'hello', file); libc.fclose(file)
        nameless = os.open('.', os.O_TMPFILE | os.O_RDWR)
        os.write(nameless, b'named late')
        os.link(f'/proc/self/fd/{nameless}', 'late', src_dir_fd=folder, follow_symlinks=True)
        """,
    )


def test_hnswlib_files_are_seen(recorder: Recorder) -> None:
    """A graph saved by hnswlib's C++ stream is in the record byte for byte, and durable after a sync."""
    disk = run(
        recorder,
        """
        import hnswlib, numpy as np, os
        index = hnswlib.Index('l2', 16); index.init_index(500)
        index.add_items(np.random.rand(500, 16)); index.save_index('a')
        fd = os.open('a', os.O_RDWR); os.fsync(fd)
        fd = os.open('.', os.O_RDONLY); os.fsync(fd)
        """,
    )
    assert disk.tree(Loss.worst()) == tree_of(recorder.tree)


def test_processes_are_recorded_in_order(recorder: Recorder) -> None:
    """Eight processes that append to one file and race for names: the record gives the tree they left."""
    racer = """
        import os, sys
        log = os.open('log', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for i in range(200):
            os.write(log, f'{os.getpid()} {i}\\n'.encode())
            try:
                fd = os.open(f'n{i}', os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                if i % 7 == 0:
                    try: os.unlink(f'n{i - 1}')
                    except FileNotFoundError: pass
                continue
            os.write(fd, str(os.getpid()).encode())
            os.close(fd)
    """
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(start(recorder, racer)) for _ in range(8)]
        assert [process.wait(timeout=60) for process in processes] == [0] * 8
    assert recorder.replay().tree(Loss.none()) == tree_of(recorder.tree)


def test_killed_processes_leave_a_readable_record(recorder: Recorder) -> None:
    """SIGKILL in the middle of writes, of a process that may hold the recorder's lock: the others go on."""
    writer = """
        import os
        for i in range(1_000_000):
            fd = os.open(f'f{os.getpid()}-{i % 50}', os.O_CREAT | os.O_WRONLY)
            os.write(fd, b'x' * 3000)
            os.fsync(fd) if i % 10 == 0 else None
            os.close(fd)
    """
    for _ in range(3):
        with contextlib.ExitStack() as stack:
            for process in [stack.enter_context(start(recorder, writer)) for _ in range(3)]:
                time.sleep(0.15)
                process.kill()
    assert run(recorder, "open('last', 'wb').write(b'last')").tree(Loss.none())["last"] == b"last"


def test_a_shared_mapping_is_refused(recorder: Recorder) -> None:
    """What is written through a mapping cannot be followed, so no verdict is given."""
    program = """
        import mmap, os
        fd = os.open('a', os.O_CREAT | os.O_RDWR); os.ftruncate(fd, 4096)
        mmap.mmap(fd, 4096)[0] = 1
    """
    with start(recorder, program) as process:
        assert process.wait(timeout=60) == 0
    with pytest.raises(AssertionError, match="shared mapping"):
        recorder.replay().tree(Loss.worst())


def test_a_restored_tree_is_the_base_of_the_next_record(recorder: Recorder, library: Path, tmp_path: Path) -> None:
    """After a loss the tree goes on from what was left."""
    disk = run(recorder, "import os\nopen('a', 'wb').write(b'x')\n" + FILE_SYNC + DIRECTORY_SYNC + "os.unlink('a')")
    disk.restore(recorder.tree, Loss.worst())
    second = Recorder(library, recorder.tree, tmp_path / "second")
    program = "import os\nopen('a', 'ab').write(b'y')\n" + FILE_SYNC + "open('b', 'w').write('b')"
    assert run(second, program).tree(Loss.worst()) == {"a": b"xy"}


WRITER = """
    import sqlite3, sys
    connection = sqlite3.connect('log.db', isolation_level=None)
    connection.execute('pragma journal_mode = wal')
    connection.execute('pragma synchronous = {synchronous}')
    connection.execute('pragma wal_autocheckpoint = {checkpoint}')
    connection.execute('create table if not exists t (n integer primary key, body blob)')
    first = connection.execute('select coalesce(max(n), 0) + 1 from t').fetchone()[0]
    for n in range(first, 1_000_000):
        connection.execute('insert into t values (?, zeroblob(2000))', (n,))
        print(n, flush=True)
"""


def lost_rows(recorder: Recorder, synchronous: str, rng: random.Random, losses: list[Loss]) -> list[int]:
    """Kill a SQLite writer at a random moment; count for each loss the committed rows that are gone."""
    with start(recorder, WRITER.format(synchronous=synchronous, checkpoint=rng.choice((20, 1000)))) as process:
        assert process.stdout is not None
        last = 0
        for _ in range(rng.randrange(1, 60)):
            last = int(process.stdout.readline())
        time.sleep(rng.random() / 100)
        process.kill()
        for line in process.stdout:
            last = int(line) if line.endswith("\n") else last
    disk = recorder.replay()
    result = []
    for number, loss in enumerate(losses):
        left = recorder.tree.with_name(f"left{number}")
        disk.restore(left, loss)
        with contextlib.closing(sqlite3.connect(left / "log.db")) as connection:
            assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
            made = connection.execute("select count(*) from sqlite_schema").fetchone()[0]
            kept = connection.execute(f"select count(*) from t where n <= {last}").fetchone()[0] if made else 0
        result.append(last - kept)
    return result


def test_sqlite_with_full_sync_loses_no_committed_row(library: Path, tmp_path: Path) -> None:
    """30 kills at random moments, each under the worst loss and three random ones."""
    rng = random.Random(1)
    for kill in range(30):
        tree = tmp_path / f"{kill}" / "tree"
        tree.mkdir(parents=True)
        losses = [Loss.worst(), *(Loss.some(random.Random(rng.random())) for _ in range(3))]
        recorder = Recorder(library, tree, tree.with_name("record"))
        assert lost_rows(recorder, "full", rng, losses) == [0] * 4, f"kill {kill}"


def test_sqlite_with_normal_sync_is_caught_losing_committed_rows(library: Path, tmp_path: Path) -> None:
    """The same kills find what `synchronous=NORMAL` gives up: commits since the last checkpoint."""
    rng = random.Random(1)
    lost = 0
    for kill in range(5):
        tree = tmp_path / f"{kill}" / "tree"
        tree.mkdir(parents=True)
        recorder = Recorder(library, tree, tree.with_name("record"))
        lost += lost_rows(recorder, "normal", rng, [Loss.worst()])[0]
    assert lost > 0
