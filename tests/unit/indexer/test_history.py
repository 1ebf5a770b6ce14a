"""The history of a segment's view stays short, whatever happened and however often the table was written anew."""

from __future__ import annotations

import random

from indexer.merge_policy import MergeOptions
from indexer.segments.view import SegmentView
from schemas.operations import Delete
from tests.model.checks import Query, assert_shows
from tests.model.oracle import Oracle
from tests.support.builders import dense, spec_of, update, update_where, upserts
from tests.support.driver import Pipeline

_IDS = [f"id-{number:03d}" for number in range(400)]


def patches_told(view: SegmentView) -> list[int]:
    return [patch.offset for item in view.changes for patch in item.patches]


def test_many_roll_ups_beside_a_segment_leave_a_short_history_that_tells_all(tmp_path):
    """Kills and patches are folded as layers are: few items, no patch lost, none out of order."""
    merge = MergeOptions(rollup_deltas=1, graph_rows_min=10_000, dead_share_max=0.9)
    pipeline = Pipeline(tmp_path, spec_of(), merge=merge)
    worker, reader = pipeline.worker(), pipeline.follower()
    pipeline.book.append_all("films", upserts(_IDS))
    worker.publish()
    worker.merge_all()
    source = random.Random(3)
    for number in range(120):
        match number % 4:
            case 0:
                pipeline.book.append("films", Delete(source.choice(_IDS)))
            case 1 | 2:
                pipeline.book.append("films", update(source.choice(_IDS), {"n": number % 5}))
            case _:
                pipeline.book.append("films", update_where({"n": number % 5}, {"g": "xyz"[number % 3]}))
        worker.publish()
        worker.merge_all()
        if number % 5 == 0:
            reader.refresh()
    reader.refresh()
    state = Oracle(pipeline.book).at(pipeline.book.end)
    for snapshot in (worker.snapshot, reader.current, pipeline.fresh_snapshot()):
        assert_shows(snapshot, state, names=["films"], ids=_IDS, query=Query(dense(5), 20, {"n": 3}))
    for snapshot in (worker.snapshot, reader.current):
        (view,) = snapshot.views
        assert 1 < len(view.changes) < 12
        assert patches_told(view) == sorted(patches_told(view))
        assert 1 <= len(view.patches.tiers) < 12
