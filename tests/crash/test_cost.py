"""However many namespaces and rows an index has: a publish, and reading it, does as much as what changed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.merge_policy import MergeOptions
from indexer.snapshots.reader import SnapshotReader
from schemas.filters import parse_filter
from schemas.operations import CreateNamespace, Delete, DeleteNamespace, Event, Update
from tests.support.builders import metadata, spec_of, update_where, upsert, upserts
from tests.support.driver import Pipeline, Worker
from tests.support.work import Work, work_of

_FEW, _MANY = 50, 5_000
_IDS = ["a", "b", "c"]
_MANY_IDS = [f"id-{number}" for number in range(33)]


class Index:
    """An index with a worker and a follower, still empty."""

    def __init__(self, root: Path, *, graph_rows_min: int = 1000) -> None:
        merge = MergeOptions(rollup_deltas=16, graph_rows_min=graph_rows_min)
        self.pipeline = Pipeline(root, spec_of(), merge=merge)
        self.worker: Worker = self.pipeline.worker()
        self.reader: SnapshotReader = self.pipeline.follower(list_every=1_000_000)

    def fill(self, count: int) -> Index:
        """Make `count` namespaces in one segment, a tenth of its rows dead."""
        for number in range(count):
            self.pipeline.book.append_all(f"tenant-{number}", upserts(_IDS, number))
        for number in range(count // 10):
            self.pipeline.book.append(f"gone-{number}", CreateNamespace(b""))
        self.publish()
        for number in range(count // 10):
            self.pipeline.book.append_all(f"tenant-{number}", [Delete(key) for key in _IDS])
            self.pipeline.book.append(f"gone-{number}", DeleteNamespace(keep=False))
        self.publish()
        # Outcomes are kept for a minute: what was done to build this is not to be counted.
        self.pipeline.clock.now_ms += 120_000
        for number in range(14):
            self.pipeline.book.append("tenant-11", upsert("more", number))
            self.publish()
        assert self.worker.merge_all() == 1
        assert not self.worker.snapshot.manifest.recent
        self.reader.refresh()
        return self

    def fill_graphs(self, count: int) -> Index:
        """Make `count` namespaces with a graph each."""
        for number in range(count):
            self.pipeline.book.append_all(f"tenant-{number}", upserts(_MANY_IDS, number))
        self.publish()
        for number in range(15):
            self.pipeline.book.append("tenant-1", upsert("more", number))
            self.publish()
        self.worker.merge_all()
        self.reader.refresh()
        assert sum(view.in_graph for view in self.worker.snapshot.views) == count
        return self

    def publish(self) -> None:
        assert self.worker.publish()
        # Published events are not read again, and looking for the next one must not be what costs.
        self.pipeline.book.said.clear()

    def append(self, name: str, event: Event) -> None:
        self.pipeline.book.append(name, event)

    def refresh(self) -> None:
        assert self.reader.refresh() is not None


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, Index]:
    return Index(tmp_path_factory.mktemp("few")).fill(_FEW), Index(tmp_path_factory.mktemp("many")).fill(_MANY)


def cost(index: Index, next_event: Callable[[], tuple[str, Event]]) -> tuple[Work, Work]:
    """Return what a publish of one event costs the worker, and the follower."""

    def append() -> None:
        index.append(*next_event())

    def publish() -> None:
        append()
        index.publish()

    writing = work_of(index.publish, before=append)
    index.refresh()
    return writing, work_of(index.refresh, before=publish)


def assert_no_more(few: Work, many: Work) -> None:
    """A look-up may take a few steps more, and a bitmap of dead rows a few bytes; 5,000 of anything would show."""
    assert many.steps <= few.steps * 1.2 + 500, (few, many)
    assert many.bytes <= few.bytes * 1.2 + 20_000, (few, many)


_NEW = itertools.count()
_KINDS: dict[str, Callable[[], tuple[str, Event]]] = {
    "replaces a row": lambda: ("tenant-12", upsert("b", next(_NEW))),
    "makes a namespace": lambda: (f"new-{next(_NEW)}", upsert("a", 1)),
    "deletes a namespace": lambda: (f"tenant-{15 + next(_NEW) % 30}", DeleteNamespace(keep=True)),
    "deletes a row": lambda: ("tenant-13", Delete(_IDS[next(_NEW) % 3])),
    "patches a row": lambda: ("tenant-14", Update("c", None, None, metadata({"n": next(_NEW)}))),
}


@pytest.mark.parametrize("kind", _KINDS)
def test_publish_of_one_event_costs_the_same_in_an_index_of_a_hundred_times_as_many_namespaces(indexes, kind):
    """Cost is O(what changed), never O(index)."""
    costs = [cost(index, _KINDS[kind]) for index in indexes]
    for few, many in zip(*costs, strict=True):
        assert_no_more(few, many)


def test_questions_to_one_namespace_cost_the_same_in_an_index_of_a_hundred_times_as_many(indexes):
    """What there is beside a namespace costs its readers nothing."""

    def ask(index: Index) -> Callable[[], object]:
        snapshot = index.reader.current
        return lambda: (
            snapshot.namespace_exists("tenant-12"),
            snapshot.count("tenant-12"),
            snapshot.fetch("tenant-12", ["a", "b"]),
            snapshot.list_ids("tenant-12", prefix="", after=None, limit=10),
        )

    few, many = (work_of(ask(index)) for index in indexes)
    assert_no_more(few, many)


def test_counts_and_names_are_made_once_per_snapshot(indexes):
    """What costs as much as there is, is not done twice."""
    _, index = indexes
    snapshot = index.reader.current
    assert len(snapshot.counts()) == len(snapshot.namespaces.existing) >= _MANY
    again = work_of(lambda: (snapshot.counts(), snapshot.namespaces.existing))
    assert again.steps < 100
    page = work_of(lambda: snapshot.namespaces.starting_with("tenant-123"))
    assert page.steps < 1000


def test_commit_of_a_roll_up_costs_the_same_in_an_index_of_a_hundred_times_as_many_namespaces(tmp_path):
    """Nothing is folded while a merge commits: what it writes and opens then is about what was rolled up."""

    def committing(index: Index) -> Work:
        def build() -> None:
            for number in range(16):
                index.append(f"young-{next(_NEW)}", upsert("a", number))
                index.publish()
            assert index.worker.start("rollup")
            index.worker.build("rollup")

        return work_of(lambda: index.worker.finish("rollup"), before=build)

    few, many = (committing(Index(tmp_path / str(count)).fill(count)) for count in (_FEW, _MANY))
    assert_no_more(few, many)


def test_publish_to_one_namespace_costs_the_same_beside_ten_times_as_many_graphs_of_others(tmp_path):
    """Only the segments that may hold a namespace are looked at."""

    def costs(count: int) -> list[Work]:
        index = Index(tmp_path / str(count), graph_rows_min=32).fill_graphs(count)

        def ask() -> object:
            snapshot = index.reader.current
            return (
                snapshot.live_rows,
                snapshot.tail_rows,
                snapshot.fetch("tenant-3", ["id-7"]),
                snapshot.count("tenant-3"),
                snapshot.tail_rows_of("tenant-3"),
            )

        upserted = cost(index, lambda: ("tenant-2", upsert("id-0", next(_NEW))))
        deleted = cost(index, lambda: (f"tenant-{5 + next(_NEW) % 5}", DeleteNamespace(keep=True)))
        return [*upserted, *deleted, work_of(ask)]

    for few, many in zip(costs(12), costs(120), strict=True):
        assert_no_more(few, many)


class PatchedIndex:
    """One graph of many rows, of which single rows changed their metadata, and all of them once at the end."""

    def __init__(self, root: Path, rows: int, patched: int) -> None:
        merge = MergeOptions(rollup_deltas=16, graph_rows_min=1000, patched_rows_min=1_000_000)
        self.pipeline = Pipeline(root, spec_of(), merge=merge)
        self.worker, self.reader = self.pipeline.worker(), self.pipeline.follower(list_every=1_000_000)
        self.pipeline.book.append_all("films", upserts([f"id-{number}" for number in range(rows)]))
        self.publish()
        for number in range(15):
            self.pipeline.book.append("films", upsert("more", number))
            self.publish()
        self.worker.merge_all()
        for number in range(patched):
            self.patch(number)
        self.publish()
        self.pipeline.book.append("films", update_where({"n": {"$gte": 0}}, {"wide": True}))
        self.publish()
        self.refresh()
        self.ask()

    def patch(self, number: int) -> None:
        self.pipeline.book.append("films", Update(f"id-{number}", None, None, metadata({"score": number})))

    def publish(self) -> None:
        assert self.worker.publish()
        self.pipeline.book.said.clear()

    def refresh(self) -> None:
        assert self.reader.refresh() is not None

    def ask(self) -> None:
        snapshot = self.reader.current
        assert snapshot.fetch("films", ["id-7"])["id-7"].metadata
        assert snapshot.count_matching("films", parse_filter({"score": {"$gte": 3}, "wide": True}))


def test_stream_of_metadata_changes_costs_the_same_on_a_segment_with_fifty_times_as_many(tmp_path):
    """A publish, reading it, a filtered question and a fetch after it: none goes through the changes that are there."""

    def costs(patched: int) -> list[Work]:
        index = PatchedIndex(tmp_path / str(patched), 5_100, patched)
        numbers = itertools.count(5_000)

        def append() -> None:
            index.patch(next(numbers))

        def publish() -> None:
            append()
            index.publish()

        def refresh() -> None:
            publish()
            index.refresh()

        writing = work_of(index.publish, before=append)
        index.refresh()
        return [writing, work_of(index.refresh, before=publish), work_of(index.ask, before=refresh)]

    (*few, few_asked), (*many, many_asked) = costs(100), costs(5_000)
    for one, other in zip(few, many, strict=True):
        assert_no_more(one, other)
    # A filter is evaluated over all rows at once: what changed adds a few arrays of its rows, never a step for each.
    assert many_asked.steps <= few_asked.steps * 1.2 + 500
    assert many_asked.bytes <= few_asked.bytes + 24 * 5_000


def test_question_about_a_change_of_many_rows_makes_no_object_of_any(tmp_path):
    """An update of all rows by filter costs readers the same on ten times as many: a mask, never a map of rows."""

    def costs(rows: int) -> Work:
        index = PatchedIndex(tmp_path / str(rows), rows, 10)
        return work_of(index.ask)

    few, many = costs(1_200), costs(12_000)
    assert many.steps <= few.steps * 1.2 + 500
    # Masks of a byte a row, and numbers of the rows in it while one is made.
    assert many.bytes <= few.bytes + 40 * 12_000
