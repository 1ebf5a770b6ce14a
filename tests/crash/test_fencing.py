"""A worker that lost its partition while it slept is refused, deletes nothing and misleads nobody."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.checkpoints import check_checkpoints
from tests.crash.history import Violation
from tests.crash.server import INDEX, Server, is_stopped, kill
from tests.crash.workload import Workload

# Where a worker may fall asleep: each place at which it is about to write or delete.
_STEPS = {
    "checkpoint.before_manifest": 4,
    "checkpoint.before_marker": 4,
    "checkpoint.before_objects": 4,
    "gc.unlink": 30,
    "merge.before_commit": 4,
    "merge.before_manifest": 4,
    "publish.before_manifest": 40,
    "publish.before_object": 40,
    "store.written": 60,
    "takeover.before_manifest": 1,
}
# The sleeper must not take the partition back as long as the test runs.
_UNHURRIED = {"FRESHET_STANDBY_SECONDS": "60"}


def wait_until(condition: Callable[[], bool], workload: Workload, what: str) -> None:
    """Wait while the load goes on."""
    deadline = time.monotonic() + 60
    while not condition():
        workload.raise_failure()
        assert time.monotonic() < deadline, f"waited in vain for {what}: {workload.counts}"
        time.sleep(0.01)


def names_of(data_dir: Path, kind: str) -> set[Path]:
    """Return the manifests or objects of all partitions."""
    return set(data_dir.glob(f"snapshots/*/*/{kind}/[0-9a-f]*"))


def markers(data_dir: Path) -> dict[Path, bytes]:
    """Return the durable checkpoints as they are now."""
    found = {}
    for path in data_dir.glob("snapshots/*/*/checkpoint-*"):
        with contextlib.suppress(FileNotFoundError):  # collected meanwhile
            found[path] = path.read_bytes()
    return found


def watch_checkpoints(data_dir: Path, seconds: float) -> None:
    """Look at every durable checkpoint for a while; what one names may go once it is replaced."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        before = markers(data_dir)
        try:
            check_checkpoints(data_dir)
        except Violation:
            if markers(data_dir) == before:
                raise
        time.sleep(0.05)


_SOME = {"checkpoint.before_marker", "gc.unlink", "merge.before_manifest", "publish.before_manifest"}


@pytest.mark.parametrize(
    "step", [step if step in _SOME else pytest.param(step, marks=pytest.mark.soak) for step in sorted(_STEPS)]
)
def test_a_worker_that_slept_past_takeover_and_collection_is_refused(step: str, tmp_path: Path) -> None:
    """It stops at a step; another takes over and collects what it knew; then it wakes up, and nobody notices."""
    with contextlib.ExitStack() as stack:
        api, sleeper, rival = (stack.enter_context(Server(tmp_path / "data", settings=_UNHURRIED)) for _ in range(3))
        api.start("serve")
        sleeper.start("index", {"FRESHET_CRASH_AT": f"{step}:{_STEPS[step]}"}, module="tests.crash.paused")
        pid = sleeper.pid_of("index")
        stack.callback(kill, pid, signal.SIGCONT)
        api.create_index()
        workload = Workload(api.port, INDEX, seed=1)
        workload.start()
        stack.callback(workload.abandon)
        wait_until(lambda: is_stopped(pid), workload, step)
        known = names_of(tmp_path / "data", "objects")
        rival.start("index")
        wait_until(lambda: "partition_taken_over" in rival.said(), workload, "the takeover")
        # Past collection: nearly all that the sleeper knew is gone.
        wait_until(
            lambda: len(known & names_of(tmp_path / "data", "objects")) <= len(known) // 4, workload, "the collection"
        )
        workload.wait_for(50)
        os.kill(pid, signal.SIGCONT)
        watch_checkpoints(tmp_path / "data", 2.0)
        workload.wait_for(50)
        workload.stop()
        wait_until(lambda: "worker_standby" in sleeper.said(), workload, "the one that slept to stand by")
        assert sleeper.said().count("partition_taken_over") <= 2, "it took a partition back from one who works"
        workload.verify(is_restarted=False)
        for each in (sleeper, rival, api):
            each.kill()
        check_checkpoints(tmp_path / "data")
        api.start()
        workload.verify()
