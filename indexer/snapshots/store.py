"""The snapshot store: immutable objects under names that are never reused. The only speller of object names.

Contract of every store:

1. `put` and `create` make an object only if the name is free, and never show part of it under that name.
2. What `put` and `create` return is readable by every process at once; it is durable only after `sync`.
3. `delete` of a missing object is fine. `read`, `map` and `path` of one raise `FileNotFoundError`.
4. Any `OSError` but those is translated to `StoreUnavailable`, after which nothing was left under the name.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from producer.steps import Step, no_step
from schemas.errors import AlreadyExists, CorruptData, StoreUnavailable
from schemas.manifest import ObjectRef

__all__ = [
    "LocalStore",
    "Store",
    "checkpoint_name",
    "manifest_name",
    "manifest_version",
    "new_object_name",
    "partition_prefix",
    "pin_name",
    "pins_prefix",
    "skip_name",
]

# Smaller objects are read into memory: a map costs an open descriptor and a page of address space each.
_MAP_BYTES_MIN = 256 * 1024
# Large files are synced in steps, so that the log's commits do not stall behind one long flush.
_SYNC_STEP_BYTES = 16 * 1024 * 1024
# A publish has some twenty sections, most of them small: one write instead of one each.
_BUFFER_BYTES = 256 * 1024


def partition_prefix(index_id: str, partition: int) -> str:
    """Return the prefix of all names of a partition."""
    return f"{index_id}/{partition}"


def manifest_name(index_id: str, partition: int, version: int) -> str:
    """Return the name of a manifest; names sort by version."""
    return f"{partition_prefix(index_id, partition)}/manifests/{version:020d}"


def manifest_version(name: str) -> int:
    """Return the version that a manifest's name says."""
    return int(name.rpartition("/")[2])


def checkpoint_name(index_id: str, partition: int, epoch: int) -> str:
    """Return the name of an epoch's durable checkpoint marker; names sort by epoch.

    Each epoch has its own, so that a worker that wakes up after a take-over can't put an old one in place of a newer.
    """
    return f"{partition_prefix(index_id, partition)}/checkpoint-{epoch:020d}"


def skip_name(index_id: str, partition: int, offset: int) -> str:
    """Return the name of the operator's word that the record at `offset`, of a newer format, is to be skipped."""
    return f"{partition_prefix(index_id, partition)}/skip/{offset:020d}"


def pins_prefix(index_id: str, partition: int) -> str:
    """Return the folder of the pins of a partition."""
    return f"{partition_prefix(index_id, partition)}/pins"


def pin_name(index_id: str, partition: int, backup_id: str, version: int) -> str:
    """Return the name of the copy of a manifest that is held for a backup."""
    return f"{pins_prefix(index_id, partition)}/{backup_id}.{version:020d}"


def new_object_name(index_id: str, partition: int, kind: str) -> str:
    """Return a name that was never used: `kind` says what lies in it, the rest is random."""
    return f"{partition_prefix(index_id, partition)}/objects/{secrets.token_hex(16)}.{kind}"


class Store(Protocol):
    """Where snapshots are kept."""

    def put(self, name: str, chunks: Iterable[bytes | memoryview]) -> ObjectRef:
        """Write a new object from `chunks`. Raises `AlreadyExists`, `StoreUnavailable`."""
        ...

    def create(self, name: str, data: bytes) -> None:
        """Write a small object only if absent: the commit. Raises `AlreadyExists`, `StoreUnavailable`."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Write an object durably in place of an older one of that name."""
        ...

    def read(self, name: str) -> bytes:
        """Return the bytes of an object. Raises `FileNotFoundError`, `StoreUnavailable`."""
        ...

    def open(self, ref: ObjectRef, *, verify: bool) -> memoryview:
        """Return the bytes of an object, mapped where it is large.

        Raises `CorruptData` where size or, if `verify`, digest differ; `FileNotFoundError`.
        """
        ...

    def exists(self, name: str) -> bool:
        """Say whether the object exists."""
        ...

    def list(self, prefix: str, *, is_finished: bool = True) -> list[str]:
        """Return the names directly below `prefix`, sorted; or those of files whose writers died or are at it still."""
        ...

    def age_seconds(self, name: str) -> float | None:
        """Return how long ago the object was written by the store's own clock, or None where it is gone."""
        ...

    def size_bytes(self, name: str) -> int | None:
        """Return the size of an object, or None where it is gone."""
        ...

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; missing ones are fine."""
        ...

    def delete_prefix(self, prefix: str) -> None:
        """Delete everything below `prefix`."""
        ...

    def quarantine(self, name: str) -> None:
        """Set a damaged object aside for analysis. A manifest's name stays taken."""
        ...

    def sync(self, names: Iterable[str]) -> None:
        """Make objects and their names durable. Raises `StoreUnavailable`, `FileNotFoundError`."""
        ...


