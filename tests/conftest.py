"""What all tests share: the Kafka broker, one for a run, and the closing lines about what was and was not tested."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from producer.log.kafka import KafkaLogOptions, KafkaLogs
from producer.log.protocol import LogRecord
from tests.clients.summary import write_client_lines
from tests.support.broker import Broker, BrokerSource, NoBroker, find_source

# Neither a pause of the machine nor the first look at all modules is the fault of a test.
settings.register_profile("freshet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("freshet")
_SKIPPED = "no Kafka broker: "


def _brokers(make: Callable[[BrokerSource], Broker]) -> Iterator[Broker]:
    """Start a broker and remove it in the end; skip or fail where none can be had."""
    try:
        broker = make(find_source())
        broker.start()
    except NoBroker as error:
        if os.environ.get("FRESHET_REQUIRE_KAFKA"):
            pytest.fail(f"A Kafka broker is required and there is none: {error}")
        pytest.skip(f"{_SKIPPED}{error}")
    yield broker
    broker.remove()


async def _warm(broker: Broker) -> None:
    """Append once: the first requests to a broker that has just started take longer than a server waits."""
    logs = KafkaLogs(broker.bootstrap, KafkaLogOptions(control="warm", answer_seconds=60.0))
    await logs.start()
    await logs.control.append(0, [LogRecord(b"warm", b"")])
    await logs.close()


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker]:
    """A broker for tests that only use it."""
    for broker in _brokers(lambda source: source.shared()):
        asyncio.run(_warm(broker))
        yield broker


@pytest.fixture(scope="module")
def private_kafka() -> Iterator[Broker]:
    """A broker for tests that kill, stop or pause it; they start it again first."""
    yield from _brokers(lambda source: source.private())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Say, after all others, which clients took how many steps, and what was not tested at all."""
    yield
    write_client_lines(terminalreporter)
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    skipped = [reason for reason in reasons if _SKIPPED in reason]
    if skipped:
        why = skipped[0].split(_SKIPPED, 1)[1].rstrip("')")
        terminalreporter.write_line(
            f"*** {len(skipped)} KAFKA TESTS SKIPPED: {why}. FRESHET_REQUIRE_KAFKA=1 makes this a failure. ***",
            red=True,
            bold=True,
        )
