"""How vectors are compared, once for every kind of segment. Ranks are float64, higher is better, for every metric."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.indexes import Metric

__all__ = ["ranks", "score_of_rank", "top_rows"]

# Above this share of allowed rows one product over all of them is cheaper than gathering some first.
_GATHER_SHARE_MAX = 0.3
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def ranks(
    metric: Metric,
    matrix: npt.NDArray[np.float32],
    norms: npt.NDArray[np.float32],
    query: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:
    """Rank the rows of `matrix` (float32 [n, d], squared norms float32 [n]) against `query` (float32 [d]): float64 [n].

    Cosine similarity in [-1, 1] (0 where a squared norm is 0 or more than a float32 holds), inner product, or the
    negated squared distance. Numbers may be beyond float32 on the way: never NaN comes out.
    """
    with np.errstate(all="ignore"):
        if metric is Metric.EUCLIDEAN:
            # By differences, not by norms: x.x - 2 x.q + q.q loses all digits for near neighbours.
            difference = matrix - query
            return _numbers_or(-np.inf, -np.einsum("ij,ij->i", difference, difference).astype(np.float64))
        products = (matrix @ query).astype(np.float64)
        if metric is Metric.DOTPRODUCT:
            return _numbers_or(-np.inf, products)
        lengths = np.sqrt(norms.astype(np.float64) * float(query.astype(np.float64) @ query))
        cosine = np.where((lengths > 0) & (lengths < np.inf), products / lengths, 0.0)
    clipped: npt.NDArray[np.float64] = np.clip(_numbers_or(0.0, cosine), -1.0, 1.0)
    return clipped


def _numbers_or(other: float, ranks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(np.isnan(ranks), other, ranks)


def score_of_rank(metric: Metric, rank: float) -> float:
    """Return the number that a client sees for a rank: euclidean scores are squared distances, low is better.

    A rank beyond float32 is the last number within: JSON has no infinity.
    """
    score = -rank if metric is Metric.EUCLIDEAN else rank
    return min(max(score, -_FLOAT32_MAX), _FLOAT32_MAX)


def top_rows(rank: npt.NDArray[np.float64], wanted: int) -> npt.NDArray[np.int64]:
    """Return the positions of the `wanted` highest ranks and of all that tie with the last of them, unordered."""
    if wanted >= len(rank):
        return np.arange(len(rank))
    least = np.partition(rank, len(rank) - wanted)[len(rank) - wanted]
    return np.flatnonzero(rank >= least)


def gather_pays(allowed: int, rows: int) -> bool:
    """Say whether scoring only the allowed rows is cheaper than scoring all and masking."""
    return allowed < rows * _GATHER_SHARE_MAX
