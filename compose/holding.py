"""Who holds a data directory, one `freshet up` and one API process that writes the log; and where its sockets lie."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from compose.config import temporary_folder
from schemas.errors import ConfigError

__all__ = ["hold", "run_directory"]

_RETRY_SECONDS = 0.05


@contextlib.contextmanager
def hold(data_dir: Path, command: str, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the data directory, which is made where it is missing, as its one `freshet <command>`.

    The kernel lets go when this process ends; `wait_seconds` is for a holder that was killed a moment ago.
    Raises `ConfigError` with the holder's pid where there is another.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data_dir / f"{command}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"Cannot use the data directory {data_dir}: {error.strerror}.") from error
    try:
        deadline = time.monotonic() + wait_seconds
        while not _locked(descriptor):
            if time.monotonic() >= deadline:
                pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                raise ConfigError(
                    f"The data directory {data_dir} is in use by another `freshet {command}`, pid {pid}. "
                    "Stop that one, or choose another directory: FRESHET_DATA_DIR, or --data-dir.",
                    pid=pid,
                )
            time.sleep(_RETRY_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def run_directory(data_dir: Path) -> Path:
    """Return the private folder for the sockets of a data directory, made where it is missing.

    It is short, since the address of a Unix socket holds 108 bytes, and every process computes the same one.
    Raises `ConfigError` where somebody else owns it.
    """
    digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
    folder = temporary_folder() / f"freshet-{os.getuid()}-{digest}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.stat(follow_symlinks=False)
    except OSError as error:
        raise ConfigError(f"Cannot make the folder for sockets {folder}: {error.strerror}.") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(f"The folder for sockets {folder} belongs to somebody else or is open to others: remove it.")
    return folder


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
