"""A disk that fills up under the indexer: nothing is lost, and it goes on by itself when there is room again.

Every write of a run fails in turn, once or several times in a row, as the kernel would let it fail.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from indexer.merging import LANES
from indexer.snapshots import store as store_module
from indexer.snapshots.store import LocalStore
from schemas.errors import StoreUnavailable
from schemas.manifest import ObjectRef
from tests.model.checks import Query, assert_dead_letters, assert_shows
from tests.model.oracle import Oracle
from tests.support.builders import dense, spec_of, update, update_where, upserts
from tests.support.driver import Pipeline, Worker

_IDS = [f"id-{number:02d}" for number in range(60)]


class FullDisk:
    """Stands where the store calls the system: from the call `first` on, `length` calls fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self._failing: range = range(0)
        for name in ("link", "fsync", "fdatasync"):
            monkeypatch.setattr(store_module.os, name, self._guard(getattr(os, name)))

    def fail(self, first: int, length: int) -> None:
        self.calls = 0
        self._failing = range(first, first + length)

    def _guard(self, stock: Callable[..., object]) -> Callable[..., object]:
        def guarded(*arguments: object, **options: object) -> object:
            self.calls += 1
            if self.calls in self._failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return stock(*arguments, **options)

        return guarded


def insist(action: Callable[[], object], attempts: int = 40) -> object:
    """Do it again until there is room, as the worker's loop does."""
    for _ in range(attempts):
        try:
            return action()
        except StoreUnavailable as error:
            if error.facts["full"] is not True:
                raise
    raise AssertionError("it never went on")


def merge(worker: Worker) -> None:
    """Merge as the worker does: a merge that failed while it was carried out is given up and planned anew."""
    for lane in LANES:
        worker.start(lane)
        if lane in worker.jobs:
            worker.finish(lane)


def life(pipeline: Pipeline) -> Iterator[Callable[[], object]]:
    """Yield everything that happens in a short life, each thing to be done until it succeeds."""
    worker = Worker.__new__(Worker)
    yield lambda: worker.__init__(pipeline, "worker", lambda _: None)
    for first in (0, 16, 32):
        pipeline.book.append_all("films", upserts(_IDS[first : first + 16], first))
        yield worker.publish
    yield lambda: merge(worker)
    yield lambda: merge(worker)
    yield worker.checkpoint
    pipeline.book.append_poison(None, b"nobody's")
    pipeline.book.append("films", update(_IDS[3], {"g": "patched"}))
    yield worker.publish
    pipeline.book.append("films", update_where({"n": 4}, {"seen": True}))
    yield worker.publish
    pipeline.book.append_all("books", upserts(_IDS[:5]))
    yield worker.publish
    yield lambda: merge(worker)
    yield worker.checkpoint
    yield worker.collect


def assert_nothing_lost(pipeline: Pipeline) -> None:
    state = Oracle(pipeline.book).at(pipeline.book.end)
    snapshot = pipeline.fresh_snapshot()
    assert_shows(snapshot, state, names=["films", "books"], ids=_IDS, query=Query(dense(1), 10, {"n": {"$gt": 1}}))
    assert_dead_letters(pipeline.store, snapshot, state)
    left = [path for path in pipeline.root.rglob(".*") if path.is_file() and path.name != ".clock"]
    assert left == [], "unfinished files take the room that is short"


def test_every_write_that_fails_is_done_again(tmp_path: Path, monkeypatch):
    """Whichever write fails, once or for a while: it is told as a full store, and the next attempt ends the same."""
    disk = FullDisk(monkeypatch)
    pipeline = Pipeline(tmp_path / "counted", spec_of())
    for action in life(pipeline):
        insist(action)
    assert_nothing_lost(pipeline)
    writes = disk.calls
    assert writes > 30
    for length in (1, 3):
        for first in range(1, writes + 1):
            disk.fail(first, length)
            pipeline = Pipeline(tmp_path / f"{first}-{length}", spec_of())
            for action in life(pipeline):
                insist(action)
            assert disk.calls >= first
            assert_nothing_lost(pipeline)


def test_reads_go_on_while_the_disk_is_full(tmp_path, monkeypatch):
    """Answers need no room: what was published stays readable, and only the position stands still."""
    pipeline = Pipeline(tmp_path, spec_of())
    worker, reader = pipeline.worker(), pipeline.follower()
    pipeline.book.append_all("films", upserts(_IDS[:40]))
    worker.publish()
    shown = pipeline.book.end
    disk = FullDisk(monkeypatch)
    disk.fail(1, 10_000)
    pipeline.book.append_all("films", upserts(_IDS[40:]))
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            worker.publish()
        reader.refresh()
        assert reader.current.next_offset == shown
        assert reader.current.count("films") == 40
        assert worker.snapshot.next_offset == shown
    with pytest.raises(StoreUnavailable):
        pipeline.worker()
    disk.fail(0, 0)
    worker.publish()
    assert reader.refresh().count("films") == 60


def test_graph_that_did_not_fit_is_not_committed(tmp_path, monkeypatch):
    """A disk that is full half-way through a graph leaves nothing behind, and the merge is done again later."""
    pipeline = Pipeline(tmp_path, spec_of())
    worker = pipeline.worker()
    for first in (0, 20, 40):
        pipeline.book.append_all("films", upserts(_IDS[first : first + 20], first))
        worker.publish()
    worker.start("rollup")
    worker.finish("rollup")
    before = worker.snapshot
    assert worker.start("graph")
    stock = LocalStore.put

    def filling(store: LocalStore, name: str, chunks: Iterable[bytes | memoryview]) -> ObjectRef:
        def first_few() -> Iterator[bytes | memoryview]:
            yield from itertools.islice(chunks, 4)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return stock(store, name, first_few() if name.endswith(".graph") else chunks)

    monkeypatch.setattr(LocalStore, "put", filling)
    with pytest.raises(StoreUnavailable):
        worker.finish("graph")
    assert not pipeline.store.list(f"{pipeline.prefix}/objects", is_finished=False)
    monkeypatch.undo()
    assert worker.snapshot is before
    worker.merge_all()
    assert any(view.in_graph for view in worker.snapshot.views)
    assert_nothing_lost(pipeline)
