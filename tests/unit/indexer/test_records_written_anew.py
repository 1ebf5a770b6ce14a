"""Metadata changes of a segment are written out without its vectors and its graph, while more of everything lands."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from indexer.merger import run_merge
from indexer.merging import LANES
from indexer.segments.graph import GraphOptions
from schemas.filters import parse_filter
from schemas.operations import Delete, DeleteNamespace
from tests.model.checks import Query, assert_shows
from tests.model.oracle import Oracle
from tests.support.builders import dense, spec_of, update, update_where, upserts
from tests.support.driver import SMALL, Pipeline, Worker

_IDS = [f"id-{number:03d}" for number in range(100)]
_MERGE = replace(SMALL, patched_rows_min=10, patched_share_max=0, patch_tiers_max=3, dead_share_max=0.9)


@pytest.fixture
def pipeline(tmp_path) -> Pipeline:
    return Pipeline(tmp_path, spec_of(), merge=_MERGE, graph=GraphOptions(ef_search=200))


@pytest.fixture
def worker(pipeline: Pipeline) -> Worker:
    """A worker with one graph of 100 rows of which some are dead, and 20 changes that are due to be written out."""
    worker = pipeline.worker()
    for start in (0, 40, 80):
        pipeline.book.append_all("films", upserts(_IDS[start : start + 40], start))
        worker.publish()
    worker.merge_all()
    assert [view.in_graph for view in worker.snapshot.views] == [True]
    pipeline.book.append_all("films", [Delete(key) for key in _IDS[::9]])
    pipeline.book.append_all("films", [update(key, {"g": "new"}) for key in _IDS[1:60:3]])
    worker.publish()
    return worker


def check(pipeline: Pipeline, *snapshots) -> None:
    state = Oracle(pipeline.book).at(pipeline.book.end)
    for snapshot in (*snapshots, pipeline.fresh_snapshot()):
        for where in ({"g": "new"}, {"n": 3}, {"late": {"$exists": True}}):
            assert_shows(snapshot, state, names=["films"], ids=_IDS, query=Query(dense(5), 20, where))


def graph_entry(worker: Worker):
    (entry,) = [entry for entry in worker.snapshot.table.segments if entry.graph is not None]
    return entry


def test_vectors_and_graph_stay_and_the_changes_are_gone(pipeline, worker):
    """Only the records object is new; a follower opens nothing else again; the dead stay dead."""
    follower = pipeline.follower()
    follower.refresh()
    before = graph_entry(worker)
    old = follower.current.segment_set.by_number[before.segment_id].reader
    assert worker.start("rewrite")
    assert worker.jobs["rewrite"].rewritten is not None
    assert worker.finish("rewrite")
    after = graph_entry(worker)
    assert (after.vectors, after.graph) == (before.vectors, before.graph)
    assert after.records != before.records
    assert after.segment_id != before.segment_id
    view = worker.snapshot.segment_set.by_number[after.segment_id]
    assert not view.patches
    assert len(view.dead) == after.dead_rows == len(_IDS[::9])
    follower.refresh()
    new = follower.current.segment_set.by_number[after.segment_id].reader
    assert new.graph is old.graph
    assert new.vector_container is old.vector_container
    check(pipeline, worker.snapshot, follower.current)
    assert not worker.start("rewrite")


def test_builder_in_another_process_writes_the_same(worker):
    """What a job carries of the changes survives the way there, whatever was asked of them before."""
    (view,) = [view for view in worker.snapshot.views if view.in_graph]
    assert view.matching(view.reader.slice_of("films"), parse_filter({"g": "new"})).any()
    assert worker.start("rewrite")
    job = worker.jobs["rewrite"]
    results = [run_merge(worker.store, one) for one in (job, pickle.loads(pickle.dumps(job)))]
    first, second = (worker.store.open(result.outputs[0].records, verify=True) for result in results)
    assert bytes(first) == bytes(second)


def test_kills_and_changes_that_land_meanwhile_are_carried(pipeline, worker):
    """What happens between freezing and committing is there afterwards, each thing once."""
    follower = pipeline.follower()
    follower.refresh()
    assert worker.start("rewrite")
    worker.build("rewrite")
    pipeline.book.append_all("films", [Delete(key) for key in _IDS[1:100:9]])
    pipeline.book.append_all("films", [update(key, {"late": "one"}) for key in _IDS[2:30:4]])
    pipeline.book.append("films", update_where({"n": 3}, {"late": "many"}))
    pipeline.book.append_all("films", upserts(_IDS[3:6], 7))
    worker.publish()
    assert worker.finish("rewrite")
    follower.refresh()
    check(pipeline, worker.snapshot, follower.current)
    worker.merge_all()
    follower.refresh()
    check(pipeline, worker.snapshot, follower.current)


def test_namespace_deleted_meanwhile_stays_deleted(pipeline, worker):
    """A floor buries the rows of the new records as it did those of the old."""
    assert worker.start("rewrite")
    worker.build("rewrite")
    pipeline.book.append("films", DeleteNamespace(keep=True))
    pipeline.book.append_all("films", upserts(_IDS[:2], 9))
    worker.publish()
    assert worker.finish("rewrite")
    check(pipeline, worker.snapshot)


def test_stream_of_metadata_changes_is_written_out_again_and_again(pipeline, worker):
    """Patches stay few, on disk and in memory, while rows keep their graph through all of it."""
    vectors = graph_entry(worker).vectors
    follower = pipeline.follower()
    written = {graph_entry(worker).records.name}
    for number in range(200):
        pipeline.book.append("films", update(_IDS[number * 7 % 100], {"n": number % 5, "late": str(number)}))
        worker.publish()
        for lane in LANES:
            worker.start(lane)
            worker.finish(lane)
        follower.refresh()
        written.add(graph_entry(worker).records.name)
        for snapshot in (worker.snapshot, follower.current):
            view = snapshot.segment_set.by_number[graph_entry(worker).segment_id]
            assert view.patches.single_rows <= 3 * _MERGE.patched_rows_min
            assert sum(len(item.patches) for item in view.changes) <= 3 * _MERGE.patched_rows_min
    assert len(written) > 5
    assert graph_entry(worker).vectors == vectors
    check(pipeline, worker.snapshot, follower.current)


def test_changes_of_many_rows_are_written_out_by_their_number(pipeline, worker):
    """Tiers of wide changes cost every filter something, however few bytes they are."""
    worker.merge_all()
    for number in range(8):
        pipeline.book.append("films", update_where({"n": {"$gte": 0}}, {f"wide{number}": number}))
        worker.publish()
    assert worker.start("rewrite")
    assert worker.jobs["rewrite"].rewritten is not None
    worker.merge_all()
    view = worker.snapshot.segment_set.by_number[graph_entry(worker).segment_id]
    assert not view.patches
    check(pipeline, worker.snapshot)
