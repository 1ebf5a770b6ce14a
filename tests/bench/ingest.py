"""Loads: over REST, from the log beside queries, and replays; each against bare hnswlib with the same threads."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence

from tests.bench import stored, work
from tests.bench.figures import Row, figure, note, percentiles
from tests.bench.harness import Bench, scenario
from tests.bench.probes import asking
from tests.bench.server import Server

_BACKLOG = "backlog"
_RATE = 100
_GRAPH_SECONDS_MAX = 900


@scenario("load", "load", "load_next", "log_bytes", "snapshot_bytes")
async def full_load(bench: Bench) -> Sequence[Row]:
    """Load everything over REST in batches of 100 over 8 connections until it is in graphs."""
    before = await bench.bare_build()
    loaded = await bench.loaded()
    # The server is at rest by now.
    bare_seconds = (before + await bench.bare_build()) / 2
    count, raw = len(bench.data.vectors), bench.data.vectors.nbytes
    found = await bench.recall(loaded.server)
    ratio = bare_seconds / loaded.total_seconds
    said = f"{ratio:.2f} ({count / loaded.total_seconds:,.0f} rows/s; bare {count / bare_seconds:,.0f})"
    facts = {"seconds": loaded.total_seconds, "bare_seconds": bare_seconds, "threads": bench.options.threads}
    log, snapshots = loaded.log_bytes / raw, loaded.snapshot_bytes / raw
    rate = count / loaded.acknowledged_seconds
    return [
        note("load_acknowledged", "load over REST, acknowledged", f"{rate:,.0f} rows/s", rows_per_second=rate),
        figure("load", ratio, said, recall=found, **facts),
        figure("load_next", ratio, said, recall=found, **facts),
        figure("log_bytes", log, f"{log:.2f}"),
        figure("snapshot_bytes", snapshots, f"{snapshots:.2f}"),
        note("rested_bytes", "the same once its graphs are joined at rest", f"{loaded.rested_bytes / raw:.2f}"),
    ]


@scenario("replay", "replay")
async def replay(bench: Bench) -> Sequence[Row]:
    """Fold a whole log into a new index: snapshots removed, the indexer alone, until all is in graphs."""
    server = await bench.history()
    before = await bench.bare_build()
    shutil.rmtree(server.data_dir / "snapshots", ignore_errors=True)
    seconds = await _graphed(server, len(bench.data.vectors))
    server.stop()
    bare_seconds = (before + await bench.bare_build()) / 2
    server.start("up")
    found = await bench.recall(server)
    server.stop()
    return [_ratio("replay", bench, bare_seconds, seconds, found)]


@scenario("log_to_graph", "log_to_graph")
async def log_to_graph(bench: Bench) -> Sequence[Row]:
    """Fold a log into an index while another index of the same rows answers 100 queries/s."""
    server = (await bench.loaded()).server
    count = len(bench.data.vectors)
    await work.calm(server, seconds=3)
    server.stop()
    bare_before = await bench.bare_build()
    # Without an indexer the log fills, and nothing is folded yet.
    server.start("serve")
    await work.create_index(server.port, bench.data.vectors.shape[1], _BACKLOG)
    await work.upsert_all(server.port, list(work.bodies(bench.data)), index=_BACKLOG)
    before = stored.look(server.data_dir).graph_rows
    with asking(server.port, work.prefix_of(), bench.data.queries, per_second=_RATE) as probe:
        seconds = await _graphed(server, before + count)
    if probe.failures:
        raise RuntimeError(f"{len(probe.failures)} queries failed, first: {probe.failures[0]}")
    found = await bench.recall(server, index=_BACKLOG)
    server.stop()
    bare_seconds = (bare_before + await bench.bare_build()) / 2
    row = _ratio("log_to_graph", bench, bare_seconds, seconds, found)
    p50, p99 = percentiles(probe.latencies)
    row.figure += f"; queries p50 {p50:.1f}, p99 {p99:.1f} ms"
    row.values |= {"query_p50_ms": p50, "query_p99_ms": p99, "queries": len(probe.latencies)}
    server.start("up")
    async with work.connected(server.port, None) as control:
        work.checked(await control.call("DELETE", f"/indexes/{_BACKLOG}"), 202)
    return [row]


async def _graphed(server: Server, rows: int) -> float:
    """Start the indexer beside what runs; return the seconds until `rows` rows of all indexes are in graphs."""
    began = time.perf_counter()
    server.start("index")
    while time.perf_counter() - began < _GRAPH_SECONDS_MAX:
        await asyncio.sleep(0.1)
        if server.started["index"].poll() is not None:
            raise RuntimeError(f"the indexer ended with {server.started['index'].returncode}")
        seen = stored.look(server.data_dir)
        if seen.graph_rows >= rows - work.TAIL_ROWS_MAX and seen.graph_rows + seen.tail_rows >= rows:
            return time.perf_counter() - began
    raise TimeoutError(f"{rows} rows were not in graphs within {_GRAPH_SECONDS_MAX} s: {seen.graph_rows} are")


def _ratio(key: str, bench: Bench, bare_seconds: float, seconds: float, recall: float) -> Row:
    count, ratio = len(bench.data.vectors), bare_seconds / seconds
    said = f"{ratio:.2f} ({count / seconds:,.0f} rows/s; bare {count / bare_seconds:,.0f})"
    return figure(key, ratio, said, recall=recall, seconds=seconds, bare_seconds=bare_seconds)
