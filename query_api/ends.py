"""Where the partitions of a log end, and how old its unapplied events are: known cheaply, never guessed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from producer.log.protocol import Log
from schemas.errors import FreshetError

__all__ = ["EndsOptions", "LogEnds"]


@dataclass(frozen=True, slots=True)
class EndsOptions:
    """How long a look-up of the ends is good for the staleness of reads.

    `resolution_seconds` is for logs that others write to as well; where this process is the only writer
    (`is_sole_writer`), it knows every append and looks only every `sole_writer_seconds`.
    A header waits for a look-up no longer than `patience_seconds`, then the staleness is unknown.
    """

    is_sole_writer: bool = False
    resolution_seconds: float = 0.02
    sole_writer_seconds: float = 1.0
    patience_seconds: float = 0.25
    appends_kept: int = 4_096


class LogEnds:
    """Ends and append times of the partitions of one log."""

    def __init__(
        self,
        log: Log,
        *,
        clock_ms: Callable[[], int],
        options: EndsOptions,
        before_look: Callable[[], Callable[[Sequence[int]], None]],
    ) -> None:
        """`before_look` is called before each look-up, and what it returns with the ends that were read."""
        self._log = log
        self._clock_ms = clock_ms
        self._options = options
        self._before_look = before_look
        self._known: list[int] = [0] * log.partitions
        self._known_at = float("-inf")
        self._failed_at = float("-inf")
        self._during: list[int] = [0] * log.partitions
        self._running: asyncio.Task[Sequence[int]] | None = None
        self._next: asyncio.Task[Sequence[int]] | None = None
        self._appends: list[deque[tuple[int, int, int]]] = [
            deque(maxlen=options.appends_kept) for _ in range(log.partitions)
        ]
        self._times: list[tuple[int, int]] = [(-1, 0)] * log.partitions

    @property
    def known(self) -> Sequence[int]:
        """Ends as of the last look-up, and of this process's own appends since."""
        return self._known

    def appended(self, partition: int, *, begin_offset: int, next_offset: int, time_ms: int) -> None:
        """Take note of an append of this process that began at `time_ms`."""
        self._known[partition] = max(self._known[partition], next_offset)
        self._during[partition] = max(self._during[partition], next_offset)
        self._appends[partition].append((begin_offset, next_offset, time_ms))

    def forget(self) -> None:
        """Take note that an append may or may not have happened: what is known is looked up again."""
        self._known_at = float("-inf")

    async def read(self) -> Sequence[int]:
        """Return the ends as read by a look-up that began after this call; all callers until then share it.

        Raises `LogUnavailable`.
        """
        if self._next is not None:
            # It has not begun yet, also where the one before it has just ended.
            return await asyncio.shield(self._next)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._look_up())
            return await asyncio.shield(self._running)
        self._next = asyncio.create_task(self._look_up_after(self._running))
        return await asyncio.shield(self._next)

    async def is_within(self, partition: int, applied: int, *, max_staleness_ms: int) -> bool | None:
        """Say whether it is proven that all that was acknowledged over `max_staleness_ms` ago lies below `applied`.

        False: it is not, as of a look-up that began after this call. None where the log does not say soon enough.
        """
        age_seconds = asyncio.get_running_loop().time() - self._known_at
        if 1000 * age_seconds <= max_staleness_ms and applied >= self._known[partition]:
            return True
        try:
            async with asyncio.timeout(self._options.patience_seconds):
                ends = await self.read()
                if applied >= ends[partition]:
                    return True
                time_ms = await self._append_time_ms(partition, applied)
        except (FreshetError, TimeoutError):
            return None
        # A stamp of the future comes from a clock that is ahead of this one: it proves nothing.
        return time_ms is not None and 0 <= self._clock_ms() - time_ms <= max_staleness_ms

    async def staleness_ms(self, partition: int, applied: int) -> int | None:
        """Return now minus the append time of the first event at or after `applied`, in milliseconds; 0 without one.

        None where the log does not say so soon enough.
        """
        if self._is_recent() and applied >= self._known[partition]:
            return 0
        try:
            async with asyncio.timeout(self._options.patience_seconds):
                ends = await self._recent()
                if applied >= ends[partition]:
                    return 0
                time_ms = await self._append_time_ms(partition, applied)
        except (FreshetError, TimeoutError):
            self._failed_at = asyncio.get_running_loop().time()
            return None
        return 0 if time_ms is None else max(0, self._clock_ms() - time_ms)

    async def close(self) -> None:
        """End running look-ups."""
        tasks = [task for task in (self._running, self._next) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _recent(self) -> Sequence[int]:
        if self._is_recent():
            return self._known
        if asyncio.get_running_loop().time() - self._failed_at <= self._options.patience_seconds:
            # The log did not answer a moment ago: do not make every read wait for it.
            raise TimeoutError
        return await self.read()

    def _is_recent(self) -> bool:
        options = self._options
        good_for = options.sole_writer_seconds if options.is_sole_writer else options.resolution_seconds
        return asyncio.get_running_loop().time() - self._known_at <= good_for

    async def _append_time_ms(self, partition: int, applied: int) -> int | None:
        appends = self._appends[partition]
        while appends and appends[0][1] <= applied:
            appends.popleft()
        if appends and appends[0][0] <= applied:
            return appends[0][2]
        if self._times[partition][0] != applied:
            batch = await self._log.read(partition, applied, bytes_max=1, wait_seconds=0)
            if not batch.records:
                return None
            self._times[partition] = (applied, batch.records[0].time_ms)
        return self._times[partition][1]

    async def _look_up_after(self, running: asyncio.Task[Sequence[int]]) -> Sequence[int]:
        await asyncio.wait([running])
        self._running, self._next = self._next, None
        return await self._look_up()

    async def _look_up(self) -> Sequence[int]:
        began = asyncio.get_running_loop().time()
        self._during = [0] * len(self._known)
        compare = self._before_look()
        ends = await self._log.ends()
        compare(ends)
        self._known = [max(pair) for pair in zip(ends, self._during, strict=True)]
        self._known_at = began
        return self._known
