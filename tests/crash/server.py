"""A real server: `freshet up` and its processes, on a data directory and ports of its own, to be killed and started."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.crash.client import Client, Reply, Unreachable
from tests.support.ports import free_port

__all__ = ["INDEX", "Process", "Server", "free_port", "is_stopped", "kill"]

INDEX = "crash"
_ROOT = Path(__file__).parents[2]
# Everything happens often: a graph from 32 rows on, roll-ups, checkpoints and collections within a second.
_SMALL = {
    "FRESHET_PARTITIONS": "2",
    "FRESHET_ROLLUP_DELTAS": "3",
    "FRESHET_GRAPH_ROWS_MIN": "32",
    "FRESHET_CHECKPOINT_SECONDS": "0.2",
    "FRESHET_COLLECT_SECONDS": "0.2",
    "FRESHET_GRACE_SECONDS": "0.5",
    "FRESHET_MANIFESTS_KEPT": "3",
    "FRESHET_STANDBY_SECONDS": "0.5",
}


@dataclass(frozen=True, slots=True)
class Process:
    """A living process: `role` is `up`, `serve`, `index`, or `builder` for one of the pool that builds graphs.

    Of several API processes `serve` owns the embedded log, and the others are `serve-1` and so on.
    """

    pid: int
    role: str


class Server:
    """`freshet up`, or `freshet index` alone as a rival."""

    def __init__(
        self,
        data_dir: Path,
        *,
        log: str = "sqlite://",
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing runs yet. `settings` are `FRESHET_` variables, `environment` any others."""
        self.data_dir = data_dir
        self.port = free_port()
        # The address of a Unix socket is short, so its folder is too.
        self._run_dir = Path(tempfile.mkdtemp(prefix="frt-"))
        self.output = self._run_dir / "output"
        self._variables = {
            "FRESHET_DATA_DIR": str(data_dir),
            "FRESHET_PORT": str(self.port),
            "FRESHET_INDEX_PORTS": str(free_port()),
            "FRESHET_INDEXER_PORT": "0",
            "FRESHET_LOG": log,
            "FRESHET_LOG_FORMAT": "json",
            "XDG_RUNTIME_DIR": str(self._run_dir),
            **_SMALL,
            **(settings or {}),
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._command = ""
        self._output_begin = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        shutil.rmtree(self._run_dir, ignore_errors=True)

    def start(self, command: str = "up", settings: Mapping[str, str] | None = None, *, module: str = "compose") -> None:
        """Start the processes, with more variables for this time; return at once."""
        assert self._process is None, "it runs already"
        self._command = command
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FRESHET_")}
        with self.output.open("ab") as output:
            self._output_begin = output.tell()
            # Where the kernel can, it ends the server when the test run dies.
            guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
            self._process = subprocess.Popen(
                [*guard, sys.executable, "-P", "-m", module, command],
                cwd=_ROOT,
                env={**kept, **self._variables, **(settings or {}), "PYTHONPATH": str(_ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def processes(self) -> list[Process]:
        """Return the living processes, the first one first."""
        if self._process is None or self._process.poll() is not None:
            return []
        found = [Process(self._process.pid, self._command)]
        parents = _parents()
        for known in found:
            for pid in sorted(child for child, parent in parents.items() if parent == known.pid):
                role = _role(pid)
                if role is not None:
                    found.append(Process(pid, role))
        return found

    def pid_of(self, role: str, *, timeout_seconds: float = 20.0) -> int:
        """Return the process of a role, waiting for it to appear."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            for process in self.processes():
                if process.role == role:
                    return process.pid
            assert time.monotonic() < deadline, f"no process {role!r}: {self.said()[-3000:]}"
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL all processes at once; return when they are gone."""
        if self._process is None:
            return
        pids = [process.pid for process in self.processes()]
        for pid in pids:
            kill(pid)
        self._process.kill()
        self._process.wait()
        self._process = None
        deadline = time.monotonic() + 10
        while any(_is_living(pid) for pid in pids):
            assert time.monotonic() < deadline, "a killed process stays"
            time.sleep(0.002)

    def terminate(self, *, timeout_seconds: float = 30.0) -> int:
        """SIGTERM, and wait for the end; return the exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(timeout_seconds)
        self._process = None
        return code

    def wait_until_gone(self, pid: int, *, timeout_seconds: float) -> bool:
        """Return whether the process has ended within the time."""
        deadline = time.monotonic() + timeout_seconds
        while _is_living(pid):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def wait_ready(self, *, timeout_seconds: float = 30.0) -> None:
        """Wait until `/readyz` says that all the log held at the start is applied."""
        self.wait_for("GET", "/readyz", timeout_seconds=timeout_seconds)

    def wait_for(self, method: str, path: str, body: object = None, *, timeout_seconds: float = 30.0) -> Reply:
        """Repeat an idempotent request until it succeeds, or is told that it was carried out already (409)."""
        deadline = time.monotonic() + timeout_seconds
        last: object = None
        with Client(self.port) as client:
            while True:
                try:
                    reply = client.call(method, path, body)
                    if reply.status < 300 or reply.status == 409:
                        return reply
                    last = reply
                except Unreachable as error:
                    last = error
                ended = None if self._process is None else self._process.poll()
                assert ended is None, f"the server ended with {ended}: {self.said()[-3000:]}"
                assert time.monotonic() < deadline, f"{method} {path}: {last}; {self.said()[-3000:]}"
                time.sleep(0.01)

    def create_index(self, name: str = INDEX, dimension: int = 4) -> None:
        """Create the index that the workload uses, unless it is there."""
        spec = {"serverless": {"cloud": "aws", "region": "us-east-1"}}
        body = {"name": name, "dimension": dimension, "metric": "dotproduct", "spec": spec}
        self.wait_for("POST", "/indexes", body)

    def said(self) -> str:
        """Return what the processes have printed since the last start."""
        with contextlib.suppress(FileNotFoundError):
            return self.output.read_bytes()[self._output_begin :].decode(errors="replace")
        return ""


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal a process, which may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _parents() -> dict[int, int]:
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            # A process that ends while we look is not there.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()
                found[int(entry.name)] = int(fields[1])
    return found


def _role(pid: int) -> str | None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"compose" in words:
            worker = int(words[words.index(b"--worker") + 1].partition(b":")[0]) if b"--worker" in words else 0
            return words[words.index(b"compose") + 1].decode() + (f"-{worker}" if worker else "")
        if any(b"spawn_main" in word for word in words):
            return "builder"
    return None


def is_stopped(pid: int) -> bool:
    """Say whether a process has been stopped (SIGSTOP)."""
    return _state(pid) == b"T"


def _is_living(pid: int) -> bool:
    return _state(pid) not in (b"", b"Z")


def _state(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return b""
