"""The brokers of a Kafka cluster: who leads which partition, and one request at a time with its truth about failure.

This is aiokafka's protocol and connections without its producer and consumer, on purpose. Those retry in the
background without an end, so a batch whose outcome was reported could still be sent again later; they prefetch, so a
read of one partition waits for another; they make topics that a metadata request names, so a dropped log would come
back. Here nothing runs in the background: every request belongs to one caller and has a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from schemas.errors import ConfigError

__all__ = ["AnswerLost", "Cluster", "KafkaLogOptions", "Topic", "Unreachable"]

_MIB = 1024 * 1024
# aiokafka's own limit on an answer; every request here has a nearer deadline.
_REQUEST_TIMEOUT_MS = 120_000
_CLIENT_ID = "freshet"


@dataclass(frozen=True, slots=True)
class KafkaLogOptions:
    """Settings of the Kafka log."""

    # How long a broker may take to answer an append or a look-up before the log counts as unavailable.
    answer_seconds: float = 1.8
    # The same for making, checking and deleting a topic.
    topic_seconds: float = 10.0
    retry_seconds: float = 0.05
    # Longest wait in one fetch request; a longer read waits several times.
    fetch_wait_seconds: float = 5.0
    # Bytes up to which concurrent appends share a batch. A single larger append is a batch of its own.
    batch_bytes_max: int = 4 * _MIB
    # Bytes that may wait for one partition.
    queue_bytes_max: int = 64 * _MIB
    # Copies of each partition; 0 means three, or as many as there are brokers.
    replication: int = 0
    # Several installations on one cluster keep their catalogs apart by this name.
    control: str = "default"


class Unreachable(Exception):
    """The request was not sent."""


class AnswerLost(Exception):
    """The request was sent, or part of it; what became of it is not known."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the brokers describe it; `leaders` has -1 where a partition has none."""

    leaders: Mapping[int, int]


