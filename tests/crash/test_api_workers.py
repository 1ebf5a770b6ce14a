"""Several API processes on one port: the owner of the log and those who hand it their packs may die at any moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.trials import crash_at, kill_at_random

# Where the owner dies over a pack of somebody else, and where any of them dies around its answer.
_STEPS = ("append.before_commit", "append.after_commit", "append.before_answer", "api.before_answer")


@pytest.mark.timeout(1_200)
def test_nothing_is_lost_when_one_of_two_api_processes_dies_at_a_step(tmp_path: Path) -> None:
    """The owner at each step of its commits, or either of them before an answer; all of them die a moment later."""
    crash_at(_STEPS, tmp_path, seed=0, workers=2)


@pytest.mark.timeout(1_200)
def test_nothing_is_lost_when_api_processes_die_at_random_moments(tmp_path: Path) -> None:
    """Owner, others, indexer, builder or all of them, under eight writers and two readers."""
    kill_at_random(tmp_path, kills=8, seed=3, workers=3)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_in_many_deaths_of_api_processes(seed: int, tmp_path: Path) -> None:
    """The same for hours."""
    kill_at_random(tmp_path, kills=50, seed=300 + seed, workers=2)
