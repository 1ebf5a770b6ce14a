"""How long large upserts hold the event loop: the API in this process with a probe on its loop, a client in another."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import orjson

from query_api.rest import hot
from tests.bench import work
from tests.bench.client import Connection
from tests.support.api_server import ApiServer

_PROBE_SECONDS = 0.0005
_BODIES = 30
# What the machine itself makes the loop wait is looked at for so long.
_IDLE_SECONDS = 1.0


@dataclass(frozen=True)
class Hold:
    """Milliseconds: of as many longest pauses as there were bodies the middle and the worst, and of an answer.

    `idle_ms` is the longest pause that the machine itself made while nothing came.
    """

    typical_ms: float
    worst_ms: float
    answer_ms: float
    idle_ms: float


def body_of(rows: int, dimension: int, *, wide: bool) -> bytes:
    """Return an upsert body; `wide` prints each float32 as a float64, as Python's clients do."""
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((rows, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    metadata = {"pos": "n", "lexfile": "noun.artifact", "words": ["dog", "domestic dog"], "text": "x" * 80}
    records = [
        {"id": f"row-{at}", "values": vector.astype(float).tolist() if wide else vector, "metadata": metadata}
        for at, vector in enumerate(vectors)
    ]
    return orjson.dumps({"vectors": records}, option=orjson.OPT_SERIALIZE_NUMPY)


async def measured(folder: Path, rows: int, dimension: int, *, plain: bool) -> tuple[list[float], list[float], float]:
    """Return the pauses of the loop above the probe's own, idle and while bodies come, and the time of an answer.

    All in seconds.
    """
    # As the API process has it.
    sys.setswitchinterval(0.0005)
    body = folder / "body"
    body.write_bytes(body_of(rows, dimension, wide=True))
    with ApiServer(folder) as server:
        if plain:
            server.app.rest._hot._lifter = None
            server.publisher._options = replace(server.publisher._options, inline_events_max=10**9)
        await work.create_index(server.ports[0], dimension)
        # A write is answered at once when the snapshots are open.
        connection = Connection(server.ports[0], work.prefix_of())
        await connection.call("POST", "/vectors/upsert", body_of(1, dimension, wide=False))
        await work.settled(server.ports[0], 1, tail_rows_max=1)
        await connection.close()
        server.pause_indexing()
        pauses: list[float] = []

        async def probe() -> None:
            while True:
                began = time.perf_counter()
                await asyncio.sleep(_PROBE_SECONDS)
                pauses.append(time.perf_counter() - began - _PROBE_SECONDS)

        probing = asyncio.run_coroutine_threadsafe(probe(), server._loop)
        await asyncio.sleep(_IDLE_SECONDS)
        idle = pauses.copy()
        pauses.clear()
        command = (sys.executable, "-m", "tests.bench.paused", str(server.ports[0]), str(body))
        client = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        out, _ = await client.communicate()
        probing.cancel()
        server.resume_indexing()
    return idle, pauses, float(out)


async def held(rows: int, dimension: int) -> tuple[Hold, Hold]:
    """Return how bodies hold the loop, and how they do the plain way: parsed and checked on it."""
    found = []
    for plain in (False, True):
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(hot, "_INLINE_BYTES_MAX", 10**9 if plain else hot._INLINE_BYTES_MAX),
        ):
            idle, pauses, answer = await measured(Path(folder), rows, dimension, plain=plain)
        worst = sorted(pauses)[-_BODIES:]
        typical, longest = worst[len(worst) // 2] * 1000, worst[-1] * 1000
        found.append(Hold(typical, longest, answer * 1000, max(idle) * 1000))
    return found[0], found[1]


async def send(port: int, file: str) -> float:
    """Send a body again and again; return the mean seconds of an answer."""
    body = await asyncio.to_thread(Path(file).read_bytes)
    connection = Connection(port, work.prefix_of())
    began = time.perf_counter()
    for _ in range(_BODIES):
        answer = await connection.call("POST", "/vectors/upsert", body)
        assert answer.status == 200, answer.body
        await asyncio.sleep(0.01)
    await connection.close()
    return (time.perf_counter() - began) / _BODIES - 0.01


if __name__ == "__main__":
    print(asyncio.run(send(int(sys.argv[1]), sys.argv[2])))
