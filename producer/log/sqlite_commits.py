"""The writing connection of the embedded log: whole transactions, checkpoints, and what to do when one fails.

Offsets are computed inside the transaction (BEGIN IMMEDIATE), so several processes may append. After a failed write the
connection is replaced: a failed fsync must not be tried again on the same one. Everything here runs on one thread.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from producer.log.protocol import Appended
from producer.log.sqlite_file import SqliteLogOptions, close, connect_writer, translate
from producer.log.sqlite_rows import Run, joined
from producer.steps import Step
from schemas.errors import FreshetError, LogFull, LogUnavailable, NotFound

__all__ = ["AppendRequest", "SqliteCommits"]

# After these the connection is as good as before; after any other it is replaced.
_HARMLESS = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY})


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """Records of one call, packed, on their way to one partition."""

    log_id: str
    slot: int
    runs: Sequence[Run]
    size_bytes: int

    @property
    def count(self) -> int:
        """Number of records."""
        return sum(run.count for run in self.runs)


class SqliteCommits:
    """Carries out transactions on the only writing connection of the process."""

    def __init__(self, path: Path, options: SqliteLogOptions, *, clock_ms: Callable[[], int], step: Step) -> None:
        self._path = path
        self._options = options
        self._clock_ms = clock_ms
        self._step = step
        self._connection: sqlite3.Connection | None = None
        self._page_bytes = 4096
        # About how much the write-ahead log has grown since it was last looked at.
        self._grown_bytes = 0

    def open(self) -> None:
        """Open the file. Raises what `connect_writer` raises."""
        self._connected()

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            close(self._connection)
            self._connection = None

    def append(self, requests: Sequence[AppendRequest]) -> Sequence[Appended | FreshetError]:
        """Append all of `requests` in one transaction; return what became of each."""
        committing = False
        try:
            connection = self._connected()
            self._check_reserve()
            connection.execute("BEGIN IMMEDIATE")
            answers = self._insert(connection, requests)
            self._step("append.before_commit")
            committing = True
            connection.execute("COMMIT")
        except (sqlite3.Error, FreshetError) as error:
            return [self._failed(error, committing=committing)] * len(requests)
        self._step("append.after_commit")
        return answers

    def run(self, job: Callable[[sqlite3.Connection], object]) -> object:
        """Run `job` in a transaction of its own; return its result, or the error that it ended with."""
        committing = False
        try:
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            result = job(connection)
            committing = True
            connection.execute("COMMIT")
        except (sqlite3.Error, FreshetError) as error:
            return self._failed(error, committing=committing)
        self._grown_bytes += 16 * self._page_bytes
        return result

    def checkpoint_if_due(self) -> None:
        """Copy the write-ahead log back when it has grown; above the second mark, wait for the readers that hold it."""
        if self._grown_bytes < self._options.checkpoint_bytes or self._connection is None:
            return
        self._step("log.checkpoint")
        self._grown_bytes = 0
        try:
            pages = self._checkpoint(self._connection, "PASSIVE")
            if pages * self._page_bytes > self._options.restart_bytes:
                self._checkpoint(self._connection, "RESTART")
        except sqlite3.Error as error:
            # Nothing is lost: the write-ahead log still holds it, and the next round tries again, on a new connection.
            self._failed(error, committing=False)

    def _insert(
        self, connection: sqlite3.Connection, requests: Sequence[AppendRequest]
    ) -> Sequence[Appended | FreshetError]:
        """Write the rows of all requests and return the answer for each."""
        now_ms = self._clock_ms()
        by_slot: dict[int, list[int]] = {}
        for number, request in enumerate(requests):
            by_slot.setdefault(request.slot, []).append(number)
        answers: dict[int, Appended | FreshetError] = {}
        for slot, numbers in by_slot.items():
            count = sum(requests[number].count for number in numbers)
            end = connection.execute(
                "UPDATE partitions SET next_offset = next_offset + ?, time_ms = max(time_ms, ?)"
                " WHERE slot = ? RETURNING next_offset, time_ms",
                (count, now_ms, slot),
            ).fetchone()
            if end is None:
                answers |= dict.fromkeys(numbers, NotFound(f"The log {requests[numbers[0]].log_id} was dropped."))
                continue
            begin = end[0] - count
            self._insert_rows(connection, slot, begin, end[1], [r for n in numbers for r in requests[n].runs])
            for number in numbers:
                answers[number] = Appended(begin, begin + requests[number].count)
                begin += requests[number].count
        return [answers[number] for number in range(len(requests))]

    def _insert_rows(
        self, connection: sqlite3.Connection, slot: int, begin: int, time_ms: int, runs: Sequence[Run]
    ) -> None:
        # A slot is a number of ours.
        statement = f"INSERT INTO events_{slot} (final, time_ms, count, crc, data) VALUES (?, ?, ?, ?, ?)"  # noqa: S608
        pages = 3
        for run in joined(runs, run_bytes=self._options.row_bytes):
            begin += run.count
            connection.execute(statement, (begin - 1, time_ms, run.count, zlib.crc32(run.data), run.data))
            pages += 1 + len(run.data) // self._page_bytes
        self._grown_bytes += pages * self._page_bytes

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect_writer(self._path, self._options)
            self._page_bytes = self._connection.execute("PRAGMA page_size").fetchone()[0]
        return self._connection

    def _check_reserve(self) -> None:
        if not self._options.reserve_bytes:
            return
        try:
            disk = os.statvfs(self._path.parent)
        except OSError as error:
            raise LogUnavailable(f"The data directory {self._path.parent} is gone: {error.strerror}.") from error
        free_bytes = disk.f_bavail * disk.f_frsize
        if free_bytes < self._options.reserve_bytes:
            raise LogFull(
                f"Only {free_bytes} bytes are free on the disk of the log, below the reserve of "
                f"{self._options.reserve_bytes}; nothing was written. Free some space, then try again.",
                retry_after_seconds=5.0,
                free_bytes=free_bytes,
            )

    def _failed(self, error: sqlite3.Error | FreshetError, *, committing: bool) -> FreshetError:
        """Take the transaction back and return the error to answer with; drop the connection unless it is sound."""
        failure = error
        is_sound = True
        if isinstance(error, sqlite3.Error):
            failure = translate(error, path=self._path, committing=committing)
            failure.__cause__ = error
            is_sound = (error.sqlite_errorcode & 0xFF) in _HARMLESS
        if self._connection is not None:
            try:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                is_sound = False
            if not is_sound:
                self.close()
        assert isinstance(failure, FreshetError)
        return failure

    @staticmethod
    def _checkpoint(connection: sqlite3.Connection, mode: str) -> int:
        """Copy back what can be copied; return the length of the write-ahead log in pages."""
        _, logged_pages, _ = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        return max(0, int(logged_pages))