class Cluster:
    """Connections to the brokers, one for each broker and purpose, and who leads what."""

    def __init__(self, bootstrap: str, options: KafkaLogOptions) -> None:
        self._options = options
        self._bootstrap = _addresses(bootstrap)
        self._brokers: dict[int, tuple[str, int]] = {}
        self._controller = -1
        self._leaders: dict[tuple[str, int], int] = {}
        self._topics: set[str] = set()
        self._connections: dict[tuple[int, Hashable], AIOKafkaConnection] = {}
        self._locks: dict[tuple[int, Hashable], asyncio.Lock] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def brokers(self) -> int:
        """Number of brokers known."""
        return len(self._brokers)

    def any_broker(self) -> int:
        """Return a broker, by preference the controller. Raises `Unreachable` where none is known yet."""
        if self._controller in self._brokers:
            return self._controller
        if not self._brokers:
            raise Unreachable("No broker is known yet.")
        return next(iter(self._brokers))

    async def leader(self, topic: str, partition: int, *, deadline: float) -> int:
        """Return the broker that leads the partition. Raises `Unreachable`."""
        self._topics.add(topic)
        leader = self._leaders.get((topic, partition), -1)
        if leader < 0:
            await self.refresh(deadline=deadline)
            leader = self._leaders.get((topic, partition), -1)
        if leader < 0:
            raise Unreachable(f"Partition {partition} of {topic} has no leader.")
        return leader

    def forget_leader(self, topic: str, partition: int) -> None:
        """Ask again next time: what is known about the leader was wrong or may be."""
        self._leaders.pop((topic, partition), None)

    def forget_topic(self, topic: str) -> None:
        """Ask no more about a topic."""
        self._topics.discard(topic)
        for key in [key for key in self._leaders if key[0] == topic]:
            del self._leaders[key]

    async def refresh(self, *, deadline: float) -> None:
        """Ask a broker who leads the known topics; callers share one question. Raises `Unreachable`."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh(deadline))
            # Everybody who asked may have gone by the time it fails.
            self._refreshing.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.shield(self._refreshing)
        except TimeoutError as error:
            raise Unreachable("No broker answered in time.") from error

    async def describe(self, topic: str, *, deadline: float) -> Topic | None:
        """Return the topic, None where it does not exist. Raises `Unreachable`, `AnswerLost`."""
        response = await self._metadata([topic], deadline)
        for error_code, name, _, partitions in response.topics:
            if name == topic and error_code == 0:
                return Topic({number: leader for _, number, leader, *_ in partitions})
        return None

    async def request(self, broker: int, purpose: Hashable, request: Any, *, deadline: float) -> Any:
        """Send `request` and return the answer; requests of one purpose are answered in turn.

        Raises `Unreachable` where it was not sent, `AnswerLost` where it may have been.
        """
        connection = await self._connected(broker, purpose, deadline)
        try:
            async with asyncio.timeout_at(deadline):
                return await connection.send(request)
        except IncompatibleBrokerVersion as error:
            raise ConfigError(f"The Kafka brokers are of a version that is not understood: {error}.") from error
        except (TimeoutError, KafkaError, OSError) as error:
            self.disconnect(broker, purpose)
            raise AnswerLost(f"The broker did not answer: {error!r}.") from error
        except asyncio.CancelledError:
            # The answer may still come; whoever asks next must not get it.
            self.disconnect(broker, purpose)
            raise

    def disconnect(self, broker: int, purpose: Hashable) -> None:
        """Cut a connection, if there is one; what was not sent yet never will be."""
        connection = self._connections.pop((broker, purpose), None)
        if connection is None:
            return
        # Closing would go on sending what waits in the buffer, minutes later if the broker hangs that long: a batch
        # whose outcome was reported would still be on its way.
        writer = connection._writer  # noqa: SLF001  # there is no public way to drop the buffer
        if writer is not None:
            writer.transport.abort()
        connection.close()

    def release(self, purpose: Hashable) -> None:
        """Close all connections of a purpose that is over."""
        for broker, used in list(self._connections):
            if used == purpose:
                self.disconnect(broker, used)
        for key in [key for key in self._locks if key[1] == purpose and not self._locks[key].locked()]:
            del self._locks[key]

    async def close(self) -> None:
        """Close all connections."""
        self._is_closed = True
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        closing = [connection.close() for connection in self._connections.values()]
        self._connections.clear()
        # They close at once; a second is for a loop that is busy. The sockets go with the process in any case.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.gather(*(closed for closed in closing if closed is not None), return_exceptions=True)

    async def _connected(self, broker: int, purpose: Hashable, deadline: float) -> AIOKafkaConnection:
        address = self._brokers.get(broker) if broker >= 0 else self._bootstrap[-1 - broker]
        if address is None:
            raise Unreachable(f"Broker {broker} is not known.")
        try:
            async with (
                asyncio.timeout_at(deadline),
                self._locks.setdefault((broker, purpose), asyncio.Lock()),
            ):
                connection = self._connections.get((broker, purpose))
                if connection is not None and connection.connected():
                    return connection
                if self._is_closed:
                    raise Unreachable("The log is closed.")
                connection = await create_conn(
                    *address, client_id=_CLIENT_ID, request_timeout_ms=_REQUEST_TIMEOUT_MS, max_idle_ms=540_000
                )
                self._connections[broker, purpose] = connection
                return connection
        except (TimeoutError, KafkaError, OSError) as error:
            self.disconnect(broker, purpose)
            raise Unreachable(f"Broker {address[0]}:{address[1]} cannot be reached: {error!r}.") from error

    async def _refresh(self, deadline: float) -> None:
        response = await self._metadata(sorted(self._topics), deadline)
        for error_code, topic, _, partitions in response.topics:
            for _, number, leader, *_ in partitions:
                self._leaders[topic, number] = leader if error_code == 0 else -1

    async def _metadata(self, topics: Sequence[str], deadline: float) -> Any:
        """Ask every known broker in turn, then the bootstrap addresses, sharing the time that is left."""
        candidates = [*self._brokers, *(-1 - number for number in range(len(self._bootstrap)))]
        loop = asyncio.get_running_loop()
        failure: Exception = Unreachable("There is no broker to ask.")
        for number, broker in enumerate(candidates):
            now = loop.time()
            share = now + max(0.0, deadline - now) / (len(candidates) - number)
            try:
                request = MetadataRequest(list(topics), allow_auto_topic_creation=False)
                response = await self.request(broker, "metadata", request, deadline=share)
            except (Unreachable, AnswerLost) as error:
                failure = error
                continue
            self._brokers = {node: (host, port) for node, host, port, *_ in response.brokers}
            self._controller = response.controller_id
            return response
        raise Unreachable(f"No broker of {self._bootstrap} can be reached.") from failure


def _addresses(bootstrap: str) -> Sequence[tuple[str, int]]:
    """Read `host:port[,host:port...]`. Raises `ConfigError`."""
    addresses = []
    for part in bootstrap.split(","):
        host, _, port = part.strip().rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(f"A Kafka address is written host:port[,host:port...]; found {bootstrap!r}.")
        addresses.append((host.strip("[]"), int(port)))
    return addresses
