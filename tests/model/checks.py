"""A snapshot compared to the oracle's state, through every door that a snapshot has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
import pytest

from indexer.segments.search import SearchQuery
from indexer.snapshots.opener import OUTCOMES_KEPT_MS
from indexer.snapshots.snapshot import Snapshot
from indexer.snapshots.store import Store
from query_api.matching import record_page
from schemas.filters import Filter, parse_filter
from schemas.indexes import Metric
from schemas.records import Record, Sparse
from tests.model.oracle import Kept, State, score_of_parts
from tests.support.driver import dead_letters_of

__all__ = ["Query", "assert_counts", "assert_dead_letters", "assert_namespace", "assert_search", "assert_shows"]

# Vectors of the builders have exact products and norms; what is left is one float64 division.
_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Query:
    """A question to a namespace; `where` is a filter in its JSON form."""

    vector: np.ndarray | None
    top_k: int
    where: Mapping[str, object] | None = None
    sparse: Sparse | None = None

    def forms(self, metric: Metric) -> Iterator[Query]:
        """Yield the question as it can be asked of an index: with and without a filter, by one part and by both."""
        for where in [self.where] if self.where is None else [self.where, None]:
            if self.vector is not None:
                yield Query(self.vector, self.top_k, where)
            if self.sparse is not None:
                yield Query(None, self.top_k, where, self.sparse)
            if self.vector is not None and self.sparse is not None and metric is Metric.DOTPRODUCT:
                yield Query(self.vector, self.top_k, where, self.sparse)


def assert_shows(snapshot: Snapshot, state: State, *, names: Sequence[str], ids: Sequence[str], query: Query) -> None:
    """Compare everything about the namespaces `names`, and the counts of all."""
    assert_counts(snapshot, state)
    for name in names:
        assert_namespace(snapshot, state, name, ids)
        for form in query.forms(snapshot.metric):
            assert_search(snapshot, state, name, form)


def assert_counts(snapshot: Snapshot, state: State) -> None:
    """Compare position, namespaces, counts, outcomes."""
    assert snapshot.next_offset == state.next_offset
    assert snapshot.applied_time_ms == state.time_ms
    assert snapshot.dead_letters == len(state.dead_letters)
    assert snapshot.counts() == {name: len(records) for name, records in state.records.items()}
    assert snapshot.live_rows == sum(map(len, state.records.values()))
    assert snapshot.tail_rows == sum(view.live_rows for view in snapshot.views if not view.in_graph)
    for name, schema in state.schemas.items():
        assert snapshot.namespaces[name].schema == schema
    oldest_ms = snapshot.manifest.created_ms - OUTCOMES_KEPT_MS
    for offset, result in state.results.items():
        if result.time_ms >= oldest_ms:
            assert offset in snapshot.outcomes, f"the outcome at {offset} is younger than a minute and gone"
    for offset, outcome in snapshot.outcomes.items():
        wanted = state.results[offset]
        assert (outcome.offset, outcome.code, outcome.matched_records) == (offset, wanted.code, wanted.matched)
        assert outcome.time_ms == wanted.time_ms


def assert_namespace(snapshot: Snapshot, state: State, name: str, ids: Sequence[str]) -> None:
    """Compare existence, all records, and the whole listing of a namespace."""
    kept = state.records.get(name, {})
    assert snapshot.namespace_exists(name) is (name in state.records)
    assert snapshot.count(name) == len(kept)
    assert 0 <= snapshot.tail_rows_of(name) <= len(kept)
    fetched = snapshot.fetch(name, ids)
    assert sorted(fetched) == sorted(kept)
    for key, record in fetched.items():
        assert record.id == key
        assert_record(record, kept[key])
    assert snapshot.list_ids(name, prefix="", after=None, limit=len(ids) + 1) == state.ids(name)


def assert_record(record: Record, kept: Kept) -> None:
    """Compare the vectors by their bytes and the metadata as objects."""
    assert (b"" if record.values is None else record.values.tobytes()) == kept.values
    sparse = record.sparse
    pair = None if sparse is None else (tuple(sparse.indices.tolist()), tuple(sparse.values.tolist()))
    assert pair == kept.sparse
    assert (orjson.loads(record.metadata) if record.metadata else {}) == kept.metadata


def assert_search(snapshot: Snapshot, state: State, name: str, query: Query) -> None:
    """Compare the answer to exact search: the same ids in the same order, min(k, matching) of them, the same scores."""
    where = None if query.where is None else parse_filter(query.where)
    metric = snapshot.metric
    asked = {"where": query.where, "sparse": query.sparse}
    wanted = state.search(name, query.vector, metric, top_k=query.top_k, **asked)
    hits = snapshot.search(name, SearchQuery(query.vector, query.top_k, where, query.sparse))
    assert [hit.id for hit in hits] == [key for key, _ in wanted]
    assert [hit.score for hit in hits] == pytest.approx([number for _, number in wanted], rel=_TOLERANCE)
    kept = state.records.get(name, {})
    for hit, record in zip(hits, snapshot.records(hits, values=True, metadata=True), strict=True):
        assert_record(record, kept[hit.id])
        number = score_of_parts(metric, kept[hit.id], query.vector, query.sparse)
        assert hit.score == pytest.approx(number, rel=_TOLERANCE)
    if where is not None and query.sparse is None:
        everything = state.search(name, query.vector, metric, top_k=len(kept), where=query.where)
        assert snapshot.count_matching(name, where) == len(everything)
        assert_pages(snapshot, name, where, sorted(key for key, _ in everything))


def assert_pages(snapshot: Snapshot, name: str, where: Filter, ids: Sequence[str]) -> None:
    """Walk all pages of the records that match: `ids` in this order, however full a page is."""
    for limit, bytes_max in ((7, 2**30), (1_000, 100)):
        walked: list[str] = []
        after = None
        while True:
            page = record_page(snapshot, name, where, after=after, limit=limit, bytes_max=bytes_max)
            assert len(page.records) <= limit
            walked += page.records
            if page.after is None:
                break
            assert page.after == walked[-1]
            after = page.after
        assert walked == list(ids)


def assert_dead_letters(store: Store, snapshot: Snapshot, state: State) -> None:
    """Compare the dead letters: each record that could not be folded, once, with its original bytes and a reason."""
    letters = dead_letters_of(store, snapshot)
    assert [letter.offset for letter in letters] == [said.offset for said in state.dead_letters]
    for letter, said in zip(letters, state.dead_letters, strict=True):
        record = said.record
        assert (letter.key, letter.value, letter.headers) == (record.key, record.value, record.headers)
        assert letter.time_ms == record.time_ms
        assert letter.reason
