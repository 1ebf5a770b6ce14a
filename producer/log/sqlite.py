"""The embedded log: one SQLite file for all logs of a data directory, durable on return.

The only door to SQLite, with its neighbours: `sqlite_file` (tables, connections, errors), `sqlite_rows` (bytes),
`sqlite_commits` (transactions), `sqlite_writer` (one thread, one commit for all that waits) and `sqlite_reader` (one
thread, and waking).
"""

from __future__ import annotations

import asyncio
import functools
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from producer.log.protocol import Appended, Log, LogBatch, LogRecord
from producer.log.sizes import check_append
from producer.log.sqlite_commits import AppendRequest
from producer.log.sqlite_file import CONTROL_NAME, SqliteLogOptions
from producer.log.sqlite_reader import SqliteReader
from producer.log.sqlite_rows import pack
from producer.log.sqlite_writer import SqliteWriter
from producer.pokes import PokeReceiver, PokeSender, log_topic
from producer.steps import Step, no_step
from schemas.errors import ConfigError, LogUnavailable, NotFound

__all__ = ["SqliteLog", "SqliteLogOptions", "SqliteLogs"]

# How long a look-up of the ends may take before the log counts as unavailable.
_ENDS_SECONDS = 2.0
_CLOSE_SECONDS = 8.0
# Rows deleted in one transaction of a drop, so that appends to other logs get their turn between them.
_DROP_ROWS = 200


class SqliteLog:
    """One log of the file; made by `SqliteLogs.open`."""

    def __init__(
        self, log_id: str, slots: Sequence[int], *, writer: SqliteWriter, reader: SqliteReader, row_bytes: int
    ) -> None:
        self._log_id = log_id
        self.slots = tuple(slots)
        self._writer = writer
        self._reader = reader
        self._row_bytes = row_bytes

    @property
    def log_id(self) -> str:
        """Identity of the log."""
        return self._log_id

    @property
    def partitions(self) -> int:
        """Number of partitions."""
        return len(self.slots)

    async def append(self, partition: int, records: Sequence[LogRecord]) -> Appended:
        """Append as `Log.append` promises. Raises `NotFound` after the log was dropped."""
        size = check_append(records)
        runs = pack(records, run_bytes=self._row_bytes)
        request = AppendRequest(self._log_id, self.slots[partition], runs, size)
        return await asyncio.shield(self._writer.append(request))

    async def read(self, partition: int, offset: int, *, bytes_max: int, wait_seconds: float) -> LogBatch:
        """Read as `Log.read` promises. Raises `NotFound` after the log was dropped."""
        assert offset >= 0, "offsets start at 0"
        return await self._reader.read(self.slots[partition], offset, bytes_max=bytes_max, wait_seconds=wait_seconds)

    async def ends(self) -> Sequence[int]:
        """Return the ends as `Log.ends` promises. Raises `NotFound` after the log was dropped."""
        try:
            async with asyncio.timeout(_ENDS_SECONDS):
                found = await self._reader.query(lambda connection: _ends(connection, self._log_id))
        except TimeoutError as error:
            raise LogUnavailable(f"The log did not answer within {_ENDS_SECONDS:.0f} s.") from error
        if len(found) != len(self.slots):
            raise NotFound(f"The log {self._log_id} was dropped.")
        return found


