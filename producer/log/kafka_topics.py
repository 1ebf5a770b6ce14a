"""Topics of the Kafka log: made once, checked at every opening, deleted with their log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka.errors import for_code
from aiokafka.protocol.admin import CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest

from producer.log.kafka_cluster import AnswerLost, Cluster, KafkaLogOptions, Topic, Unreachable
from schemas.errors import ConfigError, LogUnavailable
from schemas.limits import APPEND_BYTES_MAX

__all__ = ["drop_topic", "ensure_topic", "has_topic"]

_MIB = 1024 * 1024
# The largest append, with what Kafka adds for every record.
_BATCH_BYTES_MIN = APPEND_BYTES_MAX + _MIB
_SETTINGS = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "message.timestamp.type": "LogAppendTime",
    "max.message.bytes": str(2 * APPEND_BYTES_MAX),
}
_EXISTS = 36
_UNKNOWN_TOPIC = 3
_TOPIC_RESOURCE = 2
# What a change of controller, or a broker that is just starting, answers.
_TRY_AGAIN = frozenset({-1, 5, 7, 8, 14, 15, 41})


async def ensure_topic(cluster: Cluster, topic: str, partitions: int, options: KafkaLogOptions) -> None:
    """Make the topic unless it exists, and check that it is as a log needs it.

    Raises `ConfigError` where it is not, `LogUnavailable`.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + options.topic_seconds
    # A first contact that fails is answered as soon as any other failure.
    contact = loop.time() + options.answer_seconds
    found: Topic | None = None
    while found is None or not _is_settled(found):
        try:
            found = await cluster.describe(topic, deadline=min(deadline, contact))
            contact = deadline
            if found is None:
                await _create(cluster, topic, partitions, options, deadline)
            elif _is_settled(found):
                continue
        except (Unreachable, AnswerLost) as error:
            if loop.time() + options.retry_seconds >= min(deadline, contact):
                raise LogUnavailable(f"The Kafka brokers do not answer: {error}") from error
        if loop.time() + options.retry_seconds >= deadline:
            raise LogUnavailable(f"The topic {topic} was not ready within {options.topic_seconds:.0f} s.")
        await asyncio.sleep(options.retry_seconds)
    if len(found.leaders) != partitions:
        raise ConfigError(
            f"The topic {topic} has {len(found.leaders)} partitions, not {partitions}; "
            "the number is fixed when a log is made.",
            partitions=len(found.leaders),
        )
    _check(topic, await _settings(cluster, topic, deadline))


async def has_topic(cluster: Cluster, topic: str, options: KafkaLogOptions) -> bool:
    """Say whether the topic exists. Raises `LogUnavailable`."""
    deadline = asyncio.get_running_loop().time() + options.answer_seconds
    try:
        return await cluster.describe(topic, deadline=deadline) is not None
    except (Unreachable, AnswerLost) as error:
        raise LogUnavailable(f"The Kafka brokers do not answer: {error}") from error


async def drop_topic(cluster: Cluster, topic: str, options: KafkaLogOptions) -> None:
    """Delete the topic and wait until it is gone; a missing one is fine. Raises `LogUnavailable`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + options.topic_seconds
    reason = "it was still there"
    while loop.time() < deadline:
        try:
            if await cluster.describe(topic, deadline=deadline) is None:
                return
            request = DeleteTopicsRequest([topic], _left_ms(deadline))
            response = await cluster.request(cluster.any_broker(), "topics", request, deadline=deadline)
            code = response.topic_error_codes[0][1]
            if code not in (0, _UNKNOWN_TOPIC):
                reason = str(for_code(code).description)
        except (Unreachable, AnswerLost) as error:
            reason = str(error)
        await asyncio.sleep(options.retry_seconds)
    raise LogUnavailable(f"The topic {topic} could not be deleted: {reason}.")


async def _create(cluster: Cluster, topic: str, partitions: int, options: KafkaLogOptions, deadline: float) -> None:
    copies = options.replication or min(3, cluster.brokers)
    settings = dict(_SETTINGS)
    if copies >= 3:
        settings["min.insync.replicas"] = "2"
    request = CreateTopicsRequest(
        create_topic_requests=[(topic, partitions, copies, [], list(settings.items()))],
        timeout=_left_ms(deadline),
        validate_only=False,
    )
    response = await cluster.request(cluster.any_broker(), "topics", request, deadline=deadline)
    _, code, *message = response.topic_errors[0]
    if code not in (0, _EXISTS) and code not in _TRY_AGAIN:
        reason = (message and message[0]) or for_code(code).description
        raise ConfigError(f"Kafka does not make the topic {topic}: {reason}", kafka_code=code)


async def _settings(cluster: Cluster, topic: str, deadline: float) -> Mapping[str, str]:
    request = DescribeConfigsRequest([(_TOPIC_RESOURCE, topic, list(_SETTINGS))])
    try:
        response: Any = await cluster.request(cluster.any_broker(), "topics", request, deadline=deadline)
    except (Unreachable, AnswerLost) as error:
        raise LogUnavailable(f"The Kafka brokers do not answer: {error}") from error
    code, message, _, _, entries = response.resources[0]
    if code:
        raise LogUnavailable(f"Kafka does not tell the settings of {topic}: {message}", kafka_code=code)
    return {name: value for name, value, *_ in entries}


def _is_settled(found: Topic) -> bool:
    """Whether the topic has partitions and all of them have leaders."""
    return bool(found.leaders) and min(found.leaders.values()) >= 0


def _check(topic: str, settings: Mapping[str, str]) -> None:
    for name, wanted in _SETTINGS.items():
        found = settings.get(name, wanted)
        is_enough = name == "max.message.bytes" and int(found) >= _BATCH_BYTES_MIN
        if found != wanted and not is_enough:
            raise ConfigError(
                f"The topic {topic} has {name}={found}; a log needs {wanted}. Change it with kafka-configs.",
                setting=name,
            )


def _left_ms(deadline: float) -> int:
    return max(1, int((deadline - asyncio.get_running_loop().time()) * 1000))
