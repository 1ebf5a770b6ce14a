"""Recall of one graph, measured on a sample: what a walk through it finds against an exact search of the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexer.segments.hnsw import StockGraph
from indexer.segments.native import WALK, Engine, NativeGraph, slices_of
from indexer.segments.reader import Slice
from indexer.segments.scoring import ranks
from indexer.segments.view import SegmentView
from schemas.indexes import Metric

__all__ = ["SampleOptions", "sample_recall"]

# Rows that are scored at a time: an exact search of a large graph must not need a copy of all its vectors.
_BLOCK_ROWS = 32_768
# Two products of the same vectors in matrices of different shapes differ by a few units of the last place.
_TIE = 1e-6


@dataclass(frozen=True, slots=True)
class SampleOptions:
    """How recall is sampled: recall@`top_k` of `queries` live rows, each moved by `noise` of its own length.

    The same `seed` asks the same questions of the same rows.
    """

    queries: int = 50
    top_k: int = 10
    noise: float = 0.3
    seed: int = 7


def sample_recall(
    view: SegmentView, part: Slice, metric: Metric, options: SampleOptions, *, engine: Engine | None
) -> tuple[float, int]:
    """Return the share of true neighbours that the graph of `view` finds in `part`, and how many queries were asked.

    `engine` is the one that opened the graph. It is walked with the candidates that are kept with it, also where a
    query would choose to scan so few rows. A row that ties with the last true neighbour counts as found. No live rows,
    no queries: (1.0, 0).
    """
    live = part.start + np.flatnonzero(view.alive[part.start : part.end])
    source = np.random.default_rng(options.seed)
    chosen = np.sort(source.permutation(live)[: options.queries])
    top_k = min(options.top_k, len(live))
    found = 0
    for row in chosen.tolist():
        query = _moved(view.reader.vectors[row], source, options.noise)
        least = _least_rank(view, live, metric, query, top_k)
        rows = _walked(view, part, metric, query, top_k=top_k, engine=engine)
        got = ranks(metric, view.reader.vectors[rows], view.reader.norms[rows], query)
        found += min(top_k, int(np.count_nonzero(got >= least - _TIE * max(1.0, abs(least)))))
    return (found / (len(chosen) * top_k) if len(chosen) else 1.0), len(chosen)


def _walked(
    view: SegmentView,
    part: Slice,
    metric: Metric,
    query: npt.NDArray[np.float32],
    *,
    top_k: int,
    engine: Engine | None,
) -> npt.NDArray[np.int64]:
    """Return live rows that a walk through the graph finds, the best `top_k` of them at least."""
    reader, graph = view.reader, view.reader.graph
    alive = np.ascontiguousarray(view.alive[part.start : part.end])
    if isinstance(graph, NativeGraph) and engine is not None:
        places = (reader.vectors_address + part.start * reader.dimension * 4, reader.norms_address + part.start * 4)
        numbers = (len(alive), int(np.count_nonzero(alive)), WALK, max(graph.ef, top_k), 2**32 - 1)
        slices = slices_of([(*places, alive.ctypes.data, graph.address, graph.codes_address, *numbers)])
        hits, _ = engine.search(slices, query, metric, top_k)
        return np.asarray(hits["row"], np.int64) + part.start
    assert isinstance(graph, StockGraph), "the graph was opened by another engine"
    # The library knows nothing of dead rows: they are asked for too.
    near = graph.search(query, top_k + int(np.count_nonzero(~alive)))
    rows = np.empty(0, np.int64) if near is None else near[alive[near]] + part.start
    return rows[:top_k]


def _moved(vector: npt.NDArray[np.float32], source: np.random.Generator, noise: float) -> npt.NDArray[np.float32]:
    """Return `vector` moved in a random direction by `noise` of its length: float32 [d], never zero."""
    direction = source.standard_normal(len(vector))
    length = float(np.linalg.norm(vector)) or 1.0
    moved: npt.NDArray[np.float32] = (vector + direction * (noise * length / np.linalg.norm(direction))).astype(
        np.float32
    )
    return moved


def _least_rank(
    view: SegmentView, live: npt.NDArray[np.int64], metric: Metric, query: npt.NDArray[np.float32], top_k: int
) -> float:
    """Return the rank of the last of the true `top_k` nearest of the rows `live`."""
    best = np.empty(0)
    for begin in range(0, len(live), _BLOCK_ROWS):
        rows = live[begin : begin + _BLOCK_ROWS]
        rank = ranks(metric, view.reader.vectors[rows], view.reader.norms[rows], query)
        best = np.concatenate([best, rank])
        if len(best) > top_k:
            best = np.partition(best, len(best) - top_k)[len(best) - top_k :]
    return float(best.min())
