"""Search without the native engine: numpy for scans, the hnswlib module for walks, a slice at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from indexer.segments.hnsw import StockGraph
from indexer.segments.native import HIT, SCAN, SLICE, WALK, Engine, SearchJob
from indexer.segments.scoring import gather_pays, ranks, top_rows
from indexer.segments.search import (
    Found,
    Part,
    Planned,
    Prepared,
    Search,
    SearchQuery,
    found_of,
    plan_parts,
    prepared_of,
)
from schemas.indexes import Metric

__all__ = ["StockSearch"]

# Widening of the first walk over what the share of allowed rows predicts.
_WIDENING = 1.5


class StockSearch:
    """Searches by numpy and the hnswlib module, a slice at a time."""

    def prepare(self, parts: Sequence[Part], query: SearchQuery) -> Prepared:
        planned = plan_parts(parts, query)
        return prepared_of(planned, np.zeros(len(planned), SLICE))

    def begin(self, prepared: Prepared, query: SearchQuery, metric: Metric) -> Search:
        return _StockSearch(prepared, query, metric)


class _StockSearch:
    """A search slice by slice."""

    job: SearchJob | None = None
    engine: Engine | None = None

    def __init__(self, prepared: Prepared, query: SearchQuery, metric: Metric) -> None:
        self.cost_ns = prepared.cost_ns
        self._prepared = prepared
        self._query = query
        self._metric = query.metric_of(metric)
        self._found: Found | None = None

    def run(self) -> None:
        prepared, query, metric = self._prepared, self._query, self._metric
        found, spent = [], prepared.numbers.copy()
        for number, item in enumerate(prepared.planned):
            begin = time.perf_counter_ns()
            near = _walk(item, query, metric)
            rows, rank, candidates = near or _scan(item, query, metric)
            hits = np.zeros(len(rows), HIT)
            hits["rank"], hits["slice"], hits["row"] = rank, number, rows
            found.append(hits)
            spent["evaluated"][number], spent["nanoseconds"][number] = candidates, time.perf_counter_ns() - begin
            spent["plan"][number] = SCAN if near is None else WALK
        every = np.concatenate(found) if found else np.empty(0, HIT)
        every = every[top_rows(every["rank"], query.top_k)]
        self._found = found_of(every[np.argsort(-every["rank"], kind="stable")], prepared, spent, metric)

    def found(self) -> Found:
        assert self._found is not None, "the search was carried out"
        return self._found


_Ranked = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], int]


def _walk(item: Planned, query: SearchQuery, metric: Metric) -> _Ranked | None:
    """Walk the graph with ever more candidates; None where a scan has to do."""
    reader = item.view.reader
    graph = reader.graph
    # The module cannot be told to leave rows out: what shares an index with the query would crowd its answers.
    if not item.plan.walk or item.is_sparse or query.vector is None or not isinstance(graph, StockGraph):
        return None
    enough = min(query.top_k, item.allowed)
    rows_wanted = int(enough * reader.rows / item.allowed * _WIDENING) + 8
    while rows_wanted <= max(item.plan.budget, 2 * enough):
        near = graph.search(query.vector, rows_wanted)
        if near is None:
            return None
        if item.mask is not None:
            near = near[item.mask[near]]
        if len(near) >= enough:
            rank = ranks(metric, reader.vectors[near], reader.norms[near], query.vector)
            best = top_rows(rank, query.top_k)
            return near[best], rank[best], rows_wanted
        rows_wanted *= 2
    return None


def _scan(item: Planned, query: SearchQuery, metric: Metric) -> _Ranked:
    """Rank all that is allowed, by both parts of the query."""
    part, reader = item.part, item.view.reader
    rows = np.arange(part.end - part.start) if item.mask is None else np.flatnonzero(item.mask)
    rank = np.zeros(len(rows))
    if item.is_dense:
        assert query.vector is not None
        matrix, norms = reader.vectors[part.start : part.end], reader.norms[part.start : part.end]
        if item.mask is None:
            rank = ranks(metric, matrix, norms, query.vector)
        elif gather_pays(item.allowed, len(matrix)):
            rank = ranks(metric, matrix[rows], norms[rows], query.vector)
        else:
            rank = ranks(metric, matrix, norms, query.vector)[rows]
    if item.is_sparse:
        assert query.sparse is not None
        assert reader.sparse_columns is not None
        products, sharing = reader.sparse_columns.scores(part.start, part.end, query.sparse)
        if not item.is_dense:
            shared = sharing[rows]
            rows, rank = rows[shared], rank[shared]
        rank = rank + products[rows]
    best = top_rows(rank, query.top_k)
    return rows[best], rank[best], len(rows)
