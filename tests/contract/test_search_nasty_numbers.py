"""What a search promises holds for every float32 there is: huge, tiny, infinite on the way, equal, of both zeros.

Scans are compared to the rank of every row, row by row; those ranks to float64 arithmetic where it has a say.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from indexer.segments.container import Container, pack
from indexer.segments.engines import choose_engine
from indexer.segments.graph import GraphOptions, encode_codes
from indexer.segments.native import SCAN, WALK, NativeGraph, slices_of
from indexer.segments.reader import SegmentReader
from indexer.segments.rows import Rows, lay_out
from indexer.segments.search import NativeSearch, SearchQuery
from indexer.segments.stock_search import StockSearch
from indexer.segments.view import SegmentView
from schemas.indexes import Metric
from schemas.manifest import GRAPH, ObjectRef, SegmentEntry
from tests.support.engines import searched

_EDGES = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1e-38, 1e-30, 1e-20, 1e-15, 1e15, 1e18, 2e19, 1e30, 3.4e38, -3.4e38]
_MAGNITUDES = [1e-45, 1e-40, 1e-30, 1e-22, 1e-15, 1e-6, 1.0, 1e6, 1e15, 1e18, 1e19, 1e25, 1e38]
_DIMENSIONS = [1, 2, 7, 8, 9, 31, 33, 65]


@st.composite
def numbers(draw, rows: int, dimension: int) -> np.ndarray:
    """Draw vectors: of one magnitude, of one per row, of edges only, with equal and opposite rows among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["one", "many", "edges", "spiked", "same"]))
    vectors = rng.standard_normal((rows, dimension))
    if kind == "one":
        vectors *= draw(st.sampled_from(_MAGNITUDES))
    elif kind == "many":
        vectors *= rng.choice(_MAGNITUDES, (rows, 1))
    elif kind == "edges":
        vectors = rng.choice(_EDGES, (rows, dimension))
    elif kind == "spiked":
        vectors[rng.random(vectors.shape) < 0.05] *= draw(st.sampled_from(_MAGNITUDES))
    else:
        vectors[:] = rng.choice([0.1, -0.1, 1 / 3])
        vectors[rng.random(rows) < 0.5] *= 1 + 1e-7
    copies = rng.random(rows) < draw(st.sampled_from([0, 0.3]))
    vectors[copies] = vectors[rng.integers(0, rows, int(copies.sum()))] * rng.choice([1, -1])
    with np.errstate(over="ignore"):
        return np.clip(vectors, -3.4e38, 3.4e38).astype(np.float32)


@st.composite
def searches(draw):
    rows, dimension = draw(st.sampled_from([1, 7, 150, 400])), draw(st.sampled_from(_DIMENSIONS))
    vectors, query = draw(numbers(rows, dimension)), draw(numbers(1, dimension))[0]
    if draw(st.booleans()):
        query = vectors[draw(st.integers(0, rows - 1))] * np.float32(draw(st.sampled_from([1, -1, 0.5])))
    share = draw(st.sampled_from([1.0, 0.9, 0.5, 0.05]))
    mask = np.random.default_rng(draw(st.integers(0, 99))).random(rows) < share
    return vectors, query, mask, draw(st.sampled_from([1, 2, 10, 1000])), draw(st.sampled_from(list(Metric)))


