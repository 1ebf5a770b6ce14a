"""From one snapshot to a later one: whatever was skipped, the later one shows what a fresh one shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from indexer.snapshots.opener import fold_changes
from schemas.changes import Patch, SegmentChanges
from schemas.operations import CreateNamespace, DeleteNamespace
from tests.model.checks import assert_counts
from tests.model.oracle import Oracle
from tests.support.builders import delete_where, metadata, spec_of, update, upserts
from tests.support.driver import Pipeline, Worker

_IDS = [f"id-{number:02d}" for number in range(40)]


@pytest.fixture
def pipeline(tmp_path):
    return Pipeline(tmp_path, spec_of())


def churn_namespaces(pipeline: Pipeline, worker: Worker, rounds: int) -> None:
    """Make and remove a namespace in every round, and roll up, so that the lists of namespaces are written anew."""
    for number in range(rounds):
        pipeline.book.append(f"passing-{number}", CreateNamespace(b""))
        worker.publish()
        pipeline.book.append(f"passing-{number}", DeleteNamespace(keep=False))
        worker.publish()
        pipeline.book.append_all("films", upserts(_IDS[:2], number))
        worker.publish()
        worker.merge_all()


def test_follower_that_slept_learns_that_a_namespace_is_gone(pipeline):
    """A namespace that was forgotten while a follower slept is not remembered by the follower either."""
    worker, reader = pipeline.worker(), pipeline.follower()
    pipeline.book.append_all("books", upserts(_IDS[:5]))
    worker.publish()
    reader.refresh()
    assert reader.current.namespace_exists("books")
    pipeline.book.append("books", DeleteNamespace(keep=False))
    worker.publish()
    churn_namespaces(pipeline, worker, 40)
    assert "books" not in pipeline.fresh_snapshot().namespaces
    reader.refresh()
    assert not reader.current.namespace_exists("books")
    assert reader.current.namespaces == pipeline.fresh_snapshot().namespaces
    assert_counts(reader.current, Oracle(pipeline.book).at(pipeline.book.end))


def test_namespaces_that_are_gone_are_forgotten(pipeline):
    """A partition remembers the namespaces that exist, not all that ever did."""
    worker, reader = pipeline.worker(), pipeline.follower()
    churn_namespaces(pipeline, worker, 60)
    reader.refresh()
    for snapshot in (worker.snapshot, reader.current):
        assert len(snapshot.namespaces) < 30
        assert snapshot.namespaces["films"].exists


def test_namespaces_stay_gone_where_none_is_left(pipeline):
    """The list of namespaces may become empty, which is not the same as nothing to say."""
    worker, reader = pipeline.worker(), pipeline.follower()
    for number in range(40):
        pipeline.book.append(f"passing-{number}", CreateNamespace(b""))
        worker.publish()
        pipeline.book.append(f"passing-{number}", DeleteNamespace(keep=False))
        worker.publish()
        worker.merge_all()
        if number % 9 == 0:
            reader.refresh()
    reader.refresh()
    for snapshot in (worker.snapshot, reader.current, pipeline.fresh_snapshot()):
        assert snapshot.counts() == {}
        assert len(snapshot.namespaces) < 20


def test_namespace_deleted_and_made_again_while_a_follower_slept_shows_only_new_rows(pipeline):
    """Rows below a deletion stay dead in segments that the follower had open all along."""
    worker, reader = pipeline.worker(), pipeline.follower()
    pipeline.book.append_all("books", upserts(_IDS[:20]))
    worker.publish()
    reader.refresh()
    pipeline.book.append("books", DeleteNamespace(keep=False))
    pipeline.book.append_all("books", upserts(_IDS[10:12], 50))
    worker.publish()
    pipeline.book.append_all("books", upserts(_IDS[12:13], 60))
    worker.publish()
    reader.refresh()
    assert reader.current.list_ids("books", prefix="", after=None, limit=100) == _IDS[10:13]


def test_deletion_of_a_namespace_while_its_rows_are_merged_kills_the_merged_rows(pipeline):
    """A merge knows nothing of what was deleted since it was frozen: its output is buried when it is opened."""
    worker, reader = pipeline.worker(), pipeline.follower()
    for first in (0, 0, 0, 0, 10, 20):
        pipeline.book.append_all("books", upserts(_IDS[first : first + 10], first))
        worker.publish()
        if first == 0:
            worker.merge_all()
    reader.refresh()
    assert worker.snapshot.table.namespaces, "the namespace is not new to this table"
    assert worker.start("rollup")
    pipeline.book.append("books", DeleteNamespace(keep=True))
    pipeline.book.append_all("books", upserts(_IDS[:1], 50))
    worker.publish()
    worker.finish("rollup")
    reader.refresh()
    for snapshot in (worker.snapshot, reader.current, pipeline.fresh_snapshot()):
        assert snapshot.counts() == {"books": 1}
        assert snapshot.list_ids("books", prefix="", after=None, limit=100) == _IDS[:1]


def test_deletion_that_was_rolled_up_before_a_graph_is_committed_kills_its_rows(pipeline):
    """The deletion may be told by an older object than any that the merge's manifest brings."""
    worker, reader = pipeline.worker(), pipeline.follower()
    for first in (0, 10, 30):
        pipeline.book.append_all("books", upserts(_IDS[first : first + 20], first))
        worker.publish()
    assert worker.start("rollup")
    worker.finish("rollup")
    assert worker.start("graph")
    pipeline.book.append("books", DeleteNamespace(keep=True))
    for first in (0, 1, 2):
        pipeline.book.append_all("films", upserts(_IDS[:5], first))
        worker.publish()
    assert worker.start("rollup")
    worker.finish("rollup")
    reader.refresh()
    worker.finish("graph")
    reader.refresh()
    for snapshot in (worker.snapshot, reader.current, pipeline.fresh_snapshot()):
        assert snapshot.counts() == {"books": 0, "films": 5}
        assert snapshot.list_ids("books", prefix="", after=None, limit=100) == []


