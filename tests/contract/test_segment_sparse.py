"""Queries by sparse values, alone and beside dense ones, over every kind of segment and by both engines.

Scores are exact, so answers are compared to a dictionary and an exact search, to the last id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.merge_policy import MergeOptions
from indexer.segments.search import SearchQuery
from indexer.snapshots.snapshot import Snapshot
from schemas.filters import parse_filter
from schemas.indexes import Metric
from schemas.operations import Delete, DeleteNamespace, Event, Update, Upsert
from schemas.records import Sparse, make_sparse
from tests.model.checks import Query, assert_search, assert_shows
from tests.model.oracle import Oracle
from tests.support.builders import dense, metadata, spec_of, update, update_where, words
from tests.support.driver import EXACT, Pipeline, Worker
from tests.support.engines import ENGINES, walks_always

_IDS = [f"id-{number:03d}" for number in range(150)]
_FILTERS = [{"n": 2}, {"g": {"$ne": "x"}}, {"n": {"$gte": 1, "$lt": 4}}, {"g": "-"}]
_NEVER = 1_000_000
# Publishes without a merge; one flat segment; one that other namespaces share; a graph.
_MERGES = {
    "deltas": MergeOptions(rollup_deltas=60, graph_rows_min=_NEVER),
    "flat": MergeOptions(rollup_deltas=3, graph_rows_min=_NEVER),
    "shared": MergeOptions(rollup_deltas=3, graph_rows_min=_NEVER),
    "graph": MergeOptions(rollup_deltas=3, graph_rows_min=16, dead_share_max=0.99),
}


def sparse_of(values: dict[int, float]) -> Sparse:
    found = make_sparse(list(values), list(values.values()))
    assert found is not None
    return found


def both(key: str, number: int, sparse: Sparse | None, **document: object) -> Upsert:
    return Upsert(key, dense(number).tobytes(), sparse, metadata(document))


def records(count: int = len(_IDS)) -> list[Event]:
    """Return records of which one in five has no sparse values."""
    return [
        both(key, number, words(number) if number % 5 else None, n=number % 5, g="xyz"[number % 3])
        for number, key in enumerate(_IDS[:count])
    ]


@pytest.fixture(params=list(_MERGES))
def kind(request) -> str:
    return request.param


@pytest.fixture(params=ENGINES)
def engine(request) -> str:
    return request.param


@pytest.fixture(params=[Metric.DOTPRODUCT, Metric.EUCLIDEAN], ids=lambda metric: metric.value)
def metric(request) -> Metric:
    return request.param


@pytest.fixture(autouse=True)
def walks(monkeypatch) -> list[int]:
    return walks_always(monkeypatch)


@pytest.fixture
def pipeline(tmp_path: Path, kind: str, engine: str, metric: Metric) -> Pipeline:
    return Pipeline(tmp_path, spec_of(metric), merge=_MERGES[kind], graph=replace(EXACT, engine=engine))


@pytest.fixture
def fill(pipeline: Pipeline, kind: str) -> Callable[[list[Event]], Worker]:
    """Write events in a few publishes and merge them into the kind of segment in question."""

    def fill(events: list[Event]) -> Worker:
        worker = pipeline.worker()
        third = -(-len(events) // 3)
        for start in range(0, len(events), third):
            if kind == "shared":
                for name in ("books", "tracks"):
                    pipeline.book.append_all(name, events[start : start + third])
            pipeline.book.append_all("films", events[start : start + third])
            worker.publish()
        if kind != "deltas":
            worker.merge_all(is_quiet=True)
        views = pipeline.fresh_snapshot().views
        assert len(views) == (3 if kind == "deltas" else 1)
        assert all(view.in_graph == (kind == "graph") for view in views)
        columns = [view.reader.sparse_columns for view in views]
        assert all(column is None or column.has_postings == (kind != "deltas") for column in columns)
        return worker

    return fill


def check(pipeline: Pipeline, sparse: Sparse, *, vector: np.ndarray | None = None, top_ks=(1, 10, 1000), where=None):
    """Compare a reader that opens the segments now to exact search, in every form of the question."""
    snapshot = pipeline.fresh_snapshot()
    state = Oracle(pipeline.book).at(snapshot.next_offset)
    for top_k in top_ks:
        for form in Query(vector, top_k, where, sparse).forms(snapshot.metric):
            assert_search(snapshot, state, "films", form)


def plans(snapshot: Snapshot, query: SearchQuery) -> set[str]:
    return {report.plan for report in snapshot.search_explained("films", query)[1]}


def test_answers_are_those_of_an_exact_search(pipeline, fill):
    """By the sparse part alone and by the sum of both, whichever of the two is the larger one, and of either sign."""
    fill(records())
    for number in range(300, 315):
        sparse = words(number)
        for scale in (1, 1 / 64, 64, -64):
            scaled = Sparse(sparse.indices, sparse.values * np.float32(scale))
            check(pipeline, scaled, vector=dense(number))


@pytest.mark.parametrize("where", _FILTERS, ids=str)
def test_filters_choose_among_the_matches(pipeline, fill, where):
    """A filter never costs a match and never lets one through."""
    fill(records())
    for number in range(300, 306):
        check(pipeline, words(number), vector=dense(number), where=where)


def test_kills_patches_and_new_sparse_values_are_seen_at_once(pipeline, fill):
    """Postings were written before; what died or changed since is not found by them, what is new is."""
    worker = fill(records())
    pipeline.book.append_all("films", [Delete(key) for key in _IDS[::3]])
    pipeline.book.append_all("films", [update(key, {"g": "new"}) for key in _IDS[1::3]])
    pipeline.book.append_all("films", [Update(key, None, words(400 + at), None) for at, key in enumerate(_IDS[2::9])])
    pipeline.book.append("films", Update(_IDS[5], dense(99).tobytes(), None, None))
    pipeline.book.append("films", update_where({"n": 3}, {"n": 7}))
    worker.publish()
    for where in (None, {"g": "new"}, {"n": 7}):
        for number in (400, 401, 402):
            check(pipeline, words(number), vector=dense(number), where=where)
    worker.merge_all(is_quiet=True)
    check(pipeline, words(400), vector=dense(9), where={"g": "new"})
    # What a fresh worker makes of the log again is the same.
    pipeline.book.append("films", DeleteNamespace(keep=True))
    worker.publish()
    assert pipeline.fresh_snapshot().search("films", SearchQuery(None, 10, None, words(400))) == []


def test_what_shares_no_index_is_no_match_of_a_sparse_vector_alone(pipeline, fill):
    """Fewer than were asked for may come back; a record that shares an index is a match whatever the product is."""
    events = [
        both("shares", 1, sparse_of({7: 2.0, 9: 1.0})),
        both("cancels", 2, sparse_of({7: 1.0, 8: -1.0})),
        both("zero", 3, sparse_of({8: 0.0})),
        both("below", 4, sparse_of({7: -3.0})),
        both("others", 5, sparse_of({9: 5.0})),
        both("none", 6, None),
    ]
    fill([*events, *[both(key, number, sparse_of({1000: 1.0})) for number, key in enumerate(_IDS[:40])]])
    query = SearchQuery(None, 100, None, sparse_of({7: 0.5, 8: 0.5}))
    hits = pipeline.fresh_snapshot().search("films", query)
    assert [(hit.id, hit.score) for hit in hits] == [("shares", 1), ("cancels", 0), ("zero", 0), ("below", -1.5)]
    nobody = SearchQuery(None, 100, None, sparse_of({6: 1.0}))
    assert pipeline.fresh_snapshot().search_explained("films", nobody)[0] == []
    check(pipeline, sparse_of({7: 0.5, 8: 0.5}), vector=dense(9))
    check(pipeline, sparse_of({6: 1.0}), vector=dense(9))


def test_equal_scores_are_ordered_by_id_however_many(pipeline, fill):
    """Ties are broken by id, alone and beside equal dense values, more of them than an engine gives back at once."""
    fill([both(key, 3, sparse_of({5: 1.0}), n=1) for key in _IDS])
    check(pipeline, sparse_of({5: 2.0, 6: 1.0}), top_ks=(1, 10, 149))
    check(pipeline, sparse_of({5: 2.0, 6: 1.0}), vector=dense(4), top_ks=(10,), where={"n": 1})


def test_zero_vector_leaves_the_order_to_the_sparse_part(pipeline, fill):
    """Clients weigh the parts by scaling them, down to nothing: then records without an index in common score 0."""
    fill(records())
    check(pipeline, words(301), vector=np.zeros(4, np.float32))


def test_as_many_values_as_a_vector_may_have(pipeline, fill):
    """2,048 values at both ends of the index space and in between; a product is exact whatever the sizes."""
    source = np.random.default_rng(3)
    indices = np.concatenate([np.arange(1024), 2**32 - 1 - np.arange(1024)])
    vectors = [make_sparse(source.permutation(indices)[:n], source.integers(-9, 9, n)) for n in (2048, 1, 700, 2048)]
    fill([both(key, number, vectors[number % 4], n=1) for number, key in enumerate(_IDS[:60])])
    for sparse in vectors:
        check(pipeline, sparse, vector=dense(3), top_ks=(10, 1000))


@pytest.mark.parametrize("size", [3e38, 1e-45])
def test_numbers_at_the_ends_of_float32_give_finite_scores(pipeline, fill, size):
    """Sums are kept in float64; a score beyond float32 is the last number within."""
    fill([both(key, number, sparse_of({1: size, 2: size})) for number, key in enumerate(_IDS[:60])])
    snapshot = pipeline.fresh_snapshot()
    for vector in (None, dense(3), dense(3) * np.float32(1e37)):
        for sparse in (sparse_of({1: 3e38, 2: 3e38}), sparse_of({1: -3e38})):
            hits = snapshot.search("films", SearchQuery(vector, 100, None, sparse))
            assert len({hit.id for hit in hits}) == 60
            assert np.isfinite(np.array([hit.score for hit in hits], np.float32)).all()


def test_namespace_that_is_not_there_has_nothing(pipeline, fill):
    """Asking for another namespace finds no row of this one."""
    fill(records(60))
    where = parse_filter({"n": 1})
    assert pipeline.fresh_snapshot().search("other", SearchQuery(None, 5, where, words(1))) == []


@pytest.mark.parametrize("metric", [Metric.DOTPRODUCT], indirect=True)
def test_report_says_which_parts_were_searched_and_how(pipeline, fill, kind, engine):
    """`sparse` alone; before a plus what was done with the dense part; nothing of it where no row has an index."""
    fill(records(60))
    snapshot = pipeline.fresh_snapshot()
    sparse = words(301, 1)
    is_walked = kind == "graph" and engine == "native"
    assert plans(snapshot, SearchQuery(None, 5, None, sparse)) == {"sparse"}
    assert plans(snapshot, SearchQuery(dense(1), 5, None, sparse)) == {"sparse+graph" if is_walked else "sparse+scan"}
    assert plans(snapshot, SearchQuery(np.zeros(4, np.float32), 5, None, sparse)) == {"sparse+scan"}
    filtered = SearchQuery(np.zeros(4, np.float32), 5, parse_filter({"n": {"$gte": 1}}), sparse)
    assert plans(snapshot, filtered) == {"sparse+filter"}
    nobody = sparse_of({77: 1.0})
    if kind != "deltas":
        assert plans(snapshot, SearchQuery(None, 5, None, nobody)) == set()
        assert plans(snapshot, SearchQuery(dense(1), 5, None, nobody)) == {"scan"}
    (report, *_) = snapshot.search_explained("films", SearchQuery(None, 5, None, sparse))[1]
    assert 0 < report.candidates <= report.allowed <= report.rows


@pytest.mark.parametrize("kind", ["deltas", "flat"], indirect=True)
def test_index_of_sparse_records_alone(tmp_path, kind, engine):
    """Records without dense values are found by their sparse ones, filtered, killed and merged like any other."""
    pipeline = Pipeline(tmp_path, spec_of(Metric.DOTPRODUCT, dimension=0), merge=_MERGES[kind])
    pipeline.options = replace(pipeline.options, graph=replace(EXACT, engine=engine))
    worker = pipeline.worker()
    for first in (0, 50, 100):
        for name in ("books", "films"):
            events = [
                Upsert(key, b"", words(at), metadata({"n": at % 5})) for at, key in enumerate(_IDS[first:][:50], first)
            ]
            pipeline.book.append_all(name, events)
        worker.publish()
    if kind != "deltas":
        worker.merge_all(is_quiet=True)
    pipeline.book.append_all("films", [Delete(key) for key in _IDS[::4]])
    worker.publish()
    snapshot = pipeline.fresh_snapshot()
    state = Oracle(pipeline.book).at(snapshot.next_offset)
    for number in range(300, 310):
        query = Query(None, 12, {"n": {"$lt": 3}}, words(number))
        assert_shows(snapshot, state, names=["films", "books"], ids=_IDS, query=query)
