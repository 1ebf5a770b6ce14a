"""The log on Kafka: one topic `freshet.<name>.<log_id>` per log.

The only door to Kafka, with its neighbours: `kafka_cluster` (brokers and connections), `kafka_topics` (making and
checking), `kafka_append` (packing, sending, the truth about failure) and `kafka_fetch` (reads and ends).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from producer.log.kafka_append import PartitionAppender
from producer.log.kafka_cluster import AnswerLost, Cluster, KafkaLogOptions, Unreachable
from producer.log.kafka_fetch import PartitionReader, read_ends
from producer.log.kafka_topics import drop_topic, ensure_topic, has_topic
from producer.log.protocol import Appended, Log, LogBatch, LogRecord
from producer.log.sizes import check_append
from producer.steps import Step, no_step
from schemas.errors import ConfigError, LogUnavailable, NotFound

__all__ = ["KafkaLog", "KafkaLogOptions", "KafkaLogs"]

_CONTROL_NAME = "__control__"
_CLOSE_SECONDS = 8.0


class KafkaLog:
    """One topic; made by `KafkaLogs.open`."""

    def __init__(
        self, cluster: Cluster, topic: str, log_id: str, partitions: int, *, options: KafkaLogOptions, step: Step
    ) -> None:
        self._cluster = cluster
        self._topic = topic
        self._log_id = log_id
        self._options = options
        self._appenders = [
            PartitionAppender(cluster, topic, partition, options=options, step=step) for partition in range(partitions)
        ]
        self._readers = [PartitionReader(cluster, topic, partition, options) for partition in range(partitions)]

    @property
    def log_id(self) -> str:
        """Identity of the log."""
        return self._log_id

    @property
    def partitions(self) -> int:
        """Number of partitions."""
        return len(self._readers)

    async def append(self, partition: int, records: Sequence[LogRecord]) -> Appended:
        """Append as `Log.append` promises."""
        size = check_append(records)
        return await asyncio.shield(self._appenders[partition].append(records, size))

    async def read(self, partition: int, offset: int, *, bytes_max: int, wait_seconds: float) -> LogBatch:
        """Read as `Log.read` promises."""
        assert offset >= 0, "offsets start at 0"
        return await self._readers[partition].read(offset, bytes_max=bytes_max, wait_seconds=wait_seconds)

    async def ends(self) -> Sequence[int]:
        """Return the ends as `Log.ends` promises."""
        return await read_ends(self._cluster, self._topic, self.partitions, self._options)

    async def close(self) -> None:
        """Finish accepted appends and close the connections."""
        await asyncio.gather(*(appender.close(_CLOSE_SECONDS) for appender in self._appenders))
        for reader in self._readers:
            reader.close()
        self._cluster.forget_topic(self._topic)


class KafkaLogs:
    """All logs of one Kafka cluster. `bootstrap` is `host:port[,host:port...]`.

    Where `is_read_only`, no topic is made: a missing one is `NotFound`.
    """

    def __init__(
        self, bootstrap: str, options: KafkaLogOptions, *, step: Step = no_step, is_read_only: bool = False
    ) -> None:
        self._is_read_only = is_read_only
        self._options = options
        self._step = step
        self._cluster = Cluster(bootstrap, options)
        self._logs: dict[str, KafkaLog] = {}
        self._control: KafkaLog | None = None
        self._is_closed = False

    @property
    def control(self) -> Log:
        """The control log."""
        assert self._control is not None, "start first"
        return self._control

    async def start(self) -> None:
        """Find the brokers and open the control log. Raises `LogUnavailable`, `ConfigError`."""
        deadline = asyncio.get_running_loop().time() + self._options.answer_seconds
        try:
            await self._cluster.refresh(deadline=deadline)
        except (Unreachable, AnswerLost) as error:
            raise LogUnavailable(f"Kafka does not answer: {error}") from error
        self._control = await self._opened(_CONTROL_NAME, self._options.control, 1)

    async def open(self, name: str, log_id: str, partitions: int) -> Log:
        """Open the log as `Logs.open` promises."""
        return await self._opened(name, log_id, partitions)

    async def drop(self, name: str, log_id: str, partitions: int) -> None:
        """Delete the topic as `Logs.drop` promises."""
        log = self._logs.pop(log_id, None)
        if log is not None:
            await log.close()
        await drop_topic(self._cluster, _topic(name, log_id), self._options)

    async def close(self) -> None:
        """Finish accepted appends and close the connections."""
        self._is_closed = True
        await asyncio.gather(*(log.close() for log in self._logs.values()))
        await self._cluster.close()

    async def _opened(self, name: str, log_id: str, partitions: int) -> KafkaLog:
        if self._is_closed:
            raise LogUnavailable("The log is closed.")
        if log_id not in self._logs:
            topic = _topic(name, log_id)
            if self._is_read_only and not await has_topic(self._cluster, topic, self._options):
                raise NotFound(f"There is no topic {topic}.")
            await ensure_topic(self._cluster, topic, partitions, self._options)
            # Another caller may have been faster.
            if log_id not in self._logs:
                self._logs[log_id] = KafkaLog(
                    self._cluster, topic, log_id, partitions, options=self._options, step=self._step
                )
        log = self._logs[log_id]
        if log.partitions != partitions:
            raise ConfigError(
                f"The log of {name!r} has {log.partitions} partitions, not {partitions}; "
                "the number is fixed when a log is made.",
                partitions=log.partitions,
            )
        return log


def _topic(name: str, log_id: str) -> str:
    return f"freshet.{name}.{log_id}"
