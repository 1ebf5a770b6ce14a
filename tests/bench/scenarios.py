"""The figures, each against its target or a baseline of the same run."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson

from tests.bench import baseline, work
from tests.bench.client import Connection
from tests.bench.data import DataSet, true_neighbours
from tests.bench.server import Server, free_port, running
from tests.bench.work import PREFIX, Row, percentiles

# A quiet partition joins its graphs and collects what has grown older than the grace period (60 s), then it rests.
_REST_SECONDS = 100


async def full_load(server: Server, data: DataSet) -> list[Row]:
    """Load everything over REST until it is in graphs, against bare hnswlib with the builder's thread count."""
    rows = len(data.vectors)
    written_before = server.bytes_written()
    began = time.perf_counter()
    acknowledged = await work.load(server.port, data)
    await work.settled(server.port, rows, tail_rows_max=rows // 10)
    total = time.perf_counter() - began
    log_bytes = sum(file.stat().st_size for file in server.data_dir.glob("log.sqlite*"))
    written = server.bytes_written() - written_before
    raw = data.vectors.nbytes
    index, bare = await asyncio.to_thread(baseline.build, data.vectors, threads=1)
    del index
    ratio = bare / total
    return [
        Row("load, acknowledged", f"{rows / acknowledged:,.0f} rows/s", values={"seconds": acknowledged}),
        Row(
            "load until in graphs, against bare hnswlib",
            f"{ratio:.2f} ({rows / total:,.0f} rows/s; bare {rows / bare:,.0f})",
            ">= 0.6",
            ratio >= 0.6,
            {"ratio": ratio, "seconds": total, "bare_seconds": bare},
        ),
        Row("log bytes per vector byte", f"{log_bytes / raw:.2f}", "<= 3", log_bytes <= 3 * raw),
        Row("all bytes written per vector byte", f"{written / raw:.1f}", "<= 8", written <= 8 * raw),
    ]


async def queries(server: Server, data: DataSet, *, seconds: float, ef: int, kept: Path | None = None) -> list[Row]:
    """Ask over 1 and 16 connections, against the bare program on one graph with the same parameters and candidates.

    The server must have been started with `graph_ef_search=ef`. The bare program's graph stays in `kept`.
    """
    truth = true_neighbours(data.vectors, data.queries, 10)
    with tempfile.TemporaryDirectory() as folder:
        file = str((kept or Path(folder)) / "bare-graph")
        if not os.path.exists(file):  # noqa: ASYNC240, PTH110 # nobody waits meanwhile
            await work.quiet(server.port)
            index, _ = await asyncio.to_thread(baseline.build, data.vectors, threads=2)
            index.save_index(file)
            del index
        port = free_port()
        command = [sys.executable, "-m", "tests.bench.baseline", file, str(data.vectors.shape[1]), str(port), str(ef)]
        process = await asyncio.to_thread(subprocess.Popen, command)
        try:
            await _listening(port)
            rows = []
            for connections, target in ((1, 0.9), (16, 1.3)):
                ours, bare = [], []
                # Interleaved, so that a busy neighbour on the machine meets both.
                for _ in range(4):
                    ours += await work.ask(server.port, data.queries, connections=connections, seconds=seconds / 4)
                    bare += await _ask_bare(port, data.queries, connections=connections, seconds=seconds / 4)
                ratio = len(ours) / len(bare)
                p50, p99 = percentiles(ours)
                rows.append(
                    Row(
                        f"queries/s, {connections} connections, against the bare program",
                        f"{ratio:.2f} ({len(ours) / seconds:,.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms)",
                        f">= {target}",
                        ratio >= target,
                        {"ratio": ratio, "per_second": len(ours) / seconds, "p50_ms": p50, "p99_ms": p99},
                    )
                )
            share = await work.recall(server.port, data.queries[:200], truth[:200])
            bare_share = await _recall_bare(port, data.queries[:200], truth[:200])
        finally:
            process.terminate()
            process.wait()
    rows.append(Row("recall@10 of these queries", f"{share:.3f} (bare {bare_share:.3f})", ">= 0.95", share >= 0.95))
    return rows


async def write_to_visible(server: Server, data: DataSet, *, seconds: float, target: tuple[float, float]) -> list[Row]:
    """Upsert singly at 100 a second over the loaded rows; measure until a read shows the write."""
    durable: list[float] = []
    visible: list[float] = []
    rng = random.Random(3)
    pool = [Connection(server.port, PREFIX) for _ in range(16)]
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for connection in pool:
        free.put_nowait(connection)

    async def write(number: int) -> None:
        connection = await free.get()
        at = rng.randrange(len(data.vectors))
        body = orjson.dumps(
            {"vectors": [{"id": f"probe-{number}", "values": data.vectors[at]}]}, option=orjson.OPT_SERIALIZE_NUMPY
        )
        began = time.perf_counter()
        answer = await connection.call("POST", "/vectors/upsert", body)
        assert answer.status == 200, answer.body
        durable.append(time.perf_counter() - began)
        token = answer.headers["x-freshet-position"]
        headers = {"x-freshet-at-least": token, "x-freshet-wait-ms": "5000"}
        read = await connection.call("GET", f"/vectors/fetch?ids=probe-{number}", headers=headers)
        visible.append(time.perf_counter() - began)
        assert read.status == 200, read.body
        assert f"probe-{number}" in read.json()["vectors"], read.body
        free.put_nowait(connection)

    tasks = []
    began = time.perf_counter()
    for number in range(int(seconds * 100)):
        await asyncio.sleep(max(0.0, began + number / 100 - time.perf_counter()))
        tasks.append(asyncio.create_task(write(number)))
    await asyncio.gather(*tasks)
    for connection in pool:
        await connection.close()
    p50, p99 = percentiles(visible)
    d50, d99 = percentiles(durable)
    return [
        Row(
            "write to visible, p50 / p99",
            f"{p50:.1f} / {p99:.1f} ms (durable {d50:.1f} / {d99:.1f}, then visible {p50 - d50:.1f})",
            f"<= {target[0]:.0f} / {target[1]:.0f} ms",
            p50 <= target[0] and p99 <= target[1],
            {"p50_ms": p50, "p99_ms": p99, "durable_p50_ms": d50, "durable_p99_ms": d99},
        )
    ]


async def idle(server: Server, *, seconds: float) -> list[Row]:
    """Measure the processor time of a server that nobody talks to, once merges and collections have come to rest."""
    await asyncio.sleep(_REST_SECONDS)
    before = server.cpu_seconds()
    await asyncio.sleep(seconds)
    share = (server.cpu_seconds() - before) / seconds
    return [Row("idle, share of one core", f"{share:.2%}", "<= 2 %", share <= 0.02, {"share": share})]


async def twenty_indexes(*, seconds: float) -> list[Row]:
    """Measure an idle server with 20 empty indexes."""
    with running() as server:
        control = Connection(server.port)
        for number in range(20):
            body = {
                "name": f"idle-{number}",
                "dimension": 8,
                "metric": "cosine",
                "spec": {"serverless": {"cloud": "aws", "region": "us-east-1"}},
            }
            assert (await control.call("POST", "/indexes", body)).status == 201
        await control.close()
        (row,) = await idle(server, seconds=seconds)
    row.name = "idle with 20 indexes, share of one core"
    return [row]


async def _listening(port: int) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


async def _ask_bare(port: int, questions: np.ndarray, *, connections: int, seconds: float) -> list[float]:
    latencies: list[float] = []
    encoded = [orjson.dumps({"vector": q, "topK": 10}, option=orjson.OPT_SERIALIZE_NUMPY) for q in questions]
    end = time.perf_counter() + seconds

    async def one(number: int) -> None:
        connection = Connection(port)
        at = number
        while time.perf_counter() < end:
            began = time.perf_counter()
            await connection.call("POST", "/query", encoded[at % len(encoded)])
            latencies.append(time.perf_counter() - began)
            at += connections
        await connection.close()

    await asyncio.gather(*[one(number) for number in range(connections)])
    return latencies


async def _recall_bare(port: int, questions: np.ndarray, truth: np.ndarray) -> float:
    connection = Connection(port)
    found = 0
    for question, rows in zip(questions, truth, strict=True):
        body = orjson.dumps({"vector": question, "topK": 10}, option=orjson.OPT_SERIALIZE_NUMPY)
        matches = (await connection.call("POST", "/query", body)).json()["matches"]
        found += len({f"row-{row}" for row in rows.tolist()} & {match["id"] for match in matches})
    await connection.close()
    return found / truth.size
