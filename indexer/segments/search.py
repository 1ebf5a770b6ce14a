"""Search the slices of a namespace for the best rows of all of them, by one of two engines.

The native engine answers a whole query in one call without the interpreter lock. The stock engine goes slice by slice,
with numpy for scans and the hnswlib module for walks. Both keep the same contract: what a scan finds is exact, and
min(top_k, matching) rows come back.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from indexer.segments.hnsw import StockGraph
from indexer.segments.native import HIT, SCAN, SLICE, WALK, Engine, NativeGraph, slices_of
from indexer.segments.planner import SlicePlan, plan_slice
from indexer.segments.reader import Slice
from indexer.segments.scoring import gather_pays, ranks, top_rows
from indexer.segments.view import SegmentView
from schemas.filters import Filter
from schemas.indexes import Metric

__all__ = ["Found", "NativeSearch", "Prepared", "SearchQuery", "Searcher", "SliceReport", "StockSearch"]

# Widening of the stock engine's first walk over what the share of allowed rows predicts.
_WIDENING = 1.5

Part = tuple[SegmentView, Slice]


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What to look for: `vector` float32 [d], at most `top_k` rows, only those that match `where`."""

    vector: npt.NDArray[np.float32]
    top_k: int
    where: Filter | None = None


@dataclass(frozen=True, slots=True)
class SliceReport:
    """How one slice was searched: `plan` is `scan`, `filter` (a scan of what a filter or kills leave), or `graph`.

    `fell_back` says that a walk through a graph was begun and given up for the scan; `candidates` are the rows that
    were looked at, by both.
    """

    segment_id: int
    plan: str
    rows: int
    allowed: int
    candidates: int
    milliseconds: float
    fell_back: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """The best rows, `HIT` [n] with `slice` pointing into `views`: best first, all that tie with the last included."""

    hits: npt.NDArray[np.void]
    views: Sequence[SegmentView]
    reports: Sequence[SliceReport]


class Searcher(Protocol):
    """What a snapshot searches with. Safe to use from several threads."""

    def prepare(self, parts: Sequence[Part], query: SearchQuery) -> Prepared:
        """Plan a search of `parts`, the slices of one namespace."""

    def search(self, prepared: Prepared, query: SearchQuery, metric: Metric) -> Found:
        """Search as planned for a query of the same `top_k` and `where`."""


