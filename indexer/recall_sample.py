"""Recall of one segment, measured on a sample: what its search finds against an exact search of the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexer.segments.reader import Slice
from indexer.segments.scoring import ranks
from indexer.segments.view import SearchQuery, SegmentView
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


def sample_recall(view: SegmentView, part: Slice, metric: Metric, options: SampleOptions) -> tuple[float, int]:
    """Return the share of true neighbours that searching `part` of `view` finds, and how many queries were asked.

    A row that ties with the last true neighbour counts as found. No live rows, no queries: (1.0, 0).
    """
    live = part.start + np.flatnonzero(view.alive[part.start : part.end])
    source = np.random.default_rng(options.seed)
    chosen = np.sort(source.permutation(live)[: options.queries])
    top_k = min(options.top_k, len(live))
    found = 0
    for row in chosen.tolist():
        query = _moved(view.reader.vectors[row], source, options.noise)
        least = _least_rank(view, live, metric, query, top_k)
        rows, _ = view.search(part, SearchQuery(query, top_k), metric)
        got = ranks(metric, view.reader.vectors[rows], view.reader.norms[rows], query)
        found += min(top_k, int(np.count_nonzero(got >= least - _TIE * max(1.0, abs(least)))))
    return (found / (len(chosen) * top_k) if len(chosen) else 1.0), len(chosen)


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
