"""Logs that are closed when a test has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from producer.log.kafka import KafkaLog, KafkaLogOptions, KafkaLogs
from producer.log.sqlite import SqliteLogOptions, SqliteLogs
from producer.steps import no_step
from schemas.errors import LogUnavailable
from tests.support.appender import batch, clock_ms
from tests.support.broker import Broker
from tests.support.log_reading import new_log_id


async def _patiently(action):
    """Repeat `action` until the broker, which has just started, is ready for it."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return await action()
        except LogUnavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "log.db"


@pytest_asyncio.fixture
async def start(path: Path) -> AsyncIterator[Callable[..., object]]:
    """Start logs on `path` with given options; they are closed in the end."""
    started: list[SqliteLogs] = []

    async def begin(*, step=no_step, clock=clock_ms, senders=(), receiver=None, **options) -> SqliteLogs:
        logs = SqliteLogs(
            path, SqliteLogOptions(**options), clock_ms=clock, step=step, senders=senders, receiver=receiver
        )
        await logs.start()
        started.append(logs)
        return logs

    yield begin
    for logs in started:
        await logs.close()


@pytest_asyncio.fixture
async def logs(kafka: Broker) -> AsyncIterator[KafkaLogs]:
    logs = KafkaLogs(kafka.bootstrap, KafkaLogOptions(control="tests", answer_seconds=20.0))
    await logs.start()
    yield logs
    await logs.close()


@pytest_asyncio.fixture
async def log(logs: KafkaLogs) -> AsyncIterator[KafkaLog]:
    log_id = new_log_id()
    yield await logs.open("own", log_id, 2)
    await logs.drop("own", log_id, 2)


@pytest_asyncio.fixture
async def private_logs(private_kafka: Broker) -> AsyncIterator[KafkaLogs]:
    """Logs with the product's own patience, on a broker that the test may end."""
    private_kafka.start()
    logs = KafkaLogs(private_kafka.bootstrap, KafkaLogOptions(control=new_log_id()))
    await _patiently(logs.start)
    # The first requests to a broker that has just started take their time.
    warm = await _patiently(lambda: logs.open("warm", new_log_id(), 1))
    await _patiently(lambda: warm.append(0, batch("warm", 0, 1)))
    yield logs
    await logs.close()
    private_kafka.resume()
    private_kafka.start()