def norms_of(vectors: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.einsum("ij,ij->i", vectors, vectors)


def assert_best(hits: np.ndarray, rank: np.ndarray, mask: np.ndarray, top_k: int) -> None:
    """The best of what is allowed, each with its rank, all that tie with the last or as many as are wanted."""
    wanted = np.sort(rank[mask])[::-1][:top_k]
    assert np.array_equal(hits["rank"][:top_k], wanted)
    assert mask[hits["row"]].all()
    assert len(np.unique(hits["row"])) == len(hits)
    assert np.array_equal(hits["rank"], rank[hits["row"]])


@settings(max_examples=300, deadline=None)
@given(searches())
def test_native_scan_finds_the_best_ranks_whatever_the_numbers(search):
    """With codes and without, with a mask and without: what comes back is the top of all ranks, and says of ties."""
    vectors, query, mask, top_k, metric = search
    engine, norms = choose_engine("native"), norms_of(vectors)
    with np.errstate(all="ignore"):
        codes = encode_codes(vectors)
    one = GraphOptions(m=2, ef_construction=2)
    with engine.builder(vectors, metric, one, rows=len(vectors)) as builder:
        builder.add(np.arange(len(vectors), dtype=np.uint32))
        graph = NativeGraph(engine, builder.links(), len(vectors), 0, codes)
    for used in (mask, np.ones_like(mask)):
        allowed = int(np.count_nonzero(used))
        for address in (0, graph.codes_address):
            place = 0 if used.all() else used.ctypes.data
            numbers = (len(vectors), allowed, SCAN, 0, 0)
            slices = slices_of([(vectors.ctypes.data, norms.ctypes.data, place, 0, address, *numbers)])
            hits, is_tied = engine.search(slices, query, metric, top_k)
            rank = engine.ranks(slices, query, metric)
            assert not np.isnan(rank).any()
            assert_best(hits, rank, used, top_k)
            if allowed > top_k:
                assert is_tied == (
                    np.count_nonzero(rank[used] == hits["rank"][-1])
                    > np.count_nonzero(hits["rank"][:top_k] == hits["rank"][-1])
                )


@settings(max_examples=150, deadline=None)
@given(searches(), st.sampled_from([0, 1, 5, 2**32 - 1]), st.sampled_from([0, 1, 30, 2**32 - 1]))
def test_native_walk_gives_as_many_as_there_are_whatever_the_numbers(search, ef, budget):
    """min(k, allowed) rows that are allowed, best first, each with its own rank; exact where it was a scan."""
    vectors, query, mask, top_k, metric = search
    engine, norms = choose_engine("native"), norms_of(vectors)
    with engine.builder(vectors, metric, GraphOptions(m=4, ef_construction=20), rows=len(vectors)) as builder:
        builder.add(np.arange(len(vectors), dtype=np.uint32))
        graph = NativeGraph(engine, builder.links(), len(vectors), 0)
    allowed = int(np.count_nonzero(mask))
    numbers = (len(vectors), allowed, WALK, ef, budget)
    slices = slices_of([(vectors.ctypes.data, norms.ctypes.data, mask.ctypes.data, graph.address, 0, *numbers)])
    hits, _ = engine.search(slices, query, metric, top_k)
    rank = engine.ranks(slices, query, metric)
    assert len(hits) >= min(top_k, allowed)
    assert mask[hits["row"]].all()
    assert np.array_equal(hits["rank"], rank[hits["row"]])
    assert (hits["rank"][:-1] >= hits["rank"][1:]).all()
    if slices["plan"][0] == SCAN:
        assert_best(hits, rank, mask, top_k)


@settings(max_examples=150, deadline=None)
@given(searches())
def test_both_engines_answer_with_the_ranks_of_float64_where_it_tells_them_apart(search):
    """Through the door of snapshots: as many rows as live, and no other row is better by more than float32 can say."""
    vectors, query, mask, top_k, metric = search
    view = view_of(vectors, ~mask)
    part = view.reader.slice_of("films")
    assert part is not None
    matrix = view.reader.vectors
    with np.errstate(all="ignore"):
        exact = ranks_64(metric, matrix.astype(np.float64), query.astype(np.float64))
        slack = slack_of(metric, matrix.astype(np.float64), query.astype(np.float64))
    for searcher in (NativeSearch(choose_engine("native")), StockSearch()):
        asked = SearchQuery(query, top_k)
        found = searched(searcher, [(view, part)], asked, metric)
        rows = found.hits["row"].astype(np.int64)
        assert len(rows) >= min(top_k, np.count_nonzero(view.alive))
        assert view.alive[rows].all()
        assert not np.isnan(found.hits["rank"]).any()
        if slack is None or not len(rows):
            continue
        rows = rows[:top_k]
        left = np.setdiff1d(np.flatnonzero(view.alive), rows)
        assert np.allclose(found.hits["rank"][:top_k], exact[rows], rtol=0, atol=slack)
        assert len(left) == 0 or exact[left].max() <= exact[rows].min() + 2 * slack


def ranks_64(metric: Metric, matrix: np.ndarray, query: np.ndarray) -> np.ndarray:
    if metric is Metric.EUCLIDEAN:
        return -((matrix - query) ** 2).sum(axis=1)
    products = matrix @ query
    if metric is Metric.DOTPRODUCT:
        return products
    lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(query)
    return np.where(lengths > 0, products / lengths, 0)


def slack_of(metric: Metric, matrix: np.ndarray, query: np.ndarray) -> float | None:
    """Return by how much float32 may err, None where it overflows or underflows."""
    norms, own = (matrix**2).sum(axis=1), (query**2).sum()
    used = np.append(norms, own)
    if used.max() > 1e36 or (used[used > 0] < 1e-30).any():
        return None
    if metric is Metric.COSINE:
        return 1e-5
    return 1e-5 * (norms.max() + own) + 1e-40


def view_of(vectors: np.ndarray, dead: np.ndarray) -> SegmentView:
    """Return the view of a segment without a graph."""
    rows = len(vectors)
    plain = Rows(
        names=["films"],
        namespace=np.zeros(rows, np.int64),
        ids=[b"%d" % number for number in range(rows)],
        metadata=[b""] * rows,
        offsets=np.arange(rows),
        times=np.arange(rows),
        sparse=[None] * rows,
        vectors=vectors,
    )
    with np.errstate(all="ignore"):
        records, sections, _ = lay_out(plain)
    data = b"".join(pack(records | sections, rows=rows, dimension=vectors.shape[1]))
    container = Container(memoryview(data))
    ref = ObjectRef("", 0, b"")
    entry = SegmentEntry(1, GRAPH, ref, ref, None, rows)
    return SegmentView(SegmentReader(1, container, container), entry, BitMap(np.flatnonzero(dead).tolist()))
