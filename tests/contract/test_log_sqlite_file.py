"""The file of the embedded log: whose it is, what is synced, and a disk that runs full."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from producer.log.protocol import Log, LogRecord
from producer.log.sqlite import SqliteLogOptions, SqliteLogs
from schemas.errors import ConfigError, LogUnavailable, NotFound, UnsupportedFormat
from tests.support.appender import clock_ms
from tests.support.log_reading import new_log_id, read_all

_MIB = 1024 * 1024


async def _open(logs: SqliteLogs, partitions: int = 1) -> Log:
    return await logs.open("x", new_log_id(), partitions)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"this is a text file, not a database" * 100, ConfigError, "not a log"),
        ("CREATE TABLE t (a)", ConfigError, "another program"),
        ("PRAGMA application_id = 77", ConfigError, "another program"),
        ("PRAGMA application_id = 1181895783; PRAGMA user_version = 2", UnsupportedFormat, "format 2"),
    ],
)
async def test_a_file_that_is_not_ours_is_left_alone(path, content, error, words):
    """A text, another program's database, a newer format: refused with the reason, and the file is not changed."""
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        made = sqlite3.connect(path)
        made.executescript(content)
        made.close()
    before = path.read_bytes()
    logs = SqliteLogs(path, SqliteLogOptions(), clock_ms=clock_ms)
    with pytest.raises(error, match=words):
        await logs.start()
    await logs.close()
    assert path.read_bytes() == before


@pytest.mark.asyncio
async def test_several_processes_start_on_a_new_directory_at_once(path):
    """Racing first starts make one file with one control log."""
    many = [SqliteLogs(path, SqliteLogOptions(busy_seconds=30.0), clock_ms=clock_ms) for _ in range(6)]
    await asyncio.gather(*(logs.start() for logs in many))
    assert len({logs.control.log_id for logs in many}) == 1
    await asyncio.gather(*(logs.close() for logs in many))


@pytest.mark.asyncio
async def test_commits_are_synced(start):
    """Durable means synced: the default is SQLite's FULL, and NORMAL has to be asked for."""
    strict = await start()
    assert strict._writer._commits._connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    loose = await start(synchronous="NORMAL")
    assert loose._writer._commits._connection.execute("PRAGMA synchronous").fetchone()[0] == 1


_ON_A_SMALL_DISK = """
import asyncio, sys
from pathlib import Path
from producer.log.protocol import LogRecord
from producer.log.sqlite import SqliteLogOptions, SqliteLogs
from schemas.errors import LogFull
from tests.support.appender import clock_ms

async def main(folder: Path) -> None:
    logs = SqliteLogs(folder / "log.db", SqliteLogOptions(reserve_bytes=0), clock_ms=clock_ms)
    await logs.start()
    log = await logs.open("x", "full", 1)
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    done = 0
    try:
        while True:
            await log.append(0, [LogRecord(None, bytes([done % 256]) * 30_000)] * 3)
            done += 1
    except LogFull:
        assert (await log.ends())[0] == done * 3, "a refused append is not there"
    ballast.unlink()
    await log.append(0, [LogRecord(None, b"again")])
    await logs.close()
    logs = SqliteLogs(folder / "log.db", SqliteLogOptions(reserve_bytes=0), clock_ms=clock_ms)
    await logs.start()
    log = await logs.open("x", "full", 1)
    found = await log.read(0, 0, bytes_max=1 << 30, wait_seconds=0)
    assert len(found.records) == done * 3 + 1 and found.records[-1].value == b"again"
    assert all(r.value == bytes([n // 3 % 256]) * 30_000 for n, r in enumerate(found.records[:-1]))
    await logs.close()
    print("appended", done)

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_disk_that_runs_full_loses_nothing(tmp_path):
    """On a file system that is really full appends give LogFull, and go on when there is space again."""
    small = tmp_path / "small"
    small.mkdir()
    inside = f'mount -t tmpfs -o size=6m tmpfs "{small}" && exec "{sys.executable}" -c "$0" "{small}"'
    probe = subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(small)], capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip("this machine allows no private file system")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", inside, _ON_A_SMALL_DISK],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 5


@pytest.mark.asyncio
async def test_ten_thousand_waits_keep_no_memory(start):
    """Waits that ended, in whatever way, leave nothing behind in the reader."""
    logs = await start()
    log = await _open(logs)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(20):
        tasks = [asyncio.create_task(log.read(0, 0, bytes_max=1, wait_seconds=20)) for _ in range(500)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await log.read(0, 0, bytes_max=1, wait_seconds=0.01)
    assert len(logs._reader._waiting) == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


@pytest.mark.asyncio
async def test_log_for_reading_only_makes_and_changes_nothing(path, start):
    """It reads beside a writer and without one; what is missing is not made, and appends are refused."""

    def only_reading() -> SqliteLogs:
        return SqliteLogs(path, SqliteLogOptions(), clock_ms=clock_ms, is_read_only=True)

    with pytest.raises(NotFound, match="no log at"):
        await only_reading().start()
    assert not path.parent.exists()
    writing = await start()
    log_id = new_log_id()
    log = await writing.open("films", log_id, 2)
    await log.append(1, [LogRecord(b"ns", b"value")])
    for is_beside in (True, False):
        if not is_beside:
            await writing.close()
        reading = only_reading()
        await reading.start()
        try:
            seen = await reading.open("films", log_id, 2)
            assert list(await seen.ends()) == [0, 1]
            assert [record.value for record in (await read_all(seen, 1))] == [b"value"]
            assert list(await reading.control.ends()) == [0]
            with pytest.raises(NotFound, match="no log of 'books'"):
                await reading.open("books", new_log_id(), 1)
            with pytest.raises(LogUnavailable):
                await seen.append(0, [LogRecord(b"ns", b"other")])
        finally:
            await reading.close()
