"""How a slice is searched, from sizes alone. Pure: numbers in, a plan out. Costs are nanoseconds, measured (DECISIONS).

A walk through a graph looks at a number of rows that grows with its candidates and, where a filter leaves few, with one
over their share. A scan looks at every allowed row, but side by side, and over codes at a quarter of the memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

__all__ = ["SlicePlan", "plan_both", "plan_slice", "plan_sparse"]

# Of one row at one dimension: looked at in a walk over codes, over vectors; in a scan over codes, close together and
# far apart, over vectors likewise.
_CODED_WALKED_NS, _WALKED_NS = 0.26, 0.4
_CODED_NS, _CODED_APART_NS = 0.06, 0.1
_SCANNED_NS, _SCANNED_APART_NS = 0.16, 0.16
# Rows looked at by a walk over n rows: per candidate, and per doubling of n.
_PER_CANDIDATE, _PER_DOUBLING = 12.5, 25
# Of one entry of a posting, of one among a row's own sparse values, and of a row whose sum is looked at.
_POSTED_NS, _OWN_NS, _SUMMED_NS = 1.3, 1.8, 0.5
# What a walk looks for may lie behind rows that a filter leaves out. It is begun where it promises to be this much
# cheaper, and given up after this many times the rows that were expected: for a walk among the allowed rows where they
# hold together, else for a scan (`search.h`).
_RISK = 1.2
_PATIENCE = 2
# Candidates per wanted row, from which on more rows than usual are wanted.
_CANDIDATES_PER_ROW = 1.5


@dataclass(frozen=True, slots=True)
class SlicePlan:
    """`walk` through the graph with `ef` candidates, giving up after `budget` rows; or scan what is allowed."""

    walk: bool
    ef: int
    budget: int
    cost_ns: float


def plan_slice(
    *, rows: int, allowed: int, dimension: int, top_k: int, ef: int | None, has_codes: bool = False
) -> SlicePlan:
    """Plan for `allowed` of `rows` rows; `ef` candidates reach the recall target, None where there is no graph."""
    share = allowed / rows if rows else 1.0
    near, apart = (_CODED_NS, _CODED_APART_NS) if has_codes else (_SCANNED_NS, _SCANNED_APART_NS)
    scan_ns = allowed * dimension * (near + apart * (1 - share))
    if ef is None or not allowed:
        return SlicePlan(walk=False, ef=0, budget=0, cost_ns=scan_ns)
    candidates = max(ef, math.ceil(_CANDIDATES_PER_ROW * top_k))
    expected = (_PER_CANDIDATE * candidates + _PER_DOUBLING * math.log2(rows + 1)) / share
    walk_ns = expected * dimension * (_CODED_WALKED_NS if has_codes else _WALKED_NS)
    if walk_ns * (_RISK if share < 1 else 1) >= scan_ns:
        return SlicePlan(walk=False, ef=0, budget=0, cost_ns=scan_ns)
    return SlicePlan(walk=True, ef=candidates, budget=int(_PATIENCE * expected), cost_ns=walk_ns)


def plan_sparse(*, rows: int, entries: float, posted: bool) -> SlicePlan:
    """Plan for the sparse part alone: about `entries` sparse values of `rows` rows are looked at."""
    entry_ns = _POSTED_NS if posted else _OWN_NS
    return SlicePlan(walk=False, ef=0, budget=0, cost_ns=entries * entry_ns + rows * _SUMMED_NS)


def plan_both(sparse: SlicePlan, dense: SlicePlan, scan: SlicePlan, sharing: SlicePlan, others: SlicePlan) -> SlicePlan:
    """Plan for both parts, after `sparse`, from plans for the dense one: that of a query without another, of all.

    It is a `scan` of all allowed rows, or one of those `sharing` an index with the query, and a walk for the nearest of
    the `others`. A scan with candidates is led by a walk, which tells most rows to be too far to be looked at.
    """
    walked_ns = sharing.cost_ns + others.cost_ns
    if others.walk and walked_ns * _RISK < scan.cost_ns:
        return replace(others, cost_ns=sparse.cost_ns + walked_ns)
    led = dense if dense.walk else scan
    return SlicePlan(walk=False, ef=led.ef, budget=led.budget, cost_ns=sparse.cost_ns + scan.cost_ns)
