"""A segment with a graph keeps the contract of segments, and what only it promises.

Searches of these small graphs walk the graph whatever it costs, with as many candidates as there are rows, so they must
be exact.
"""

from __future__ import annotations

import numpy as np
import pytest

from indexer.merge_policy import MergeOptions
from indexer.segments import view as segment_view
from indexer.segments.hnsw import Graph, GraphOptions, build_graph
from indexer.snapshots.snapshot import Snapshot
from schemas.errors import CorruptData
from schemas.indexes import Metric
from schemas.manifest import GRAPH
from tests.contract.segment_contract import SegmentContract

_ROWS = 2000


class TestGraphSegment(SegmentContract):
    """Everything that every kind of segment promises."""

    # A walk ends with half as many candidates again as were asked for, and eight.
    ties_max = 20

    @pytest.fixture(autouse=True)
    def eager(self, monkeypatch) -> None:
        monkeypatch.setattr(segment_view, "_GRAPH_COST", 0)

    @pytest.fixture
    def merge(self) -> MergeOptions:
        return MergeOptions(rollup_deltas=3, graph_rows_min=16, dead_share_max=1.0)

    def check_kind(self, snapshot: Snapshot) -> None:
        assert snapshot.views[0].source.kind == GRAPH
        assert snapshot.views[0].reader.graph is not None


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((_ROWS, 16)).astype(np.float32)


@pytest.mark.parametrize("metric", list(Metric))
def test_graph_finds_nearest_rows(tmp_path, vectors, metric):
    """Recall at 10 over 200 queries is at least 0.95, the target of every index."""
    file = tmp_path / "graph"
    build_graph(vectors, metric, GraphOptions(), file)
    graph = Graph(file, rows=_ROWS, dimension=16, metric=metric, ef_search=200)
    queries = np.random.default_rng(6).standard_normal((200, 16)).astype(np.float32)
    found = 0
    for query in queries:
        products = vectors @ query
        if metric is Metric.COSINE:
            products = products / np.linalg.norm(vectors, axis=1)
        elif metric is Metric.EUCLIDEAN:
            products = -((vectors - query) ** 2).sum(axis=1)
        wanted = set(np.argsort(-products)[:10].tolist())
        found += len(wanted & set(graph.search(query, 10).tolist()))
    assert found / 2000 >= 0.95


def test_same_rows_and_seed_make_the_same_bytes(tmp_path, vectors):
    """One builder thread and a fixed seed: a graph can be built again and compared."""
    for name in ("first", "second"):
        build_graph(vectors, Metric.COSINE, GraphOptions(), tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_graph_never_gives_more_than_it_has(tmp_path, vectors):
    """Asking for more rows than there are is no error."""
    file = tmp_path / "graph"
    build_graph(vectors[:5], Metric.COSINE, GraphOptions(), file)
    graph = Graph(file, rows=5, dimension=16, metric=Metric.COSINE, ef_search=10)
    assert sorted(graph.search(vectors[0], 100).tolist()) == [0, 1, 2, 3, 4]


def test_graph_with_another_number_of_rows_is_refused(tmp_path, vectors):
    """A graph that does not fit its rows would point anywhere."""
    file = tmp_path / "graph"
    build_graph(vectors[:5], Metric.COSINE, GraphOptions(), file)
    with pytest.raises(CorruptData):
        Graph(file, rows=6, dimension=16, metric=Metric.COSINE, ef_search=10)


@pytest.mark.parametrize("kept", [0, 4, 50, 96, 5000])
def test_torn_graph_is_refused(tmp_path, vectors, kept):
    """A file that is too short is damage, even where its digest was not asked for."""
    file = tmp_path / "graph"
    build_graph(vectors[:50], Metric.COSINE, GraphOptions(), file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CorruptData):
        Graph(file, rows=50, dimension=16, metric=Metric.COSINE, ef_search=10)


def test_graph_that_was_saved_short_is_an_error(tmp_path, vectors, monkeypatch):
    """The library ignores write errors: the size of what it saved is checked."""
    stock = build_graph.__globals__["hnswlib"].Index

    class Short(stock):
        def save_index(self, path: str) -> None:
            super().save_index(path)
            with open(path, "r+b") as file:  # noqa: PTH123 # as the library does
                file.truncate(100)

    monkeypatch.setattr(build_graph.__globals__["hnswlib"], "Index", Short)
    with pytest.raises(CorruptData):
        build_graph(vectors[:50], Metric.COSINE, GraphOptions(), tmp_path / "graph")
