"""Search the slices of a namespace for the best rows of all of them, by one of two engines.

The native engine answers a whole query in one call without the interpreter lock. The stock engine (`stock_search`) goes
slice by slice, with numpy for scans and the hnswlib module for walks. Both keep the same contract: what a scan finds is
exact, and min(top_k, matching) rows come back.

A query may have a sparse part. Alone it matches the rows that share an index with it, and is exact. Beside a dense
part, the rank of every row is the sum of both. Rows that share an index are all looked at, exactly; the nearest of the
others, whose sparse part is 0, are found as by a filtered query without one, with the same recall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from indexer.segments.native import HIT, SCAN, SPARSE, WALK, Engine, NativeGraph, SearchJob, slices_of
from indexer.segments.planner import SlicePlan, plan_both, plan_slice, plan_sparse
from indexer.segments.reader import Slice
from indexer.segments.sparse import SparseLoad
from indexer.segments.view import PlannedSlice, SegmentView
from schemas.filters import Filter
from schemas.indexes import Metric
from schemas.records import Sparse

__all__ = [
    "Found",
    "NativeSearch",
    "Part",
    "Planned",
    "Prepared",
    "Search",
    "SearchQuery",
    "Searcher",
    "SliceReport",
    "found_of",
    "plan_parts",
    "prepared_of",
]

# Plans that a view remembers.
_PLANS_MAX = 64

Part = tuple[SegmentView, Slice]


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What to look for: at most `top_k` rows, only those that match `where`.

    By `vector` (float32 [d]), by `sparse`, or by the sum of both, which is for the inner product as metric.
    """

    vector: npt.NDArray[np.float32] | None
    top_k: int
    where: Filter | None = None
    sparse: Sparse | None = None

    def metric_of(self, metric: Metric) -> Metric:
        """Return how rows are compared in an index of `metric`: sparse values always by their inner product."""
        return Metric.DOTPRODUCT if self.vector is None else metric


@dataclass(frozen=True, slots=True)
class SliceReport:
    """How one slice was searched: `plan` is `scan`, `filter` (a scan of what a filter or kills leave), or `graph`.

    `sparse` is for the rows that share an index with a query; `sparse+scan`, `sparse+filter` and `sparse+graph` for
    both parts of one: with `graph` all rows that share an index were looked at, and the others walked for.
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

    `spent` (`SLICE` [planned]) says what each slice took; ranks are those of `metric`.
    """

    hits: npt.NDArray[np.void]
    planned: Sequence[Planned]
    spent: npt.NDArray[np.void]
    metric: Metric

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
class Planned:
    """A slice with something to find. `mask` is bool [rows], None where every row is allowed.

    `is_dense` and `is_sparse` say by which parts of the query its rows are ranked.
    """

    view: SegmentView
    part: Slice
    mask: npt.NDArray[np.bool_] | None
    allowed: int
    plan: SlicePlan
    is_dense: bool = True
    is_sparse: bool = False

    def report(self, candidates: int, nanoseconds: int, *, walked: bool) -> SliceReport:
        """Return how the slice was searched."""
        plan = "graph" if walked else "scan" if self.mask is None else "filter"
        if self.is_sparse:
            plan = f"sparse+{plan}" if self.is_dense else "sparse"
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

    Where the query has a sparse part, for that one only.

    `numbers` are the slices as the native engine wants them (`SLICE` [planned]), `starts` their first rows (uint32
    [planned], None where all are 0); `cost_ns` is what the search promises to take.
    """

    planned: Sequence[Planned]
    numbers: npt.NDArray[np.void]
    starts: npt.NDArray[np.uint32] | None
    cost_ns: float


def plan_parts(parts: Sequence[Part], query: SearchQuery) -> list[Planned]:
    """Plan a search of slices, and leave out those that have nothing to find."""
    # Every cosine to a zero vector is 0: no way leads anywhere.
    can_walk = query.vector is not None and bool(query.vector.any())
    is_plain = query.where is None and (can_walk or query.vector is None)
    planned = []
    for view, part in parts:
        # A view that a newer snapshot shares is searched as before: after a publish little is planned anew.
        key = (part.number, 0 if query.vector is None else query.top_k)
        known = view.plans.get(key) if is_plain else None
        if known is None:
            known = _plan(view, part, query, can_walk=can_walk)
            if is_plain:
                if len(view.plans) >= _PLANS_MAX:
                    view.plans.clear()
                view.plans[key] = known
        item = Planned(view, part, *known)
        if not item.allowed:
            continue
        found = item if query.sparse is None else _with_sparse(item, query, query.sparse, can_walk=can_walk)
        if found is not None:
            planned.append(found)
    return planned


def _plan(view: SegmentView, part: Slice, query: SearchQuery, *, can_walk: bool) -> PlannedSlice:
    allowed = rows = part.end - part.start
    mask = None
    if query.where is not None or view.live_in(part) < rows:
        mask = view.matching(part, query.where)
        allowed = int(np.count_nonzero(mask))
    return mask, allowed, _plan_dense(view, rows, allowed, query, can_walk=can_walk)


def _plan_dense(view: SegmentView, rows: int, allowed: int, query: SearchQuery, *, can_walk: bool) -> SlicePlan:
    graph = view.reader.graph
    return plan_slice(
        rows=rows,
        allowed=allowed,
        dimension=0 if query.vector is None else len(query.vector),
        top_k=query.top_k,
        ef=graph.ef if graph is not None and can_walk else None,
        has_codes=isinstance(graph, NativeGraph),
    )


def _with_sparse(item: Planned, query: SearchQuery, sparse: Sparse, *, can_walk: bool) -> Planned | None:
    """Return the plan with the sparse part of the query; None where the slice has no row for it."""
    view, part, rows = item.view, item.part, item.part.end - item.part.start
    columns = view.reader.sparse_columns
    load = SparseLoad(0, 0, posted=False) if columns is None else columns.load(part.start, part.end, sparse)
    if not load.entries:
        return None if query.vector is None else item
    plan = plan_sparse(rows=rows, entries=load.entries, posted=load.posted)
    if query.vector is None:
        return replace(item, plan=plan, is_dense=False, is_sparse=True)
    sharing = round(item.allowed * load.sharing / rows)
    scan, shared, others = (
        _plan_dense(view, rows, allowed, query, can_walk=walks)
        for allowed, walks in ((item.allowed, False), (sharing, False), (item.allowed - sharing, can_walk))
    )
    return replace(item, plan=plan_both(plan, item.plan, scan, shared, others), is_sparse=True)


class NativeSearch:
    """Searches by the native engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def prepare(self, parts: Sequence[Part], query: SearchQuery) -> Prepared:
        planned = plan_parts(parts, query)
        numbers = slices_of([_numbers(item) for item in planned])
        if query.sparse is not None:
            numbers["sparse"] = [_sparse_address(item) for item in planned]
            numbers["first"] = [item.part.start for item in planned]
        return prepared_of(planned, numbers)

    def begin(self, prepared: Prepared, query: SearchQuery, metric: Metric) -> Search:
        return _NativeSearch(self._engine, prepared, query, metric)


