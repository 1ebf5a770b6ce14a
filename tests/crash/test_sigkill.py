"""Acknowledged writes survive SIGKILL of any process at any step, and nothing deleted comes back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.crash.history import Violation
from tests.crash.server import INDEX, Server
from tests.crash.steps import groups_of, steps_in_code
from tests.crash.trials import crash_at, kill_at_random, recover
from tests.crash.workload import Workload, WorkloadOptions


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("steps", groups_of(steps_in_code()), ids=" ".join)
def test_nothing_is_lost_when_a_process_dies_at_a_step(steps: tuple[str, ...], tmp_path: Path) -> None:
    """A process that dies at a named step is started again; all of them die a moment later; nothing is lost."""
    crash_at(steps, tmp_path, seed=0)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("steps", groups_of(steps_in_code()), ids=" ".join)
def test_nothing_is_lost_at_any_passing_of_a_step(steps: tuple[str, ...], tmp_path: Path) -> None:
    """The same at other passings and with other writes."""
    for seed in range(1, 11):
        crash_at(steps, tmp_path / str(seed), seed=seed)


@pytest.mark.timeout(1_200)
def test_nothing_is_lost_when_processes_die_at_random_moments(tmp_path: Path) -> None:
    """API, indexer, builder or all of them, under eight writers and two readers."""
    kill_at_random(tmp_path, kills=8, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_in_many_deaths(seed: int, tmp_path: Path) -> None:
    """The same for hours."""
    kill_at_random(tmp_path, kills=50, seed=100 + seed)


def test_the_checker_finds_a_lost_write(tmp_path: Path) -> None:
    """A data directory that goes back by a few writes is told from one that does not."""
    with Server(tmp_path / "data") as server:
        server.start()
        server.create_index()
        workload = Workload(server.port, INDEX, seed=1, options=WorkloadOptions(readers=0))
        workload.start()
        workload.wait_for(50)
        server.kill()
        workload.stop()
        shutil.copytree(server.data_dir, tmp_path / "older")
        recover(server, workload)
        server.kill()
        shutil.rmtree(server.data_dir)
        shutil.move(tmp_path / "older", server.data_dir)
        server.start()
        with pytest.raises(Violation):
            workload.verify()
