"""The local store keeps the contract, and what only it promises."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from indexer.snapshots import store as store_module
from indexer.snapshots.store import LocalStore
from schemas.errors import StoreUnavailable
from tests.contract.store_contract import StoreContract, numbered_manifest, object_name


class TestLocalStore(StoreContract):
    """Everything that every store promises."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore(tmp_path / "store")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_two_stores_of_one_root_see_each_other(tmp_path):
    """Indexer and API are processes of their own over one directory."""
    first, second = LocalStore(tmp_path), LocalStore(tmp_path)
    ref = first.put(object_name(), [b"x"])
    assert second.read(ref.name) == b"x"
    second.delete_prefix("films.L")
    assert first.put(object_name(), [b"y"]).size_bytes == 1


def test_sync_reaches_the_file_and_every_directory_above_it(store, tmp_path, monkeypatch):
    """A name is durable when its directory is, and that directory's name when its own is: up to the root."""
    synced = []
    stock = os.fsync
    monkeypatch.setattr(
        store_module.os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink()) or stock(fd)
    )
    ref = store.put(object_name(), [b"x"])
    synced.clear()
    store.sync([ref.name])
    root = tmp_path / "store"
    assert synced[0] == root / ref.name
    assert set(synced[1:]) == {root / "films.L/0/objects", root / "films.L/0", root / "films.L", root}


def test_replace_is_durable_before_it_returns(store, tmp_path, monkeypatch):
    """The marker says that something is durable, so it must be itself."""
    synced = []
    stock = os.fsync
    monkeypatch.setattr(
        store_module.os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink()) or stock(fd)
    )
    store.replace("films.L/0/marker", b"x")
    assert len(synced) == 2
    assert synced[0].parent == synced[1] == tmp_path / "store/films.L/0"


def test_age_is_told_by_the_clock_that_stamps_files(tmp_path):
    """Two machines with different clocks would collect each other's new objects."""
    store = LocalStore(tmp_path)
    ref = store.put(object_name(), [b"x"])
    path = tmp_path / ref.name
    stat = path.stat()
    os.utime(path, (stat.st_atime - 100, stat.st_mtime - 100))
    assert 99 < store.age_seconds(ref.name) < 160
    assert LocalStore(tmp_path, now=lambda: stat.st_mtime).age_seconds(ref.name) == pytest.approx(100, abs=0.001)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("call", ["put", "create", "replace"])
def test_error_of_the_disk_is_a_store_that_does_not_answer(store, tmp_path, monkeypatch, call, number):
    """Any error of the disk is translated at the door, says whether it is full, and leaves nothing under the name."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    calls = {
        "put": lambda: store.put(object_name(), [b"x"]),
        "create": lambda: store.create(numbered_manifest(1), b"x"),
        "replace": lambda: store.replace("films.L/0/marker", b"x"),
    }
    monkeypatch.setattr(store_module.os, "link", fail)
    monkeypatch.setattr(store_module.os, "fsync", fail)
    with pytest.raises(StoreUnavailable) as caught:
        calls[call]()
    assert caught.value.facts["full"] is (number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
    monkeypatch.undo()
    assert store.list("films.L/0/objects") == store.list("films.L/0/manifests") == []
    assert list(tmp_path.rglob(".*")) == []
    calls[call]()


_FILL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from indexer.snapshots.store import LocalStore
from schemas.errors import StoreUnavailable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
store = LocalStore(Path({store!r}))
try:
    store.put("films.L/0/objects/1.delta", [bytes(40_000)] * 5)
except StoreUnavailable as error:
    print(error.facts["full"], store.list("films.L/0/objects"), list(Path({store!r}).rglob(".*")))
print(store.put("films.L/0/objects/1.delta", [bytes(40_000)]).size_bytes)
"""


def test_write_that_the_kernel_cuts_short_leaves_nothing(tmp_path):
    """A disk that fills up in the middle of an object: it is told, no part stays, smaller ones still fit."""
    code = _FILL.format(root=str(Path.cwd()), store=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["True [] []", "40000"], done.stderr


def test_descriptors_are_not_left_open(store):
    """Small objects are read, large ones are mapped and let go with the last view."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    large = store.put(object_name("large"), [bytes(1024)] * 1024)
    for _ in range(50):
        store.put(f"{object_name()}{_}", [b"x"])
        store.open(large, verify=True)
        store.sync([large.name])
        store.age_seconds(large.name)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