class LocalStore:
    """Objects as files below `root`: written beside, hard-linked to their name, fsynced at `sync`."""

    def __init__(self, root: Path, step: Step = no_step, *, now: Callable[[], float] | None = None) -> None:
        """Keep objects below `root`, which is made if absent. `now` gives seconds since 1970 for ages."""
        self._root = root
        self._step = step
        self._now = now
        root.mkdir(parents=True, exist_ok=True)

    def __reduce__(self) -> tuple[type[LocalStore], tuple[Path]]:
        """Reopen by root in another process; named steps stay with the first one."""
        return (LocalStore, (self._root,))

    def put(self, name: str, chunks: Iterable[bytes | memoryview]) -> ObjectRef:
        """See `Store.put`."""
        digest = hashlib.sha256()
        size = 0
        with _translated(name):
            temporary = _temporary(self._root / name)
            try:
                unsynced = 0
                with temporary.open("xb", buffering=_BUFFER_BYTES) as file:
                    for chunk in chunks:
                        file.write(chunk)
                        digest.update(chunk)
                        size += len(chunk)
                        unsynced += len(chunk)
                        if unsynced >= _SYNC_STEP_BYTES:
                            file.flush()
                            os.fdatasync(file.fileno())
                            unsynced = 0
                self._step("store.written")
                _link(temporary, self._root / name, name)
            finally:
                temporary.unlink(missing_ok=True)
        return ObjectRef(name, size, digest.digest())

    def create(self, name: str, data: bytes) -> None:
        """See `Store.create`."""
        self.put(name, [data])

    def replace(self, name: str, data: bytes) -> None:
        """See `Store.replace`."""
        with _translated(name):
            target = self._root / name
            temporary = _temporary(target)
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_directory(target.parent)

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        with _translated(name):
            return (self._root / name).read_bytes()

    def open(self, ref: ObjectRef, *, verify: bool) -> memoryview:
        """See `Store.open`."""
        with _translated(ref.name), (self._root / ref.name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != ref.size_bytes:
                raise CorruptData(f"Object {ref.name} has {size} bytes, expected {ref.size_bytes}.", name=ref.name)
            if size < _MAP_BYTES_MIN:
                view = memoryview(file.read())
            else:
                view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if verify and hashlib.sha256(view).digest() != ref.sha256:
            raise CorruptData(f"Object {ref.name} does not match its digest.", name=ref.name)
        return view

    def exists(self, name: str) -> bool:
        """See `Store.exists`."""
        return (self._root / name).exists()

    def list(self, prefix: str, *, is_finished: bool = True) -> list[str]:
        """See `Store.list`."""
        try:
            with os.scandir(self._root / prefix) as entries:
                return sorted(f"{prefix}/{e.name}" for e in entries if e.name.startswith(".") != is_finished)
        except FileNotFoundError:
            return []

    def age_seconds(self, name: str) -> float | None:
        """See `Store.age_seconds`."""
        try:
            modified = (self._root / name).stat().st_mtime
        except FileNotFoundError:
            return None
        return (self._now() if self._now else _file_clock(self._root)) - modified

    def size_bytes(self, name: str) -> int | None:
        """See `Store.size_bytes`."""
        try:
            return (self._root / name).stat().st_size
        except FileNotFoundError:
            return None

    def delete(self, names: Sequence[str]) -> None:
        """See `Store.delete`."""
        for name in names:
            self._step("gc.unlink")
            (self._root / name).unlink(missing_ok=True)

    def delete_prefix(self, prefix: str) -> None:
        """See `Store.delete_prefix`."""
        with contextlib.suppress(FileNotFoundError):  # nothing was ever written, or another process deletes it too
            shutil.rmtree(self._root / prefix)

    def quarantine(self, name: str) -> None:
        """See `Store.quarantine`."""
        source = self._root / name
        folder = self._root / "quarantine"
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another process has set it aside already
            if "/manifests/" in name:
                # It stays where it is and will be met again: one copy of the same bytes is enough.
                digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
                shutil.copyfile(source, folder / f"{name.replace('/', '_')}.{digest}")
            else:
                source.rename(folder / f"{name.replace('/', '_')}.{secrets.token_hex(4)}")

    def sync(self, names: Iterable[str]) -> None:
        """See `Store.sync`."""
        directories: set[Path] = set()
        for name in names:
            target = self._root / name
            self._step("store.before_sync")
            with _translated(name):
                _sync_file(target)
            directory = target.parent
            while directory != self._root.parent and directory not in directories:
                directories.add(directory)
                directory = directory.parent
        for directory in sorted(directories, reverse=True):
            self._step("store.before_directory_sync")
            with _translated(str(directory)):
                _sync_directory(directory)


def _temporary(target: Path) -> Path:
    """Return a new name beside `target`, hidden from listings."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.parent / f".{target.name}.{secrets.token_hex(6)}"


def _link(source: Path, target: Path, name: str) -> None:
    try:
        os.link(source, target)
    except FileExistsError as error:
        raise AlreadyExists(f"Object {name} exists.", name=name) from error


def _file_clock(root: Path) -> float:
    """Return the time by the file system's own clock, seconds since 1970."""
    probe = root / ".clock"
    probe.touch()
    return probe.stat().st_mtime


@contextlib.contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        trouble = "is full: free some disk space" if full else "does not answer"
        raise StoreUnavailable(f"The snapshot store {trouble} ({name}: {error.strerror}).", full=full) from error


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
