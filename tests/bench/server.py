"""Start the real product for a benchmark: `freshet up`, or its parts alone, in a folder of its own, on free ports."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.ports import free_port

__all__ = ["ROOT", "Server", "cpu_seconds_of", "running"]

ROOT = Path(__file__).resolve().parents[2]
_READY_SECONDS = 600
_STOP_SECONDS = 30


@dataclass(slots=True)
class Server:
    """A data folder and the processes that run on it; stopped and started again it keeps its ports."""

    folder: Path
    port: int
    indexer_port: int
    settings: dict[str, object] = field(default_factory=dict)
    started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    def start(self, *commands: str, **settings: object) -> float:
        """Start `commands` (of up, serve, index), with `settings` instead of what was set before.

        Return the seconds until the API shows all that the log holds; 0 where none of them is an API.
        """
        values = {**self.settings, **settings}
        # Compiled modules are kept, as they are for everybody else: a second start need not compile them again.
        left_out = ("FRESHET_", "PYTHONDONTWRITEBYTECODE")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        environment |= {f"FRESHET_{name.upper()}": str(value) for name, value in values.items()}
        began = time.perf_counter()
        for command in commands:
            arguments = [sys.executable, "-m", "compose", command]
            self.started[command] = subprocess.Popen(
                arguments, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
            )
        if not {"up", "serve"} & set(commands):
            return 0.0
        self._wait_ready()
        return time.perf_counter() - began

    def stop(self) -> None:
        """End what was started, in order; a process that does not end is killed."""
        for process in self.started.values():
            process.send_signal(signal.SIGTERM)
        for process in self.started.values():
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.started.clear()

    def processes(self, role: str = "") -> list[int]:
        """Return the process ids of everything that runs, or of `serve` (the API) or `index` with what is below it."""
        every = _below([process.pid for process in self.started.values()])
        return _below([pid for pid in every if role in _words(pid)]) if role else every

    def anonymous_bytes(self, role: str) -> int:
        """Return the anonymous memory (RssAnon) of the processes of a role, and of those below them."""
        return sum(_anonymous_bytes(pid) for pid in self.processes(role))

    def cpu_seconds(self) -> float:
        """Return the processor time used so far by all processes, those that ended included."""
        return sum(cpu_seconds_of(pid) for pid in self.processes())

    def bytes_written(self, role: str) -> int:
        """Return the bytes that the processes of a role, and those below it that ended, have handed to write calls."""
        total = 0
        for pid in self.processes(role):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                total += int(re.findall(r"^wchar: (\d+)", Path(f"/proc/{pid}/io").read_text(), re.MULTILINE)[0])
        return total

    def indexer_metrics(self) -> dict[str, float]:
        """Return what the indexer counts, by name and labels as Prometheus spells them."""
        return _metrics(f"http://127.0.0.1:{self.indexer_port}/metrics")

    def _wait_ready(self) -> None:
        end = time.monotonic() + _READY_SECONDS
        while time.monotonic() < end:
            for command, process in self.started.items():
                if process.poll() is not None:
                    raise RuntimeError(f"freshet {command} ended with {process.returncode}")
            # Nobody listens yet, or it says that it is not ready: asked again.
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as answer,
            ):
                if answer.status == 200:
                    return
            time.sleep(0.01)
        raise RuntimeError("the server did not become ready")


@contextlib.contextmanager
def running(*, commands: Sequence[str] = ("up",), **settings: object) -> Iterator[Server]:
    """Run `freshet up`, or the `commands` given, with `settings` (as `FRESHET_<NAME>`); end it and clean up after."""
    folder = Path(tempfile.mkdtemp(prefix="freshet-bench-"))
    server = Server(folder, free_port(), free_port())
    server.settings = {
        "port": server.port,
        "index_ports": "",
        "indexer_port": server.indexer_port,
        "data_dir": server.data_dir,
        "log_level": "warning",
        **settings,
    }
    try:
        server.start(*commands)
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _anonymous_bytes(pid: int) -> int:
    """Return the anonymous memory of a process (RssAnon); 0 where it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        found = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0


def cpu_seconds_of(pid: int) -> float:
    """Return the processor time of a process and of its children that have ended and were waited for."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(int(value) for value in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _metrics(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def _words(pid: int) -> list[str]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return []


def _below(pids: list[int]) -> list[int]:
    """Return `pids` and everything below them, each once."""
    found: dict[int, None] = {}
    fresh = pids
    while fresh:
        found.update(dict.fromkeys(fresh))
        fresh = [pid for parent in fresh for pid in _children(parent) if pid not in found]
    return list(found)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [int(item) for item in task.read_text().split()]
    return found
