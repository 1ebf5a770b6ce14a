"""The logs of the embedded file as a process has them open: reads go to the file, appends to whoever writes it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence

from producer.log.protocol import Appended, LogBatch, LogRecord
from producer.log.sizes import check_append
from producer.log.sqlite_commits import AppendRequest
from producer.log.sqlite_reader import SqliteReader
from producer.log.sqlite_rows import pack
from producer.log.sqlite_tables import ends_of, find_log
from producer.pokes import PokeReceiver, log_topic
from schemas.errors import ConfigError, LogUnavailable, NotFound

__all__ = ["Append", "Made", "Make", "OpenLogs", "SqliteLog"]

# How long a look-up of the ends may take before the log counts as unavailable.
_ENDS_SECONDS = 2.0

# Accepts packed records at once; the future resolves when they are durable.
Append = Callable[[AppendRequest], asyncio.Future[Appended]]
# Identity of a log and its slots, by partition.
Made = tuple[str, Sequence[int]]
# Makes the log of a name, an identity (None = a new one) and a number of partitions, unless it is there.
Make = Callable[[str, str | None, int], Awaitable[Made]]


class SqliteLog:
    """One log of the file; made by `OpenLogs.open`."""

    def __init__(
        self, log_id: str, slots: Sequence[int], *, append: Append, reader: SqliteReader, row_bytes: int
    ) -> None:
        self._log_id = log_id
        self.slots = tuple(slots)
        self._append = append
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
        return await asyncio.shield(self._append(AppendRequest(self._log_id, self.slots[partition], runs, size)))

    async def read(self, partition: int, offset: int, *, bytes_max: int, wait_seconds: float) -> LogBatch:
        """Read as `Log.read` promises. Raises `NotFound` after the log was dropped."""
        assert offset >= 0, "offsets start at 0"
        return await self._reader.read(self.slots[partition], offset, bytes_max=bytes_max, wait_seconds=wait_seconds)

    async def ends(self) -> Sequence[int]:
        """Return the ends as `Log.ends` promises. Raises `NotFound` after the log was dropped."""
        try:
            async with asyncio.timeout(_ENDS_SECONDS):
                found = await self._reader.query(lambda connection: ends_of(connection, self._log_id))
        except TimeoutError as error:
            raise LogUnavailable(f"The log did not answer within {_ENDS_SECONDS:.0f} s.") from error
        if len(found) != len(self.slots):
            raise NotFound(f"The log {self._log_id} was dropped.")
        return found


class OpenLogs:
    """The logs that this process has opened; `make` is asked for one that the file does not have."""

    def __init__(
        self, reader: SqliteReader, *, append: Append, make: Make, row_bytes: int, receiver: PokeReceiver | None
    ) -> None:
        self._reader = reader
        self._append = append
        self._make = make
        self._row_bytes = row_bytes
        self._receiver = receiver
        self._logs: dict[str, SqliteLog] = {}

    async def open(self, name: str, log_id: str | None, partitions: int) -> SqliteLog:
        """Open as `Logs.open` promises; `log_id` None means whichever log has that name."""
        known = None if log_id is None else self._logs.get(log_id)
        if known is None:
            found = await self._reader.query(lambda connection: find_log(connection, name, log_id))
            found_id, slots = found or await self._make(name, log_id, partitions)
            if len(slots) != partitions:
                raise _other_count(name, len(slots), partitions)
            known = self._logs.get(found_id) or self._adopt(found_id, slots)
        if known.partitions != partitions:
            raise _other_count(name, known.partitions, partitions)
        return known

    def forget(self, log_id: str) -> SqliteLog | None:
        """Let go of a log that is to be dropped; return it where it was open."""
        if self._receiver is not None:
            self._receiver.unsubscribe(log_topic(log_id))
        return self._logs.pop(log_id, None)

    def _adopt(self, log_id: str, slots: Sequence[int]) -> SqliteLog:
        log = SqliteLog(log_id, slots, append=self._append, reader=self._reader, row_bytes=self._row_bytes)
        self._logs[log_id] = log
        if self._receiver is not None:
            self._receiver.listen(log_topic(log_id), functools.partial(self._reader.look, slots))
        return log


def _other_count(name: str, found: int, wanted: int) -> ConfigError:
    return ConfigError(
        f"The log of {name!r} has {found} partitions, not {wanted}; the number is fixed when a log is made.",
        partitions=found,
    )
