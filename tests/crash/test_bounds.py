"""However many publishes: manifests, files, open descriptors and memory stay where they were."""

from __future__ import annotations

import gc
import os
import random
import resource
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from indexer.gc import RetentionOptions
from indexer.merge_policy import MergeOptions
from indexer.snapshots.reader import SnapshotReader
from schemas.limits import RECENT_DELTAS_MAX
from schemas.operations import CreateNamespace, Delete, DeleteNamespace, Event, Update
from tests.model.checks import Query, assert_search, assert_shows
from tests.model.oracle import Oracle, State
from tests.support.builders import dense, metadata, spec_of, update_where, upsert, upserts
from tests.support.driver import Pipeline, Worker
from tests.support.engines import walks_always

_MEMORY = Path("/dev/shm")
_IDS = [f"id-{number:03d}" for number in range(200)]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is such a place: it is files that are counted here, not their way to a disk."""
    if not _MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="freshet-bounds-", dir=_MEMORY) as folder:
        yield Path(folder)


@dataclass(frozen=True)
class Sizes:
    """What must not grow. `blocks` are small objects that Python holds: a leak of one per publish shows."""

    files: int
    segments: int
    table_entries: int
    table_bytes: int
    manifest_bytes: int
    descriptors: int
    blocks: int
    resident_bytes: int


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def refresh_fully(reader: SnapshotReader, worker: Worker) -> None:
    """Refresh until the reader has looked at a listing: names that it would try next may be collected already."""
    while reader.current.version < worker.snapshot.version:
        reader.refresh()


def measure(pipeline: Pipeline, worker: Worker) -> Sizes:
    gc.collect()
    manifest = worker.snapshot.manifest
    assert len(manifest.recent) <= RECENT_DELTAS_MAX
    names = pipeline.store.list(f"{pipeline.prefix}/manifests")
    return Sizes(
        files=sum(len(files) for _, _, files in os.walk(pipeline.root)),
        segments=worker.snapshot.segments,
        table_entries=len(worker.snapshot.table.objects()),
        table_bytes=0 if manifest.table is None else manifest.table.size_bytes,
        manifest_bytes=len(pipeline.store.read(names[-1])),
        descriptors=descriptors(),
        blocks=sys.getallocatedblocks(),
        resident_bytes=int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize(),
    )


def next_event(number: int, source: random.Random) -> tuple[str, Event]:
    """Return what comes next: mostly metadata of rows that lie in a graph, and a namespace that is never seen again."""
    key = source.choice(_IDS)
    match number % 10:
        case 0 | 1:
            return "films", upsert(key, number, {"n": number % 5, "g": "xyz"[number % 3]})
        case 2:
            return "films", Delete(key)
        case 3:
            return "films", update_where({"n": number % 5}, {"g": "xyz"[number % 3]})
        case 4:
            return f"passing-{number}", CreateNamespace(b"")
        case 5:
            return f"passing-{number - 1}", DeleteNamespace(keep=False)
    return "films", Update(key, None, None, metadata({"n": number % 5, "seen": bool(number % 2)}))


def keep_house(worker: Worker) -> None:
    worker.merge_all()
    worker.checkpoint()
    worker.collect()


def run(pipeline: Pipeline, publishes: int, reader: SnapshotReader) -> tuple[Sizes, Sizes]:
    """Publish one event at a time; return the largest sizes of the second fifth and of the last."""
    source = random.Random(1)
    worker = pipeline.worker()
    pipeline.book.append_all("films", upserts(_IDS))
    worker.publish()
    state = State()
    for said in pipeline.book.said:
        state.fold(said)
    early: list[Sizes] = []
    late: list[Sizes] = []
    for number in range(publishes):
        name, event = next_event(number, source)
        # Outcomes are kept for a minute: let many minutes pass.
        pipeline.clock.now_ms += 100
        pipeline.book.append(name, event)
        state.fold(pipeline.book.said[-1])
        state.results.clear()
        # What was published is not needed any more: the log itself must not be what grows.
        assert worker.publish()
        pipeline.book.said.clear()
        if number % 16 == 0:
            worker.merge_all()
        if number % 10 == 0:
            reader.refresh()
        if number % 100 == 99:
            keep_house(worker)
        fifth = number * 5 // publishes
        if fifth in (1, 4) and number % (publishes // 50) == publishes // 50 - 1:
            keep_house(worker)
            refresh_fully(reader, worker)
            (early if fifth == 1 else late).append(measure(pipeline, worker))
    keep_house(worker)
    refresh_fully(reader, worker)
    for snapshot in (worker.snapshot, reader.current):
        assert snapshot.counts() == {key: len(records) for key, records in state.records.items()}
        assert_search(snapshot, state, "films", Query(dense(1), 10, {"n": {"$lt": 3}}))
        assert snapshot.list_ids("films", prefix="", after=None, limit=1000) == state.ids("films")
    return most(early), most(late)


def most(sizes: list[Sizes]) -> Sizes:
    return Sizes(*(max(getattr(item, name) for item in sizes) for name in Sizes.__dataclass_fields__))


def assert_bounded(root: Path, publishes: int) -> None:
    merge = MergeOptions(rollup_deltas=16, graph_rows_min=32)
    pipeline = Pipeline(root, spec_of(), merge=merge, retention=RetentionOptions(manifests_kept=4, grace_seconds=0))
    reader = pipeline.follower(list_every=5)
    early, late = run(pipeline, publishes, reader)
    # Every number breathes with the merges; none may follow the number of publishes, which more than doubled.
    assert late.files <= early.files * 1.25 + 10
    assert late.segments <= early.segments + 3
    assert late.table_entries <= early.table_entries * 1.25 + 10
    assert late.table_bytes <= early.table_bytes * 1.25 + 1000
    assert late.manifest_bytes <= early.manifest_bytes + 1000
    assert late.descriptors <= early.descriptors + 3
    assert late.blocks <= early.blocks + 3000
    assert late.resident_bytes <= early.resident_bytes + 16 * 1024 * 1024
    assert late.files < 200
    assert late.segments < RECENT_DELTAS_MAX


@pytest.mark.timeout(1_200)
def test_ten_thousand_publishes_leave_nothing_behind(root):
    """Cost and size follow what lives, never what has happened."""
    assert_bounded(root, 10_000)


@pytest.mark.soak
@pytest.mark.timeout(14_400)
def test_a_hundred_thousand_publishes_leave_nothing_behind(root):
    """The same, for longer."""
    assert_bounded(root, 100_000)


@pytest.mark.timeout(1_200)
def test_four_hundred_namespaces_with_graphs_in_one_partition_answer_exactly(root, monkeypatch):
    """Graphs are per namespace, and a partition holds as many as its tenants need."""
    walked = walks_always(monkeypatch)
    pipeline = Pipeline(root, spec_of(), merge=MergeOptions(rollup_deltas=3, graph_rows_min=32))
    names = [f"tenant-{number:03d}" for number in range(400)]
    before = descriptors()
    worker = pipeline.worker()
    for part in range(3):
        for number, name in enumerate(names):
            pipeline.book.append_all(name, upserts(_IDS[part * 11 : part * 11 + 11], number + part))
        worker.publish()
    worker.merge_all()
    reader = pipeline.follower()
    reader.refresh()
    snapshot = reader.current
    graphs = [view for view in snapshot.views if view.reader.graph is not None]
    assert {view.source.namespace for view in graphs} == set(names)
    state = Oracle(pipeline.book).at(pipeline.book.end)
    assert snapshot.counts() == dict.fromkeys(names, 33)
    for number, name in enumerate(names):
        assert_search(snapshot, state, name, Query(dense(number), 5))
        assert_search(snapshot, state, name, Query(dense(number), 5, {"g": "x"}))
    assert len(walked) >= 400
    assert descriptors() - before < 50
    # They go on as any other: a write to each, kills and patches in every graph, and merges again.
    for number, name in enumerate(names):
        pipeline.book.append_all(
            name, [upsert(_IDS[0], number, {"n": 9}), Update(_IDS[1], None, None, metadata({"g": "p"}))]
        )
    worker.publish()
    reader.refresh()
    state = Oracle(pipeline.book).at(pipeline.book.end)
    for snapshot in (worker.snapshot, reader.current):
        assert_shows(snapshot, state, names=names[::37], ids=_IDS, query=Query(dense(5), 5, {"n": 9}))
