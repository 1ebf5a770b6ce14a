"""The engine block of the stats: what a snapshot is made of, bounded however many graphs there are."""

from __future__ import annotations

import pytest

from query_api import engine_stats as module
from query_api.engine_stats import engine_stats
from schemas.operations import Delete
from tests.support.builders import spec_of, upserts
from tests.support.driver import Pipeline, manifest_objects


@pytest.fixture
def snapshot(tmp_path):
    """Three namespaces with a graph each, of 40, 50 and 60 rows, some dead, and a tail."""
    pipeline = Pipeline(tmp_path, spec_of())
    worker = pipeline.worker()
    for name, rows in (("a", 40), ("b", 60), ("c", 50)):
        pipeline.book.append_all(name, upserts([f"{name}{n}" for n in range(rows)]))
        worker.publish()
    worker.merge_all()
    pipeline.book.append_all("b", [Delete("b1"), Delete("b2"), Delete("b3"), *upserts(["late"])])
    worker.publish()
    sizes = [ref for refs in manifest_objects(pipeline.store, worker.snapshot.manifest).values() for ref in refs]
    return worker.snapshot, sum({ref.name: ref.size_bytes for ref in sizes}.values())


def test_graphs_are_told_largest_first_with_dead_rows_and_bytes(snapshot):
    """Rows are live ones; bytes count every object of the snapshot once."""
    shown, size = snapshot
    told = engine_stats(shown)
    assert told["snapshotBytes"] == size
    assert (told["rows"], told["deadRows"], told["deadShare"]) == (148, 3, round(3 / 151, 4))
    assert (told["graphRows"], told["graphsTotal"]) == (147, 3)
    graphs = [(one["namespace"], one["rows"], one["deadRows"], one["deadShare"]) for one in told["graphs"]]
    assert graphs == [("b", 57, 3, 0.05), ("c", 50, 0, 0.0), ("a", 40, 0, 0.0)]
    assert all(one["efSearch"] > 0 and one["bytes"] > 0 for one in told["graphs"])
    # So few rows are not measured: that is not a recall of nothing.
    assert {one["recall"] for one in told["graphs"]} == {None}


def test_only_the_largest_graphs_are_listed(snapshot, monkeypatch):
    """The others are counted."""
    monkeypatch.setattr(module, "GRAPHS_SHOWN_MAX", 2)
    told = engine_stats(snapshot[0])
    assert [one["namespace"] for one in told["graphs"]] == ["b", "c"]
    assert told["graphsTotal"] == 3


def test_empty_partition_has_nothing(tmp_path):
    """No division by nothing."""
    told = engine_stats(Pipeline(tmp_path, spec_of()).follower().current)
    assert told["graphs"] == []
    assert (told["snapshotBytes"], told["deadShare"], told["graphRows"]) == (0, 0.0, 0)
