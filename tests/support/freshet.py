"""`freshet up` as a real process on free ports, to be asked, stopped and killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from compose.client import Client
from schemas.errors import FreshetError
from tests.support.ports import free_ports

COMMAND = (sys.executable, "-P", "-m", "compose")


def run(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**clean_environment(), **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def clean_environment() -> dict[str, str]:
    """Return the environment without settings of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FRESHET_")}


def alive(pid: int) -> bool:
    """Return whether a process lives (a zombie does not)."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    """Wait until `condition()` holds; the limit is for a machine that is busy with something else."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@dataclass
class Freshet:
    """A server on `folder`; `settings` are environment variables, `call` sends `key`. A restart keeps the ports."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    # Who signed the certificate, where the server has one.
    authority: str | None = None
    key: str = ""

    def __post_init__(self) -> None:
        port, index_port, indexer_port, *rest = free_ports(5)
        self.port = port
        self.env = {
            "FRESHET_PORT": str(port),
            "FRESHET_INDEX_PORTS": ",".join(map(str, [index_port, *rest])),
            "FRESHET_INDEXER_PORT": str(indexer_port),
            "FRESHET_DATA_DIR": str(self.folder / "data"),
            "FRESHET_LOG_FORMAT": "json",
            **self.settings,
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @property
    def url(self) -> str:
        scheme = "https" if "FRESHET_TLS_CERTIFICATE" in self.env else "http"
        return f"{scheme}://127.0.0.1:{self.port}"

    @property
    def log_text(self) -> str:
        return (self.folder / "up.err").read_text()

    def start(self, *arguments: str) -> dict[str, Any]:
        """Start, wait until it says that it is ready, return what it says."""
        with (self.folder / "up.out").open("wb") as out, (self.folder / "up.err").open("ab") as err:
            self.process = subprocess.Popen(
                [*COMMAND, "up", "--json", *arguments],
                env={**clean_environment(), **self.env},
                cwd=self.folder,
                stdout=out,
                stderr=err,
            )

        def said() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log_text
            return (self.folder / "up.out").read_text().endswith("\n")

        wait_until(said)
        return dict(json.loads((self.folder / "up.out").read_text()))

    def children(self) -> dict[str, int]:
        """Return the pids of the living API and indexer, by command; of several API processes `serve`, `serve-1`."""
        assert self.process is not None
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            # It may end while it is looked at.
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                at = words.index(b"--supervised-by") if b"--supervised-by" in words else 0
                if at and int(words[at + 1]) == self.process.pid and alive(int(entry.name)):
                    worker = int(words[words.index(b"--worker") + 1].partition(b":")[0]) if b"--worker" in words else 0
                    found[words[at - 1].decode() + (f"-{worker}" if worker else "")] = int(entry.name)
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to the supervisor alone, wait for its end, return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(60)
        self.process = None
        return code

    def kill_all(self) -> None:
        """Kill the supervisor and its children at once."""
        assert self.process is not None
        for pid in [self.process.pid, *self.children().values()]:
            # The kernel ends the children with their parent, perhaps before we do.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command against this server."""
        return run(*arguments, env=self.env, cwd=self.folder)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Call the control plane, or an index by its path."""
        trust: ssl.SSLContext | None = None
        if "FRESHET_TLS_CERTIFICATE" in self.env:
            trust = ssl.create_default_context(cafile=self.authority)
        with Client(self.url, trust, key=self.key) as client:
            return client.call(method, path, body)

    def is_ready(self) -> bool:
        """Return whether reads are served from all that the log held at start."""
        # Not listening yet, or not ready: both are "no".
        with contextlib.suppress(Exception):
            return bool(self.call("GET", "/readyz")["ready"])
        return False


def records(count: int, begin: int = 0) -> Sequence[dict[str, Any]]:
    """Return records with four-dimensional vectors and their number as metadata."""
    return [{"id": f"r{n}", "values": [1.0, n, n * n, 1.0], "metadata": {"n": n}} for n in range(begin, begin + count)]


def stop_under_writers(server: Freshet, number: int = signal.SIGTERM, *, is_connection_kept: bool) -> list[str]:
    """Stop a server on whose index `demo` four writers upsert single records; return the ids that were acknowledged.

    A writer that keeps its connection stays with one of several API processes.
    """
    acknowledged: list[str] = []

    def write(begin: int) -> None:
        # The stop ends a writer.
        with contextlib.suppress(FreshetError), Client(server.url) as kept:
            for n in range(begin, begin + 10_000):
                body = {"vectors": records(1, n)}
                if is_connection_kept:
                    kept.call("POST", "/i/demo/vectors/upsert", body)
                else:
                    server.call("POST", "/i/demo/vectors/upsert", body)
                acknowledged.append(f"r{n}")

    writers = [threading.Thread(target=write, args=(10_000 * k,)) for k in range(4)]
    for writer in writers:
        writer.start()
    wait_until(lambda: len(acknowledged) > 100)
    assert server.stop(number) == 0
    for writer in writers:
        writer.join()
    assert "did not stop in time" not in server.log_text
    return acknowledged


def present(server: Freshet, ids: Sequence[str]) -> set[str]:
    """Return those of `ids` that the index `demo` has."""
    found: set[str] = set()
    for begin in range(0, len(ids), 50):
        query = "&".join(f"ids={each}" for each in ids[begin : begin + 50])
        found |= set(server.call("GET", f"/i/demo/vectors/fetch?{query}")["vectors"])
    return found
