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
from indexer.segments.native import HIT, SCAN, SLICE, WALK, Engine, NativeGraph, SearchJob, slices_of
from indexer.segments.planner import SlicePlan, plan_slice
from indexer.segments.reader import Slice
from indexer.segments.scoring import gather_pays, ranks, top_rows
from indexer.segments.view import PlannedSlice, SegmentView
from schemas.filters import Filter
from schemas.indexes import Metric

__all__ = ["Found", "NativeSearch", "Prepared", "Search", "SearchQuery", "Searcher", "SliceReport", "StockSearch"]

# Widening of the stock engine's first walk over what the share of allowed rows predicts.
_WIDENING = 1.5

# Plans that a view remembers.
_PLANS_MAX = 64

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
    """The best rows, `HIT` [n] with `slice` pointing into `planned`: best first, all that tie with the last included.

    `spent` (`SLICE` [planned]) says what each slice took.
    """

    hits: npt.NDArray[np.void]
    planned: Sequence[_Planned]
    spent: npt.NDArray[np.void]

    @property
    def reports(self) -> Sequence[SliceReport]:
        """How each slice was searched."""
        # The engine notes where a walk found too little, and a scan took over.
        spent = zip(*(self.spent[name].tolist() for name in ("evaluated", "nanoseconds", "plan")), strict=True)
        return [
            item.report(evaluated, nanoseconds, walked=plan == WALK)
            for item, (evaluated, nanoseconds, plan) in zip(self.planned, spent, strict=True)
        ]


class Searcher(Protocol):
    """What a snapshot searches with. Safe to use from several threads."""

    def prepare(self, parts: Sequence[Part], query: SearchQuery) -> Prepared:
        """Plan a search of `parts`, the slices of one namespace."""

    def begin(self, prepared: Prepared, query: SearchQuery, metric: Metric) -> Search:
        """Return a search as planned, for a query of the same `top_k` and `where`; nothing is looked at yet."""


class Search(Protocol):
    """One search. `job` is what threads of `engine` can carry out in the place of `run`, None where they cannot.

    `cost_ns` is what it promises to take.
    """

    job: SearchJob | None
    engine: Engine | None
    cost_ns: float

    def run(self) -> None:
        """Look for the rows."""

    def found(self) -> Found:
        """Return what was found, after the search was carried out. Raises `MemoryError`."""


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

    `numbers` are the slices as the native engine wants them (`SLICE` [planned]), `starts` their first rows (uint32
    [planned], None where all are 0); `cost_ns` is what the search promises to take.
    """

    planned: Sequence[_Planned]
    numbers: npt.NDArray[np.void]
    starts: npt.NDArray[np.uint32] | None
    cost_ns: float


def _planned(parts: Sequence[Part], query: SearchQuery) -> list[_Planned]:
    # Every cosine to a zero vector is 0: no way leads anywhere.
    can_walk = bool(query.vector.any())
    is_plain = can_walk and query.where is None
    planned = []
    for view, part in parts:
        # A view that a newer snapshot shares is searched as before: after a publish little is planned anew.
        key = (part.number, query.top_k)
        known = view.plans.get(key) if is_plain else None
        if known is None:
            known = _plan(view, part, query, can_walk=can_walk)
            if is_plain:
                if len(view.plans) >= _PLANS_MAX:
                    view.plans.clear()
                view.plans[key] = known
        mask, allowed, plan = known
        if allowed:
            planned.append(_Planned(view, part, mask, allowed, plan))
    return planned


def _plan(view: SegmentView, part: Slice, query: SearchQuery, *, can_walk: bool) -> PlannedSlice:
    allowed = rows = part.end - part.start
    mask = None
    if query.where is not None or view.live_in(part) < rows:
        mask = view.matching(part, query.where)
        allowed = int(np.count_nonzero(mask))
    graph = view.reader.graph
    plan = plan_slice(
        rows=rows,
        allowed=allowed,
        dimension=len(query.vector),
        top_k=query.top_k,
        ef=graph.ef if graph is not None and can_walk else None,
        has_codes=isinstance(graph, NativeGraph),
    )
    return mask, allowed, plan


class NativeSearch:
    """Searches by the native engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def prepare(self, parts: Sequence[Part], query: SearchQuery) -> Prepared:
        planned = _planned(parts, query)
        return _prepared(planned, slices_of([_numbers(item) for item in planned]))

    def begin(self, prepared: Prepared, query: SearchQuery, metric: Metric) -> Search:
        return _NativeSearch(self._engine, prepared, query, metric)


class _NativeSearch:
    """A search in one call of the engine."""

    def __init__(self, engine: Engine, prepared: Prepared, query: SearchQuery, metric: Metric) -> None:
        self.engine: Engine | None = engine
        self.cost_ns = prepared.cost_ns
        self._engine = engine
        self._prepared = prepared
        self._vector = np.ascontiguousarray(query.vector, np.float32)
        self._metric = metric
        # The engine writes into it what the search took.
        self._slices = prepared.numbers.copy()
        self.job: SearchJob | None = SearchJob(self._slices, self._vector, metric, query.top_k, owner=prepared)

    def run(self) -> None:
        assert self.job is not None
        self._engine.run(self.job)

    def found(self) -> Found:
        assert self.job is not None
        hits, is_tied = self.job.hits()
        if is_tied:
            hits = self._with_ties(hits)
        return _found(hits, self._prepared, self._slices)

    def _with_ties(self, hits: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        """Return `hits` with every row of the scanned slices that has the rank of the last one, however many."""
        least = hits["rank"][-1]
        parts = [hits]
        slices = self._slices
        for number, item in enumerate(self._prepared.planned):
            if slices["plan"][number] != SCAN:
                continue
            rank = self._engine.ranks(slices[number : number + 1], self._vector, self._metric)
            rows = np.flatnonzero(rank == least if item.mask is None else (rank == least) & item.mask)
            more = np.zeros(len(rows), HIT)
            more["rank"], more["slice"], more["row"] = least, number, rows
            parts.append(more)
        every = np.unique(np.concatenate(parts))
        best: npt.NDArray[np.void] = every[np.argsort(-every["rank"], kind="stable")]
        return best


def _found(hits: npt.NDArray[np.void], prepared: Prepared, spent: npt.NDArray[np.void]) -> Found:
    """Return `hits`, whose rows count from the beginning of their slices, by the rows of their segments."""
    if prepared.starts is not None:
        hits["row"] += prepared.starts[hits["slice"]]
    return Found(hits, prepared.planned, spent)


def _prepared(planned: Sequence[_Planned], numbers: npt.NDArray[np.void]) -> Prepared:
    starts = np.array([item.part.start for item in planned], np.uint32)
    cost_ns = sum(item.plan.cost_ns for item in planned)
    return Prepared(planned, numbers, starts if starts.any() else None, cost_ns)


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
        return _prepared(planned, np.zeros(len(planned), SLICE))

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
        self._metric = metric
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
        self._found = _found(every[np.argsort(-every["rank"], kind="stable")], prepared, spent)

    def found(self) -> Found:
        assert self._found is not None, "the search was carried out"
        return self._found


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
