"""The embedded log as a process uses it that does not own it: reads go to the file, everything else to the owner.

Many processes may read the file; one writes it, so that all waiting appends share its commits. The owner opens its
`OwnerDoor`; the others keep an `OwnerLink` to it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from producer.log.forwarded_link import LinkOptions, OwnerLink
from producer.log.protocol import Appended, Log
from producer.log.sqlite_commits import AppendRequest
from producer.log.sqlite_file import CONTROL_NAME, SqliteLogOptions
from producer.log.sqlite_open import OpenLogs, SqliteLog
from producer.log.sqlite_reader import SqliteReader
from producer.pokes import PokeReceiver
from producer.steps import Step, no_step

__all__ = ["ForwardedLogs"]

_CLOSE_SECONDS = 8.0


class ForwardedLogs:
    """All logs of one data directory, whose owner listens at `door`."""

    def __init__(
        self,
        path: Path,
        options: SqliteLogOptions,
        *,
        door: str,
        link: LinkOptions | None = None,
        step: Step = no_step,
        receiver: PokeReceiver | None = None,
    ) -> None:
        self._reader = SqliteReader(path, options)
        self._link = OwnerLink(door, link, step=step)
        self._open = OpenLogs(
            self._reader, append=self._append, make=self._link.make, row_bytes=options.row_bytes, receiver=receiver
        )
        self._control: SqliteLog | None = None

    @property
    def control(self) -> Log:
        """The control log."""
        assert self._control is not None, "start first"
        return self._control

    async def start(self) -> None:
        """Connect to the owner, which has made the file. Raises `LogUnavailable`."""
        await self._link.start()
        await self._reader.start()
        self._control = await self._open.open(CONTROL_NAME, None, 1)

    async def open(self, name: str, log_id: str, partitions: int) -> Log:
        """Open the log as `Logs.open` promises."""
        return await self._open.open(name, log_id, partitions)

    async def drop(self, name: str, log_id: str, partitions: int) -> None:
        """Delete the log as `Logs.drop` promises."""
        dropped = self._open.forget(log_id)
        await self._link.drop(name, log_id, partitions)
        if dropped is not None:
            self._reader.look(dropped.slots)

    async def close(self) -> None:
        """Wait for the answers to what was accepted, then let go."""
        await self._link.close(_CLOSE_SECONDS)
        await self._reader.close()

    def _append(self, request: AppendRequest) -> asyncio.Future[Appended]:
        def look(answer: asyncio.Future[Appended]) -> None:
            if not answer.cancelled() and answer.exception() is None:
                self._reader.look((request.slot,))

        future = self._link.append(request)
        future.add_done_callback(look)
        return future
