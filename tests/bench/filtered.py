"""Filtered queries over selectivities: recall against an exact search, and speed against unfiltered ones.

Where `tests.bench.filters` is there, its finer grid of cases is what is measured.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import time
from collections.abc import Sequence

import numpy as np
import orjson

from tests.bench import work
from tests.bench.data import true_neighbours
from tests.bench.figures import Row, figure, note
from tests.bench.harness import Bench, scenario
from tests.bench.server import running

_NAMESPACE = "filtered"
_SHARES = (0.7, 0.3, 0.1, 0.03, 0.01, 0.001)
_QUERIES = 100
_WIDE, _SMALL = 0.7, 0.01
_DRAWS = 10_000
# An anti-correlated filter passes the rows that are farthest from one query.
_OPPOSITE_SHARES = (0.5, 0.1, 0.01)


@scenario("filters", "filter_recall", "filter_70", "filter_worst", "filter_1")
async def filters(bench: Bench) -> Sequence[Row]:
    """Ask with filters that pass many to few rows, drawn at random or far from the question."""
    if importlib.util.find_spec("tests.bench.filters") is not None:
        return await _finely(bench)
    return await _coarsely(bench)


async def _finely(bench: Bench) -> Sequence[Row]:
    cases = importlib.import_module("tests.bench.filters")
    ranked = cases.with_ranks(bench.data)
    with running(**bench.settings) as server:
        await work.create_index(server.port, ranked.vectors.shape[1])
        await work.upsert_all(server.port, work.bodies(ranked))
        await work.settled(server.port, len(ranked.vectors))
        await bench.rest(server)
        rows: list[Row] = await cases.filtered_queries(server.port, ranked)
    found = [(float(row.name.rpartition(", ")[2].partition("%")[0]) / 100, row.values) for row in rows]
    for row, (_, values) in zip(rows, found, strict=True):
        row.key, row.recall = row.name, values["recall"]
    least = min(values["recall"] for _, values in found)
    wide = max(values["ratio"] for share, values in found if share >= _WIDE)
    worst = max(values["ratio"] for _, values in found)
    small = max(values["p50_ms"] for share, values in found if share <= _SMALL)
    return [*rows, *_judged(least, wide, worst, small)]


def _judged(least: float, wide: float, worst: float, small: float) -> list[Row]:
    return [
        figure("filter_recall", least, f"{least:.3f}", recall=least),
        figure("filter_70", wide, f"{wide:.2f} x", recall=least),
        figure("filter_worst", worst, f"{worst:.2f} x", recall=least),
        figure("filter_1", small, f"{small:.2f} ms", recall=least),
    ]


async def _coarsely(bench: Bench) -> Sequence[Row]:
    server = (await bench.loaded()).server
    draws = np.random.default_rng(5).permutation(len(bench.data.vectors)) * _DRAWS // len(bench.data.vectors)
    opposite = _ranks_from(bench.data.vectors, bench.data.queries[0])
    await _load(bench, server.port, draws, opposite)
    await bench.rest(server)
    asked = bench.data.queries[:_QUERIES]
    plain, _ = await _ask(bench, server.port, asked, None, np.ones(len(draws), np.bool_))
    rows, ratios, recalls, small = [], {}, [], []
    cases = [("draw", draws, share, asked) for share in _SHARES]
    cases += [("far", opposite, share, bench.data.queries[:1].repeat(20, axis=0)) for share in _OPPOSITE_SHARES]
    for field, values, share, questions in cases:
        below = int(share * _DRAWS)
        p50, recall = await _ask(bench, server.port, questions, {field: {"$lt": below}}, values < below)
        recalls.append(recall)
        ratios[field, share] = p50 / plain
        small += [p50] if share <= _SMALL else []
        kind = "far from the query" if field == "far" else "at random"
        name = f"filtered query, {share:.1%} of the rows, {kind}"
        said = f"p50 {p50:.2f} ms, {p50 / plain:.2f} x unfiltered ({plain:.2f} ms)"
        rows.append(note(f"filter_{field}_{share}", name, said, recall=recall, p50_ms=p50, unfiltered_p50_ms=plain))
    await work.remove_namespace(server.port, _NAMESPACE)
    judged = _judged(min(recalls), ratios["draw", _WIDE], max(ratios.values()), max(small))
    return [*rows, *judged]


async def _load(bench: Bench, port: int, draws: np.ndarray, opposite: np.ndarray) -> None:
    """Write all rows once more to a namespace of their own, with the numbers that the filters compare."""
    vectors = bench.data.vectors

    def made(begin: int) -> bytes:
        rows = [
            {"id": f"row-{at}", "values": vectors[at], "metadata": {"draw": int(draws[at]), "far": int(opposite[at])}}
            for at in range(begin, min(begin + 100, len(vectors)))
        ]
        return orjson.dumps({"vectors": rows, "namespace": _NAMESPACE}, option=orjson.OPT_SERIALIZE_NUMPY)

    before = (await work.stats(port))["totalVectorCount"]
    await work.upsert_all(port, (made(begin) for begin in range(0, len(vectors), 100)))
    await work.settled(port, before + len(vectors), tail_rows_max=2 * work.TAIL_ROWS_MAX)


async def _ask(
    bench: Bench, port: int, questions: np.ndarray, where: object, allowed: np.ndarray
) -> tuple[float, float]:
    """Return p50 in milliseconds over one connection, and recall@10 against an exact search of the `allowed` rows."""
    numbers = np.flatnonzero(allowed)
    nearest = numbers[true_neighbours(bench.data.vectors[numbers], questions, min(10, len(numbers)))]
    taken, found = [], 0
    async with work.connected(port) as connection:
        for question, rows in zip(questions, nearest, strict=True):
            body = work.question(question, namespace=_NAMESPACE, where=where)
            began = time.perf_counter()
            answer = work.checked(await connection.call("POST", "/query", body))
            taken.append(time.perf_counter() - began)
            found += len({f"row-{row}" for row in rows.tolist()} & {m["id"] for m in answer.json()["matches"]})
            await asyncio.sleep(0)
    return float(np.median(taken)) * 1000, found / nearest.size


def _ranks_from(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return for every row how near it is to `query`, 0 to 9,999; the farthest come first."""
    order = np.argsort(vectors @ query)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks * _DRAWS // len(order)
