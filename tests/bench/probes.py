"""Clients in processes of their own, so that what the measuring process does is not measured.

`python -m tests.bench.probes rate PORT QUERIES.npy PER_SECOND` asks at a fixed rate, `... beat PORT` asks a cheap route
every millisecond. Both go on until their standard input ends, then print what they saw as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson

from tests.bench.client import Connection
from tests.bench.server import ROOT

__all__ = ["Probe", "asking", "beating"]

_CONNECTIONS = 16
_BEAT_SECONDS = 0.001


@dataclass(slots=True)
class Probe:
    """What a probe saw, filled when it ends: latencies in seconds, from when each question was due."""

    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@contextlib.contextmanager
def asking(port: int, prefix: str, queries: np.ndarray, *, per_second: int) -> Iterator[Probe]:
    """Ask `queries` at a fixed rate while the block runs."""
    with tempfile.TemporaryDirectory(prefix="freshet-bench-") as folder:
        file = Path(folder) / "queries.npy"
        np.save(file, queries)
        with _probe("rate", str(port), prefix, str(file), str(per_second)) as probe:
            yield probe


@contextlib.contextmanager
def beating(port: int) -> Iterator[Probe]:
    """Ask `/healthz` over one connection every millisecond while the block runs."""
    with _probe("beat", str(port)) as probe:
        yield probe


@contextlib.contextmanager
def _probe(*arguments: str) -> Iterator[Probe]:
    command = [sys.executable, "-m", "tests.bench.probes", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    probe = Probe()
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        yield probe
        out, _ = process.communicate(timeout=60)
        if process.returncode:
            raise RuntimeError(f"the probe ended with {process.returncode}")
        seen = json.loads(out)
        probe.latencies, probe.failures = seen["latencies"], seen["failures"]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _ending() -> threading.Event:
    ended = threading.Event()

    def watch() -> None:
        sys.stdin.buffer.read()
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    print("begun", flush=True)
    return ended


def _beat(port: int) -> dict[str, list]:
    request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
    latencies = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ended = _ending()
        while not ended.is_set():
            began = time.perf_counter()
            connection.sendall(request)
            seen = b""
            while b'{"status":"ok"}' not in seen:
                seen += connection.recv(4096)
            latencies.append(time.perf_counter() - began)
            time.sleep(_BEAT_SECONDS)
    return {"latencies": latencies, "failures": []}


async def _rate(port: int, prefix: str, queries: np.ndarray, per_second: int) -> dict[str, list]:
    bodies = [orjson.dumps({"vector": q, "topK": 10}, option=orjson.OPT_SERIALIZE_NUMPY) for q in queries]
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(_CONNECTIONS):
        free.put_nowait(Connection(port, prefix))
    latencies: list[float] = []
    failures: list[str] = []

    async def ask(number: int, due: float) -> None:
        connection = await free.get()
        answer = await connection.call("POST", "/query", bodies[number % len(bodies)])
        if answer.status == 200:
            latencies.append(time.perf_counter() - due)
        else:
            failures.append(f"{answer.status} {answer.body[:200]!r}")
        free.put_nowait(connection)

    ended = _ending()
    began = time.perf_counter()
    tasks = []
    while not ended.is_set():
        due = began + len(tasks) / per_second
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(len(tasks), due)))
    await asyncio.gather(*tasks)
    return {"latencies": latencies, "failures": failures}


if __name__ == "__main__":
    if sys.argv[1] == "beat":
        print(json.dumps(_beat(int(sys.argv[2]))))
    else:
        _, _, at_port, at_prefix, questions, rate = sys.argv
        print(json.dumps(asyncio.run(_rate(int(at_port), at_prefix, np.load(questions), int(rate)))))
