"""The embedded log: one SQLite file for all logs of a data directory, durable on return.

The only door to SQLite, with its neighbours: `sqlite_file` (tables, connections, errors), `sqlite_tables` (finding,
making and dropping logs), `sqlite_rows` (bytes), `sqlite_commits` (transactions), `sqlite_writer` (one thread, one
commit for all that waits), `sqlite_reader` (one thread, and waking) and `sqlite_open` (a process's open logs).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from producer.log.protocol import Appended, Log
from producer.log.sqlite_commits import AppendRequest
from producer.log.sqlite_file import CONTROL_NAME, SqliteLogOptions
from producer.log.sqlite_open import Made, OpenLogs, SqliteLog
from producer.log.sqlite_reader import SqliteReader
from producer.log.sqlite_tables import forget_log, make_log, sweep_some
from producer.log.sqlite_writer import SqliteWriter
from producer.pokes import PokeReceiver, PokeSender
from producer.steps import Step, no_step
from schemas.errors import ConfigError, NotFound

__all__ = ["SqliteLog", "SqliteLogOptions", "SqliteLogs"]

_CLOSE_SECONDS = 8.0


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
        self._reader = SqliteReader(path, options)
        self._writer = SqliteWriter(
            path, options, clock_ms=clock_ms, step=step, senders=senders, committed=self._reader.look
        )
        self._open = OpenLogs(
            self._reader, append=self._writer.append, make=self.make, row_bytes=options.row_bytes, receiver=receiver
        )
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
            self._control = await self._open.open(CONTROL_NAME, None, 1)
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"Cannot make the data directory {self._path.parent}: {error.strerror}.") from error
        await self._writer.start()
        await self._reader.start()
        self._control = await self._open.open(CONTROL_NAME, None, 1)
        self._sweep = asyncio.create_task(self._sweep_dropped())

    async def open(self, name: str, log_id: str, partitions: int) -> Log:
        """Open the log as `Logs.open` promises."""
        return await self._open.open(name, log_id, partitions)

    async def drop(self, name: str, log_id: str, partitions: int) -> None:
        """Delete the log as `Logs.drop` promises. Its space is used again; the file does not shrink."""
        dropped = self._open.forget(log_id)
        await asyncio.shield(self._writer.run(lambda connection: forget_log(connection, log_id)))
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

    def accept(self, request: AppendRequest) -> asyncio.Future[Appended]:
        """Accept packed records; they are carried out in the order in which they were accepted.

        Raises `LogUnavailable` where too much waits already, or after a close; the future, what `Log.append` raises.
        """
        return self._writer.append(request)

    async def make(self, name: str, log_id: str | None, partitions: int) -> Made:
        """Make the log unless it is there; return its identity and slots. Raises what `Logs.open` raises."""
        if self._is_read_only:
            raise NotFound(f"There is no log of {name!r} in {self._path}.")
        return await asyncio.shield(self._writer.run(lambda connection: make_log(connection, name, log_id, partitions)))

    async def _sweep_dropped(self) -> None:
        """Delete the rows of dropped logs, some at a time; also what a process left that died over it."""
        more = True
        while more:
            more = bool(await asyncio.shield(self._writer.run(sweep_some)))