class SqliteLogs:
    """All logs of one data directory. `step` is called on the writer's thread, except before an answer.

    Where `is_read_only`, nothing is made, changed or deleted: a missing file or log is `NotFound`, and appends fail.
    """

    def __init__(
        self,
        path: Path,
        options: SqliteLogOptions,
        *,
        clock_ms: Callable[[], int],
        step: Step = no_step,
        senders: Sequence[PokeSender] = (),
        receiver: PokeReceiver | None = None,
        is_read_only: bool = False,
    ) -> None:
        self._path = path
        self._is_read_only = is_read_only
        self._options = options
        self._receiver = receiver
        self._reader = SqliteReader(path, options)
        self._writer = SqliteWriter(
            path, options, clock_ms=clock_ms, step=step, senders=senders, committed=self._reader.look
        )
        self._logs: dict[str, SqliteLog] = {}
        self._control: SqliteLog | None = None
        self._sweep: asyncio.Task[None] | None = None

    @property
    def control(self) -> Log:
        """The control log."""
        assert self._control is not None, "start first"
        return self._control

    async def start(self) -> None:
        """Open the file, making it where there is none.

        Raises `ConfigError` where the file is not ours, `UnsupportedFormat` where it is newer, `LogUnavailable`;
        `NotFound` where there is none and this is for reading only.
        """
        if self._is_read_only:
            if not self._path.exists():
                raise NotFound(f"There is no log at {self._path}.")
            await self._reader.start()
            log_id, slots = await self._made(CONTROL_NAME, None, 1)
            self._control = self._adopt(log_id, slots)
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"Cannot make the data directory {self._path.parent}: {error.strerror}.") from error
        await self._writer.start()
        await self._reader.start()
        log_id, slots = await self._made(CONTROL_NAME, None, 1)
        self._control = self._adopt(log_id, slots)
        self._sweep = asyncio.create_task(self._sweep_dropped())

    async def open(self, name: str, log_id: str, partitions: int) -> Log:
        """Open the log as `Logs.open` promises."""
        known = self._logs.get(log_id)
        if known is None:
            _, slots = await self._made(name, log_id, partitions)
            known = self._logs.get(log_id) or self._adopt(log_id, slots)
        if known.partitions != partitions:
            raise _other_count(name, known.partitions, partitions)
        return known

    async def drop(self, name: str, log_id: str, partitions: int) -> None:
        """Delete the log as `Logs.drop` promises. Its space is used again; the file does not shrink."""
        dropped = self._logs.pop(log_id, None)
        if self._receiver is not None:
            self._receiver.unsubscribe(log_topic(log_id))
        await asyncio.shield(self._writer.run(lambda connection: _forget(connection, log_id)))
        if dropped is not None:
            self._reader.look(dropped.slots)
        await self._sweep_dropped()

    async def close(self) -> None:
        """Finish accepted appends and close the file."""
        if self._sweep is not None:
            self._sweep.cancel()
            await asyncio.gather(self._sweep, return_exceptions=True)
        await self._writer.close(_CLOSE_SECONDS)
        await self._reader.close()

    async def _made(self, name: str, log_id: str | None, partitions: int) -> tuple[str, Sequence[int]]:
        """Look the log up, or make it; `log_id` None means whichever has that name."""
        found = await self._reader.query(lambda connection: _find(connection, name, log_id))
        if found is None:
            if self._is_read_only:
                raise NotFound(f"There is no log of {name!r} in {self._path}.")
            found = await asyncio.shield(
                self._writer.run(lambda connection: _make(connection, name, log_id, partitions))
            )
        if len(found[1]) != partitions:
            raise _other_count(name, len(found[1]), partitions)
        return found

    def _adopt(self, log_id: str, slots: Sequence[int]) -> SqliteLog:
        log = SqliteLog(log_id, slots, writer=self._writer, reader=self._reader, row_bytes=self._options.row_bytes)
        self._logs[log_id] = log
        if self._receiver is not None:
            self._receiver.listen(log_topic(log_id), functools.partial(self._reader.look, slots))
        return log

    async def _sweep_dropped(self) -> None:
        """Delete the rows of dropped logs, some at a time; also what a process left that died over it."""
        more = True
        while more:
            more = bool(await asyncio.shield(self._writer.run(_sweep_some)))


def _other_count(name: str, found: int, wanted: int) -> ConfigError:
    return ConfigError(
        f"The log of {name!r} has {found} partitions, not {wanted}; the number is fixed when a log is made.",
        partitions=found,
    )


def _find(connection: sqlite3.Connection, name: str, log_id: str | None) -> tuple[str, Sequence[int]] | None:
    if log_id is None:
        row = connection.execute("SELECT log_id FROM logs WHERE name = ?", (name,)).fetchone()
    else:
        row = connection.execute("SELECT log_id FROM logs WHERE log_id = ?", (log_id,)).fetchone()
    if row is None:
        return None
    slots = connection.execute("SELECT slot FROM partitions WHERE log_id = ? ORDER BY partition", row).fetchall()
    return row[0], [slot for (slot,) in slots]


def _make(connection: sqlite3.Connection, name: str, log_id: str | None, partitions: int) -> tuple[str, Sequence[int]]:
    """Make the log unless another process has; runs inside the writer's transaction."""
    found = _find(connection, name, log_id)
    if found is not None:
        return found
    log_id = log_id or secrets.token_urlsafe(16)
    connection.execute("INSERT INTO logs VALUES (?, ?, ?)", (log_id, name, partitions))
    slots: list[int] = []
    for partition in range(partitions):
        cursor = connection.execute(
            "INSERT INTO partitions (log_id, partition, next_offset, time_ms) VALUES (?, ?, 0, 0)", (log_id, partition)
        )
        assert cursor.lastrowid is not None
        slots.append(cursor.lastrowid)
        connection.execute(
            f"CREATE TABLE events_{cursor.lastrowid} (final INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL,"
            " count INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL)"
        )
    return log_id, slots


def _forget(connection: sqlite3.Connection, log_id: str) -> None:
    connection.execute("DELETE FROM logs WHERE log_id = ?", (log_id,))
    connection.execute("DELETE FROM partitions WHERE log_id = ?", (log_id,))


def _sweep_some(connection: sqlite3.Connection) -> bool:
    """Delete some rows of a table that belongs to no log, or the empty table; return whether there was one."""
    orphan = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'events_[0-9]*'"
        " AND CAST(substr(name, 8) AS INTEGER) NOT IN (SELECT slot FROM partitions) LIMIT 1"
    ).fetchone()
    if orphan is None:
        return False
    table = str(orphan[0])
    deleted = connection.execute(
        # The table's name is ours.
        f"DELETE FROM {table} WHERE final IN (SELECT final FROM {table} ORDER BY final LIMIT {_DROP_ROWS})"  # noqa: S608
    ).rowcount
    if deleted < _DROP_ROWS:
        connection.execute(f"DROP TABLE {table}")
    return True


def _ends(connection: sqlite3.Connection, log_id: str) -> list[int]:
    rows = connection.execute("SELECT next_offset FROM partitions WHERE log_id = ? ORDER BY partition", (log_id,))
    return [end for (end,) in rows]
