"""What every kind of segment keeps to, as tests: a kind's test module inherits the class and supplies `merge`.

A segment is asked through a snapshot that holds nothing else, before and after kills and patches.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.merge_policy import MergeOptions
from indexer.segments.search import SearchQuery
from indexer.snapshots.snapshot import Snapshot
from schemas.filters import parse_filter
from schemas.indexes import Metric
from schemas.operations import Delete, Event, Update, Upsert
from tests.model.checks import Query, assert_search, assert_shows
from tests.model.oracle import Oracle, score
from tests.support.builders import dense, metadata, sparse, spec_of, update, update_where, upsert, upserts
from tests.support.driver import Pipeline, Worker

__all__ = ["SegmentContract"]

_IDS = [f"id-{number:03d}" for number in range(150)]
_FILTERS = [
    {"n": 2},
    {"g": {"$ne": "x"}},
    {"n": {"$gte": 1, "$lt": 4}},
    {"$or": [{"g": "z"}, {"seen": True}]},
    {"g": "-"},
]


class SegmentContract:
    """The specification."""

    # Rows of one score among which the least ids are certain to be found.
    ties_max: int

    @pytest.fixture
    def merge(self) -> MergeOptions:
        """Options that turn everything into one segment of the kind."""
        raise NotImplementedError

    @pytest.fixture(params=list(Metric), ids=lambda metric: metric.value)
    def metric(self, request) -> Metric:
        return request.param

    @pytest.fixture
    def pipeline(self, tmp_path: Path, merge: MergeOptions, metric: Metric) -> Pipeline:
        return Pipeline(tmp_path, spec_of(metric), merge=merge)

    @pytest.fixture
    def fill(self, pipeline: Pipeline) -> Callable[[list[Event]], Worker]:
        """Write events in a few publishes and merge them into one segment."""

        def fill(events: list[Event]) -> Worker:
            worker = pipeline.worker()
            third = -(-len(events) // 3)
            for start in range(0, len(events), third):
                pipeline.book.append_all("films", events[start : start + third])
                worker.publish()
            worker.merge_all(is_quiet=True)
            assert len(worker.snapshot.views) == 1
            self.check_kind(pipeline.fresh_snapshot())
            return worker

        return fill

    def check_kind(self, snapshot: Snapshot) -> None:
        """Assert that the segment is of the kind in question."""
        raise NotImplementedError

    def check(self, pipeline: Pipeline, query: Query) -> None:
        """Compare a reader that opens the segment now to exact search."""
        snapshot = pipeline.fresh_snapshot()
        state = Oracle(pipeline.book).at(snapshot.next_offset)
        assert_shows(snapshot, state, names=["films"], ids=_IDS, query=query)

    @pytest.mark.parametrize("top_k", [1, 10, 149, 150, 1000])
    def test_search_is_exact_and_gives_as_many_as_there_are(self, pipeline, fill, top_k):
        """min(k, rows) hits, best first, ties by id, with the scores of the metric."""
        fill(upserts(_IDS))
        snapshot = pipeline.fresh_snapshot()
        state = Oracle(pipeline.book).at(snapshot.next_offset)
        for number in range(200, 220):
            assert_search(snapshot, state, "films", Query(dense(number), top_k))

    @pytest.mark.parametrize("where", _FILTERS, ids=str)
    def test_filtered_search_is_exact_and_gives_as_many_as_match(self, pipeline, fill, where):
        """A filter never costs a hit: min(k, matching) of them, whatever its selectivity."""
        fill(upserts(_IDS))
        snapshot = pipeline.fresh_snapshot()
        state = Oracle(pipeline.book).at(snapshot.next_offset)
        for top_k in (1, 10, 150):
            for number in range(200, 210):
                assert_search(snapshot, state, "films", Query(dense(number), top_k, where))

    def test_filter_that_matches_only_what_is_far_from_the_query_costs_no_hit(self, pipeline, fill, metric):
        """A filter may be anti-correlated with the query: the walk goes on until enough that match are found."""
        query = dense(220)
        scores = {number: score(metric, dense(number), query) for number in range(len(_IDS))}
        ranked = sorted(scores, key=scores.get, reverse=metric is not Metric.EUCLIDEAN)
        # One of those that match is near, so that the first walk finds some of them, but not enough.
        far = {ranked[0], *ranked[-12:]}
        fill([upsert(key, number, {"far": number in far, "n": 1}) for number, key in enumerate(_IDS)])
        snapshot = pipeline.fresh_snapshot()
        state = Oracle(pipeline.book).at(snapshot.next_offset)
        for top_k in (1, 5, 12, 20):
            assert_search(snapshot, state, "films", Query(query, top_k, {"far": True}))

    def test_kills_and_patches_are_seen_at_once(self, pipeline, fill):
        """A row that died is never found again, one that was patched is found by its new metadata."""
        worker = fill(upserts(_IDS))
        pipeline.book.append_all("films", [Delete(key) for key in _IDS[::3]])
        pipeline.book.append_all("films", [update(key, {"g": "new", "seen": True}) for key in _IDS[1::3]])
        pipeline.book.append("films", update_where({"n": 3}, {"n": 7}))
        worker.publish()
        for where in (*_FILTERS, {"g": "new"}, {"n": 7}):
            self.check(pipeline, Query(dense(7), 20, where))

    @pytest.mark.parametrize("alive", [0, 1, 2, 20])
    def test_almost_dead_segment_still_gives_what_lives(self, pipeline, fill, alive):
        """However many rows have died, min(k, alive) come back."""
        worker = fill(upserts(_IDS))
        pipeline.book.append_all("films", [Delete(key) for key in _IDS[alive:]])
        worker.publish()
        self.check(pipeline, Query(dense(9), 10, {"n": {"$gte": 0}}))

    def test_equal_vectors_come_in_the_order_of_their_ids(self, pipeline, fill):
        """Ties are broken by id, so pages and repeats agree."""
        fill([Upsert(key, dense(3).tobytes(), None, metadata({"n": 1, "g": "x"})) for key in _IDS[: self.ties_max]])
        self.check(pipeline, Query(dense(3), 10, {"n": 1}))
        self.check(pipeline, Query(dense(4), 10, {"n": 1}))

    def test_hits_of_one_score_are_sorted_by_id_and_distinct(self, pipeline, fill):
        """However many rows tie: as many as were asked for, each once, in the order of their ids."""
        fill([Upsert(key, dense(3).tobytes(), None, metadata({"n": 1, "g": "x"})) for key in _IDS])
        hits = pipeline.fresh_snapshot().search("films", SearchQuery(dense(4), 10))
        assert len({hit.id for hit in hits}) == len(hits) == 10
        assert [hit.id for hit in hits] == sorted(hit.id for hit in hits)
        assert len({hit.score for hit in hits}) == 1

    def test_zero_query_is_answered(self, pipeline, fill):
        """A zero vector may be asked for (not written): every cosine is 0."""
        fill(upserts(_IDS))
        self.check(pipeline, Query(np.zeros(4, np.float32), 10, {"n": 1}))

    @pytest.mark.parametrize("size", [3e38, 1e25, 1e-25, 1e-45])
    def test_numbers_whose_squares_no_float32_holds_are_answered(self, pipeline, fill, size):
        """Every finite vector may be written and asked for: as many rows as there are, each with a finite score."""
        vectors = {key: np.sign(dense(number)) * np.float32(size) for number, key in enumerate(_IDS)}
        fill([Upsert(key, vector.tobytes(), None, metadata({"n": 1})) for key, vector in vectors.items()])
        snapshot = pipeline.fresh_snapshot()
        for query in (vectors[_IDS[0]], -vectors[_IDS[1]], dense(200)):
            for top_k in (1, 100, 1000):
                hits = snapshot.search("films", SearchQuery(query, top_k))
                assert len({hit.id for hit in hits}) == len(hits) == min(top_k, len(_IDS))
                assert np.isfinite(np.array([hit.score for hit in hits], np.float32)).all()

    def test_records_come_back_as_they_were_written(self, pipeline, fill):
        """Vectors to the bit, sparse values, metadata, for hits and fetches."""
        events: list[Event] = [
            Upsert(key, dense(number).tobytes(), sparse(number) if number % 2 else None, metadata({"n": number % 5}))
            for number, key in enumerate(_IDS)
        ]
        worker = fill(events)
        self.check(pipeline, Query(dense(1), 20, {"n": 1}))
        pipeline.book.append("films", Update(_IDS[4], None, sparse(99), None))
        pipeline.book.append("films", Update(_IDS[5], dense(99).tobytes(), None, None))
        worker.publish()
        self.check(pipeline, Query(dense(99), 20, {"n": {"$gte": 0}}))

    def test_list_pages_are_in_byte_order_and_follow_a_prefix(self, pipeline, fill):
        """A page begins after the last id of the page before, in byte order, within the prefix."""
        keys = ["a", "a!", "ab", "a\x7f", "b", "b-1", "b-10", "b-2", "~", "B", "1", *_IDS[:60]]
        fill(upserts(keys))
        snapshot = pipeline.fresh_snapshot()
        ordered = sorted(keys)
        assert snapshot.list_ids("films", prefix="", after=None, limit=1000) == ordered
        for prefix in ("a", "b-", "id-0", "zz"):
            wanted = [key for key in ordered if key.startswith(prefix)]
            walked: list[str] = []
            while page := snapshot.list_ids("films", prefix=prefix, after=walked[-1] if walked else None, limit=2):
                walked += page
            assert walked == wanted
        assert snapshot.list_ids("films", prefix="b-", after="a", limit=1) == ["b-1"]
        assert snapshot.list_ids("films", prefix="b-", after="c", limit=1) == []

    def test_namespace_that_is_not_there_has_nothing(self, pipeline, fill):
        """Asking for another namespace finds no row of this one."""
        fill(upserts(_IDS))
        snapshot = pipeline.fresh_snapshot()
        assert snapshot.search("other", SearchQuery(dense(0), 5, parse_filter({"n": 1}))) == []
        assert snapshot.fetch("other", _IDS) == {}
        assert snapshot.count("other") == 0
