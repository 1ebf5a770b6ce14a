"""Start the real product for a benchmark: `freshet up` in a folder of its own, on free ports."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Server:
    """A running server: its control port, its data folder, the supervisor's process."""

    port: int
    data_dir: Path
    process: subprocess.Popen

    def processes(self) -> list[int]:
        """Return the process ids of the supervisor and everything below it."""
        found, fresh = [], [self.process.pid]
        while fresh:
            found += fresh
            fresh = [pid for parent in fresh for pid in _children(parent)]
        return found

    def cpu_seconds(self) -> float:
        """Return the processor time used so far by all processes."""
        tick = os.sysconf("SC_CLK_TCK")
        total = 0
        for pid in self.processes():
            with contextlib.suppress(FileNotFoundError):
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                total += int(fields[11]) + int(fields[12])
        return total / tick

    def bytes_written(self) -> int:
        """Return the bytes that all processes have handed to the file system."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(FileNotFoundError, PermissionError):
                for line in Path(f"/proc/{pid}/io").read_text().splitlines():
                    if line.startswith("wchar:"):
                        total += int(line.split()[1])
        return total


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(**settings: object) -> Iterator[Server]:
    """Run `freshet up` with `settings` (as `FRESHET_<NAME>`) and end it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="freshet-bench-"))
    port = free_port()
    names = {
        "PORT": port,
        "INDEX_PORTS": "",
        "INDEXER_PORT": 0,
        "DATA_DIR": folder / "data",
        "LOG_LEVEL": "warning",
        **{name.upper(): value for name, value in settings.items()},
    }
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FRESHET_")}
    environment |= {f"FRESHET_{name}": str(value) for name, value in names.items()}
    process = subprocess.Popen([sys.executable, "-m", "compose", "up"], cwd=ROOT, env=environment)
    try:
        _wait_ready(port, process)
        yield Server(port, folder / "data", process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_ready(port: int, process: subprocess.Popen) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        with (
            contextlib.suppress(OSError),  # not listening, or not answering yet
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer,
        ):
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise RuntimeError("the server did not become ready")


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError):
            found += [int(item) for item in task.read_text().split()]
    return found
