"""Filtered queries over all selectivities, their rows chosen with, without and against regard to the query."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import orjson

from tests.bench.client import Connection
from tests.bench.data import DataSet
from tests.bench.figures import Row
from tests.bench.work import INDEX, prefix_of

__all__ = ["SHARES", "filtered_queries", "with_ranks"]

SHARES = (0.9, 0.7, 0.5, 0.3, 0.1, 0.05, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
# Places that queries are asked around; each row has its rank from each of them in its metadata.
_ANCHORS = 4
_QUERIES_EACH = 10
_TOP_K = 10
# How far queries lie from their anchor, against the length of a vector.
_SPREAD = 0.5


@dataclass(frozen=True)
class _Kind:
    """How a filter chooses rows: by the field `u` (shuffled), or by the rank from the anchor of the query."""

    name: str
    lowest: bool
    by_anchor: bool

    def where(self, anchor: int, count: int, rows: int) -> dict:
        name = f"near{anchor}" if self.by_anchor else "u"
        return {name: {"$lt": count} if self.lowest else {"$gte": rows - count}}

    def allowed(self, ranks: np.ndarray, count: int) -> np.ndarray:
        return ranks < count if self.lowest else ranks >= len(ranks) - count


_KINDS = (
    _Kind("uncorrelated", lowest=True, by_anchor=False),
    _Kind("correlated", lowest=True, by_anchor=True),
    _Kind("anti-correlated", lowest=False, by_anchor=True),
)


def with_ranks(data: DataSet) -> DataSet:
    """Return the data with what the filters ask for in its metadata, and with queries around the anchors.

    The queries of anchor a are those from `a * len(queries) / 4` on.
    """
    rng = np.random.default_rng(11)
    anchors = data.queries[:_ANCHORS]
    ranks = {f"near{at}": _ranks(-(data.vectors @ anchor)) for at, anchor in enumerate(anchors)}
    ranks["u"] = rng.permutation(len(data.vectors))
    columns = [values.tolist() for values in ranks.values()]
    metadata = [
        document | dict(zip(ranks, values, strict=True))
        for document, *values in zip(data.metadata, *columns, strict=True)
    ]
    asked = [
        anchor + _SPREAD * data.queries[_ANCHORS + at * _QUERIES_EACH :][:_QUERIES_EACH]
        for at, anchor in enumerate(anchors)
    ]
    queries = np.concatenate(asked).astype(np.float32)
    return replace(data, metadata=metadata, queries=queries / np.linalg.norm(queries, axis=1, keepdims=True))


async def filtered_queries(port: int, data: DataSet) -> list[Row]:
    """Measure a server that holds `with_ranks(...)` as index `bench`, all of it in graphs: recall, p50 and plans.

    Latencies are those of one connection; the unfiltered ones that they are compared to come from the same rounds.
    """
    connection = Connection(port, prefix_of(INDEX))
    scores = data.queries @ data.vectors.T
    rows = len(data.vectors)
    table: list[Row] = []
    for kind in _KINDS:
        for share in SHARES:
            count = max(1, round(share * rows))
            found = recalled = 0
            plans: Counter[str] = Counter()
            filtered: list[float] = []
            plain: list[float] = []
            for at, query, ranks in _asked(data, kind):
                allowed = np.flatnonzero(kind.allowed(ranks, count))
                best = allowed[np.argsort(-scores[at][allowed], kind="stable")[:_TOP_K]]
                body = {"vector": query, "topK": _TOP_K, "filter": kind.where(_anchor(data, at), count, rows)}
                answer = (await _timed(connection, body | {"explain": True}))[1]
                recalled += len({f"row-{row}" for row in best.tolist()} & {match["id"] for match in answer["matches"]})
                found += len(best)
                plans.update(part["plan"] + (" after a walk" if part["fellBack"] else "") for part in answer["explain"])
                for _ in range(3):
                    plain.append((await _timed(connection, {"vector": query, "topK": _TOP_K}))[0])
                    filtered.append((await _timed(connection, body))[0])
            table.append(_row(kind, share, recalled / found, (filtered, plain), plans))
    await connection.close()
    return table


def _asked(data: DataSet, kind: _Kind) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield the number of each query, the query, and the rank of every row in the field that it is filtered by."""
    names = [f"near{_anchor(data, at)}" if kind.by_anchor else "u" for at in range(len(data.queries))]
    ranks = {name: np.array([document[name] for document in data.metadata]) for name in set(names)}
    for at, (query, name) in enumerate(zip(data.queries, names, strict=True)):
        yield at, query, ranks[name]


def _anchor(data: DataSet, query: int) -> int:
    return query * _ANCHORS // len(data.queries)


async def _timed(connection: Connection, body: dict) -> tuple[float, dict]:
    encoded = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    began = time.perf_counter()
    answer = await connection.call("POST", "/query", encoded)
    spent = time.perf_counter() - began
    assert answer.status == 200, answer.body
    return spent, answer.json()


def _row(
    kind: _Kind, share: float, recall: float, latencies: tuple[list[float], list[float]], plans: Counter[str]
) -> Row:
    p50, plain_p50 = (float(np.median(values)) * 1000 for values in latencies)
    ratio = p50 / plain_p50
    ratio_max = 1.5 if share >= 0.7 else 5
    met = recall >= 0.95 and ratio <= ratio_max
    target = f"0.95, <= {ratio_max} x"
    if share <= 0.01:
        met = met and recall == 1 and p50 <= 1
        target = "exact, <= 1 ms"
    told = ", ".join(f"{plan} {count}" for plan, count in plans.most_common())
    return Row(
        f"filter {kind.name}, {share:.2%} of the rows",
        f"recall {recall:.3f}, p50 {p50:.2f} ms = {ratio:.2f} x ({told})",
        target,
        met,
        {"recall": recall, "p50_ms": p50, "plain_p50_ms": plain_p50, "ratio": ratio, "plans": dict(plans)},
    )


def _ranks(keys: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(keys), np.int64)
    ranks[np.argsort(keys, kind="stable")] = np.arange(len(keys))
    return ranks
