"""Appends under way: each is carried to its end and taken note of, also where whoever asked for it has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from producer.publisher import PublishedBatch, Publisher
from producer.steps import Step, no_step
from query_api.fullness import Fullness
from query_api.metrics import ApiMetrics
from query_api.served import ServedIndex
from schemas.errors import LogUnavailable
from schemas.operations import Event

__all__ = ["Appends"]


class Appends:
    """Puts events on the logs of indexes, and tells those who must know: ends of the logs, fullness, metrics."""

    def __init__(
        self,
        publisher: Publisher,
        *,
        clock_ms: Callable[[], int],
        metrics: ApiMetrics,
        fullness: Fullness,
        step: Step = no_step,
    ) -> None:
        self._publisher = publisher
        self._clock_ms = clock_ms
        self._metrics = metrics
        self._fullness = fullness
        self._step = step
        self._under_way: set[asyncio.Task[PublishedBatch]] = set()

    async def append(
        self,
        index: ServedIndex,
        namespace: str,
        events: Sequence[Event],
        *,
        headers: tuple[tuple[str, bytes], ...],
        idempotency_key: bytes | None,
        applied: int,
    ) -> PublishedBatch:
        """Append `events`, whole or not at all; `applied` is what the snapshot showed before.

        Raises what `Publisher.publish` and `ServedIndex.check_append` raise.
        """
        publishing = self._publisher.publish(
            index.spec, namespace, events, headers=headers, idempotency_key=idempotency_key
        )
        task = asyncio.create_task(self._noted(index, events, publishing, applied))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        # A client that goes away must not keep an accepted write from being known here.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for the appends that were accepted and whose callers have gone."""
        if self._under_way:
            await asyncio.wait(set(self._under_way))

    async def _noted(
        self, index: ServedIndex, events: Sequence[Event], publishing: Coroutine[Any, Any, PublishedBatch], applied: int
    ) -> PublishedBatch:
        began_ms = self._clock_ms()
        try:
            batch = await publishing
        except LogUnavailable as error:
            if error.outcome == "unknown":
                index.ends.forget()
            raise
        index.ends.appended(
            batch.partition, begin_offset=batch.begin_offset, next_offset=batch.next_offset, time_ms=began_ms
        )
        self._fullness.appended(index, batch.partition, batch.next_offset, events)
        self._metrics.events.inc(len(events))
        index.check_append(batch.partition, begin_offset=batch.begin_offset, applied=applied)
        self._step("api.after_append")
        return batch

    def _done(self, task: asyncio.Task[PublishedBatch]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            # Asked for, so that the error of a write whose client went away is no stray traceback; it was counted.
            task.exception()