def test_snapshot_shares_what_has_not_changed(pipeline):
    """A publish opens its own object and nothing else."""
    worker, reader = pipeline.worker(), pipeline.follower()
    for first in (0, 10):
        pipeline.book.append_all("books", upserts(_IDS[first : first + 10], first))
        worker.publish()
    reader.refresh()
    before = reader.current
    pipeline.book.append_all("films", upserts(_IDS[:3]))
    pipeline.book.append("books", delete_where({"g": "x"}))
    worker.publish()
    reader.refresh()
    assert [view.reader for view in reader.current.views[:2]] == [view.reader for view in before.views]
    assert before.count("books") == 20
    assert reader.current.count("books") < 20


def test_many_metadata_updates_of_a_merged_segment_stay_bounded(pipeline):
    """Patches that later ones cover are forgotten, on disk and in memory: their number follows the rows."""
    worker, reader = pipeline.worker(), pipeline.follower()
    pipeline.book.append_all("films", upserts(_IDS))
    for number in range(3):
        pipeline.book.append_all("books", upserts(_IDS[:1], number))
        worker.publish()
    worker.merge_all()
    assert any(view.in_graph for view in worker.snapshot.views)
    for number in range(400):
        pipeline.book.append("films", update(_IDS[number % 4], {"n": number}))
        pipeline.book.append("films", update(_IDS[number % 3], {"g": "p"}))
        worker.publish()
        if number % 3 == 0:
            worker.merge_all()
        if number % 7 == 0:
            reader.refresh()
    reader.refresh()
    for snapshot in (worker.snapshot, reader.current, pipeline.fresh_snapshot()):
        (view,) = [view for view in snapshot.views if view.in_graph]
        assert len(view.patches.tiers) < 10
        assert view.patches.single_rows < 50
        assert sum(len(change.patches) for change in view.changes) < 50
        assert snapshot.fetch("films", [_IDS[3]])[_IDS[3]].metadata == metadata({"n": 399, "g": "x"})


_PATCHES = st.lists(
    st.tuples(
        st.sets(st.integers(0, 5), min_size=1), st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), min_size=1)
    ),
    max_size=12,
)


def _patched(patches, row: int) -> dict[str, object]:
    document: dict[str, object] = {}
    for patch in sorted(patches, key=lambda item: item.offset):
        if row in BitMap.deserialize(patch.rows):
            document |= __import__("orjson").loads(patch.set_metadata)
    return document


@given(_PATCHES, st.integers(0, 14))
def test_folded_changes_say_what_the_changes_said(drawn, since):
    """Folding keeps, from any offset on, the final metadata of every row, and every kill."""
    patches = [
        Patch(10 + offset, BitMap(rows).serialize(), metadata(document))
        for offset, (rows, document) in enumerate(drawn)
    ]
    parts = [
        SegmentChanges(1, np.array([number], np.uint32), np.array([patch.offset], np.int64), (patch,))
        for number, patch in enumerate(patches)
    ]
    folded = fold_changes(1, parts, from_offset=10 + since)
    for row in range(6):
        later = [patch for patch in patches if patch.offset >= 10 + since]
        assert _patched(folded.patches, row) == _patched(later, row)
    assert folded.killed_rows.tolist() == list(range(since, len(patches)))
    assert [patch.offset for patch in folded.patches] == sorted(patch.offset for patch in folded.patches)
    # Whoever has seen some of it already gets the same from what is left.
    again = fold_changes(1, [folded], from_offset=10 + since + 3)
    for row in range(6):
        later = [patch for patch in patches if patch.offset >= 10 + since + 3]
        assert _patched(again.patches, row) == _patched(later, row)
