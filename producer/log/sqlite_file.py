"""The SQLite file of the embedded log: its tables, its connections, and its errors in our words.

`logs` names the logs, `partitions` holds each partition's end, and every partition has a table of its own,
`events_<slot>`, whose rows carry runs of records under the offset of the run's last record. One table per partition
makes every append an append at the right edge of a tree: pages fill up and are not split (a third fewer bytes written
than one table for all). A slot number is never used twice.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from schemas.errors import ConfigError, CorruptData, FreshetError, LogFull, LogUnavailable, UnsupportedFormat

__all__ = ["CONTROL_NAME", "SqliteLogOptions", "close", "connect_reader", "connect_writer", "translate"]

CONTROL_NAME = "__control__"
# "FrLg" in the file's header says that the file is ours; the version says how to read it.
_APPLICATION_ID = 0x46724C67
_VERSION = 1
_MIB = 1024 * 1024
# A commit whose write failed has no commit frame in the write-ahead log, so it is certain that it did not happen.
_CERTAIN = frozenset({sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_LOCK})

_SCHEMA = (
    "CREATE TABLE logs (log_id TEXT PRIMARY KEY, name TEXT NOT NULL, partitions INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE partitions (
        slot INTEGER PRIMARY KEY AUTOINCREMENT, log_id TEXT NOT NULL, partition INTEGER NOT NULL,
        next_offset INTEGER NOT NULL, time_ms INTEGER NOT NULL, UNIQUE (log_id, partition))""",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
)


@dataclass(frozen=True, slots=True)
class SqliteLogOptions:
    """Settings of the embedded log. `synchronous="NORMAL"` loses acknowledged writes at power loss: for tests only."""

    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    # How long to wait for another process's transaction.
    busy_seconds: float = 2.0
    # Size of the write-ahead log at which it is copied back, without and with waiting for readers.
    checkpoint_bytes: int = 16 * _MIB
    restart_bytes: int = 64 * _MIB
    # Free space below which appends are refused: room for the write-ahead log, and for other writers to shut down.
    reserve_bytes: int = 128 * _MIB
    # Largest size of the file; 0 means as large as the disk.
    file_bytes_max: int = 0
    # Bytes of one transaction, bytes waiting for one, and bytes of one row.
    commit_bytes_max: int = 32 * _MIB
    queue_bytes_max: int = 256 * _MIB
    row_bytes: int = 256 * 1024
    # How often to look for appends of other processes that did not poke: busy and idle.
    poll_seconds_min: float = 0.05
    poll_seconds_max: float = 1.0


def connect_writer(path: Path, options: SqliteLogOptions) -> sqlite3.Connection:
    """Open the file for appends, making it if there is none.

    Raises `ConfigError` where the file is not ours, `UnsupportedFormat` where it is newer, `LogUnavailable`.
    """
    if sqlite3.sqlite_version_info < (3, 35):
        raise ConfigError(f"SQLite 3.35 or newer is needed, this Python has {sqlite3.sqlite_version}.")
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            path, timeout=options.busy_seconds, isolation_level=None, check_same_thread=False, cached_statements=1024
        )
        # One look: another process may be making its tables at this very moment.
        connection.execute("BEGIN")
        _check_ours(connection, path)
        connection.execute("COMMIT")
        _enter_wal(connection, options)
        connection.execute(f"PRAGMA synchronous = {options.synchronous}")
        # fsync of some systems stops at the drive's cache; this one does not. It has no meaning elsewhere.
        connection.execute("PRAGMA fullfsync = 1")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {options.restart_bytes}")
        connection.execute("PRAGMA cache_size = -16384")
        if options.file_bytes_max:
            page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {max(1, options.file_bytes_max // page_bytes)}")
        _make_tables(connection, path)
        _sync_names(path)
    except BaseException as error:
        if connection is not None:
            close(connection)
        if isinstance(error, sqlite3.Error):
            raise translate(error, path=path) from error
        raise
    return connection


def connect_reader(path: Path, options: SqliteLogOptions) -> sqlite3.Connection:
    """Open an existing file for reads only. Raises `LogUnavailable`."""
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=options.busy_seconds,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=1024,
        )
        connection.execute("PRAGMA cache_size = -16384")
    except sqlite3.Error as error:
        raise translate(error, path=path) from error
    return connection


def close(connection: sqlite3.Connection) -> None:
    """Close `connection`, taking back what is open on it."""
    # The transaction is void either way; what matters is that the file handle goes.
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    with contextlib.suppress(sqlite3.Error):
        connection.close()


def translate(error: sqlite3.Error, *, path: Path, committing: bool = False) -> FreshetError:
    """Say in our words what went wrong; `committing` where the error came from COMMIT, whose result may be unclear."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code & 0xFF == sqlite3.SQLITE_FULL:
        return LogFull(
            f"The disk of the log {path} is full; nothing was written. Free some space, then try again.",
            retry_after_seconds=5.0,
        )
    if code & 0xFF == sqlite3.SQLITE_NOTADB and not committing:
        return ConfigError(f"{path} is not a log of Freshet. Choose another data directory, or move that file away.")
    if code & 0xFF == sqlite3.SQLITE_CORRUPT and not committing:
        return CorruptData(f"The log file {path} is damaged: {error}. Restore it from a copy.")
    outcome = "unknown" if committing and code not in _CERTAIN else "refused"
    reason = "another process holds it" if code & 0xFF == sqlite3.SQLITE_BUSY else str(error)
    return LogUnavailable(f"The log file {path} does not answer: {reason}.", outcome=outcome, sqlite_code=code)


def _check_ours(connection: sqlite3.Connection, path: Path) -> None:
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application_id == _APPLICATION_ID:
        if version > _VERSION:
            raise UnsupportedFormat(
                f"The log file {path} has format {version}; this version reads up to {_VERSION}. Upgrade Freshet.",
                version=version,
            )
        return
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application_id or version or tables:
        raise ConfigError(
            f"{path} is a SQLite file of another program. Choose another data directory, or move that file away."
        )


def _enter_wal(connection: sqlite3.Connection, options: SqliteLogOptions) -> None:
    """Switch to the write-ahead log. The switch does not wait for others by itself, so it is tried again."""
    deadline = time.monotonic() + options.busy_seconds
    while True:
        try:
            mode = str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise ConfigError("The data directory's file system cannot hold a write-ahead log; use a local disk.")
        return


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA user_version").fetchone()[0] == _VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    # Another process may have made them while this one waited for its turn.
    _check_ours(connection, path)
    if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
        for statement in _SCHEMA:
            connection.execute(statement)
    connection.execute("COMMIT")


def _sync_names(path: Path) -> None:
    """Make the name of the file and of every folder above it durable: whoever made them may have died right after."""
    for directory in path.absolute().parents:
        # A folder that we may not read is none that we have made.
        with contextlib.suppress(PermissionError):
            _sync_directory(directory)


def _sync_directory(directory: Path) -> None:
    """Make the new file's name durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems refuse to sync a folder and keep names by themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise LogUnavailable(f"Cannot sync the folder {directory}: {error.strerror}.") from error
    finally:
        os.close(descriptor)
