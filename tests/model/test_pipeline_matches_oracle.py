"""The pipeline equals a dictionary plus exact search after any sequence of operations."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import COVERED, PartitionMachine

_RUNS = 200
_STEPS = 50
# In one pass of all runs, each of these must have happened at least so often.
_LEAST = {
    "kills carried": 50,
    "patches carried": 50,
    "takeovers": 50,
    "fallbacks": 50,
    "fenced": 50,
    "log cuts": 10,
    "rollup merges": 50,
    "graph merges": 50,
    "rewrite merges": 50,
    "records written anew": 20,
    "graph walks": 20,
    "dead letters": 50,
    "collected": 50,
    "walks": 20,
    "followers held back": 10,
    "damage met while running": 5,
    "repeats left out": 100,
    "repeats of forgotten keys": 20,
}


def _run(runs: int) -> None:
    COVERED.clear()
    run_state_machine_as_test(
        PartitionMachine,
        settings=settings(
            max_examples=runs,
            stateful_step_count=_STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    print(dict(COVERED))
    missed = {what: COVERED[what] for what, least in _LEAST.items() if COVERED[what] < least}
    assert not missed, f"too seldom to prove anything: {missed} of {dict(COVERED)}"


@pytest.mark.timeout(900)
def test_any_sequence_of_operations_shows_what_a_dictionary_and_exact_search_show():
    """After any operations, merges, crashes, take-overs and damage, every reader sees exactly the log's meaning."""
    _run(_RUNS)


@pytest.mark.soak
@pytest.mark.timeout(14_400)
def test_ten_times_as_many_sequences_of_operations_show_the_same():
    """The same as in every run of the tests, for longer."""
    _run(10 * _RUNS)