@dataclass(frozen=True, slots=True)
class _Planned:
    """A slice with something to find. `mask` is bool [rows], None where every row is allowed."""

    view: SegmentView
    part: Slice
    mask: npt.NDArray[np.bool_] | None
    allowed: int
    plan: SlicePlan

    def report(self, candidates: int, nanoseconds: int, *, walked: bool) -> SliceReport:
        plan = "graph" if walked else "scan" if self.mask is None else "filter"
        return SliceReport(
            self.view.segment_id,
            plan,
            rows=self.part.end - self.part.start,
            allowed=self.allowed,
            candidates=candidates,
            milliseconds=nanoseconds / 1e6,
            fell_back=self.plan.walk and not walked,
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """What can be known of a search before its vector is: good for every query of one `top_k` without a filter.

    `numbers` are the slices as the native engine wants them; `cost_ns` is what the search promises to take.
    """

    planned: Sequence[_Planned]
    numbers: npt.NDArray[np.void]
    cost_ns: float


def _planned(parts: Sequence[Part], query: SearchQuery) -> list[_Planned]:
    planned = []
    # Every cosine to a zero vector is 0: no way leads anywhere.
    can_walk = bool(query.vector.any())
    for view, part in parts:
        allowed = rows = part.end - part.start
        mask = None
        if query.where is not None or view.live_in(part) < rows:
            mask = view.matching(part, query.where)
            allowed = int(np.count_nonzero(mask))
        if not allowed:
            continue
        graph = view.reader.graph
        plan = plan_slice(
            rows=rows,
            allowed=allowed,
            dimension=len(query.vector),
            top_k=query.top_k,
            ef=graph.ef if graph is not None and can_walk else None,
            has_codes=isinstance(graph, NativeGraph),
        )
        planned.append(_Planned(view, part, mask, allowed, plan))
    return planned


class NativeSearch:
    """Searches by the native engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def prepare(self, parts: Sequence[Part], query: SearchQuery) -> Prepared:
        planned = _planned(parts, query)
        return Prepared(planned, slices_of([_numbers(item) for item in planned]), _cost_ns(planned))

    def search(self, prepared: Prepared, query: SearchQuery, metric: Metric) -> Found:
        planned = prepared.planned
        vector = np.ascontiguousarray(query.vector, np.float32)
        # The engine writes into it what the search took.
        slices = prepared.numbers.copy()
        hits, is_tied = self._engine.search(slices, vector, metric, query.top_k)
        spent = zip(*(slices[name].tolist() for name in ("evaluated", "nanoseconds", "plan")), strict=True)
        # The engine notes where a walk found too little, and a scan took over.
        reports = [
            item.report(evaluated, nanoseconds, walked=plan == WALK)
            for item, (evaluated, nanoseconds, plan) in zip(planned, spent, strict=True)
        ]
        if is_tied:
            hits = self._with_ties(planned, slices, hits, vector, metric)
        return _found(hits, planned, reports)

    def _with_ties(
        self,
        planned: Sequence[_Planned],
        slices: npt.NDArray[np.void],
        hits: npt.NDArray[np.void],
        vector: npt.NDArray[np.float32],
        metric: Metric,
    ) -> npt.NDArray[np.void]:
        """Return `hits` with every row of the scanned slices that has the rank of the last one, however many."""
        least = hits["rank"][-1]
        parts = [hits]
        for number, item in enumerate(planned):
            if slices["plan"][number] != SCAN:
                continue
            rank = self._engine.ranks(slices[number : number + 1], vector, metric)
            rows = np.flatnonzero(rank == least if item.mask is None else (rank == least) & item.mask)
            more = np.zeros(len(rows), HIT)
            more["rank"], more["slice"], more["row"] = least, number, rows
            parts.append(more)
        every = np.unique(np.concatenate(parts))
        best: npt.NDArray[np.void] = every[np.argsort(-every["rank"], kind="stable")]
        return best


def _cost_ns(planned: Sequence[_Planned]) -> float:
    return sum(item.plan.cost_ns for item in planned)


def _found(hits: npt.NDArray[np.void], planned: Sequence[_Planned], reports: Sequence[SliceReport]) -> Found:
    """Return `hits`, whose rows count from the beginning of their slices, by the rows of their segments."""
    if any(item.part.start for item in planned):
        hits["row"] += np.array([item.part.start for item in planned], np.uint32)[hits["slice"]]
    return Found(hits, [item.view for item in planned], reports)


def _numbers(item: _Planned) -> tuple[int, ...]:
    """Return a slice as the engine wants it (`slices_of`)."""
    reader, part, graph = item.view.reader, item.part, item.view.reader.graph
    native = graph if isinstance(graph, NativeGraph) else None
    return (
        reader.vectors_address + part.start * reader.dimension * 4,
        reader.norms_address + part.start * 4,
        0 if item.mask is None else item.mask.ctypes.data,
        0 if native is None else native.address,
        0 if native is None else native.codes_address,
        part.end - part.start,
        item.allowed,
        WALK if item.plan.walk and native is not None else SCAN,
        item.plan.ef,
        item.plan.budget,
    )


class StockSearch:
    """Searches by numpy and the hnswlib module, a slice at a time."""

    def prepare(self, parts: Sequence[Part], query: SearchQuery) -> Prepared:
        planned = _planned(parts, query)
        return Prepared(planned, np.empty(0, SLICE), _cost_ns(planned))

    def search(self, prepared: Prepared, query: SearchQuery, metric: Metric) -> Found:
        planned = prepared.planned
        found, reports = [], []
        for number, item in enumerate(planned):
            begin = time.perf_counter_ns()
            near = _walk(item, query, metric)
            rows, rank, candidates = near or _scan(item, query, metric)
            hits = np.zeros(len(rows), HIT)
            hits["rank"], hits["slice"], hits["row"] = rank, number, rows
            found.append(hits)
            spent = time.perf_counter_ns() - begin
            reports.append(item.report(candidates, spent, walked=near is not None))
        every = np.concatenate(found) if found else np.empty(0, HIT)
        every = every[top_rows(every["rank"], query.top_k)]
        return _found(every[np.argsort(-every["rank"], kind="stable")], planned, reports)


_Ranked = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], int]


def _walk(item: _Planned, query: SearchQuery, metric: Metric) -> _Ranked | None:
    """Walk the graph with ever more candidates; None where a scan has to do."""
    reader = item.view.reader
    graph = reader.graph
    if not item.plan.walk or not isinstance(graph, StockGraph):
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


def _scan(item: _Planned, query: SearchQuery, metric: Metric) -> _Ranked:
    part, reader = item.part, item.view.reader
    matrix, norms = reader.vectors[part.start : part.end], reader.norms[part.start : part.end]
    if item.mask is None:
        rows = np.arange(len(matrix))
        rank = ranks(metric, matrix, norms, query.vector)
    elif gather_pays(item.allowed, len(matrix)):
        rows = np.flatnonzero(item.mask)
        rank = ranks(metric, matrix[rows], norms[rows], query.vector)
    else:
        rows = np.flatnonzero(item.mask)
        rank = ranks(metric, matrix, norms, query.vector)[rows]
    best = top_rows(rank, query.top_k)
    return rows[best], rank[best], item.allowed
