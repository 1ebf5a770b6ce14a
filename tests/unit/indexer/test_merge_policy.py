"""The merge policy as tables and as properties: plans are disjoint, merging comes to rest, no row is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.merge_policy import (
    MergeOptions,
    MergePlan,
    SegmentSize,
    plan_flats,
    plan_graphs,
    plan_metadata,
    plan_rollup,
    plan_settling,
)
from schemas.limits import RECENT_DELTAS_MAX

_OPTIONS = MergeOptions(rollup_deltas=4, rollup_rows=1000, graph_rows_min=100, graph_rows_max=1000, dead_share_max=0.2)


def flat(number: int, live: int, *, rows: int | None = None, **large: int) -> SegmentSize:
    return SegmentSize(number, rows or live, live, "", large)


def graph(number: int, live: int, name: str = "a", *, rows: int | None = None) -> SegmentSize:
    return SegmentSize(number, rows or live, live, name)


@pytest.mark.parametrize(
    ("deltas", "flats", "locked", "wanted"),
    [
        ([], [], [], None),
        ([1, 1, 1], [], [], None),
        ([1, 1, 1, 1], [], [], MergePlan((), 4)),
        ([999], [], [], None),
        ([1000], [], [], MergePlan((), 1)),
        ([5] * 4, [flat(1, 20)], [], MergePlan((1,), 4)),
        ([5] * 4, [flat(1, 21)], [], MergePlan((), 4)),
        ([5] * 4, [flat(1, 40), flat(2, 20)], [], MergePlan((2, 1), 4)),
        ([5] * 4, [flat(1, 41), flat(2, 20)], [], MergePlan((2,), 4)),
        ([5] * 4, [flat(1, 20), flat(2, 10)], [2], MergePlan((1,), 4)),
        ([0] * 4, [flat(1, 1)], [], MergePlan((), 4)),
        ([0] * 4, [flat(1, 0, rows=5)], [], MergePlan((1,), 4)),
        # What it takes in is bounded, so that it is quick; rows that wait for a graph are left to it.
        ([250] * 4, [flat(1, 500)], [], MergePlan((), 4)),
        ([125] * 4, [flat(1, 500), flat(2, 1)], [], MergePlan((2,), 4)),
        ([125] * 4, [flat(1, 200, a=101), flat(2, 199, b=99)], [], MergePlan((2,), 4)),
    ],
)
def test_rollup_takes_flat_segments_that_are_not_larger_than_what_joins_them(deltas, flats, locked, wanted):
    """Every row is rewritten about as often as its segment doubles."""
    assert plan_rollup(deltas, flats, _OPTIONS, locked=locked) == wanted


def test_idle_builder_does_not_keep_rows_waiting():
    """As many rows as a graph takes are rolled up for it, once it has time."""
    assert plan_rollup([60, 40], [], _OPTIONS) is None
    assert plan_rollup([60, 40], [], _OPTIONS, is_builder_idle=True) == MergePlan((), 2)
    assert plan_rollup([60, 39], [], _OPTIONS, is_builder_idle=True) is None


def test_quiet_partition_rolls_up_what_there_is_once():
    """Publishes become one segment, and one is nothing to roll up."""
    assert plan_rollup([1, 1], [], _OPTIONS, is_quiet=True) == MergePlan((), 2)
    assert plan_rollup([1], [], _OPTIONS, is_quiet=True) is None


@pytest.mark.parametrize(
    ("flats", "graphs", "locked", "wanted"),
    [
        ([], [], [], None),
        ([flat(1, 99, a=99)], [], [], None),
        ([flat(1, 150, a=100)], [], [], ((1,), {"a"})),
        ([flat(1, 60, a=50), flat(2, 60, a=50)], [], [], ((1, 2), {"a"})),
        ([flat(1, 60, a=50), flat(2, 60, a=50)], [], [2], None),
        ([flat(1, 300, a=150, b=150)], [], [], ((1,), {"a", "b"})),
        ([flat(1, 300, a=150, b=50)], [], [], ((1,), {"a"})),
        # A graph joins that is not much larger than what joins it; a larger one, of another name or too full does not.
        ([flat(1, 150, a=150)], [graph(2, 300)], [], ((1, 2), {"a"})),
        ([flat(1, 150, a=150)], [graph(2, 301)], [], ((1,), {"a"})),
        ([flat(1, 150, a=150)], [graph(2, 100, "b")], [], ((1,), {"a"})),
        ([flat(1, 150, a=150)], [graph(2, 150), graph(3, 300)], [], ((1, 2, 3), {"a"})),
        ([flat(1, 600, a=600)], [graph(2, 500)], [], ((1,), {"a"})),
        ([flat(1, 150, a=150)], [graph(2, 150)], [2], ((1,), {"a"})),
        # A fifth may be dead, more is rewritten: with its graph while it is large enough, else flat.
        ([], [graph(1, 800, rows=1000)], [], None),
        ([], [graph(1, 799, rows=1000)], [], ((1,), {"a"})),
        ([], [graph(1, 99, rows=1000)], [], ((1,), set())),
        ([], [graph(1, 799, rows=1000)], [1], None),
    ],
)
def test_graph_merge_takes_what_a_namespace_has_outside_of_graphs(flats, graphs, locked, wanted):
    """A namespace over the threshold gets a graph; a graph is extended only by at least half its own size."""
    plan = plan_graphs(flats, graphs, _OPTIONS, locked=locked)
    assert (None if plan is None else (plan.inputs, set(plan.graph_namespaces))) == wanted
    assert plan is None or plan.deltas == 0


@pytest.mark.parametrize(
    ("flats", "graphs", "locked", "wanted"),
    [
        ([], [graph(1, 500)], [], None),
        ([], [graph(1, 500), graph(2, 100)], [], ((2, 1), {"a"})),
        ([], [graph(1, 500), graph(2, 100, "b")], [], None),
        ([], [graph(1, 900), graph(2, 101)], [], None),
        ([], [graph(1, 500), graph(2, 100)], [1], None),
        ([flat(3, 60, a=60)], [graph(1, 500), graph(2, 100)], [], ((3, 2, 1), {"a"})),
    ],
)
def test_quiet_partition_joins_the_graphs_of_a_namespace(flats, graphs, locked, wanted):
    """One large graph answers faster than several smaller ones, up to the largest size."""
    plan = plan_settling(flats, graphs, _OPTIONS, locked=locked)
    assert (None if plan is None else (plan.inputs, set(plan.graph_namespaces))) == wanted


@pytest.mark.parametrize(
    ("flats", "locked", "wanted"),
    [
        ([], [], None),
        ([flat(1, 10), flat(2, 10), flat(3, 10)], [], None),
        ([flat(1, 10), flat(2, 20), flat(3, 60), flat(4, 180)], [], (1, 2, 3, 4)),
        ([flat(1, 10), flat(2, 21), flat(3, 60), flat(4, 180)], [], None),
        ([flat(1, 10), flat(2, 300), flat(3, 300), flat(4, 300), flat(5, 300)], [], (2, 3, 4, 5)),
        ([flat(1, 10), flat(2, 10), flat(3, 10), flat(4, 10)], [3], None),
        ([flat(1, 100, a=100), flat(2, 99), flat(3, 99), flat(4, 99)], [], None),
        ([flat(1, 79, rows=100)], [], (1,)),
        ([flat(1, 0, rows=100)], [], (1,)),
        ([flat(1, 80, rows=100)], [], None),
        ([flat(1, 79, rows=100)], [1], None),
    ],
)
def test_flat_segments_of_like_size_are_joined_and_dead_ones_rewritten(flats, locked, wanted):
    """Their number grows as the logarithm of their rows; those that wait for a graph are left to it."""
    plan = plan_flats(flats, _OPTIONS, locked=locked)
    assert plan == (None if wanted is None else MergePlan(wanted))


def _load(rows: int, *, arriving: float, inserted: float) -> tuple[float, int, list[int]]:
    """Let rows arrive in one namespace and a builder follow; both in rows a second.

    Return how often a row was inserted into a graph, how many graphs there were at most, and the sizes at the end.
    """
    options = MergeOptions()
    seconds, taken, insertions, most = 0.0, 0, 0, 0
    graphs: list[int] = []
    while (fresh := min(rows, int(arriving * seconds)) - taken) or taken < rows:
        plan = plan_graphs([flat(0, fresh, a=fresh)], [graph(at, size) for at, size in enumerate(graphs, 1)], options)
        if plan is None:
            if arriving * seconds >= rows:
                break
            seconds += 0.01
            continue
        joined = [graphs[number - 1] for number in plan.inputs if number]
        for size in joined:
            graphs.remove(size)
        # The largest one is extended: its rows stay where they are.
        new = fresh + sum(joined) - max(joined, default=0)
        insertions, seconds, taken = insertions + new, seconds + new / inserted, taken + fresh
        graphs.append(fresh + sum(joined))
        most = max(most, len(graphs))
    return insertions / taken, most, graphs


def test_each_row_of_a_bulk_load_is_inserted_into_a_graph_once():
    """Rows that come faster than a graph grows: it is extended by ever more of them, and promoted as it is."""
    insertions, _, graphs = _load(500_000, arriving=8_000, inserted=2_600)
    assert insertions == 1
    assert len(graphs) <= 2


@pytest.mark.parametrize("arriving", [100, 1_000, 2_000])
def test_rows_that_trickle_in_are_inserted_into_few_graphs(arriving):
    """A builder that has time keeps the tail short, at the cost of inserting some rows again."""
    insertions, most, _ = _load(200_000, arriving=arriving, inserted=2_600)
    assert insertions < 2.5
    assert most <= 6


def patched(number: int, rows: int, patched_rows: int, tiers: int = 1) -> SegmentSize:
    return SegmentSize(number, rows, rows, "a", {}, patched_rows, tiers)


@pytest.mark.parametrize(
    ("sizes", "locked", "wanted"),
    [
        ([], [], None),
        ([patched(1, 100, 0, 0)], [], None),
        # Of a small segment the number counts, of a large one the share.
        ([patched(1, 100, 50)], [], None),
        ([patched(1, 100, 51)], [], 1),
        ([patched(1, 1000, 100)], [], None),
        ([patched(1, 1000, 101)], [], 1),
        ([patched(1, 1_000_000, 0, 8)], [], None),
        ([patched(1, 1_000_000, 0, 9)], [], 1),
        ([patched(1, 1000, 101), patched(2, 1000, 102)], [], 2),
        ([patched(1, 1000, 101), patched(2, 1000, 102)], [2], 1),
        ([patched(1, 1000, 101)], [1], None),
    ],
)
def test_records_are_written_anew_where_metadata_changed_much(sizes, locked, wanted):
    """Changes do not pile up for ever, and are not written out for a few."""
    options = MergeOptions(patched_rows_min=50, patched_share_max=0.1, patch_tiers_max=8)
    plan = plan_metadata(sizes, options, locked=locked)
    assert plan == (None if wanted is None else MergePlan((wanted,), is_metadata_only=True))


@pytest.mark.parametrize("number", [0, RECENT_DELTAS_MAX])
def test_options_that_would_let_a_manifest_grow_are_refused(number):
    """A roll-up must start before the manifest is full."""
    with pytest.raises(ValueError, match="rollup_deltas"):
        MergeOptions(rollup_deltas=number)


_LIVE = st.integers(0, 400)
_SEGMENTS = st.lists(st.tuples(_LIVE, st.integers(0, 100), st.sampled_from(["", "a", "b"])), max_size=8)


def world(drawn) -> dict[int, tuple[SegmentSize, dict[str, int]]]:
    """Return segments by number with their live rows by namespace; flat ones share theirs between three."""
    found = {}
    for number, (live, dead, name) in enumerate(drawn, 1):
        shares = {name: live} if name else {"a": live // 2, "b": live // 4, "c": live - live // 2 - live // 4}
        large = {} if name else {key: rows for key, rows in shares.items() if rows >= _OPTIONS.graph_rows_min // 16}
        found[number] = (SegmentSize(number, live + dead, live, name, large), shares)
    return found


def apply(segments: dict, plan: MergePlan, deltas: list[int], number: int) -> int:
    """Carry a plan out as the merger does; return the next free number."""
    rows: dict[str, int] = {}
    for key in plan.inputs:
        for name, count in segments.pop(key)[1].items():
            rows[name] = rows.get(name, 0) + count
    if plan.deltas:
        rows["c"] = rows.get("c", 0) + sum(deltas[: plan.deltas])
        del deltas[: plan.deltas]
    outputs = [{name: count} for name, count in rows.items() if name in plan.graph_namespaces]
    outputs.append({name: count for name, count in rows.items() if name not in plan.graph_namespaces})
    for at, shares in enumerate(outputs):
        live = sum(shares.values())
        if live:
            name = next(iter(shares)) if at < len(outputs) - 1 else ""
            large = (
                {} if name else {key: count for key, count in shares.items() if count >= _OPTIONS.graph_rows_min // 16}
            )
            segments[number] = (SegmentSize(number, live, live, name, large), shares)
            number += 1
    return number


def live_rows(segments: dict, deltas: list[int]) -> dict[str, int]:
    rows = {"c": sum(deltas)}
    for _, shares in segments.values():
        for name, count in shares.items():
            rows[name] = rows.get(name, 0) + count
    return {name: count for name, count in rows.items() if count}


@given(_SEGMENTS, st.lists(st.integers(0, 60), max_size=8), st.sets(st.integers(1, 8)))
def test_plans_leave_segments_alone_that_are_in_a_merge(drawn, deltas, locked):
    """Two merges beside each other never share a segment, and a plan names each of its own once."""
    sizes = [size for size, _ in world(drawn).values()]
    flats = [size for size in sizes if not size.namespace]
    graphs = [size for size in sizes if size.namespace]
    for plan in (
        plan_rollup(deltas, flats, _OPTIONS, locked=locked),
        plan_graphs(flats, graphs, _OPTIONS, locked=locked),
        plan_flats(flats, _OPTIONS, locked=locked),
        plan_settling(flats, graphs, _OPTIONS, locked=locked),
    ):
        if plan is not None:
            assert not set(plan.inputs) & locked
            assert len(set(plan.inputs)) == len(plan.inputs)
            assert set(plan.inputs) <= {size.segment_id for size in sizes}
            assert plan.deltas <= len(deltas)


@given(_SEGMENTS, st.lists(st.integers(0, 60), max_size=8))
def test_merging_comes_to_rest_and_keeps_every_live_row(drawn, deltas):
    """Planning and applying again and again ends, with all live rows, few segments and nothing left to do."""
    segments, deltas = world(drawn), list(deltas)
    before = live_rows(segments, deltas)
    number = len(segments) + 1
    for _ in range(60):
        flats = [size for size, _ in segments.values() if not size.namespace]
        graphs = [size for size, _ in segments.values() if size.namespace]
        plan = (
            plan_rollup(deltas, flats, _OPTIONS)
            or plan_graphs(flats, graphs, _OPTIONS)
            or plan_flats(flats, _OPTIONS)
            or plan_settling(flats, graphs, _OPTIONS)
        )
        if plan is None:
            break
        number = apply(segments, plan, deltas, number)
        assert live_rows(segments, deltas) == before
    else:
        raise AssertionError("merging never comes to rest")
    assert len(deltas) < _OPTIONS.rollup_deltas
    assert all(size.dead_share <= _OPTIONS.dead_share_max for size, _ in segments.values())
    outside: dict[str, int] = {}
    for size, _ in segments.values():
        for name, rows in size.large.items():
            outside[name] = outside.get(name, 0) + rows
    assert all(rows < _OPTIONS.graph_rows_min for rows in outside.values())
