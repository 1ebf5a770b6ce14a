"""Filters over graphs in the cases where walks go astray: min(k, existing) answers come back, and recall stays.

Both engines, planned as in service, on graphs that are large enough to be walked.
"""

from __future__ import annotations

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
from indexer.segments.view import SegmentView
from schemas.filters import parse_filter
from schemas.indexes import Metric
from schemas.manifest import GRAPH, ObjectRef, SegmentEntry
from tests.support.builders import spec_of
from tests.support.engines import ENGINES, searched

_ROWS, _DIMENSION, _CLUSTERS, _TOP_K = 6_000, 32, 30, 10
_REF = ObjectRef("object", 0, b"")


@dataclass(frozen=True)
class Made:
    """A graph segment: its vectors by row, the cluster of each row, and its containers."""

    vectors: np.ndarray
    clusters: np.ndarray
    records: Container
    matrix: Container
    graph: Container
    ef: int

    def view(self, engine: str, dead: BitMap | None = None) -> SegmentView:
        """Open it for an engine."""
        opened = open_graph(
            choose_engine(engine), self.graph, self.matrix, rows=_ROWS, metric=Metric.COSINE, ef=self.ef
        )
        reader = SegmentReader(1, self.records, self.matrix, opened)
        entry = SegmentEntry(1, GRAPH, _REF, _REF, _REF, _ROWS)
        return SegmentView(reader, entry, dead or BitMap())


def container(sections: dict) -> Container:
    return Container(memoryview(b"".join(pack(sections, rows=_ROWS, dimension=_DIMENSION))))


def made_of(vectors: np.ndarray, clusters: np.ndarray) -> Made:
    documents = [
        b'{"cluster":%d,"u":%d}' % (cluster, at * 7919 % _ROWS) for at, cluster in enumerate(clusters.tolist())
    ]
    rows = Rows(
        names=["films"],
        namespace=np.zeros(_ROWS, np.int64),
        ids=[b"id-%d" % at for at in range(_ROWS)],
        metadata=documents,
        offsets=np.arange(_ROWS),
        times=np.arange(_ROWS),
        sparse=[None] * _ROWS,
        vectors=vectors,
    )
    records, matrix, order = lay_out(rows)
    records |= lay_out_columns([documents[at] for at in order.tolist()])
    ordered = np.ascontiguousarray(vectors[order])
    built = build_graph(GraphJob(spec_of(dimension=_DIMENSION), GraphOptions(), ordered, _ROWS))
    graph = container(sections_of(built.links, built.codes))
    return Made(ordered, clusters[order], container(records), container(matrix), graph, built.ef_search)


@pytest.fixture(scope="module")
def clustered() -> Made:
    source = np.random.default_rng(1)
    centres = source.standard_normal((_CLUSTERS, _DIMENSION))
    clusters = np.arange(_ROWS) % _CLUSTERS
    vectors = centres[clusters] + 0.35 * source.standard_normal((_ROWS, _DIMENSION))
    return made_of(vectors.astype(np.float32), clusters)


@pytest.fixture(scope="module")
def identical() -> Made:
    source = np.random.default_rng(2)
    vectors = np.repeat(source.standard_normal((3, _DIMENSION)), _ROWS // 3, axis=0)
    return made_of(vectors.astype(np.float32), np.arange(_ROWS) * 3 // _ROWS)


@pytest.fixture(params=ENGINES)
def engine(request) -> str:
    return request.param


def asked(made: Made, view: SegmentView, engine: str, query: np.ndarray, where: dict | None) -> tuple[float, object]:
    """Search, assert that min(k, existing) distinct allowed rows came back; return the recall and the report."""
    tree = None if where is None else parse_filter(where)
    searcher = searcher_of(choose_engine(engine))
    question = SearchQuery(query, _TOP_K, tree)
    part = view.reader.slice_of("films")
    found = searched(searcher, [(view, part)], question, Metric.COSINE)
    allowed = np.flatnonzero(view.matching(part, tree))
    cosine = made.vectors @ query / np.linalg.norm(made.vectors, axis=1)
    wanted = np.sort(cosine[allowed])[::-1][:_TOP_K]
    hits = found.hits["row"][:_TOP_K].tolist()
    assert len(set(hits)) == len(hits) == len(wanted)
    assert set(hits) <= set(allowed.tolist())
    # Rows as near as the last of the true ones are as good: identical vectors are not told apart.
    recall = float(np.mean(np.sort(cosine[hits])[::-1] >= wanted - 1e-6)) if len(wanted) else 1.0
    return recall, (found.reports or [None])[0]


def queries(made: Made, cluster: int, count: int = 20) -> np.ndarray:
    source = np.random.default_rng(cluster)
    inside = made.vectors[made.clusters == cluster][:count]
    return (inside + 0.2 * source.standard_normal(inside.shape)).astype(np.float32)


@pytest.mark.parametrize("spared", [1, 3, 15, 29])
def test_filter_that_leaves_out_what_is_near_the_query(clustered, engine, spared):
    """Anti-correlated: only rows of other clusters than the query's are allowed, few clusters or most of them."""
    view = clustered.view(engine)
    where = {"cluster": {"$in": list(range(1, 1 + spared))}}
    recalls = [asked(clustered, view, engine, query, where)[0] for query in queries(clustered, 0)]
    assert np.mean(recalls) >= 0.95


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.03, 0.01, 0.001])
def test_filter_that_has_nothing_to_do_with_the_query(clustered, engine, share):
    """Uncorrelated, at every selectivity; combined with the query's own cluster, too."""
    view = clustered.view(engine)
    for where in ({"u": {"$lt": share * _ROWS}}, {"u": {"$lt": share * _ROWS}, "cluster": {"$lte": 4}}):
        recalls = [asked(clustered, view, engine, query, where)[0] for query in queries(clustered, 3)]
        assert np.mean(recalls) >= 0.95


def test_clusters_that_died_are_walked_through(clustered, engine):
    """All rows near the query are dead: those that live are found behind them."""
    for died in (5, 20, 29):
        view = clustered.view(engine, bitmap_of(np.flatnonzero(clustered.clusters < died)))
        for where in (None, {"u": {"$lt": _ROWS // 2}}):
            recalls = [asked(clustered, view, engine, query, where)[0] for query in queries(clustered, 2)]
            assert np.mean(recalls) >= 0.95


def test_identical_vectors_are_as_many_as_were_asked_for(identical, engine):
    """Thousands of rows in one place, of which few are allowed: the walk does not end among the others."""
    view = identical.view(engine)
    for where in (None, {"cluster": 1}, {"u": {"$lt": 40}}, {"u": {"$lt": 6}}, {"u": {"$gte": 100}, "cluster": 2}):
        for place in (0, _ROWS - 1):
            recall, _ = asked(identical, view, engine, identical.vectors[place], where)
            assert recall >= 0.95


def test_walk_that_was_given_up_says_so(clustered, monkeypatch):
    """The report tells the plan that found the answer, and that another was tried."""
    monkeypatch.setattr("indexer.segments.planner._RISK", 0)
    query = queries(clustered, 0)[0]
    view = clustered.view("native")
    recall, report = asked(clustered, view, "native", query, {"cluster": {"$lt": 15}})
    assert (report.plan, report.fell_back) == ("graph", False)
    monkeypatch.setattr("indexer.segments.planner._PATIENCE", 0.01)
    recall, report = asked(clustered, view, "native", query, {"cluster": 29})
    assert (recall, report.plan, report.fell_back) == (1.0, "filter", True)
    assert report.candidates > report.allowed == _ROWS // _CLUSTERS
