"""Merges beside each other: what takes long holds up nothing that publishes wait for."""

from __future__ import annotations

import pytest

from indexer.merge_policy import MergeOptions
from schemas.limits import RECENT_DELTAS_MAX
from tests.support.builders import spec_of, upserts
from tests.support.driver import Pipeline


@pytest.fixture
def pipeline(tmp_path):
    merge = MergeOptions(rollup_deltas=8, rollup_rows=8, graph_rows_min=10_000)
    return Pipeline(tmp_path, spec_of(), merge=merge)


def _flats(worker) -> list[int]:
    return [entry.rows for entry in worker.snapshot.table.segments]


def _publish(pipeline, worker, count: int, first: int) -> None:
    """Publish `count` rows one by one; roll up where the worker would."""
    for number in range(first, first + count):
        pipeline.book.append_all("films", upserts([f"id-{number:04d}"], number % 16))
        worker.publish()
        worker.start("rollup")
        worker.finish("rollup")


def test_roll_ups_go_on_while_flat_segments_are_joined(pipeline):
    """A merge of large segments is frozen, and more is published than a manifest lists: nothing waits for it."""
    worker = pipeline.worker()
    _publish(pipeline, worker, 4 * 8, 0)
    assert _flats(worker) == [8, 8, 8, 8]
    assert worker.start("rewrite")
    _publish(pipeline, worker, 2 * RECENT_DELTAS_MAX, 100)
    assert worker.snapshot.next_offset == pipeline.book.end
    assert worker.finish("rewrite")
    assert worker.snapshot.count("films") == 4 * 8 + 2 * RECENT_DELTAS_MAX
    assert _flats(worker).count(8) == 2 * RECENT_DELTAS_MAX // 8


def test_number_of_flat_segments_grows_as_the_logarithm_of_their_rows(pipeline):
    """Rows of namespaces too small for a graph are rewritten a few times, and lie in few segments."""
    worker = pipeline.worker()
    for first in range(0, 1_600, 80):
        _publish(pipeline, worker, 80, first)
        while worker.start("rewrite"):
            worker.finish("rewrite")
    assert sum(_flats(worker)) == 1_600
    assert len(_flats(worker)) <= 12


def test_roll_up_takes_in_no_segment_that_would_make_it_long(pipeline):
    """What a publish waits for is bounded by the rows of a roll-up, whatever there is beside it."""
    worker = pipeline.worker()
    _publish(pipeline, worker, 32, 0)
    worker.start("rewrite")
    worker.finish("rewrite")
    assert _flats(worker) == [32]
    _publish(pipeline, worker, 8, 100)
    assert sorted(_flats(worker)) == [8, 32]
