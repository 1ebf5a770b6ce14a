"""Acknowledged writes survive power loss, and a durable checkpoint is whole. The same checker as after SIGKILL.

What is watched is the parent of the data directory, which `freshet up` makes itself: its name must survive too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.crash.checkpoints import check_checkpoints
from tests.crash.disk import Disk, Loss, Sync
from tests.crash.history import Violation
from tests.crash.powerloss import Recorder, compile_recorder
from tests.crash.server import INDEX, Server
from tests.crash.workload import Workload, WorkloadOptions

# What no manifest of the last two needs is deleted almost at once: only checkpoints hold it.
_HASTY = {"FRESHET_GRACE_SECONDS": "0.05", "FRESHET_MANIFESTS_KEPT": "2"}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the recorder."""
    compiled = compile_recorder(tmp_path_factory.mktemp("powerloss"))
    if compiled is None:
        pytest.skip("NO C COMPILER: power loss is not tested here")
    return compiled


class Machine:
    """A disk with a server on it that loses power."""

    def __init__(self, folder: Path, library: Path, server: Server, *, seed: int) -> None:
        self.tree = server.data_dir.parent
        self.tree.mkdir(exist_ok=True)
        self.server = server
        self.workload = Workload(server.port, INDEX, seed=seed, options=WorkloadOptions(pause_seconds=0.01))
        self._folder = folder
        self._library = library
        self._losses = 0

    def run(self, *, writes: int) -> Recorder:
        """Start under the recorder, compare, write, kill everything at some moment."""
        self._losses += 1
        recorder = Recorder(self._library, self.tree, self._folder / f"record-{self._losses}")
        self.server.start(settings=recorder.environment)
        if self._losses == 1:
            self.server.create_index()
        else:
            self.workload.verify()
        self.workload.start()
        self.workload.wait_for(writes)
        self.server.kill()
        self.workload.stop()
        return recorder

    def lose(self, disk: Disk, loss: Loss) -> None:
        """Leave of the tree what the loss leaves."""
        disk.restore(self.tree, loss)
        check_checkpoints(self.server.data_dir)

    def recover(self) -> None:
        """Start without the recorder; everything is right at once, and after some more writes."""
        self.server.start()
        self.workload.verify()
        self.workload.start()
        self.workload.wait_for(20)
        self.workload.stop()
        self.workload.verify(is_restarted=False)
        self.server.kill()


def survive(folder: Path, library: Path, losses: Iterable[Loss], *, seed: int) -> None:
    """Lose power again and again under load, each time after another span, and compare each time."""
    rng = random.Random(seed)
    with Server(folder / "disk" / "data", settings=_HASTY) as server:
        machine = Machine(folder, library, server, seed=seed)
        for loss in losses:
            recorder = machine.run(writes=rng.randint(10, 200))
            machine.lose(recorder.replay(), loss)
        machine.recover()


@pytest.mark.timeout(1_200)
def test_nothing_is_lost_when_everything_not_synced_is_lost(library: Path, tmp_path: Path) -> None:
    """The worst that a disk may do: no name and no byte that was not synced."""
    survive(tmp_path, library, [Loss.worst(), Loss.contents(), Loss.worst()], seed=1)


@pytest.mark.timeout(1_200)
def test_nothing_is_lost_when_a_part_of_what_was_not_synced_is_lost(library: Path, tmp_path: Path) -> None:
    """Names undone in any order, files cut, emptied, with old blocks or zeros."""
    survive(tmp_path, library, [Loss.some(random.Random(seed)) for seed in range(4)], seed=2)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(10, 20))
def test_nothing_is_lost_in_many_power_losses(library: Path, tmp_path: Path, seed: int) -> None:
    """The same a hundred times."""
    losses = [Loss.worst(), *(Loss.some(random.Random(f"{seed} {n}")) for n in range(9))]
    survive(tmp_path, library, losses, seed=seed)


def test_a_snapshot_older_than_the_log_is_not_shown_after_power_loss(library: Path, tmp_path: Path) -> None:
    """With the last checkpoint left and no indexer to catch up, reads are refused: earlier ones have shown more."""
    settings = {**_HASTY, "FRESHET_CHECKPOINT_SECONDS": "1.5"}
    with Server(tmp_path / "disk" / "data", settings=settings) as server:
        machine = Machine(tmp_path, library, server, seed=6)
        recorder = machine.run(writes=100)
        machine.lose(recorder.replay(), Loss.worst())
        server.start("serve")
        server.wait_for("GET", "/healthz")
        statuses = machine.workload.peek()
        assert statuses[503], f"nothing was lost that an indexer would have to fold again: {statuses}"
        server.kill()
        machine.recover()


def expect_violation(folder: Path, library: Path, drop: Callable[[Sync], bool], settings: dict[str, str]) -> None:
    """Break one sync; the worst loss must be told from none."""
    with Server(folder / "disk" / "data", settings={**_HASTY, **settings}) as server:
        machine = Machine(folder, library, server, seed=3)
        recorder = machine.run(writes=60)
        with pytest.raises(Violation):
            machine.lose(recorder.replay(drop=drop), Loss.worst())
            machine.recover()


def test_a_log_that_syncs_less_is_found_out(library: Path, tmp_path: Path) -> None:
    """`synchronous=NORMAL` gives up commits, and the checker says so."""
    expect_violation(tmp_path, library, lambda _: False, {"FRESHET_LOG_SYNCHRONOUS": "NORMAL"})


def test_a_log_whose_name_is_not_synced_is_found_out(library: Path, tmp_path: Path) -> None:
    """Without the syncs of the data directory the log's file has no name, and the checker says so."""
    expect_violation(tmp_path, library, lambda sync: (sync.kind, sync.path) == ("directory", "data"), {})


def test_one_dropped_sync_of_a_directory_is_found_out(library: Path, tmp_path: Path) -> None:
    """A sync of a directory that a durable checkpoint needs is missed when it alone is left out."""
    with Server(tmp_path / "disk" / "data", settings=_HASTY) as server:
        machine = Machine(tmp_path, library, server, seed=4)
        recorder = machine.run(writes=100)
    whole = recorder.replay()
    machine.lose(whole, Loss.worst())
    assert check_checkpoints(server.data_dir)
    for folder in ("objects", "manifests"):
        numbers = [s.number for s in whole.syncs if s.kind == "directory" and s.path.endswith(f"/{folder}")]
        found = 0
        for number in numbers[-6:]:
            disk = recorder.replay(drop=lambda s, n=number: (s.kind, s.number) == ("directory", n))  # type: ignore[misc]
            try:
                machine.lose(disk, Loss.worst())
            except Violation:
                found += 1
        assert found, f"none of the syncs of {folder} is missed"


def test_power_lost_at_any_moment_of_a_run_leaves_whole_checkpoints(library: Path, tmp_path: Path) -> None:
    """The record is cut at 40 places; what lies below each durable checkpoint is there at each of them."""
    with Server(tmp_path / "disk" / "data", settings=_HASTY) as server:
        machine = Machine(tmp_path, library, server, seed=5)
        recorder = machine.run(writes=150)
    rng = random.Random(5)
    found = 0
    for until in sorted(rng.sample(range(recorder.seq), 40)):
        disk = recorder.replay(until=until)
        for loss in (Loss.worst(), Loss.some(rng)):
            disk.restore(machine.tree, loss)
            found += check_checkpoints(server.data_dir)
    assert found
