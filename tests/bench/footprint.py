"""What a server takes beside its work: pauses, memory, time to start, an idle processor."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

from tests.bench import stored, work
from tests.bench.figures import Row, figure, note
from tests.bench.harness import Bench, Loaded, scenario
from tests.bench.probes import beating
from tests.bench.server import Server, running

# Fewer rows would not be worth it to join them.
_AGAIN_SHARE, _AGAIN_MIN = 0.04, 400
_SAMPLE_SECONDS = 0.02
_INDEXES = 20
_SWAP_SECONDS_MAX = 300


@scenario("swap", "pause", "memory")
async def swap(bench: Bench) -> Sequence[Row]:
    """Have the large graph built anew, then loaded and swapped by the API: its longest pause, and its memory."""
    loaded = await bench.loaded()
    server = loaded.server
    await bench.rest(server)
    with beating(server.port) as idle:
        await asyncio.sleep(min(20.0, bench.options.seconds / 3))
    resting = server.anonymous_bytes("serve")
    before = _largest_graph(await work.stats(server.port))
    # Some rows again: once the partition is quiet, they are joined with the large graph into a new one. Their own
    # requests are over before the probe begins.
    count = len(bench.data.vectors)
    rows = range(min(count, max(_AGAIN_MIN, int(count * _AGAIN_SHARE))))
    await work.upsert_all(server.port, list(work.bodies(bench.data, rows=rows)), writers=1)
    with beating(server.port) as probe, _peak(server) as peak:
        after = await _swapped(server.port, before[0], int(0.9 * count))
        await asyncio.sleep(1)
    await bench.rest(server)
    longest, idle_longest = 1000 * max(probe.latencies), 1000 * max(idle.latencies)
    said = f"{longest:.1f} ms (idle {idle_longest:.1f} ms; {after[1]:,} rows swapped)"
    found = await bench.recall(server)
    return [
        figure("pause", longest, said, recall=found, idle_longest_ms=idle_longest, graph_rows=after[1]),
        *_memory(bench, loaded, resting, peak[0], found),
    ]


def _memory(bench: Bench, loaded: Loaded, resting: int, peak: int, recall: float) -> list[Row]:
    raw = bench.data.vectors.nbytes
    settled = loaded.server.anonymous_bytes("serve")
    share, top = ((value - loaded.empty_bytes) / raw for value in (settled, peak))
    said = f"{share:.2f} ({settled / 2**20:,.0f} MB, empty {loaded.empty_bytes / 2**20:,.0f} MB)"
    facts = {"bytes": settled, "bytes_before": resting, "empty_bytes": loaded.empty_bytes, "peak_bytes": peak}
    return [
        figure("memory", share, said, recall=recall, **facts),
        note("memory_peak", "the same, peak during a swap", f"{top:.2f} ({peak / 2**20:,.0f} MB)", value=top),
    ]


async def _swapped(port: int, segment: object, rows_min: int) -> tuple[object, int]:
    """Wait until the API serves another graph of so many rows than `segment`; return its segment and rows."""
    end = time.monotonic() + _SWAP_SECONDS_MAX
    while time.monotonic() < end:
        found = _largest_graph(await work.stats(port))
        if found[0] != segment and found[1] >= rows_min:
            return found
        await asyncio.sleep(0.5)
    raise TimeoutError(f"the large graph was not swapped: {found} is the largest, was segment {segment}")


def _largest_graph(stats: dict) -> tuple[object, int]:
    """Return segment and rows of the largest graph."""
    graphs = [graph for part in stats["freshness"]["partitions"] for graph in part["engine"]["graphs"]]
    largest = max(graphs, key=lambda graph: graph["rows"], default={"segment": None, "rows": 0})
    return largest["segment"], largest["rows"]


@contextlib.contextmanager
def _peak(server: Server) -> Iterator[list[int]]:
    """Sample the anonymous memory of the API while the block runs; the peak is the one element of the list."""
    found = [0]
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            found[0] = max(found[0], server.anonymous_bytes("serve"))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


@scenario("start", "start")
async def start(bench: Bench) -> Sequence[Row]:
    """Start again on the loaded rows, less the time to read and digest everything that the manifests name."""
    server = (await bench.loaded()).server
    await work.calm(server, seconds=3)
    rest, total, digests = await asyncio.to_thread(start_seconds, server, 3 if bench.options.scale == 1 else 1)
    found = await bench.recall(server)
    said = f"{rest:.2f} s ({total:.2f} s until ready, {digests:.2f} s to read and digest)"
    return [figure("start", rest, said, recall=found, ready_seconds=total, digest_seconds=digests)]


def start_seconds(server: Server, times: int = 3) -> tuple[float, float, float]:
    """Stop and start; return the seconds beyond verifying, until ready, and for verifying: the middle of `times`."""
    seen = []
    for _ in range(times):
        server.stop()
        digests = stored.digest_seconds(server.data_dir, stored.look(server.data_dir))
        total = server.start("up")
        seen.append((total - digests, total, digests))
    return sorted(seen)[times // 2]


@scenario("idle", "idle")
async def idle(bench: Bench) -> Sequence[Row]:
    """Measure a server with 20 indexes that nobody talks to, once it has come to rest."""
    # With a short grace period collections come to rest soon, and nothing else changes.
    with running(grace_seconds=1, **bench.settings) as server:
        for number in range(_INDEXES):
            await work.create_index(server.port, 8, f"idle-{number}")
            body = {"vectors": [{"id": f"row-{n}", "values": [1.0, n, 2, 3, 4, 5, 6, 7]} for n in range(50)]}
            async with work.connected(server.port, f"idle-{number}") as connection:
                work.checked(await connection.call("POST", "/vectors/upsert", body))
        await work.calm(server, seconds=20)
        before, began = server.cpu_seconds(), time.perf_counter()
        await asyncio.sleep(min(30.0, bench.options.seconds))
        share = (server.cpu_seconds() - before) / (time.perf_counter() - began)
        return [figure("idle", share, f"{share:.2%}")]
