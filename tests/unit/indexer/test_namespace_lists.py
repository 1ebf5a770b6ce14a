"""What is written of namespaces follows what changes of them; what is gone is forgotten."""

from __future__ import annotations

import pytest

from indexer.merge_policy import MergeOptions
from indexer.snapshots.namespaces import Namespaces
from schemas.changes import NamespaceRow
from schemas.operations import CreateNamespace, DeleteNamespace
from tests.model.checks import assert_counts
from tests.model.oracle import Oracle
from tests.support.builders import spec_of, upsert
from tests.support.driver import Pipeline, Worker


@pytest.fixture
def pipeline(tmp_path):
    return Pipeline(tmp_path, spec_of(), merge=MergeOptions(rollup_deltas=1, graph_rows_min=1000))


def roll_up(worker: Worker) -> None:
    worker.publish()
    worker.merge_all()


def row(name: str, offset: int, *, exists: bool = True, floor: int = 0) -> NamespaceRow:
    return NamespaceRow(name, exists=exists, floor=floor, offset=offset)


def test_large_list_of_namespaces_is_not_written_again_for_a_few_new_ones(pipeline):
    """Lists are joined with those that are not larger: the first stays while little comes on top of it."""
    worker, reader = pipeline.worker(), pipeline.follower()
    for number in range(400):
        pipeline.book.append(f"tenant-{number}", CreateNamespace(b""))
    roll_up(worker)
    reader.refresh()
    (first,) = worker.snapshot.table.namespaces
    for number in range(60):
        pipeline.book.append(f"new-{number}", CreateNamespace(b""))
        if number % 3 == 0:
            pipeline.book.append(f"tenant-{number}", DeleteNamespace(keep=False))
        roll_up(worker)
        if number % 7 == 0:
            reader.refresh()
        lists = worker.snapshot.table.namespaces
        assert lists[0] == first
        assert len(lists) <= 8
    reader.refresh()
    state = Oracle(pipeline.book).at(pipeline.book.end)
    for snapshot in (worker.snapshot, reader.current, pipeline.fresh_snapshot()):
        assert_counts(snapshot, state)
        assert snapshot.namespaces == worker.snapshot.namespaces


def test_lists_are_written_anew_once_as_much_has_changed_as_there_is(pipeline):
    """A hundred namespaces of which all were deleted are remembered by nobody."""
    worker, reader = pipeline.worker(), pipeline.follower()
    for number in range(100):
        pipeline.book.append(f"tenant-{number}", upsert("a", number))
    roll_up(worker)
    reader.refresh()
    for number in range(100):
        pipeline.book.append(f"tenant-{number}", DeleteNamespace(keep=False))
        pipeline.book.append("stays", upsert(f"id-{number}", number))
        roll_up(worker)
    reader.refresh()
    for snapshot in (worker.snapshot, reader.current, pipeline.fresh_snapshot()):
        assert snapshot.counts() == {"stays": 100}
        assert len(snapshot.namespaces) < 50


def test_outcomes_of_deltas_that_a_merge_left_alone_are_told_once(pipeline):
    """The table tells of what was rolled up, the deltas beside it of what came since."""
    worker = pipeline.worker()
    offset = pipeline.book.append("films", CreateNamespace(b""))
    worker.publish()
    assert worker.start("rollup")
    later = pipeline.book.append("books", CreateNamespace(b""))
    worker.publish()
    worker.finish("rollup")
    snapshot = worker.snapshot
    assert snapshot.table.outcomes is not None
    told = worker.partition.opener.changes(snapshot.table.outcomes).outcomes
    assert [item.offset for item in told] == [offset]
    assert sorted(pipeline.fresh_snapshot().outcomes) == sorted(snapshot.outcomes) == [offset, later]


def test_namespaces_count_those_that_are_gone_and_those_that_came_back():
    """Whatever the order, the numbers are those of the rows."""
    spaces = Namespaces({"a": row("a", 0), "b": row("b", 1)})
    spaces = spaces.with_rows({"a": row("a", 2, exists=False, floor=2), "c": row("c", 3)})
    assert (spaces.gone, list(spaces.existing), list(spaces.buried)) == (1, ["b", "c"], ["a"])
    spaces = spaces.with_rows({"a": row("a", 4, floor=2), "d": row("d", 5, exists=False, floor=5)})
    assert (spaces.gone, list(spaces.existing), sorted(spaces.buried)) == (1, ["a", "b", "c"], ["a", "d"])
    assert spaces.with_rows({}) is spaces
    assert sorted(spaces.needed([])) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", ["a", "ab", "abc", "b", "\U0010ffff", "\U0010ffffz"]),
        ("a", ["a", "ab", "abc"]),
        ("ab", ["ab", "abc"]),
        ("b", ["b"]),
        ("\U0010ffff", ["\U0010ffff", "\U0010ffffz"]),
        ("c", []),
    ],
)
def test_names_that_begin_with_a_prefix_lie_side_by_side(prefix, expected):
    """Names are in byte order."""
    names = ["abc", "b", "a", "\U0010ffffz", "ab", "\U0010ffff"]
    spaces = Namespaces({name: row(name, at) for at, name in enumerate(names)})
    assert list(spaces.starting_with(prefix)) == expected
