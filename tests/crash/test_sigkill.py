"""Acknowledged writes survive SIGKILL of any process at any step, and nothing deleted comes back."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest

from tests.crash.client import Client, Unreachable
from tests.crash.history import Violation
from tests.crash.server import INDEX, Server, kill
from tests.crash.steps import Scenario, scenario_of, steps_in_code
from tests.crash.workload import Workload, WorkloadOptions

_CRASH_SECONDS = 60.0


def crashed(server: Server) -> bool:
    """Say whether the supervisor has seen a child die of SIGKILL."""
    return '"exit": -9' in server.output.read_text(errors="replace")


class Extra:
    """Indexes that are created and deleted beside the load, and what is known of each."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._known: dict[str, bool | None] = {}

    def step(self) -> None:
        """Create an index, or delete the one before."""
        number = len(self._known)
        spec = {"serverless": {"cloud": "aws", "region": "us-east-1"}}
        body = {"name": f"extra-{number}", "dimension": 4, "metric": "cosine", "spec": spec}
        self._try("POST", "/indexes", body, f"extra-{number}", exists=True)
        if number % 2:
            self._try("DELETE", f"/indexes/extra-{number - 1}", None, f"extra-{number - 1}", exists=False)

    def verify(self) -> None:
        """Compare with the listing."""
        with Client(self._server.port) as client:
            listed = {index["name"] for index in client.call("GET", "/indexes").body["indexes"]}
        wrong = {name: exists for name, exists in self._known.items() if exists not in (None, name in listed)}
        if wrong:
            raise Violation(f"indexes (should exist) {wrong}, listed {sorted(listed)}")

    def _try(self, method: str, path: str, body: object, name: str, *, exists: bool) -> None:
        self._known[name] = None
        try:
            with Client(self._server.port) as client:
                reply = client.call(method, path, body)
        except Unreachable:
            time.sleep(0.05)
            return
        if reply.status in (201, 202):
            self._known[name] = exists


def load_until_crash(server: Server, workload: Workload, extra: Extra | None) -> None:
    """Write and read until a process has killed itself at its step."""
    workload.start()
    deadline = time.monotonic() + _CRASH_SECONDS
    while not crashed(server):
        workload.raise_failure()
        assert time.monotonic() < deadline, f"the step was not reached under {workload.counts}; {server.said()}"
        if extra is not None:
            extra.step()
        time.sleep(0.01)


def recover(server: Server, workload: Workload, *, writes: int = 30) -> None:
    """Start again; everything must be right at once, and still after some more writes."""
    server.start()
    workload.verify()
    workload.start()
    workload.wait_for(writes)
    workload.stop()
    workload.verify()


def crash_at(step: str, scenario: Scenario, folder: Path, *, seed: int) -> None:
    """Let a process die at a step, kill the rest a little later, and compare."""
    rng = random.Random(f"{step} {seed}")
    with Server(folder / "data", settings=scenario.settings) as server:
        server.start(settings={"FRESHET_CRASH_AT": f"{step}:{rng.randint(1, scenario.passings_max)}"})
        server.create_index()
        workload = Workload(server.port, INDEX, seed=rng.randrange(1 << 30), options=scenario.workload)
        extra = Extra(server) if scenario.creates else None
        load_until_crash(server, workload, extra)
        time.sleep(rng.choice((0.0, 0.3, 1.0)))
        server.kill()
        workload.stop()
        recover(server, workload)
        if extra is not None:
            extra.verify()


@pytest.mark.parametrize("step", steps_in_code())
def test_nothing_is_lost_when_a_process_dies_at_a_step(step: str, tmp_path: Path) -> None:
    """A process that dies at a named step is started again; all of them die a moment later; nothing is lost."""
    crash_at(step, scenario_of(step), tmp_path, seed=0)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("step", steps_in_code())
def test_nothing_is_lost_at_any_passing_of_a_step(step: str, tmp_path: Path) -> None:
    """The same at other passings and with other writes."""
    for seed in range(1, 11):
        crash_at(step, scenario_of(step), tmp_path / str(seed), seed=seed)


def kill_at_random(folder: Path, *, kills: int, seed: int) -> None:
    """Kill one process or all of them at random moments of one long run, comparing after each kill of all."""
    rng = random.Random(seed)
    with Server(folder / "data") as server:
        server.start()
        server.create_index()
        workload = Workload(server.port, INDEX, seed=seed)
        workload.start()
        for number in range(kills):
            time.sleep(rng.uniform(0.1, 1.5))
            role = rng.choice(("serve", "index", "builder", "up", "up"))
            found = [process.pid for process in server.processes() if process.role == role]
            if role != "up" and found:
                kill(found[0])
                workload.wait_for(20)
            if role == "up" or number == kills - 1:
                server.kill()
                workload.stop()
                server.start()
                workload.verify()
                workload.start()
        workload.wait_for(20)
        workload.stop()
        workload.verify()


@pytest.mark.timeout(300)
def test_nothing_is_lost_when_processes_die_at_random_moments(tmp_path: Path) -> None:
    """API, indexer, builder or all of them, under eight writers and two readers."""
    kill_at_random(tmp_path, kills=12, seed=1)


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
