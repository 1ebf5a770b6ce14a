"""What is said of every shape: speed, recall beside a fresh build, memory, files, bytes, start, publishes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np

from tests.bench import stored, work
from tests.bench.data import true_neighbours
from tests.bench.figures import Row, note, percentiles
from tests.bench.footprint import start_seconds
from tests.bench.fresh_build import fresh_recall
from tests.bench.server import Server

__all__ = ["RECALL_LOSS_MAX", "START_SECONDS_MAX", "Shape", "report"]

RECALL_LOSS_MAX = 0.01
START_SECONDS_MAX = 2.0
_PER_SECOND = 50
_QUERIES = 200
_PUBLISH = "freshet_indexer_publish_seconds"


@dataclass(slots=True)
class Shape:
    """A server with data of some shape, and where to ask: `vectors` are the live rows `ids[i]` of `namespace`."""

    key: str
    name: str
    server: Server
    vectors: np.ndarray
    queries: np.ndarray
    ids: np.ndarray | None = None
    index: str = work.INDEX
    namespace: str = ""
    # Lines of its own, and whether a fresh build is worth its time.
    notes: list[Row] = field(default_factory=list)
    compares_recall: bool = True
    threads: int = 2
    is_quick: bool = False

    @property
    def seconds(self) -> float:
        """Length of the windows in which it is asked and written to."""
        return 2.0 if self.is_quick else 5.0


async def report(shape: Shape) -> list[Row]:
    """Measure a shape that has come to rest; the server is started again at the end."""
    server = shape.server
    await work.calm(server, seconds=4 if shape.is_quick else 12, seconds_max=1_200)
    rows = [*shape.notes, *_sizes(shape), *await _recall(shape)]
    asked = [work.question(query, namespace=shape.namespace) for query in shape.queries[:_QUERIES]]
    window = {"connections": 1, "seconds": shape.seconds, "prefix": work.prefix_of(shape.index)}
    p50, p99 = percentiles(await work.ask(server.port, asked, **window))
    said = f"{p50:.1f} / {p99:.1f} ms"
    rows.append(_note(shape, "query", "query p50 / p99, 1 connection", said, p50_ms=p50, p99_ms=p99))
    rows += await _writes(shape)
    beyond, total, digests = await asyncio.to_thread(start_seconds, server, 1 if shape.is_quick else 3)
    said = f"{total:.2f} s ({beyond:.2f} s beyond verifying and loading, {digests:.2f} s)"
    row = _note(shape, "start", "start until ready", said, beyond_seconds=beyond, ready_seconds=total)
    row.target, row.met = f"<= {START_SECONDS_MAX:g} s", beyond <= START_SECONDS_MAX
    return [*rows, row]


def _sizes(shape: Shape) -> list[Row]:
    server = shape.server
    api = server.anonymous_bytes("serve") / 2**20
    indexer = server.anonymous_bytes("index") / 2**20
    files, size = stored.count_files(server.data_dir)
    log, snapshots = (server.bytes_written(role) / 2**20 for role in ("serve", "index"))
    memory = f"API {api:,.0f} MB, indexer and its builders {indexer:,.0f} MB"
    facts = {"api_mb": api, "indexer_mb": indexer}
    return [
        _note(shape, "memory", "anonymous memory", memory, **facts),
        _note(shape, "store", "snapshot store", f"{files:,} files, {size / 2**20:,.0f} MB", files=files, bytes=size),
        _note(
            shape,
            "written",
            "bytes written since the last start",
            f"by the API {log:,.0f} MB, by the indexer {snapshots:,.0f} MB",
            api_mb=log,
            indexer_mb=snapshots,
        ),
    ]


async def _recall(shape: Shape) -> list[Row]:
    queries = shape.queries[:_QUERIES]
    truth = true_neighbours(shape.vectors, queries, min(10, len(shape.vectors)))
    named = truth if shape.ids is None else shape.ids[truth]
    asked = [work.question(query, top_k=truth.shape[1], namespace=shape.namespace) for query in queries]
    prefix = work.prefix_of(shape.index)
    found = await work.recall(shape.server.port, asked, named, prefix=prefix)
    if not shape.compares_recall:
        return [_note(shape, "recall", "recall@10", f"{found:.3f}", recall=found)]
    fresh = await asyncio.to_thread(fresh_recall, shape.vectors, queries, truth, threads=shape.threads)
    row = _note(shape, "recall", "recall@10", f"{found:.3f} (built anew {fresh:.3f})", recall=found, fresh=fresh)
    row.target, row.met = f">= -{RECALL_LOSS_MAX}", found >= fresh - RECALL_LOSS_MAX
    return [row]


async def _writes(shape: Shape) -> list[Row]:
    server = shape.server
    before = server.indexer_metrics()
    writes = await work.write_singly(
        server.port,
        shape.vectors,
        per_second=_PER_SECOND,
        seconds=shape.seconds,
        index=shape.index,
        namespace=shape.namespace,
    )
    after = server.indexer_metrics()
    await work.remove_probes(server.port, len(writes.visible), index=shape.index, namespace=shape.namespace)
    (p50, p99), (d50, _) = percentiles(writes.visible), percentiles(writes.durable)
    said = f"{p50:.1f} / {p99:.1f} ms (durable p50 {d50:.1f})"
    publish = 1000 * _median(before, after)
    return [
        _note(shape, "visible", f"write to visible p50 / p99, {_PER_SECOND}/s", said, p50_ms=p50, p99_ms=p99),
        _note(shape, "publish", "publish, median by the indexer's own count", f"{publish:.1f} ms", publish_ms=publish),
    ]


def _median(before: dict[str, float], after: dict[str, float]) -> float:
    """Return the median of a histogram's observations between two looks, seconds, interpolated in its bucket."""
    counts = []
    for name, count in after.items():
        if name.startswith(f"{_PUBLISH}_bucket"):
            counts.append((float(name.split('"')[1]), count - before.get(name, 0.0)))
    counts.sort()
    half = counts[-1][1] / 2
    low = below = 0.0
    for bound, count in counts:
        if count >= half:
            width = 0.0 if bound == float("inf") else bound - low
            return low + width * (half - below) / max(1.0, count - below)
        low, below = bound, count
    return low


def _note(shape: Shape, key: str, what: str, said: str, *, recall: float | None = None, **values: object) -> Row:
    return note(f"{shape.key}.{key}", f"{shape.name}: {what}", said, recall=recall, **values)
