"""The benchmarks themselves: no figure without a scenario, no failure in silence, and code that runs."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from tests.bench import data, shapes, stored
from tests.bench.__main__ import ORDER, QUICK, THEMES, measure
from tests.bench.figures import figure, note
from tests.bench.fresh_build import fresh_recall
from tests.bench.harness import SCENARIOS, Bench, Options, Scenario, run
from tests.bench.targets import TARGETS
from tests.support.builders import spec_of, upsert, upserts
from tests.support.driver import Pipeline

# The table of figures to reach, as it stands in the design: each with its relation and bounds.
DESIGN = {
    "queries at equal ef": [("query_1", ">= 0.9"), ("query_16", ">= 1.3")],
    "gRPC against REST": [
        ("grpc_query_1", ">= 1"),
        ("grpc_query_16", ">= 1"),
        ("grpc_upsert_1", ">= 1"),
        ("grpc_upsert_4", ">= 1"),
    ],
    "queries under attack": [
        ("attack_p99", "<= 3 x"),
    ],
    "sparse and hybrid queries": [
        ("sparse_p50", "<= 5 ms"),
        ("sparse_scan", "<= 1 x"),
        ("sparse_exact", ">= 1"),
        ("hybrid_dense", "<= 5 x"),
        ("hybrid_recall", ">= 0.95"),
    ],
    "recall": [("recall", ">= 0.95"), ("recall_foreign", ">= 0.92")],
    "write to visible, embedded": [("visible_p50", "<= 15 ms"), ("visible_p99", "<= 60 ms")],
    "write to visible, Kafka": [("visible_kafka_p50", "<= 30 ms"), ("visible_kafka_p99", "<= 120 ms")],
    "full load": [("load", ">= 0.6"), ("load_next", ">= 0.8")],
    "log to graph": [("log_to_graph", ">= 0.8")],
    "replay": [("replay", ">= 0.9")],
    "query p99 beside ingest": [("p99_full_ingest", "<= 5 x"), ("p99_paced_ingest", "<= 2 x")],
    "pause of the event loop": [("pause", "<= 20 ms"), ("hold_100", "<= 5 ms"), ("hold_1000", "<= 15 ms")],
    "publish cost": [("publish_cost", "<= 2 x")],
    "bytes written": [("log_bytes", "<= 3"), ("snapshot_bytes", "<= 5")],
    "start": [("start", "<= 2 s")],
    "filtered queries": [
        ("filter_recall", ">= 0.95"),
        ("filter_70", "<= 1.5 x"),
        ("filter_worst", "<= 5 x"),
        ("filter_1", "<= 1 ms"),
    ],
    "bulk import": [("import_rate", ">= 0.8")],
    "memory": [("memory", "<= 1.5 x")],
    "idle": [("idle", "<= 2%")],
}


@pytest.mark.parametrize("line", DESIGN)
def test_line_of_the_design_has_a_scenario_with_its_target(line):
    """No figure that is promised goes unmeasured, or is measured against another bound."""
    measured = {key for scenario in SCENARIOS.values() for key in scenario.targets}
    for key, text in DESIGN[line]:
        assert key in measured
        assert TARGETS[key].text == text


def test_every_target_belongs_to_one_scenario_and_one_line():
    """A target that nothing measures would look as if it were met."""
    measured = [key for scenario in SCENARIOS.values() for key in scenario.targets]
    assert sorted(measured) == sorted(TARGETS)
    assert sorted(key for keys in DESIGN.values() for key, _ in keys) == sorted(TARGETS)


def test_whole_run_holds_every_scenario_once():
    """What is registered runs, and a quick run takes part of it."""
    assert THEMES
    assert sorted(ORDER) == sorted(SCENARIOS)
    assert set(QUICK) < set(ORDER)


@pytest.mark.parametrize(("key", "good", "bad"), [("load", 0.61, 0.59), ("pause", 20.0, 20.1), ("idle", 0.02, 0.021)])
def test_figure_beyond_its_bound_is_missed(key, good, bad):
    """The verdict is the target's."""
    assert figure(key, good, "").met is True
    assert figure(key, bad, "").met is False


async def _fails(_bench):
    raise RuntimeError("the server\nwent away")


