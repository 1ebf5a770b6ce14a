"""Which way a query by both parts goes, from sizes alone; and what its postings say before they are read."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.segments.container import Container, pack
from indexer.segments.planner import plan_both, plan_slice, plan_sparse
from indexer.segments.sparse import SparseColumns, lay_out_postings
from schemas.records import make_sparse

_ROWS = 100_000


def planned(sharing: int, *, allowed: int = _ROWS, ef: int | None = 128):
    sizes = {"rows": _ROWS, "dimension": 384, "top_k": 10, "has_codes": True}
    sparse = plan_sparse(rows=_ROWS, entries=sharing, posted=True)
    scan, shared = (plan_slice(allowed=count, ef=None, **sizes) for count in (allowed, sharing))
    dense, others = (plan_slice(allowed=count, ef=ef, **sizes) for count in (allowed, allowed - sharing))
    return plan_both(sparse, dense, scan, shared, others), sparse, scan


def test_few_that_share_an_index_are_looked_at_and_the_others_walked_for():
    """Cheaper than a scan of all; the cost is that of all three steps."""
    plan, sparse, scan = planned(500)
    assert plan.walk
    assert plan.ef >= 128
    assert sparse.cost_ns < plan.cost_ns < scan.cost_ns


@pytest.mark.parametrize("sharing", [60_000, _ROWS])
def test_where_most_rows_share_an_index_all_are_scanned(sharing):
    """The others are too few for a walk to save anything; but where there is a graph, one leads the scan."""
    plan, sparse, scan = planned(sharing)
    assert not plan.walk
    assert plan.ef >= 128
    assert plan.budget > plan.ef
    assert plan.cost_ns == sparse.cost_ns + scan.cost_ns
    assert planned(sharing, ef=None)[0].ef == 0


def test_rows_own_values_cost_more_than_postings():
    """All of them are looked at, and each is looked up."""
    by_rows = plan_sparse(rows=100, entries=10_000, posted=False)
    assert by_rows.cost_ns > plan_sparse(rows=100, entries=10_000, posted=True).cost_ns


@pytest.mark.parametrize("posted", [False, True])
def test_load_says_how_many_values_and_rows_a_query_meets(posted):
    """Of postings those of its own indices, in proportion to the rows asked for; without, all of these rows."""
    sections = {
        "sparse_ends": np.array([0, 2, 2, 4, 5], np.uint64),
        "sparse_indices": np.array([3, 9, 3, 4, 9], np.uint32),
        "sparse_values": np.ones(5, np.float32),
    }
    sections |= lay_out_postings(sections) if posted else {}
    columns = SparseColumns(Container(memoryview(b"".join(pack(sections, rows=4)))), "it")
    whole = columns.load(0, 4, make_sparse([3, 7], [1.0, 1.0]))
    assert whole.posted is posted
    assert whole.entries == (2 if posted else 5)
    assert 0 < whole.sharing <= 4
    assert columns.load(0, 2, make_sparse([3], [1.0])).entries == (1 if posted else 2)
    nobody = columns.load(0, 4, make_sparse([7], [1.0]))
    assert (nobody.entries, nobody.sharing) == ((0, 0) if posted else (5, 4))
