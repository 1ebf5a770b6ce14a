"""Ways to die: at a named step or a random moment, one process or all, the broker too; then everything is compared."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.crash.archive import Archive
from tests.crash.client import Client, Unreachable
from tests.crash.history import Violation
from tests.crash.server import INDEX, Server, kill
from tests.crash.steps import Scenario, scenario_of
from tests.crash.workload import Workload, WorkloadOptions
from tests.support.broker import Broker

__all__ = ["crash_at", "kill_at_random", "recover"]

_CRASH_SECONDS = 180.0
_PASSINGS_TO_VERIFY = 50


def crashed(server: Server) -> bool:
    """Say whether the supervisor has seen a child die of SIGKILL since the last start."""
    return '"exit": -9' in server.said()


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


def load_until_crash(server: Server, workload: Workload, beside: Sequence[Extra | Archive]) -> None:
    """Write and read, and do what is to be done beside it, until a process has killed itself at its step."""
    workload.start()
    deadline = time.monotonic() + _CRASH_SECONDS
    while not crashed(server):
        workload.raise_failure()
        assert time.monotonic() < deadline, f"the step was not reached under {workload.counts}; {server.said()[-3000:]}"
        for each in beside:
            each.step()
        time.sleep(0.01)


def recover(server: Server, workload: Workload, *, writes: int = 30) -> None:
    """Start again; everything must be right at once, and still after some more writes."""
    server.start()
    workload.verify()
    workload.start()
    workload.wait_for(writes)
    workload.stop()
    workload.verify(is_restarted=False)


def _server(folder: Path, broker: Broker | None) -> Server:
    """Return a server on a data directory of its own, and on topics of its own where there is a broker."""
    if broker is None:
        return Server(folder / "data")
    settings = {"FRESHET_KAFKA_CONTROL": f"control-{secrets.token_hex(4)}"}
    return Server(folder / "data", log=f"kafka://{broker.bootstrap}", settings=settings)


def crash_at(steps: Sequence[str], folder: Path, *, seed: int, broker: Broker | None = None, workers: int = 1) -> None:
    """Let a process die at one step after another, kill the rest a little later each time, and compare."""
    rng = random.Random(f"{steps} {seed}")
    scenarios = [_shared(scenario_of(step), workers) for step in steps]
    with _server(folder, broker) as server:
        workload = Workload(server.port, INDEX, seed=rng.randrange(1 << 30), options=scenarios[0].workload)
        extra, archive = Extra(server), Archive(server)
        for step, scenario in zip(steps, scenarios, strict=True):
            passings = rng.randint(1, scenario.passings_max)
            processes = {"FRESHET_API_WORKERS": str(scenario.workload.workers)}
            server.start(settings={"FRESHET_CRASH_AT": f"{step}:{passings}", **processes})
            if step == steps[0]:
                server.create_index()
            elif passings >= _PASSINGS_TO_VERIFY:
                workload.verify()
            # Else it would die before it has answered; the readers remember what they have seen, and look at once too.
            beside = [*([extra] if scenario.creates else []), *([archive] if scenario.backs_up else [])]
            load_until_crash(server, workload, beside)
            time.sleep(rng.choice((0.0, 0.2, 0.5)))
            server.kill()
            workload.stop()
        recover(server, workload)
        extra.verify()
        if any(scenario.backs_up for scenario in scenarios):
            archive.verify()


def _shared(scenario: Scenario, workers: int) -> Scenario:
    """Return the scenario with at least so many API processes."""
    workload = replace(scenario.workload, workers=max(workers, scenario.workload.workers))
    return replace(scenario, workload=workload)


def kill_at_random(folder: Path, *, kills: int, seed: int, broker: Broker | None = None, workers: int = 1) -> None:
    """Kill one process or all of them at random moments of one long run, comparing after each kill of all."""
    rng = random.Random(seed)
    roles = ["serve", "index", "builder", "up", "up"] + (["broker", "broker"] if broker else [])
    # The owner of the log and the others, more often than anything else.
    roles += [f"serve-{number}" for number in range(1, workers)] * 2 + ["serve"] * (workers > 1)
    settings = {"FRESHET_API_WORKERS": str(workers)}
    with _server(folder, broker) as server:
        server.start(settings=settings)
        server.create_index()
        workload = Workload(server.port, INDEX, seed=seed, options=WorkloadOptions(workers=workers))
        workload.start()
        for number in range(kills):
            time.sleep(rng.uniform(0.1, 1.5))
            role = "up" if number == kills - 1 else rng.choice(roles)
            if role == "up":
                server.kill()
                workload.stop()
                server.start(settings=settings)
                workload.verify()
                workload.start()
            elif role == "broker" and broker is not None:
                broker.kill()
                time.sleep(rng.uniform(0.0, 3.0))
                broker.start()
            else:
                for process in [process for process in server.processes() if process.role == role][:1]:
                    kill(process.pid)
            workload.wait_for(20)
        for what in ("strong read 200", "bounded read 200", "repeated 200"):
            assert workload.counts[what], f"no {what}: {workload.counts}"
        workload.stop()
        workload.verify(is_restarted=False)
