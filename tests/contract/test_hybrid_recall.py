"""Queries by both parts over a graph, with data made to lead them astray: recall keeps the target of the index.

Rows that share an index with the query are looked at exactly, all others walked for; so what is tried is which rows
share one, how large the sparse part is against the dense one, and its sign, with regard to what is near the query.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from pyroaring import BitMap

from indexer.graphs import GraphJob, build_graph
from indexer.segments.bitmaps import bitmap_of
from indexer.segments.column_writer import lay_out_columns
from indexer.segments.container import Container, pack
from indexer.segments.engines import choose_engine, open_graph, searcher_of
from indexer.segments.graph import GraphOptions, sections_of
from indexer.segments.reader import SegmentReader
from indexer.segments.rows import Rows, lay_out
from indexer.segments.search import SearchQuery
from indexer.segments.sparse import lay_out_postings
from indexer.segments.view import SegmentView
from schemas.filters import parse_filter
from schemas.indexes import Metric
from schemas.manifest import GRAPH, ObjectRef, SegmentEntry
from schemas.records import Sparse, make_sparse
from tests.support.builders import spec_of
from tests.support.engines import ENGINES, searched, walks_always

_ROWS, _DIMENSION, _CLUSTERS, _TOP_K = 6_000, 32, 30, 10
_REF = ObjectRef("object", 0, b"")
# Indices: every row has the first, a row of cluster c has the second and 100 + c, and a few have one of the last.
_ALL, _CLUSTER, _FEW = 1, 100, 1_000
_DRAWS = 40


@dataclass(frozen=True)
class Ground:
    """A segment of unit vectors in clusters, its rows by number, and its objects."""

    vectors: np.ndarray
    clusters: np.ndarray
    records: Container
    matrix: Container
    graph: Container
    ef: int

    def view(self, engine: str, dead: BitMap) -> SegmentView:
        graph = open_graph(
            choose_engine(engine), self.graph, self.matrix, rows=_ROWS, metric=Metric.DOTPRODUCT, ef=self.ef
        )
        reader = SegmentReader(1, self.records, self.matrix, graph)
        return SegmentView(reader, SegmentEntry(1, GRAPH, _REF, _REF, _REF, _ROWS), dead)


@pytest.fixture(scope="module")
def ground() -> Ground:
    source = np.random.default_rng(1)
    clusters = np.arange(_ROWS) % _CLUSTERS
    vectors = source.standard_normal((_CLUSTERS, _DIMENSION))[clusters]
    vectors = vectors + 0.35 * source.standard_normal((_ROWS, _DIMENSION))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    few = source.integers(0, _DRAWS, _ROWS)
    weights = source.random(_ROWS)
    rows = Rows(
        names=["films"],
        namespace=np.zeros(_ROWS, np.int64),
        ids=[b"id-%d" % at for at in range(_ROWS)],
        metadata=[b'{"u":%d}' % (at * 7919 % _ROWS) for at in range(_ROWS)],
        offsets=np.arange(_ROWS),
        times=np.arange(_ROWS),
        sparse=[
            make_sparse(
                [_ALL, _CLUSTER + int(clusters[at]), _FEW + int(few[at])], [float(weights[at]), 1.0, float(weights[at])]
            )
            for at in range(_ROWS)
        ],
        vectors=vectors,
    )
    records, matrix, order = lay_out(rows)
    records |= lay_out_columns([rows.metadata[at] for at in order.tolist()]) | lay_out_postings(records)
    ordered = np.ascontiguousarray(vectors[order])
    spec = spec_of(Metric.DOTPRODUCT, dimension=_DIMENSION)
    built = build_graph(GraphJob(spec, GraphOptions(), ordered, _ROWS))
    objects = [
        Container(memoryview(b"".join(pack(part, rows=_ROWS, dimension=_DIMENSION))))
        for part in (records, matrix, sections_of(built.links, built.codes))
    ]
    return Ground(ordered, clusters[order], *objects, built.ef_search)


@pytest.fixture(params=ENGINES)
def engine(request) -> str:
    return request.param


@pytest.fixture(params=["as planned", "walked"], autouse=True)
def walks(request, monkeypatch) -> list[int]:
    """Whether each search goes by its costs, or walks wherever there is a graph."""
    return walks_always(monkeypatch) if request.param == "walked" else []


def recall(ground: Ground, engine: str, sparse_of: Callable[[int], Sparse], where=None, dead=()) -> float:
    """Return recall@10 over queries near rows of each cluster; as many rows as there are come back, each once."""
    view = ground.view(engine, bitmap_of(np.asarray(dead, np.int64)))
    part = view.reader.slice_of("films")
    tree = None if where is None else parse_filter(where)
    allowed = np.flatnonzero(view.matching(part, tree))
    source = np.random.default_rng(2)
    found = asked = 0
    for row in range(0, _ROWS, _ROWS // 40):
        vector = (ground.vectors[row] + 0.1 * source.standard_normal(_DIMENSION)).astype(np.float32)
        sparse = sparse_of(int(ground.clusters[row]))
        query = SearchQuery(vector, _TOP_K, tree, sparse)
        hits = searched(searcher_of(choose_engine(engine)), [(view, part)], query, Metric.DOTPRODUCT).hits
        products, _ = view.reader.sparse_columns.scores(0, _ROWS, sparse)
        scores = (ground.vectors @ vector + products)[allowed]
        wanted = np.sort(scores)[::-1][:_TOP_K]
        rows = hits["row"][:_TOP_K]
        assert len(np.unique(rows)) == len(wanted)
        assert np.isin(rows, allowed).all()
        assert hits["rank"][:_TOP_K] == pytest.approx(ground.vectors[rows] @ vector + products[rows], abs=1e-5)
        found += int(np.count_nonzero(hits["rank"][:_TOP_K] >= wanted[-1] - 1e-5))
        asked += len(wanted)
    return found / asked


_SIZES = [1e-4, 0.05, 1.0, 100.0]


@pytest.mark.parametrize("size", [*_SIZES, *(-size for size in _SIZES)])
@pytest.mark.parametrize("index", [_ALL, _FEW], ids=["all rows", "few rows"])
def test_sparse_part_that_has_nothing_to_do_with_the_dense_one(ground, engine, index, size):
    """Shared by all rows or by few, larger or smaller than what the dense part tells apart, for or against them."""
    assert recall(ground, engine, lambda _: make_sparse([index], [size])) >= 0.95


@pytest.mark.parametrize("size", _SIZES)
def test_sparse_part_against_all_that_is_near(ground, engine, size):
    """Rows of the query's own cluster are pushed down: the answer lies behind them, in others."""
    assert recall(ground, engine, lambda cluster: make_sparse([_CLUSTER + cluster], [-size])) >= 0.95


