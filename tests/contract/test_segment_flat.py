"""A flat segment keeps the contract of segments, and what only it promises."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.merge_policy import MergeOptions
from indexer.segments.container import Container
from indexer.segments.reader import SegmentReader
from indexer.segments.rows import hash_ids
from indexer.snapshots.snapshot import Snapshot
from schemas.manifest import FLAT
from schemas.operations import Upsert
from tests.contract.segment_contract import SegmentContract
from tests.model.checks import Query, assert_shows
from tests.model.oracle import Oracle
from tests.support.builders import dense, sparse, spec_of, upserts
from tests.support.driver import Pipeline

_NEVER = 1_000_000
_IDS = [f"id-{number:03d}" for number in range(90)]


class TestFlatSegment(SegmentContract):
    """Everything that every kind of segment promises."""

    ties_max = len(_IDS)

    @pytest.fixture
    def merge(self) -> MergeOptions:
        return MergeOptions(rollup_deltas=3, graph_rows_min=_NEVER)

    def check_kind(self, snapshot: Snapshot) -> None:
        assert snapshot.views[0].source.kind == FLAT
        assert snapshot.views[0].reader.graph is None


def test_namespaces_share_a_segment_and_do_not_see_each_other(tmp_path):
    """A flat segment is sorted by namespace: the same id in two of them is two records."""
    pipeline = Pipeline(tmp_path, spec_of(), merge=MergeOptions(rollup_deltas=3, graph_rows_min=_NEVER))
    worker = pipeline.worker()
    names = ["b", "a", "ab", "__default__"]
    for first in (0, 30, 60):
        for number, name in enumerate(names):
            pipeline.book.append_all(name, upserts(_IDS[first : first + 30 - number], first + number))
        worker.publish()
    worker.merge_all()
    assert len(worker.snapshot.views) == 1
    assert list(worker.snapshot.views[0].reader.names) == sorted(name.encode() for name in names)
    state = Oracle(pipeline.book).at(pipeline.book.end)
    assert_shows(pipeline.fresh_snapshot(), state, names=names, ids=_IDS, query=Query(dense(1), 10, {"n": 1}))


def test_sparse_index_of_any_size_is_merged(tmp_path):
    """Rows without dense vectors have no graph to be in, however many there are."""
    pipeline = Pipeline(tmp_path, spec_of(dimension=0))
    worker = pipeline.worker()
    for first in (0, 30, 60):
        pipeline.book.append_all("films", upserts(_IDS[first : first + 30], first, dimension=0))
        worker.publish()
    pipeline.book.append("films", Upsert(_IDS[0], b"", sparse(500), b""))
    worker.publish()
    worker.merge_all(is_quiet=True)
    assert not any(view.in_graph for view in worker.snapshot.views)
    snapshot = pipeline.fresh_snapshot()
    fetched = snapshot.fetch("films", _IDS)
    assert len(fetched) == 90
    assert fetched[_IDS[0]].sparse == sparse(500)
    assert fetched[_IDS[1]].values is None
    assert snapshot.list_ids("films", prefix="", after=None, limit=100) == _IDS


def test_ids_of_one_hash_are_told_apart(tmp_path, monkeypatch):
    """Full ids are compared: two that share a 64-bit hash are two records."""

    def colliding(ids):
        return np.array([len(key) % 2 for key in ids], np.uint64)

    for module in ("indexer.segments.rows", "indexer.segments.reader", "indexer.snapshots.snapshot"):
        monkeypatch.setattr(f"{module}.hash_ids", colliding)
    pipeline = Pipeline(tmp_path, spec_of(), merge=MergeOptions(rollup_deltas=3, graph_rows_min=_NEVER))
    worker = pipeline.worker()
    for first in (0, 30, 60):
        pipeline.book.append_all("films", upserts(_IDS[first : first + 35], first))
        worker.publish()
    worker.merge_all()
    state = Oracle(pipeline.book).at(pipeline.book.end)
    for snapshot in (worker.snapshot, pipeline.fresh_snapshot()):
        assert_shows(snapshot, state, names=["films"], ids=[*_IDS, "x", "xy"], query=Query(dense(1), 10, {"n": 1}))


def test_look_up_finds_each_id_in_its_own_slice(tmp_path):
    """A look-up is a binary search over the hashes of one namespace, and says -1 for what is not there."""
    pipeline = Pipeline(tmp_path, spec_of())
    worker = pipeline.worker()
    pipeline.book.append_all("a", upserts(_IDS[:40]))
    pipeline.book.append_all("b", upserts(_IDS[30:60]))
    worker.publish()
    (delta,) = worker.snapshot.manifest.recent
    container = Container(pipeline.store.open(delta.object, verify=True))
    reader = SegmentReader(1, container, container)
    for name, present in (("a", range(40)), ("b", range(30, 60))):
        part = reader.slice_of(name)
        ids = [key.encode() for key in _IDS]
        rows = reader.find(part, ids, hash_ids(ids))
        assert [number for number, row in enumerate(rows) if row >= 0] == list(present)
        for number in present:
            assert reader.id_bytes(int(rows[number])) == ids[number]
    assert reader.slice_of("c") is None
