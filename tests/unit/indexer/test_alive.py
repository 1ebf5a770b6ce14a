"""Which rows are alive: the same from the bitmap, for a small namespace, as from the mask of the whole segment."""

from __future__ import annotations

import pytest

from indexer.merge_policy import MergeOptions
from indexer.segments.search import SearchQuery
from schemas.operations import Delete
from tests.support.builders import dense, spec_of, upserts
from tests.support.driver import Pipeline

_IDS = [f"id-{number}" for number in range(5)]


@pytest.fixture
def snapshot(tmp_path):
    """Return a snapshot of one large segment of forty namespaces, some of whose rows were deleted later."""
    pipeline = Pipeline(tmp_path, spec_of(), merge=MergeOptions(rollup_deltas=1, dead_share_max=0.9))
    worker = pipeline.worker()
    for number in range(40):
        pipeline.book.append_all(f"tenant-{number:02d}", upserts(_IDS, number))
    worker.publish()
    worker.merge_all()
    for number in range(0, 40, 3):
        pipeline.book.append_all(f"tenant-{number:02d}", [Delete(key) for key in _IDS[: 1 + number % 5]])
    worker.publish()
    return worker.snapshot


def test_rows_of_a_small_namespace_are_alive_as_the_segment_says(snapshot):
    """The rows that were killed are dead, and no other."""
    view = snapshot.views[0]
    for number in range(40):
        part = view.reader.slice_of(f"tenant-{number:02d}")
        dead = 1 + number % 5 if number % 3 == 0 else 0
        from_bitmap = view.alive_in(part)
        assert from_bitmap.tolist() == view.alive[part.start : part.end].tolist()
        assert int(from_bitmap.sum()) == 5 - dead
        # Now that there is a mask of all rows, it is used.
        assert view.alive_in(part).base is view.alive
        del view.__dict__["alive"]


def test_query_of_a_small_namespace_makes_no_mask_of_all_rows(snapshot):
    """What a query costs follows its namespace."""
    assert len(snapshot.search("tenant-03", SearchQuery(dense(1), 10))) == 1
    assert len(snapshot.search("tenant-04", SearchQuery(dense(1), 10))) == 5
    assert "alive" not in snapshot.views[0].__dict__
