"""Build the graph of a segment, or extend one that is there, and find how many candidates reach the recall target.

Some rows are left out at first and asked for: how many of their true nearest rows a walk finds is the recall. Half of
the questions lie beside the middle of two such rows, where no row is near, as questions from other sources do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import structlog

from indexer.segments.engines import choose_engine
from indexer.segments.graph import EF_SEARCH, Codes, GraphOptions, Links, encode_codes
from indexer.segments.hnsw import build_stock
from indexer.segments.native import SCAN, WALK, Engine, NativeGraph, slices_of
from schemas.indexes import IndexSpec

__all__ = ["Base", "BuiltGraph", "GraphJob", "build_graph"]

_log = structlog.get_logger(__name__)

# Rows left out of a graph to be asked for; of small graphs one in so many, of very small ones none.
_HELD_MAX, _HELD_MIN, _HELD_SHARE = 128, 32, 16
_TOP_K = 10
_CANDIDATES = (16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024)
# Below so many rows nothing is measured: a scan answers anyway.
_MEASURED_MIN = 512
# Samples err: rows have to reach a little more than the target; what lies between them may miss it by a little.
_ROWS_ABOVE, _BETWEEN_BELOW = 0.01, 0.01
# How far a question between rows is moved away from their middle, against the length of a row.
_ASIDE = 0.4
# A graph that misses the target is built once more, this much more carefully.
_CAREFULLY = 2


# A vector, float32 [d], and the rows that are its true nearest.
_Question = tuple[npt.NDArray[np.float32], set[int]]


@dataclass(frozen=True, slots=True)
class Base:
    """A graph to extend. Its element i has the number `ids[i]` now: a row, or behind the rows one of the `dead`.

    `ids` uint32 [elements], `dead` float32 [n, d] in the order of their numbers.
    """

    links: Links
    ids: npt.NDArray[np.uint32]
    dead: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GraphJob:
    """`vectors` float32 [elements, d]: `rows` rows, then the dead elements of `base`."""

    spec: IndexSpec
    options: GraphOptions
    vectors: npt.NDArray[np.float32]
    rows: int
    base: Base | None = None


@dataclass(frozen=True, slots=True)
class BuiltGraph:
    """A graph, the candidates that it needs, and the recall at 10 that was measured with them (0 = not measured)."""

    links: Links
    codes: Codes
    ef_search: int
    recall: float = 0.0


def build_graph(job: GraphJob) -> BuiltGraph:
    """Build or extend. Raises `MemoryError`, `CorruptData` where `base` is damaged, `ConfigError`.

    A graph that cannot reach the recall target is built anew, more carefully; then the best that there is must do.
    """
    engine = choose_engine(job.options.engine)
    codes = encode_codes(job.vectors[: job.rows])
    pinned = job.options.ef_search
    if engine is None:
        return BuiltGraph(
            build_stock(job.vectors[: job.rows], job.spec.metric, job.options), codes, pinned or EF_SEARCH
        )
    target = job.spec.recall_target
    built = None
    for attempt in _attempts(job):
        built = _build(engine, attempt, codes)
        if pinned or not built.recall or built.recall >= target:
            break
        _log.info("graph_below_target", index=job.spec.name, recall=built.recall, target=target, rows=job.rows)
    assert built is not None
    return built


def _attempts(job: GraphJob) -> Iterator[GraphJob]:
    fresh = job if job.base is None else replace(job, vectors=job.vectors[: job.rows], base=None)
    if job.base is not None:
        yield job
    yield fresh
    yield replace(fresh, options=replace(job.options, ef_construction=job.options.ef_construction * _CAREFULLY))


def _build(engine: Engine, job: GraphJob, codes: Codes) -> BuiltGraph:
    rows = job.rows
    fresh = np.ones(len(job.vectors), np.bool_)
    with engine.builder(job.vectors, job.spec.metric, job.options, rows=rows) as builder:
        if job.base is not None:
            builder.load(NativeGraph(engine, job.base.links, len(job.base.ids), 0), job.base.ids)
            fresh[job.base.ids] = False
        added = np.flatnonzero(fresh).astype(np.uint32)
        count = min(_HELD_MAX, len(added) // _HELD_SHARE)
        count = count if count >= _HELD_MIN else 0
        # The same rows every time: a build can be repeated to the byte.
        rng = np.random.default_rng(job.options.seed)
        held = np.sort(rng.choice(added, count, replace=False))
        builder.add(np.setdiff1d(added, held, assume_unique=True))
        pinned = job.options.ef_search
        if rows < _MEASURED_MIN:
            return BuiltGraph(builder.links(), codes, pinned or EF_SEARCH)
        # An extension by few rows is measured between rows that it holds.
        between = held if count else rng.choice(rows, _HELD_MAX, replace=False).astype(np.uint32)
        trial = _Trial(engine, job, NativeGraph(engine, builder.links(), rows, 0, codes), held, between)
        ef_search, recall = trial.find(job.spec.recall_target, [pinned] if pinned else _CANDIDATES)
        builder.add(held)
        return BuiltGraph(builder.links(), codes, ef_search, recall)


class _Trial:
    """A graph without some rows, and questions of which the true answers are known."""

    def __init__(
        self,
        engine: Engine,
        job: GraphJob,
        graph: NativeGraph,
        held: npt.NDArray[np.uint32],
        between: npt.NDArray[np.uint32],
    ) -> None:
        self._engine = engine
        self._metric = job.spec.metric
        self._rows = job.rows
        self._graph = graph
        self._vectors = job.vectors
        self._norms = np.einsum("ij,ij->i", job.vectors, job.vectors)
        self._mask = np.ones(job.rows, np.bool_)
        self._mask[held] = False
        rows = job.vectors[between]
        # Lengths may be more than a float32 holds; the engine takes any question.
        with np.errstate(all="ignore"):
            lengths = np.linalg.norm(rows, axis=1, keepdims=True)
            middle = _unit(_unit(rows) + _unit(np.roll(rows, 1, axis=0)))
            aside = _unit(np.random.default_rng(job.options.seed).standard_normal(rows.shape).astype(np.float32))
            middle = (middle + np.float32(_ASIDE) * aside) * lengths
        self._own = self._answered(job.vectors[held])
        self._between = self._answered(middle.astype(np.float32))

    def find(self, target: float, choice: Sequence[int]) -> tuple[int, float]:
        """Return the fewest candidates with which the graph reaches `target`, or the most, and their recall."""
        recall = 0.0
        for ef in choice:
            between = self._share(self._between, ef)
            recall = self._share(self._own, ef) if self._own else between
            if recall >= min(1.0, target + _ROWS_ABOVE) and between >= target - _BETWEEN_BELOW:
                return ef, recall
        return choice[-1], recall

    def _answered(self, queries: npt.NDArray[np.float32]) -> list[_Question]:
        return [(query, self._search(query, None)) for query in queries]

    def _share(self, questions: Sequence[_Question], ef: int) -> float:
        return float(np.mean([len(self._search(query, ef) & truth) / len(truth) for query, truth in questions]))

    def _search(self, query: npt.NDArray[np.float32], ef: int | None) -> set[int]:
        """Return the best rows by a walk with `ef` candidates, or, with None, by a scan."""
        plan = SCAN if ef is None else WALK
        allowed = int(np.count_nonzero(self._mask))
        places = (self._vectors.ctypes.data, self._norms.ctypes.data, self._mask.ctypes.data)
        numbers = (self._rows, allowed, plan, ef or 0, 2**32 - 1)
        slices = slices_of([(*places, self._graph.address, self._graph.codes_address, *numbers)])
        hits, _ = self._engine.search(slices, np.ascontiguousarray(query), self._metric, min(_TOP_K, allowed))
        return set(hits["row"][:_TOP_K].tolist())


def _unit(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)
