"""Queries over REST: speed against the bare program, recall, and what ingest beside them costs."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.bench import work
from tests.bench.data import DataSet, true_neighbours
from tests.bench.figures import Row, figure, note, percentiles
from tests.bench.harness import Bench, scenario
from tests.bench.probes import Probe, asking
from tests.bench.server import ROOT, Server
from tests.support.ports import free_port

# Interleaved in so many turns, so that a busy neighbour on the machine meets both sides.
_TURNS = 4
_RECALL_QUERIES = 200
_RATE = 100
_PACED_ROWS = 1_000


@scenario("queries", "query_1", "query_16", "recall", "recall_foreign")
async def queries(bench: Bench) -> Sequence[Row]:
    """Ask over 1 and 16 connections with the same pinned ef as the bare program; then at the recall target."""
    server = (await bench.loaded()).server
    seconds = min(30.0, bench.options.seconds / 2)
    rows = await _at_recall_target(bench, server, seconds / 2)
    server.stop()
    server.start("up", graph_ef_search=bench.options.ef)
    try:
        bare = await bench.bare_graph()
        rows += await against_bare(server, bench.data, bare, seconds=seconds, ef=bench.options.ef)
    finally:
        server.stop()
        server.start("up")
    return rows


async def against_bare(server: Server, data: DataSet, bare: Path, *, seconds: float, ef: int) -> list[Row]:
    """Ask a server that was started with `graph_ef_search=ef`, and the bare program over the graph in the file `bare`.

    Both hold the rows of `data`; the turns are interleaved.
    """
    asked = [work.question(query) for query in data.queries]
    truth = true_neighbours(data.vectors, data.queries[:_RECALL_QUERIES], 10)
    rows: list[Row] = []
    async with _bare_program(bare, data.vectors.shape[1], ef) as port:
        own_recall = await work.recall(server.port, asked[:_RECALL_QUERIES], truth)
        bare_recall = await work.recall(port, asked[:_RECALL_QUERIES], truth, prefix="")
        for connections, key in ((1, "query_1"), (16, "query_16")):
            ours: list[float] = []
            theirs: list[float] = []
            for _ in range(_TURNS):
                window = {"connections": connections, "seconds": seconds / _TURNS}
                ours += await work.ask(server.port, asked, **window)
                theirs += await work.ask(port, asked, prefix="", **window)
            ratio = len(ours) / len(theirs)
            (p50, p99), rate = percentiles(ours), len(ours) / seconds
            said = f"{ratio:.2f} ({rate:,.0f}/s, bare {len(theirs) / seconds:,.0f}; p50 {p50:.1f}, p99 {p99:.1f} ms)"
            facts = {"per_second": rate, "p50_ms": p50, "p99_ms": p99, "ef": ef}
            rows.append(figure(key, ratio, said, recall=own_recall, bare_recall=bare_recall, **facts))
    return rows


async def _at_recall_target(bench: Bench, server: Server, seconds: float) -> list[Row]:
    rows: list[Row] = []
    found = await bench.recall(server)
    for connections in (1, 16):
        window = {"connections": connections, "seconds": seconds}
        taken = await work.ask(server.port, bench.questions, prefix=work.prefix_of(), **window)
        p50, p99 = percentiles(taken)
        said = f"{len(taken) / seconds:,.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms"
        name = f"queries/s with the candidates that the recall target needs, {connections} connection(s)"
        facts = {"per_second": len(taken) / seconds, "p50_ms": p50, "p99_ms": p99}
        rows.append(note(f"query_target_{connections}", name, said, recall=found, **facts))
    parts = (await work.stats(server.port))["freshness"]["partitions"]
    ef = [graph.get("efSearch") for part in parts for graph in part["engine"]["graphs"]]
    rows.append(figure("recall", found, f"{found:.3f}", recall=found, ef=ef))
    truth = true_neighbours(bench.data.vectors, bench.data.foreign, 10)
    foreign = await work.recall(
        server.port, [work.question(query) for query in bench.data.foreign], truth, prefix=work.prefix_of()
    )
    rows.append(figure("recall_foreign", foreign, f"{foreign:.3f}", recall=foreign))
    return rows


@contextlib.asynccontextmanager
async def _bare_program(graph: Path, dimension: int, ef: int) -> AsyncIterator[int]:
    port = free_port()
    arguments = [str(graph), str(dimension), str(port), str(ef)]
    process = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-m", "tests.bench.baseline", *arguments], cwd=ROOT
    )
    try:
        end = time.monotonic() + 60
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                if time.monotonic() > end or process.poll() is not None:
                    raise
                await asyncio.sleep(0.1)
            else:
                writer.close()
                break
        yield port
    finally:
        process.terminate()
        process.wait()


@scenario("ingest_p99", "p99_full_ingest", "p99_paced_ingest")
async def p99_during_ingest(bench: Bench) -> Sequence[Row]:
    """Ask at a fixed rate while nothing, 1,000 rows/s and as many rows as possible are written beside it."""
    server = (await bench.loaded()).server
    seconds = min(20.0, bench.options.seconds / 3)
    paced_rows, full_rows = _again(bench, "paced", int(seconds * _PACED_ROWS)), _again(bench, "full", 20_000)
    await bench.rest(server)
    idle = await _asked_while(bench, server, asyncio.sleep(seconds))
    paced = await _asked_while(bench, server, _write_paced(server, paced_rows))
    await work.remove_namespace(server.port, work.neighbour_namespace("paced"))
    await work.calm(server, seconds=3)
    full = await _asked_while(bench, server, _write_fully(server, full_rows, seconds))
    await work.remove_namespace(server.port, work.neighbour_namespace("full"))
    await work.calm(server, seconds=3)
    found = await bench.recall(server)
    idle_p50, idle_p99 = percentiles(idle[0].latencies)
    rows = [note("p99_idle", f"query p99 at {_RATE}/s, idle", f"{idle_p99:.1f} ms (p50 {idle_p50:.1f})", recall=found)]
    for key, (probe, written) in (("p99_full_ingest", full), ("p99_paced_ingest", paced)):
        if probe.failures:
            raise RuntimeError(f"{len(probe.failures)} queries failed, first: {probe.failures[0]}")
        p50, p99 = percentiles(probe.latencies)
        said = f"{p99 / idle_p99:.1f} x ({p99:.1f} ms, p50 {p50:.1f}; {written / seconds:,.0f} rows/s written)"
        facts = {"p50_ms": p50, "p99_ms": p99, "idle_p99_ms": idle_p99, "rows_per_second": written / seconds}
        rows.append(figure(key, p99 / idle_p99, said, recall=found, **facts))
    return rows


async def _asked_while(bench: Bench, server: Server, beside: object) -> tuple[Probe, int]:
    with asking(server.port, work.prefix_of(), bench.data.queries, per_second=_RATE) as probe:
        written = await beside
    return probe, written or 0


async def _write_paced(server: Server, made: list[bytes]) -> int:
    began = time.perf_counter()
    async with work.connected(server.port) as connection:
        for number, body in enumerate(made):
            due = began + number * 100 / _PACED_ROWS
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            work.checked(await connection.call("POST", "/vectors/upsert", body))
    return 100 * len(made)


async def _write_fully(server: Server, made: list[bytes], seconds: float) -> int:
    end = time.perf_counter() + seconds
    sent = 0

    async def write(number: int) -> None:
        nonlocal sent
        async with work.connected(server.port) as connection:
            at = number
            while time.perf_counter() < end:
                answer = await connection.call("POST", "/vectors/upsert", made[at % len(made)])
                if answer.status == 429:
                    await asyncio.sleep(float(answer.headers.get("retry-after", 1)))
                    continue
                work.checked(answer)
                sent, at = sent + 100, at + 8

    await asyncio.gather(*[write(number) for number in range(8)])
    return sent


def _again(bench: Bench, name: str, rows: int) -> list[bytes]:
    """Return bodies of so many rows for a namespace in the partition that is asked."""
    count = len(bench.data.vectors)
    numbers = [number % count for number in range(rows)]
    return list(work.bodies(bench.data, namespace=work.neighbour_namespace(name), rows=numbers))
