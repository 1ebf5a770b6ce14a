"""Appends to one partition of a Kafka topic: concurrent requests packed into one record batch, which lands whole.

One batch is on its way at a time. It carries a producer id and a sequence number, so sending it again within its
deadline cannot write it twice. When its outcome is reported as unknown it is dropped, its connection is closed and the
next batch gets a new producer id: the old one may still appear, once, and is never sent again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.errors import for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from producer.log.kafka_cluster import AnswerLost, Cluster, KafkaLogOptions, Unreachable
from producer.log.protocol import Appended, LogRecord
from producer.steps import Step
from schemas.errors import FreshetError, LogUnavailable, PayloadTooLarge

__all__ = ["PartitionAppender"]

_ALL_REPLICAS = -1
_NO_TRANSACTION_TIMEOUT_MS = 2**31 - 1
_SEQUENCE_MAX = 2**31 - 1
# Larger than any admitted append; the topic's own limit decides.
_BUILDER_BYTES = 128 * 1024 * 1024
# What Kafka adds to a record at most, but for its headers' lengths; bounds what is packed together.
_RECORD_BYTES = 64
_MESSAGE_TOO_LARGE = frozenset({10, 18})
# The broker did not append and may do so later or elsewhere: leader moved or starting, too few replicas.
_NOT_APPENDED = frozenset({3, 5, 6, 8, 9, 14, 19, 41, 72, 74, 75, 76})
# The same, because it does not know this producer's sequence: a new producer id helps.
_NEW_PRODUCER = frozenset({45, 47, 49, 59})
# The broker may have appended: sending the same batch again is safe, giving up is not.
_MAYBE_APPENDED = frozenset({-1, 7, 13, 20, 46, 56})


@dataclass(frozen=True, slots=True)
class _Request:
    records: Sequence[LogRecord]
    size_bytes: int
    future: asyncio.Future[Appended]


@dataclass(slots=True)
class _Producer:
    """A producer id with the sequence number of its next record."""

    id: int
    epoch: int
    sequence: int = 0


class PartitionAppender:
    """Accepts appends for one partition and carries them out in order, from one task."""

    def __init__(self, cluster: Cluster, topic: str, partition: int, *, options: KafkaLogOptions, step: Step) -> None:
        self._cluster = cluster
        self._topic = topic
        self._partition = partition
        self._options = options
        self._step = step
        self._purpose = ("append", topic, partition)
        self._queue: deque[_Request] = deque()
        self._queue_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._producer: _Producer | None = None
        self._is_closed = False

    def append(self, records: Sequence[LogRecord], size_bytes: int) -> asyncio.Future[Appended]:
        """Accept an append; the future resolves when it is durable, or to the error that says what became of it."""
        if self._is_closed:
            raise LogUnavailable("The log is closed.")
        if self._queue and self._queue_bytes + size_bytes > self._options.queue_bytes_max:
            raise LogUnavailable(f"{self._queue_bytes} bytes wait for this partition already.")
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        # Whoever asked may be gone; then nobody else would look at the error.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        size_bytes += _RECORD_BYTES * len(records)
        self._queue.append(_Request(records, size_bytes, future))
        self._queue_bytes += size_bytes
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return future

    async def close(self, deadline_seconds: float) -> None:
        """Finish what was accepted; what is still open after the deadline ends as unknown."""
        self._is_closed = True
        task = self._task
        if task is not None:
            await asyncio.wait([task], timeout=deadline_seconds)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._cluster.release(self._purpose)

    async def _run(self) -> None:
        """Carry out batch after batch until none waits."""
        requests: list[_Request] = []
        try:
            while self._queue:
                requests = self._pack()
                try:
                    base = await self._deliver([record for request in requests for record in request.records])
                except FreshetError as error:
                    self._fail(requests, error)
                else:
                    self._succeed(requests, base)
                requests = []
        finally:
            self._task = None
            # Reached with requests only when closing ran out of time, or by a mistake of ours.
            self._fail(requests, LogUnavailable("The log was closed before it answered.", outcome="unknown"))
            if requests:
                self._refuse_waiting("The log was closed.")

    def _pack(self) -> list[_Request]:
        """Take the requests that wait, as many as fit into one batch, at least one."""
        requests = [self._queue.popleft()]
        size = requests[0].size_bytes
        while self._queue and size + self._queue[0].size_bytes <= self._options.batch_bytes_max:
            requests.append(self._queue.popleft())
            size += requests[-1].size_bytes
        self._queue_bytes -= size
        return requests

    def _succeed(self, requests: Sequence[_Request], base: int) -> None:
        self._step("append.before_answer")
        for request in requests:
            begin, base = base, base + len(request.records)
            if not request.future.done():
                request.future.set_result(Appended(begin, base))

    def _fail(self, requests: Sequence[_Request], error: FreshetError) -> None:
        for request in requests:
            if not request.future.done():
                request.future.set_exception(error)
        if requests and isinstance(error, LogUnavailable):
            # They have waited as long as the batch took to fail and would wait that long again.
            self._refuse_waiting(error.message)

    def _refuse_waiting(self, reason: str) -> None:
        while self._queue:
            request = self._queue.popleft()
            if not request.future.done():
                request.future.set_exception(LogUnavailable(reason, outcome="refused"))
        self._queue_bytes = 0

    async def _deliver(self, records: Sequence[LogRecord]) -> int:
        """Write one batch and return its first offset.

        Raises `LogUnavailable` with the outcome, `PayloadTooLarge`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.answer_seconds
        may_be_appended = False
        reason: object = "no answer"
        while True:
            try:
                offset, code = await self._attempt(records, deadline)
            except Unreachable as error:
                reason = error
            except AnswerLost as error:
                reason = error
                may_be_appended = True
            else:
                if code == 0:
                    return offset
                reason = for_code(code).description
                may_be_appended |= code in _MAYBE_APPENDED
                if not self._is_worth_trying(code, may_be_appended=may_be_appended):
                    break
            self._cluster.forget_leader(self._topic, self._partition)
            if loop.time() + self._options.retry_seconds >= deadline:
                break
            await asyncio.sleep(self._options.retry_seconds)
        if may_be_appended:
            self._producer = None
            self._cluster.release(self._purpose)
        outcome = "unknown" if may_be_appended else "refused"
        raise LogUnavailable(f"Kafka did not take the records: {reason}", outcome=outcome)

    def _is_worth_trying(self, code: int, *, may_be_appended: bool) -> bool:
        """Whether to send the batch again after the broker's error `code`; raises where it is the batch's fault."""
        if code in _MESSAGE_TOO_LARGE:
            raise PayloadTooLarge("The batch is larger than the Kafka topic takes. Send fewer records at once.")
        if code in _NEW_PRODUCER:
            self._producer = None
            # With a new producer id the broker could not tell the batch from the one that it may have.
            return not may_be_appended
        return code in _NOT_APPENDED or code in _MAYBE_APPENDED

    async def _attempt(self, records: Sequence[LogRecord], deadline: float) -> tuple[int, int]:
        """Send one batch once; return its first offset and the broker's error code."""
        leader = await self._cluster.leader(self._topic, self._partition, deadline=deadline)
        producer = await self._with_sequence(len(records), deadline)
        left_ms = max(1, int((deadline - asyncio.get_running_loop().time()) * 1000))
        request = ProduceRequest(
            transactional_id=None,
            required_acks=_ALL_REPLICAS,
            timeout=left_ms,
            topics=[(self._topic, [(self._partition, _batch(records, producer))])],
        )
        self._step("append.before_commit")
        response: Any = await self._cluster.request(leader, self._purpose, request, deadline=deadline)
        [(_, [(_, code, offset, *_)])] = response.topics
        if code == 0:
            producer.sequence += len(records)
            self._step("append.after_commit")
        return offset, code

    async def _with_sequence(self, count: int, deadline: float) -> _Producer:
        """Return the producer id to use for `count` records. Raises `Unreachable`."""
        if self._producer is not None and self._producer.sequence + count <= _SEQUENCE_MAX:
            return self._producer
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=_NO_TRANSACTION_TIMEOUT_MS)
        try:
            response = await self._cluster.request(self._cluster.any_broker(), "producers", request, deadline=deadline)
        except AnswerLost as error:
            # An id that nobody uses costs nothing.
            raise Unreachable(str(error)) from error
        if response.error_code:
            raise Unreachable(f"No producer id: {for_code(response.error_code).description}")
        self._producer = _Producer(response.producer_id, response.producer_epoch)
        return self._producer


def _batch(records: Sequence[LogRecord], producer: _Producer) -> bytes:
    """Encode one record batch; the broker stamps its time."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=producer.id,
        producer_epoch=producer.epoch,
        base_sequence=producer.sequence,
        batch_size=_BUILDER_BYTES,
    )
    for number, record in enumerate(records):
        metadata = builder.append(number, 0, record.key, record.value, list(record.headers))
        assert metadata is not None, "the builder takes more than an append may carry"
    return bytes(builder.build())
