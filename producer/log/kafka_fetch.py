"""Reads of one partition of a Kafka topic: one fetch request for one read, from the offset that the reader names.

No consumer, no group: the position is the caller's. Only committed records are returned; markers and aborted records
are passed over, which moves `next_offset` without records.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from producer.log.kafka_cluster import AnswerLost, Cluster, KafkaLogOptions, Unreachable
from producer.log.protocol import LogBatch, StoredRecord
from schemas.errors import CorruptData, LogUnavailable

__all__ = ["PartitionReader", "read_ends"]

_LATEST = -1
_EARLIEST = -2
_OFFSET_OUT_OF_RANGE = 1


@dataclass(frozen=True, slots=True)
class _Fetched:
    """Records that were fetched and not returned yet: Kafka sends whole batches, a read keeps to its budget."""

    records: Sequence[StoredRecord]
    next_offset: int
    end_offset: int


class PartitionReader:
    """Reads of one partition; every read that runs beside others has a connection of its own."""

    def __init__(self, cluster: Cluster, topic: str, partition: int, options: KafkaLogOptions) -> None:
        self._cluster = cluster
        self._topic = topic
        self._partition = partition
        self._options = options
        self._free: list[int] = []
        self._lanes = 0
        self._rest: _Fetched | None = None

    async def read(self, offset: int, *, bytes_max: int, wait_seconds: float) -> LogBatch:
        """Read as `Log.read` promises."""
        if self._rest is not None and self._rest.records[0].offset == offset:
            rest, self._rest = self._rest, None
            return self._within(rest, bytes_max)
        if not self._free:
            heapq.heappush(self._free, self._lanes)
            self._lanes += 1
        lane = heapq.heappop(self._free)
        try:
            return await self._read(lane, offset, bytes_max, wait_seconds)
        finally:
            heapq.heappush(self._free, lane)

    def close(self) -> None:
        """Close the connections."""
        for lane in range(self._lanes):
            self._cluster.release(("fetch", self._topic, self._partition, lane))

    async def _read(self, lane: int, offset: int, bytes_max: int, wait_seconds: float) -> LogBatch:
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_seconds
        failing_until: float | None = None
        while True:
            wait = min(max(0.0, until - loop.time()), self._options.fetch_wait_seconds)
            try:
                fetched = await self._fetch(lane, offset, bytes_max, wait)
            except (Unreachable, AnswerLost) as error:
                self._cluster.forget_leader(self._topic, self._partition)
                failing_until = failing_until or loop.time() + self._options.answer_seconds
                if loop.time() + self._options.retry_seconds >= failing_until:
                    raise LogUnavailable(f"Kafka does not answer: {error}") from error
                await asyncio.sleep(self._options.retry_seconds)
                continue
            failing_until = None
            if fetched.records:
                return self._within(fetched, bytes_max)
            is_news = fetched.next_offset > offset or fetched.end_offset < offset
            if is_news or loop.time() >= until:
                return LogBatch((), fetched.next_offset, fetched.end_offset)

    def _within(self, fetched: _Fetched, bytes_max: int) -> LogBatch:
        """Return as much of `fetched` as the budget allows and keep the rest for the next read."""
        count = 0
        budget = bytes_max
        for record in fetched.records:
            budget -= len(record.value) + len(record.key or b"")
            if count and budget < 0:
                break
            count += 1
        if count == len(fetched.records):
            return LogBatch(fetched.records, fetched.next_offset, fetched.end_offset)
        self._rest = _Fetched(fetched.records[count:], fetched.next_offset, fetched.end_offset)
        return LogBatch(fetched.records[:count], fetched.records[count - 1].offset + 1, fetched.end_offset)

    async def _fetch(self, lane: int, offset: int, bytes_max: int, wait_seconds: float) -> _Fetched:
        """Send one fetch request. Raises `Unreachable`, `AnswerLost`, `CorruptData`."""
        deadline = asyncio.get_running_loop().time() + wait_seconds + self._options.answer_seconds
        leader = await self._cluster.leader(self._topic, self._partition, deadline=deadline)
        request = FetchRequest(
            max_wait_time=int(wait_seconds * 1000),
            min_bytes=1,
            max_bytes=bytes_max,
            isolation_level=READ_COMMITTED,
            topics=[(self._topic, [(self._partition, offset, bytes_max)])],
        )
        purpose = ("fetch", self._topic, self._partition, lane)
        response: Any = await self._cluster.request(leader, purpose, request, deadline=deadline)
        [(_, [(_, code, _, stable_offset, *more, data)])] = response.topics
        if code == _OFFSET_OUT_OF_RANGE:
            return await self._out_of_range(offset, deadline)
        if code:
            raise Unreachable(for_code(code).description)
        aborted = next((part for part in more if isinstance(part, list)), None)
        records, next_offset = self._decode(data, aborted, offset)
        return _Fetched(records, next_offset, max(stable_offset, next_offset))

    def _decode(self, data: bytes | None, aborted: Any, offset: int) -> tuple[list[StoredRecord], int]:
        if not data:
            return [], offset
        reading = PartitionRecords(
            TopicPartition(self._topic, self._partition),
            MemoryRecords(data),
            aborted,
            offset,
            None,
            None,
            True,  # noqa: FBT003  # check the batches' checksums; the library takes it by place
            READ_COMMITTED,
        )
        try:
            records = [
                StoredRecord(
                    record.offset,
                    record.timestamp,
                    record.key,
                    # Null values are written by others only, and mean nothing here.
                    record.value or b"",
                    tuple((name, value or b"") for name, value in record.headers),
                )
                for record in reading
            ]
        except CorruptRecordException as error:
            raise CorruptData(
                f"Partition {self._partition} of {self._topic} is damaged after offset {offset}: {error}.",
                offset=offset,
            ) from error
        return records, reading.next_fetch_offset

    async def _out_of_range(self, offset: int, deadline: float) -> _Fetched:
        """Say on which side of the log `offset` lies. Raises `CorruptData` where its records are gone."""
        first = (await _offsets(self._cluster, self._topic, [self._partition], _EARLIEST, deadline))[self._partition]
        if offset < first:
            raise CorruptData(
                f"Offset {offset} is not in the log any more; the first one kept is {first}.", first_offset=first
            )
        end = (await _offsets(self._cluster, self._topic, [self._partition], _LATEST, deadline))[self._partition]
        return _Fetched((), offset, end)


async def read_ends(cluster: Cluster, topic: str, partitions: int, options: KafkaLogOptions) -> Sequence[int]:
    """Ask the leaders where every partition ends. Raises `LogUnavailable`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + options.answer_seconds
    while True:
        try:
            found = await _offsets(cluster, topic, range(partitions), _LATEST, deadline)
            return [found[partition] for partition in range(partitions)]
        except (Unreachable, AnswerLost) as error:
            for partition in range(partitions):
                cluster.forget_leader(topic, partition)
            if loop.time() + options.retry_seconds >= deadline:
                raise LogUnavailable(f"Kafka does not say where the log ends: {error}") from error
        await asyncio.sleep(options.retry_seconds)


async def _offsets(
    cluster: Cluster, topic: str, partitions: Sequence[int], which: int, deadline: float
) -> dict[int, int]:
    """Ask for the latest or earliest offsets of committed records. Raises `Unreachable`, `AnswerLost`."""
    by_leader: dict[int, list[tuple[int, int]]] = {}
    for partition in partitions:
        leader = await cluster.leader(topic, partition, deadline=deadline)
        by_leader.setdefault(leader, []).append((partition, which))
    found: dict[int, int] = {}
    for leader, asked in by_leader.items():
        request = OffsetRequest(replica_id=-1, isolation_level=READ_COMMITTED, topics=[(topic, asked)])
        response: Any = await cluster.request(leader, "offsets", request, deadline=deadline)
        for partition, code, _, offset, *_ in response.topics[0][1]:
            if code:
                raise Unreachable(for_code(code).description)
            found[partition] = offset
    return found