@pytest.mark.parametrize("size", _SIZES)
def test_sparse_part_for_what_is_far(ground, engine, size):
    """Rows of another cluster are pushed up, ahead of what is near or in between."""
    other = [_CLUSTER + number for number in range(_CLUSTERS)]
    assert recall(ground, engine, lambda cluster: make_sparse([other[cluster - 3]], [size])) >= 0.95


@pytest.mark.parametrize("size", _SIZES)
def test_sparse_part_of_both_signs(ground, engine, size):
    """For some clusters, against others, and for few rows of any."""

    def mixed(cluster: int) -> Sparse:
        values = {
            _CLUSTER + cluster: -size,
            _CLUSTER + (cluster + 5) % _CLUSTERS: size / 2,
            _FEW + 3: size,
            _FEW: -size,
        }
        return make_sparse(list(values), list(values.values()))

    assert recall(ground, engine, mixed) >= 0.95


@pytest.mark.parametrize("where", [{"u": {"$lt": _ROWS // 2}}, {"u": {"$lt": 200}}, {"u": {"$lt": 5}}], ids=str)
def test_filter_and_kills_beside_both_parts(ground, engine, where):
    """What is left out is neither looked at nor walked to; the dead are passed."""
    dead = np.flatnonzero(ground.clusters < 6)
    for size in (0.05, -1.0):
        sparse = make_sparse([_FEW, _FEW + 1, _CLUSTER + 2], [size, size, -size])
        assert recall(ground, engine, lambda _, sparse=sparse: sparse, where, dead) >= 0.95
