"""Do the same work on every peer that is here: `python -m tests.bench.peers [--rows N] [--only NAMES]`.

Load in batches of 500, queries over 1 and 16 threads with the least knob that reaches recall@10 of 0.95, single writes
until a read shows them, filters at 70, 1 and 0.1 %. Clients share the machine with what they ask.
"""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tests.bench import data
from tests.bench.figures import Row, failure, keep, note, percentiles, print_rows
from tests.bench.peers.chroma import Chroma
from tests.bench.peers.freshet import Freshet
from tests.bench.peers.milvus import MilvusLite
from tests.bench.peers.pgvector import Pgvector
from tests.bench.peers.protocol import Absent, Peer, PeerFactory
from tests.bench.peers.qdrant import Qdrant

RESULTS = Path(__file__).parents[1] / "results" / "peers.jsonl"
PEERS: Mapping[str, PeerFactory] = {
    "freshet": Freshet,
    "qdrant": Qdrant,
    "chroma": Chroma,
    "pgvector": Pgvector,
    "milvus": MilvusLite,
}
_BATCH, _LOADERS = 500, 4
_RECALL_TARGET = 0.95
_DRAWS = 10_000
_SHARES = (0.7, 0.01, 0.001)
_QUERIES = 200


def measure(peer: Peer, rows: data.DataSet, seconds: float) -> list[Row]:
    """Load, tune, ask, write, filter."""
    draws = np.random.default_rng(5).permutation(len(rows.vectors)) * _DRAWS // len(rows.vectors)
    began = time.perf_counter()
    with ThreadPoolExecutor(_LOADERS) as pool:
        starts = range(0, len(rows.vectors), _BATCH)
        list(pool.map(lambda at: peer.load(at, rows.vectors[at : at + _BATCH], draws[at : at + _BATCH]), starts))
    peer.finish_load()
    taken = time.perf_counter() - began
    rate = len(rows.vectors) / taken
    table = [_note(peer, "load", "load until indexed", f"{rate:,.0f} rows/s", rows_per_second=rate)]
    truth = data.true_neighbours(rows.vectors, rows.queries[:_QUERIES], 10)
    recall = 0.0
    for knob in peer.knobs:
        peer.tune(knob)
        recall = _recall(peer, rows.queries[:_QUERIES], truth)
        if recall >= _RECALL_TARGET:
            break
    for threads in (1, 16):
        latencies = _ask(peer, rows.queries, threads, seconds)
        (p50, p99), per_second = percentiles(latencies), len(latencies) / seconds
        said = f"{per_second:,.0f}/s, p50 {p50:.1f}, p99 {p99:.1f} ms, knob {knob}"
        values = {"per_second": per_second, "p50_ms": p50, "p99_ms": p99}
        table.append(
            _note(peer, f"query_{threads}", f"queries, {threads} connection(s)", said, recall=recall, **values)
        )
    p50, p99 = percentiles(_write(peer, rows.vectors, seconds))
    table.append(_note(peer, "visible", "write to visible", f"p50 {p50:.1f}, p99 {p99:.1f} ms", p50_ms=p50, p99_ms=p99))
    return table + [_filtered(peer, rows, draws, share) for share in _SHARES]


def _recall(peer: Peer, queries: np.ndarray, truth: np.ndarray, below: int | None = None) -> float:
    pairs = zip(queries, truth, strict=True)
    return sum(len(set(peer.search(query, below)) & set(near.tolist())) for query, near in pairs) / truth.size


def _ask(peer: Peer, queries: np.ndarray, threads: int, seconds: float) -> list[float]:
    end = time.perf_counter() + seconds

    def one(first: int) -> list[float]:
        latencies, at = [], first
        while (began := time.perf_counter()) < end:
            peer.search(queries[at % len(queries)], None)
            latencies.append(time.perf_counter() - began)
            at += threads
        return latencies

    with ThreadPoolExecutor(threads) as pool:
        return [latency for part in pool.map(one, range(threads)) for latency in part]


def _write(peer: Peer, vectors: np.ndarray, seconds: float) -> list[float]:
    taken = []
    end = time.perf_counter() + seconds
    row = 10_000_000
    while (began := time.perf_counter()) < end:
        row += 1
        peer.write(row, vectors[row % len(vectors)])
        while not peer.has(row):
            time.sleep(0.001)
        taken.append(time.perf_counter() - began)
    return taken


def _filtered(peer: Peer, rows: data.DataSet, draws: np.ndarray, share: float) -> Row:
    below = int(share * _DRAWS)
    numbers = np.flatnonzero(draws < below)
    queries = rows.queries[:100]
    truth = numbers[data.true_neighbours(rows.vectors[numbers], queries, min(10, len(numbers)))]
    recall = _recall(peer, queries, truth, below)
    taken = []
    for query in queries:
        began = time.perf_counter()
        peer.search(query, below)
        taken.append(time.perf_counter() - began)
    p50, _ = percentiles(taken)
    return _note(peer, f"filter_{share}", f"filter {share:.1%}", f"p50 {p50:.2f} ms", recall=recall, p50_ms=p50)


def _note(peer: Peer, key: str, what: str, said: str, *, recall: float | None = None, **values: object) -> Row:
    return note(f"{peer.name}.{key}", f"{peer.name}: {what}", said, recall=recall, **values)


def main() -> None:
    """Measure every peer that is here; one line says of each other why it is not."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", default=",".join(PEERS), help=f"some of {','.join(PEERS)}")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file that lines are appended to")
    asked = parser.parse_args()
    # So that what was started ends with a run that is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rows = data.load(asked.rows)
    print(f"data: {rows.name}, {asked.rows:,} rows", flush=True)
    for name in asked.only.split(","):
        try:
            peer = PEERS[name](rows.vectors.shape[1])
        except Absent as absent:
            print(f"{name}: not here, {absent}", flush=True)
            continue
        try:
            print(f"{peer.name}: {peer.remark}", flush=True)
            table = measure(peer, rows, asked.seconds)
        except Exception as error:  # noqa: BLE001 # printed as the peer's line; the others go on
            table = [failure(peer.name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")]
        finally:
            peer.close()
        print_rows(table)
        keep(asked.results, table, rows=asked.rows, data=rows.name)


if __name__ == "__main__":
    main()
