"""Filtered queries over selectivities, on the shared server: recall against an exact search, and speed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from tests.bench import work
from tests.bench.data import true_neighbours
from tests.bench.figures import Row, figure, note
from tests.bench.harness import Bench, scenario

_NAMESPACE = "filtered"
_SHARES = (0.7, 0.3, 0.1, 0.03, 0.01, 0.001)
_QUERIES = 100
_SMALL = 0.01
_DRAWS = 10_000
# An anti-correlated filter passes the rows that are farthest from one query.
_OPPOSITE_SHARES = (0.5, 0.1, 0.01)


@scenario("filters", "filter_recall", "filter_70", "filter_worst", "filter_1")
async def filters(bench: Bench) -> Sequence[Row]:
    """Ask with filters that pass 70 % to 0.1 % of the rows, drawn at random or far from the question."""
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
    least, worst, at_70 = min(recalls), max(ratios.values()), ratios["draw", 0.7]
    await work.remove_namespace(server.port, _NAMESPACE)
    return [
        *rows,
        figure("filter_recall", least, f"{least:.3f}", recall=least),
        figure("filter_70", at_70, f"{at_70:.2f} x", recall=recalls[0]),
        figure("filter_worst", worst, f"{worst:.2f} x", recall=least),
        figure("filter_1", max(small), f"{max(small):.2f} ms", recall=least),
    ]


async def _load(bench: Bench, port: int, draws: np.ndarray, opposite: np.ndarray) -> None:
    """Write all rows once more to a namespace of their own, with the numbers that the filters compare."""
    vectors = bench.data.vectors

    def made(begin: int) -> bytes:
        rows = [
            {"id": f"row-{at}", "values": vectors[at], "metadata": {"draw": int(draws[at]), "far": int(opposite[at])}}
            for at in range(begin, min(begin + 100, len(vectors)))
        ]
        return work.orjson.dumps({"vectors": rows, "namespace": _NAMESPACE}, option=work.orjson.OPT_SERIALIZE_NUMPY)

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
