"""Sparse and hybrid queries over 100,000 rows: exactness beside speed, against a plain numpy scan and dense queries."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from tests.bench import work
from tests.bench.client import Connection
from tests.bench.figures import Row, figure, note
from tests.bench.harness import Bench, scenario
from tests.bench.server import running

_TERMS, _ROW_VALUES, _QUERY_VALUES = 30_000, 100, 50
_QUERIES, _TOP_K = 60, 10
# Indices of this rank by frequency and beyond are rare.
_RARE_FROM = 2_000
# Of two products: a float32 dot of another shape, and what an answer prints.
_TIE = 1e-5


@dataclass(frozen=True)
class Words:
    """Sparse vectors of rows and of queries: (indices, values) each; frequencies of indices follow Zipf's law."""

    rows: list[tuple[np.ndarray, np.ndarray]]
    frequent: list[tuple[np.ndarray, np.ndarray]]
    rare: list[tuple[np.ndarray, np.ndarray]]


class ColumnScan:
    """The baseline: compressed columns in numpy, one addition an index, in this process."""

    def __init__(self, rows: list[tuple[np.ndarray, np.ndarray]]) -> None:
        indices = np.concatenate([one[0] for one in rows])
        order = np.argsort(indices, kind="stable")
        self._starts = np.searchsorted(indices[order], np.arange(_TERMS + 1))
        self._rows = np.repeat(np.arange(len(rows)), [len(one[0]) for one in rows])[order]
        self._values = np.concatenate([one[1] for one in rows])[order].astype(np.float64)
        self._count = len(rows)

    def scores(self, query: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        scores = np.zeros(self._count)
        for index, value in zip(query[0].tolist(), query[1].tolist(), strict=True):
            begin, end = self._starts[index], self._starts[index + 1]
            scores[self._rows[begin:end]] += self._values[begin:end] * value
        return scores

    def best(self, query: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        scores = self.scores(query)
        best = np.argpartition(-scores, _TOP_K)[:_TOP_K]
        return best[np.argsort(-scores[best])]


def words_of(rows: int, seed: int = 3) -> Words:
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, _TERMS + 1)
    bounds = np.cumsum(shares) / shares.sum()
    names = rng.permutation(_TERMS)

    def drawn(count: int, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
        low = bounds[first - 1] if first else 0.0
        found = np.empty(0, np.int64)
        while len(found) < count:
            more = np.searchsorted(bounds, low + (1 - low) * rng.random(2 * count))
            found = np.unique(np.concatenate([found, more]))
        chosen = np.sort(names[rng.permutation(found)[:count]])
        return chosen.astype(np.uint32), (0.1 + rng.random(count)).astype(np.float32)

    return Words(
        [drawn(_ROW_VALUES) for _ in range(rows)],
        [drawn(_QUERY_VALUES) for _ in range(_QUERIES)],
        [drawn(_QUERY_VALUES, _RARE_FROM) for _ in range(_QUERIES)],
    )


@scenario("sparse", "sparse_p50", "sparse_scan", "sparse_exact")
async def sparse(bench: Bench) -> Sequence[Row]:
    """Load an index of sparse vectors and ask with 50 values, of frequent and of rare indices."""
    words = words_of(bench.options.rows)
    scan = ColumnScan(words.rows)
    with running(**bench.settings) as server:
        await _create(server.port, {"vector_type": "sparse"})
        await work.upsert_all(server.port, list(_bodies(words, None)))
        await work.settled(server.port, len(words.rows), tail_rows_max=len(words.rows))
        await bench.rest(server)
        async with work.connected(server.port) as connection:
            taken: dict[str, tuple[float, float, float]] = {}
            for kind, queries in (("frequent", words.frequent), ("rare", words.rare)):
                truths = [scan.scores(query) for query in queries]
                ours, exact = await _ask(connection, [_question(None, query) for query in queries], truths)
                taken[kind] = ours, _timed([lambda query=query: scan.best(query) for query in queries]), exact
    rows = [
        note(
            f"sparse_{kind}",
            f"sparse queries of {_QUERY_VALUES} {kind} indices over REST",
            f"p50 {ours:.2f} ms; numpy over columns, in process: {theirs:.2f} ms",
            recall=exact,
            p50_ms=ours,
            numpy_p50_ms=theirs,
        )
        for kind, (ours, theirs, exact) in taken.items()
    ]
    ours, theirs, exact = taken["frequent"]
    least = min(exact, taken["rare"][2])
    return [
        *rows,
        figure("sparse_p50", ours, f"{ours:.2f} ms", recall=exact),
        figure("sparse_scan", ours / theirs, f"{ours / theirs:.2f} x", recall=exact),
        figure("sparse_exact", least, f"{least:.4f}", recall=least),
    ]


@scenario("hybrid", "hybrid_dense", "hybrid_recall")
async def hybrid(bench: Bench) -> Sequence[Row]:
    """Load dense rows with sparse values and ask by both parts: either dominates, signs mixed, frequent or rare."""
    data, words = bench.data, words_of(bench.options.rows)
    scan = ColumnScan(words.rows)
    rng = np.random.default_rng(4)
    found: dict[str, tuple[float, float, float]] = {}
    with running(**bench.settings) as server:
        await _create(server.port, {"dimension": data.vectors.shape[1], "metric": "dotproduct"})
        await work.upsert_all(server.port, list(_bodies(words, data.vectors)))
        await work.settled(server.port, len(words.rows))
        await bench.rest(server)
        async with work.connected(server.port) as connection:
            for kind, queries in (("frequent", words.frequent), ("rare", words.rare)):
                for name, weight in (
                    ("even", 0.1),
                    ("dense leads", 0.002),
                    ("sparse leads", 5.0),
                    ("mixed signs", 0.0),
                ):
                    signs = np.sign(rng.random(_QUERY_VALUES) - 0.5) if not weight else 1
                    asked = [(at, values * np.float32(weight or 0.1) * signs) for at, values in queries]
                    pairs = list(zip(data.queries, asked, strict=False))
                    truths = [data.vectors @ vector + scan.scores(query) for vector, query in pairs]
                    dense = await _timed_calls(connection, [_question(vector, None) for vector, _ in pairs])
                    ours, recall = await _ask(connection, [_question(*pair) for pair in pairs], truths)
                    found[f"{kind}, {name}"] = ours, dense, recall
    rows = [
        note(
            f"hybrid_{kind}",
            f"hybrid queries, {kind}",
            f"p50 {ours:.2f} ms; dense alone {dense:.2f} ms",
            recall=recall,
            p50_ms=ours,
            dense_p50_ms=dense,
        )
        for kind, (ours, dense, recall) in found.items()
    ]
    worst = max(ours / dense for ours, dense, _ in found.values())
    least = min(recall for _, _, recall in found.values())
    return [
        *rows,
        figure("hybrid_dense", worst, f"{worst:.2f} x", recall=least),
        figure("hybrid_recall", least, f"{least:.3f}", recall=least),
    ]


async def _create(port: int, kind: dict[str, object]) -> None:
    body = {"name": work.INDEX, "spec": {"serverless": {"cloud": "aws", "region": "us-east-1"}}, **kind}
    async with work.connected(port, None) as control:
        work.checked(await control.call("POST", "/indexes", body), 201)


def _bodies(words: Words, vectors: np.ndarray | None, batch: int = 100) -> Iterator[bytes]:
    for begin in range(0, len(words.rows), batch):
        rows = [
            {"id": f"row-{at}", "sparseValues": _parts(words.rows[at])}
            | ({} if vectors is None else {"values": vectors[at]})
            for at in range(begin, min(begin + batch, len(words.rows)))
        ]
        yield orjson.dumps({"vectors": rows}, option=orjson.OPT_SERIALIZE_NUMPY)


def _parts(pair: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    return {"indices": pair[0], "values": np.ascontiguousarray(pair[1], np.float32)}


def _question(vector: np.ndarray | None, query: tuple[np.ndarray, np.ndarray] | None) -> bytes:
    body: dict[str, object] = {"topK": _TOP_K}
    if vector is not None:
        body["vector"] = vector
    if query is not None:
        body["sparseVector"] = _parts(query)
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


async def _ask(connection: Connection, asked: list[bytes], truths: list[np.ndarray]) -> tuple[float, float]:
    """Return p50 in milliseconds over one connection, and which share of the matches belongs to the true best."""
    p50 = await _timed_calls(connection, asked)
    right = 0
    for body, scores in zip(asked, truths, strict=True):
        matches = work.checked(await connection.call("POST", "/query", body)).json()["matches"]
        least = np.partition(scores, -_TOP_K)[-_TOP_K]
        right += sum(scores[int(m["id"][4:])] >= least - _TIE * max(1, abs(least)) for m in matches)
    return p50, right / (_TOP_K * len(asked))


async def _timed_calls(connection: Connection, asked: list[bytes]) -> float:
    taken = []
    for body in asked:
        began = time.perf_counter()
        work.checked(await connection.call("POST", "/query", body))
        taken.append(time.perf_counter() - began)
    return float(np.median(taken)) * 1000


def _timed(calls: list) -> float:
    taken = []
    for call in calls:
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken)) * 1000
