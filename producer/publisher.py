"""The way on to the log: admit, choose the partition, encode, append.

Guarantees: all events of one call lie at consecutive offsets of one partition or none ever does; once handed to the log
an append is carried out even where the caller goes away; nothing is ever retried behind the caller's back.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from producer.admission import admit
from producer.log.protocol import Appended, Log, LogRecord
from producer.metrics import ProducerMetrics
from producer.steps import Step, no_step
from schemas.errors import FreshetError, LogRegressed, PayloadTooLarge
from schemas.events import CONTENT_TYPE_HEADER, FORMAT_HEADER, encode
from schemas.idempotency import KEY_HEADER, ORDINAL_HEADER, check_key
from schemas.indexes import IndexSpec
from schemas.limits import APPEND_BYTES_MAX
from schemas.operations import Event
from schemas.partitions import canonical_namespace, partition_of

__all__ = ["BATCH_HEADER", "Gate", "PublishedBatch", "Publisher", "PublisherOptions"]

BATCH_HEADER = "freshet-batch"
# May this partition take more now? Raises `TailFull`, `LogFull` or another error of the tree where it may not.
Gate = Callable[[IndexSpec, int, str], None]
_RESERVED_HEADERS = frozenset({BATCH_HEADER, CONTENT_TYPE_HEADER, FORMAT_HEADER, KEY_HEADER, ORDINAL_HEADER})
_RETRY_AFTER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class PublisherOptions:
    """`close_seconds`: how long `close` waits for appends that are under way.

    Larger batches than `inline_events_max` are checked and encoded on a thread, so that the event loop goes on.
    """

    close_seconds: float = 10.0
    inline_events_max: int = 32


@dataclass(frozen=True, slots=True)
class PublishedBatch:
    """Where the events of one call lie: event `i` at `begin_offset + i`; `next_offset` is the first one after them."""

    partition: int
    begin_offset: int
    next_offset: int


class Publisher:
    """Puts events on the logs of indexes. One per process; any number of tasks of one event loop may call it at once.

    `logs_by_index` returns the open log of an index, as `Logs.open` does: it is asked before every append.
    """

    def __init__(
        self,
        logs_by_index: Callable[[IndexSpec], Awaitable[Log]],
        *,
        options: PublisherOptions | None = None,
        metrics: ProducerMetrics | None = None,
        gates: Sequence[Gate] = (),
        step: Step = no_step,
    ) -> None:
        self._logs_by_index = logs_by_index
        self._options = options or PublisherOptions()
        self._metrics = metrics
        self._gates = tuple(gates)
        self._step = step
        self._refused: dict[tuple[str, int], str] = {}
        self._appending: set[asyncio.Task[Appended]] = set()

    async def publish(
        self,
        spec: IndexSpec,
        namespace: str,
        events: Sequence[Event],
        *,
        headers: tuple[tuple[str, bytes], ...] = (),
        idempotency_key: bytes | None = None,
    ) -> PublishedBatch:
        """Append `events` to `namespace`, whole or not at all; return when durable.

        `headers` go with every record, beside the batch's own id. Events that come again under their
        `idempotency_key` are appended again and folded once. Raises `InvalidRequest`, `PayloadTooLarge`,
        `LogRegressed`, what a gate raises (nothing was appended); `LogFull`, `LogUnavailable` (its `outcome` says
        whether the events may still appear).
        """
        assert _RESERVED_HEADERS.isdisjoint(name for name, _ in headers), "these headers are the publisher's own"
        key = canonical_namespace(namespace)
        own = (*headers, (BATCH_HEADER, secrets.token_urlsafe(12).encode()))
        if idempotency_key is not None:
            check_key(idempotency_key)
            own = (*own, (KEY_HEADER, idempotency_key))
        if len(events) <= self._options.inline_events_max:
            records = _admitted(spec, namespace, events, own)
        else:
            records = await asyncio.to_thread(_admitted, spec, namespace, events, own)
        partition = partition_of(key, spec.partitions)
        self._check_open(spec, partition, key)
        log = await self._logs_by_index(spec)
        self._step("publish.before_append")
        task = asyncio.create_task(self._append(log, partition, records))
        self._appending.add(task)
        task.add_done_callback(self._appended)
        # A caller that goes away must not tear a request that the log has accepted.
        appended = await asyncio.shield(task)
        self._step("publish.after_append")
        if self._metrics is not None:
            for operation, count in Counter(type(event).__name__ for event in events).items():
                self._metrics.events.labels(operation=operation).inc(count)
            self._metrics.append_bytes.inc(sum(len(record.value) for record in records))
        return PublishedBatch(partition, appended.begin_offset, appended.next_offset)

    def refuse(self, index_id: str, partition: int, reason: str) -> None:
        """Refuse writes to a partition from now on, since its log ends below what was folded."""
        self._refused[index_id, partition] = reason

    def allow(self, index_id: str, partition: int) -> None:
        """Take writes to a partition again."""
        self._refused.pop((index_id, partition), None)

    async def close(self) -> None:
        """Wait for the appends that are under way, at most `close_seconds`."""
        if self._appending:
            await asyncio.wait(set(self._appending), timeout=self._options.close_seconds)

    def _check_open(self, spec: IndexSpec, partition: int, namespace: str) -> None:
        reason = self._refused.get((spec.index_id, partition))
        if reason is not None:
            raise LogRegressed(
                f"Partition {partition} of index '{spec.name}' takes no writes: {reason}",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
                partition=partition,
            )
        for gate in self._gates:
            gate(spec, partition, namespace)

    async def _append(self, log: Log, partition: int, records: Sequence[LogRecord]) -> Appended:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            appended = await log.append(partition, records)
        except FreshetError as error:
            if self._metrics is not None:
                self._metrics.append_failures.labels(error=type(error).__name__).inc()
            raise
        if self._metrics is not None:
            self._metrics.append_seconds.observe(loop.time() - begin)
        return appended

    def _appended(self, task: asyncio.Task[Appended]) -> None:
        self._appending.discard(task)
        if not task.cancelled():
            # Asked for, so that the error of an append whose caller went away is no stray traceback; it was counted.
            task.exception()


def _admitted(
    spec: IndexSpec, namespace: str, events: Sequence[Event], headers: tuple[tuple[str, bytes], ...]
) -> list[LogRecord]:
    """Return the records of events that may be appended. Raises `InvalidRequest`, `PayloadTooLarge`."""
    admit(spec, namespace, events)
    return _records(canonical_namespace(namespace), events, headers=headers)


def _records(namespace: str, events: Sequence[Event], *, headers: tuple[tuple[str, bytes], ...]) -> list[LogRecord]:
    key = namespace.encode()
    records = [
        LogRecord(key, encode(event), own) for event, own in zip(events, _numbered(headers, len(events)), strict=True)
    ]
    each = len(key) + sum(len(name) + len(value) for name, value in records[-1].headers)
    size = sum(len(record.value) for record in records) + each * len(records)
    if size > APPEND_BYTES_MAX:
        raise PayloadTooLarge(
            f"The batch is {size} bytes when encoded; the limit is {APPEND_BYTES_MAX}: send fewer records at a time.",
            limit=APPEND_BYTES_MAX,
        )
    return records


def _numbered(headers: tuple[tuple[str, bytes], ...], count: int) -> Iterator[tuple[tuple[str, bytes], ...]]:
    """Return the headers of `count` records: those of a batch with an idempotency key say their place in it, too."""
    if count == 1 or all(name != KEY_HEADER for name, _ in headers):
        return itertools.repeat(headers, count)
    return ((*headers, (ORDINAL_HEADER, str(ordinal).encode())) for ordinal in range(count))
