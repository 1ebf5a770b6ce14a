"""The one thread that reads the embedded log, and that wakes whoever waits for more of it.

Every read is one short transaction with a byte budget, never a cursor that stays open: a long reader would keep the
write-ahead log from being reset. Reads that find nothing stay here until an append of this process, a poke or the poll
says that there may be more; so nothing can be appended unseen between "nothing there" and "waiting".
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from producer.log.protocol import LogBatch, StoredRecord
from producer.log.sqlite_file import SqliteLogOptions, close, connect_reader, translate
from producer.log.sqlite_rows import unpack
from schemas.errors import CorruptData, FreshetError, LogUnavailable, NotFound

__all__ = ["SqliteReader"]

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Read:
    """A read that is wanted; `deadline` is on the monotonic clock."""

    slot: int
    offset: int
    bytes_max: int
    deadline: float
    future: asyncio.Future[LogBatch]


@dataclass(frozen=True, slots=True)
class _Query:
    query: Callable[[sqlite3.Connection], object]
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Look:
    """There may be more to read in some slots, or in any."""

    slots: Collection[int]


class _Connection:
    """A reading connection that runs one short transaction at a time and is replaced after an error."""

    def __init__(self, path: Path, options: SqliteLogOptions) -> None:
        self._path = path
        self._options = options
        self._connection: sqlite3.Connection | None = None

    def open(self) -> sqlite3.Connection:
        """Return the open connection. Raises `LogUnavailable`."""
        if self._connection is None:
            self._connection = connect_reader(self._path, self._options)
        return self._connection

    def attempt(self, query: Callable[[sqlite3.Connection], object]) -> object:
        """Run `query` in one read transaction; return its result, or the error that it ended with."""
        try:
            connection = self.open()
            connection.execute("BEGIN")
            result = query(connection)
            connection.execute("COMMIT")
        except (sqlite3.Error, FreshetError) as error:
            self.close()
            if isinstance(error, FreshetError):
                return error
            failure = translate(error, path=self._path)
            failure.__cause__ = error
            return failure
        return result

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            close(self._connection)
            self._connection = None


class SqliteReader:
    """Reads of all logs of the process, on a thread of its own."""

    def __init__(self, path: Path, options: SqliteLogOptions) -> None:
        self._options = options
        self._queue: queue.SimpleQueue[_Read | _Query | _Look | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="log-reader", daemon=True)
        self._closed = False
        # What follows is touched by the thread only.
        self._connection = _Connection(path, options)
        self._waiting: list[_Read] = []
        self._answers: list[tuple[asyncio.Future[Any], object]] = []
        self._seen_version = -1
        self._poll_seconds = options.poll_seconds_min
        self._poll_at = 0.0

    async def start(self) -> None:
        """Open the file and start the thread. Raises `LogUnavailable`."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._connection.open)
        self._thread.start()

    async def read(self, slot: int, offset: int, *, bytes_max: int, wait_seconds: float) -> LogBatch:
        """Read as `Log.read` promises."""
        future: asyncio.Future[LogBatch] = self._future()
        self._queue.put(_Read(slot, offset, bytes_max, time.monotonic() + wait_seconds, future))
        return await future

    async def query(self, query: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Run `query` inside a read transaction that began after this call did."""
        future: asyncio.Future[_Result] = self._future()
        self._queue.put(_Query(query, future))
        return await future

    def look(self, slots: Collection[int]) -> None:
        """Say that there may be more to read in `slots`; safe from any thread."""
        self._queue.put(_Look(slots))

    async def close(self) -> None:
        """Give back what waits, empty-handed, and close the file."""
        if self._closed:
            return
        self._closed = True
        if self._thread.is_alive():
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join, 2.0)

    def _future(self) -> asyncio.Future[_Result]:
        if self._closed or not self._thread.is_alive():
            raise LogUnavailable("The log is closed.")
        assert self._loop is not None
        return self._loop.create_future()

    # What follows runs on the thread.

    def _run(self) -> None:
        is_open = True
        while is_open:
            is_open = self._take_all()
            self._expire()
            self._deliver()
        for read in self._waiting:
            self._answers.append((read.future, LogUnavailable("The log was closed.")))
        self._deliver()
        self._connection.close()

    def _take_all(self) -> bool:
        """Wait for work or for the next poll, and do it; return False when asked to stop."""
        slots: set[int] = set()
        block = True
        # queue.Empty: nothing came until it was time to poll, or nothing is left.
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._queue.get(block=block, timeout=self._pause_seconds() if block else None)
                block = False
                if item is None:
                    return False
                if isinstance(item, _Look):
                    slots.update(item.slots)
                elif isinstance(item, _Query):
                    self._answers.append((item.future, self._connection.attempt(item.query)))
                else:
                    self._begin_read(item)
        if any(read.slot in slots for read in self._waiting):
            self._serve_waiting()
        elif self._waiting and time.monotonic() >= self._poll_at:
            self._poll()
        return True

    def _pause_seconds(self) -> float | None:
        """How long nothing needs to be done; None where nobody waits."""
        if not self._waiting:
            return None
        first = min(read.deadline for read in self._waiting)
        return max(0.0, min(first, self._poll_at) - time.monotonic())

    def _begin_read(self, read: _Read) -> None:
        result = self._connection.attempt(lambda connection: _read(connection, read))
        if isinstance(result, LogBatch) and _is_waiting(result, read) and time.monotonic() < read.deadline:
            if not self._waiting:
                self._poll_seconds = self._options.poll_seconds_min
                self._poll_at = time.monotonic() + self._poll_seconds
            self._waiting.append(read)
            return
        self._answers.append((read.future, result))

    def _poll(self) -> None:
        """Find out whether any process has committed since the last look, and look less often while none does."""
        version = self._connection.attempt(_data_version)
        if version == self._seen_version:
            self._poll_seconds = min(self._poll_seconds * 1.5, self._options.poll_seconds_max)
        else:
            self._poll_seconds = self._options.poll_seconds_min
            self._serve_waiting()
            # It was asked for before the look, so nothing falls between the two.
            self._seen_version = version if isinstance(version, int) else -1
        self._poll_at = time.monotonic() + self._poll_seconds

    def _serve_waiting(self) -> None:
        """Give what has come to those who wait for it."""
        ends = self._connection.attempt(_ends)
        waiting, self._waiting = self._waiting, []
        for read in waiting:
            if isinstance(ends, dict) and ends.get(read.slot) == read.offset:
                self._waiting.append(read)
            else:
                self._answer_read(read)

    def _answer_read(self, read: _Read) -> None:
        self._answers.append((read.future, self._connection.attempt(lambda connection: _read(connection, read))))

    def _expire(self) -> None:
        """Answer, empty or not, what has waited long enough; let go of what is not wanted any more."""
        now = time.monotonic()
        waiting, self._waiting = self._waiting, []
        for read in waiting:
            if read.deadline <= now:
                self._answer_read(read)
            elif not read.future.cancelled():
                self._waiting.append(read)

    def _deliver(self) -> None:
        if not self._answers:
            return
        answers, self._answers = self._answers, []
        assert self._loop is not None
        # RuntimeError: the loop is closed, so nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_resolve, answers)


def _resolve(answers: list[tuple[asyncio.Future[Any], object]]) -> None:
    for future, answer in answers:
        if future.done():
            continue
        if isinstance(answer, FreshetError):
            future.set_exception(answer)
        else:
            future.set_result(answer)


def _is_waiting(batch: LogBatch, read: _Read) -> bool:
    return not batch.records and batch.end_offset == read.offset


def _data_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _ends(connection: sqlite3.Connection) -> dict[int, int]:
    return dict(connection.execute("SELECT slot, next_offset FROM partitions").fetchall())


def _read(connection: sqlite3.Connection, read: _Read) -> LogBatch:
    """Read rows from `read.offset` on until the budget is used up."""
    found = connection.execute("SELECT next_offset FROM partitions WHERE slot = ?", (read.slot,)).fetchone()
    if found is None:
        raise NotFound("The log was dropped.")
    end_offset = int(found[0])
    if read.offset >= end_offset:
        return LogBatch((), read.offset, end_offset)
    records: list[StoredRecord] = []
    budget = read.bytes_max
    rows = connection.execute(
        # A slot is a number of ours.
        f"SELECT final, time_ms, count, crc, data FROM events_{read.slot} WHERE final >= ? ORDER BY final",  # noqa: S608
        (read.offset,),
    )
    for final, time_ms, count, crc, data in rows:
        begin = final - count + 1
        _check_row(read, begin, crc, data, is_first=not records)
        run = unpack(data, begin_offset=begin, time_ms=time_ms)
        for record in run[max(0, read.offset - begin) :]:
            size = len(record.value) + len(record.key or b"")
            if records and size > budget:
                budget = 0
                break
            budget -= size
            records.append(record)
        if budget <= 0:
            break
    rows.close()
    next_offset = records[-1].offset + 1 if records else read.offset
    return LogBatch(records, next_offset, end_offset)


def _check_row(read: _Read, begin: int, crc: int, data: bytes, *, is_first: bool) -> None:
    if is_first and begin > read.offset:
        raise CorruptData(
            f"Offset {read.offset} is not in the log any more; the first one kept is {begin}.", first_offset=begin
        )
    if zlib.crc32(data) != crc:
        raise CorruptData(f"The log's row at offset {begin} does not match its checksum.", offset=begin)