class _NativeSearch:
    """A search in one call of the engine."""

    def __init__(self, engine: Engine, prepared: Prepared, query: SearchQuery, metric: Metric) -> None:
        self.engine: Engine | None = engine
        self.cost_ns = prepared.cost_ns
        self._engine = engine
        self._prepared = prepared
        self._vector = None if query.vector is None else np.ascontiguousarray(query.vector, np.float32)
        self._sparse = query.sparse
        self._metric = query.metric_of(metric)
        # The engine writes into it what the search took.
        self._slices = prepared.numbers.copy()
        self.job: SearchJob | None = SearchJob(
            self._slices, self._vector, self._metric, query.top_k, sparse=query.sparse, owner=prepared
        )

    def run(self) -> None:
        assert self.job is not None
        self._engine.run(self.job)

    def found(self) -> Found:
        assert self.job is not None
        hits, is_tied = self.job.hits()
        if is_tied:
            hits = self._with_ties(hits)
        return found_of(hits, self._prepared, self._slices, self._metric)

    def _with_ties(self, hits: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        """Return `hits` with every row of the scanned slices that has the rank of the last one, however many.

        Where a sparse part counts, of the walked ones as well: rows that share an index were all looked at.
        """
        least = hits["rank"][-1]
        parts = [hits]
        slices = self._slices
        for number, item in enumerate(self._prepared.planned):
            if slices["plan"][number] == WALK and not item.is_sparse:
                continue
            rank = self._engine.ranks(slices[number : number + 1], self._vector, self._metric, self._sparse)
            rows = np.flatnonzero(rank == least if item.mask is None else (rank == least) & item.mask)
            more = np.zeros(len(rows), HIT)
            more["rank"], more["slice"], more["row"] = least, number, rows
            parts.append(more)
        every = np.unique(np.concatenate(parts))
        best: npt.NDArray[np.void] = every[np.argsort(-every["rank"], kind="stable")]
        return best


def found_of(hits: npt.NDArray[np.void], prepared: Prepared, spent: npt.NDArray[np.void], metric: Metric) -> Found:
    """Return `hits`, whose rows count from the beginning of their slices, by the rows of their segments."""
    if prepared.starts is not None:
        hits["row"] += prepared.starts[hits["slice"]]
    return Found(hits, prepared.planned, spent, metric)


def prepared_of(planned: Sequence[Planned], numbers: npt.NDArray[np.void]) -> Prepared:
    """Return a search of planned slices; `numbers` are those that the engine wants."""
    starts = np.array([item.part.start for item in planned], np.uint32)
    cost_ns = sum(item.plan.cost_ns for item in planned)
    return Prepared(planned, numbers, starts if starts.any() else None, cost_ns)


def _numbers(item: Planned) -> tuple[int, ...]:
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
        _plan_number(item, native),
        item.plan.ef,
        item.plan.budget,
    )


def _plan_number(item: Planned, graph: NativeGraph | None) -> int:
    if not item.is_dense:
        return SPARSE
    return WALK if item.plan.walk and graph is not None else SCAN


def _sparse_address(item: Planned) -> int:
    columns = item.view.reader.sparse_columns
    return columns.address if item.is_sparse and columns is not None else 0