async def _forgets(_bench):
    return [note("query_1", "another line", "1")]


def test_scenario_that_fails_is_a_line_for_each_of_its_targets(tmp_path):
    """A run goes on, and a failure is neither met nor missed nor silent."""
    bench = Bench(Options(), tmp_path)
    rows = asyncio.run(run(bench, Scenario("broken", ("load", "start"), _fails)))
    assert [(row.key, row.met, row.is_failure) for row in rows] == [("load", None, True), ("start", None, True)]
    assert "RuntimeError: the server went away" in rows[0].figure
    left_out = asyncio.run(run(bench, Scenario("forgetful", ("query_1", "query_16"), _forgets)))
    assert [(row.key, row.is_failure) for row in left_out] == [("query_1", False), ("query_16", True)]


def test_true_neighbours_are_those_of_a_full_sort(monkeypatch):
    """Recall is measured against the truth, also where rows are looked at in blocks."""
    monkeypatch.setattr(data, "_BLOCK_ROWS", 64)
    rows = data.clustered(500, 8, queries=20)
    expected = np.argsort(-(rows.queries @ rows.vectors.T), axis=1)[:, :10]
    assert np.array_equal(data.true_neighbours(rows.vectors, rows.queries, 10), expected)


def test_graph_built_anew_is_measured_with_its_own_candidates():
    """What churned graphs are compared with reaches the recall target itself."""
    rows = data.clustered(1_500, 16, queries=50)
    truth = data.true_neighbours(rows.vectors, rows.queries, 10)
    assert fresh_recall(rows.vectors, rows.queries, truth, threads=1) >= 0.95


def test_store_is_told_apart_into_rows_in_graphs_and_the_rest(tmp_path):
    """Loads are over when all is in graphs, so that is counted; a partition without a manifest counts nothing."""
    (tmp_path / "snapshots" / "another" / "0" / "manifests").mkdir(parents=True)
    assert stored.look(tmp_path).objects == {}
    pipeline = Pipeline(tmp_path / "snapshots", spec_of())
    worker = pipeline.worker()
    for begin in range(0, 60, 10):
        pipeline.book.append_all("many", upserts([f"id-{number}" for number in range(begin, begin + 10)], begin))
        worker.publish()
    assert (stored.look(tmp_path).graph_rows, stored.look(tmp_path).tail_rows) == (0, 60)
    worker.merge_all()
    pipeline.book.append("few", upsert("one", 1))
    worker.publish()
    seen = stored.look(tmp_path)
    assert (seen.graph_rows, seen.tail_rows) == (60, 1)
    assert set(seen.next_offsets.values()) == {61}
    sizes = {name: (tmp_path / "snapshots" / name).stat().st_size for name in seen.objects}
    assert sizes == seen.objects
    assert stored.digest_seconds(tmp_path, seen) > 0


def test_scenarios_run_at_a_tiny_scale_and_keep_their_lines(tmp_path, capsys):
    """Benchmarks that nobody runs rot: a load over REST, and publishes beside few and many namespaces."""
    results = tmp_path / "results.jsonl"
    options = Options(rows=300, seconds=1, scale=0.002, settle_seconds=0.5)
    table = asyncio.run(measure(options, ["load", "publish_cost"], results))
    assert [row.key for row in table if row.is_failure] == []
    kept = [json.loads(line) for line in results.read_text().splitlines()]
    assert {line["key"] for line in kept} >= {"load", "log_bytes", "snapshot_bytes", "publish_cost"}
    assert all({"commit", "machine", "time", "load_average", "target"} <= line.keys() for line in kept)
    assert TARGETS["load"].figure in capsys.readouterr().out


def test_shape_that_fails_is_a_line_and_the_next_goes_on(tmp_path, monkeypatch):
    """One shape that cannot be made hides nothing of the others."""

    async def works(_scale):
        return [note("fine", "a line", "1")]

    monkeypatch.setattr(shapes, "SHAPES", {"broken": _fails, "works": works})
    table = asyncio.run(shapes.measure(["broken", "works"], 0.01, tmp_path / "shapes.jsonl"))
    assert [(row.key, row.is_failure) for row in table] == [("broken", True), ("fine", False)]
