"""The same promises where Kafka keeps the log, with deaths of the broker among the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.trials import crash_at, kill_at_random
from tests.support.broker import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1_200)]

# Where the log takes part: its own steps, what the answer depends on, and where the position is committed or read.
_STEPS = (
    "append.after_commit",
    "append.before_answer",
    "append.before_commit",
    "catalog.after_append",
    "checkpoint.before_marker",
    "gc.unlink",
    "merge.before_manifest",
    "publish.after_append",
    "publish.before_manifest",
    "takeover.before_manifest",
)
_CHAINS = (_STEPS[:3], _STEPS[3:6], _STEPS[6:])


@pytest.fixture(autouse=True)
def _running(private_kafka: Broker) -> None:
    private_kafka.start()


@pytest.mark.parametrize("steps", _CHAINS, ids=" ".join)
def test_nothing_is_lost_when_a_process_dies_at_a_step(
    steps: tuple[str, ...], tmp_path: Path, private_kafka: Broker
) -> None:
    """A process that dies at a named step is started again; all of them die a moment later; nothing is lost."""
    crash_at(steps, tmp_path, seed=0, broker=private_kafka)


def test_nothing_is_lost_when_processes_and_broker_die_at_random_moments(tmp_path: Path, private_kafka: Broker) -> None:
    """API, indexer, builder, all of them, or the broker, under eight writers and two readers."""
    kill_at_random(tmp_path, kills=8, seed=2, broker=private_kafka)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_in_many_deaths(seed: int, tmp_path: Path, private_kafka: Broker) -> None:
    """The same for hours."""
    kill_at_random(tmp_path, kills=100, seed=200 + seed, broker=private_kafka)
