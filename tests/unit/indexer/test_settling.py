"""Joining the graphs of a quiet partition."""

from __future__ import annotations

from indexer.merge_policy import MergeOptions, SegmentSize, plan_settling

OPTIONS = MergeOptions(graph_rows_min=10, graph_rows_max=1_000)


def graph(number, rows, name="a"):
    return SegmentSize(number, rows, rows, name)


def test_graphs_of_one_namespace_are_joined():
    """All of them at once, with the flat segments that hold many of its rows."""
    flats = [SegmentSize(1, 50, 50, large={"a": 9}), SegmentSize(2, 50, 50, large={"b": 9})]

    plan = plan_settling(flats, [graph(3, 100), graph(4, 40), graph(5, 70, "b")], OPTIONS)

    assert plan is not None
    assert {1, 3, 4} == set(plan.inputs)
    assert frozenset({"a"}) == plan.graph_namespaces


def test_one_graph_is_left_alone():
    """A settled partition has nothing to do, however often it is asked."""
    assert plan_settling([], [graph(1, 100), graph(2, 100, "b")], OPTIONS) is None


def test_full_graphs_are_left_alone():
    """No graph grows beyond its cap."""
    assert plan_settling([], [graph(1, 600), graph(2, 900)], OPTIONS) is None


def test_locked_graphs_do_not_join():
    """What another merge has frozen stays out."""
    assert plan_settling([], [graph(1, 100), graph(2, 100)], OPTIONS, locked={2}) is None


def test_rows_outside_of_a_graph_join_it():
    """One graph answers faster than a graph and a scan."""
    plan = plan_settling([SegmentSize(1, 9, 9, large={"a": 9})], [graph(2, 100)], OPTIONS)

    assert plan is not None
    assert {1, 2} == set(plan.inputs)


def test_large_graph_is_not_written_again_for_a_handful_of_rows():
    """What a quiet moment rewrites is worth it."""
    assert plan_settling([SegmentSize(1, 9, 9, large={"a": 9})], [graph(2, 900)], OPTIONS) is None
    assert plan_settling([], [graph(1, 10), graph(2, 900)], OPTIONS) is None
