"""Which segments to merge, from their sizes alone. Pure: data in, data out.

Three kinds of merges run beside each other. A roll-up turns recent deltas and small flat segments into one flat
segment; it is always quick, since publishes wait for it where a manifest is full. A graph merge takes the rows of
namespaces that have grown past a threshold out of the flat segments and gives each a graph, joined with those of its
graphs that are not much larger than what joins them: it extends the largest one, so that a row is inserted into few
graphs. A rewrite joins large flat segments of like size; or it writes a flat segment with too many dead rows anew; or,
of a segment with many metadata changes, the records alone, with the same row numbers: its vectors and graph stay.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from schemas.limits import RECENT_DELTAS_MAX

__all__ = [
    "MergeOptions",
    "MergePlan",
    "SegmentSize",
    "plan_flats",
    "plan_graphs",
    "plan_metadata",
    "plan_rollup",
    "plan_settling",
]

# A graph is joined with rows of which it is at most so many times the number.
_GRAPH_RATIO = 2
# So many large flat segments are joined at least, and none that is so many times larger than all smaller ones of them.
_FLATS_MIN, _FLAT_RATIO = 4, 2
# A quiet namespace is settled where one row in so many lies outside of its largest graph.
_SETTLED_SHARE = 64


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """When to merge.

    `rollup_deltas` recent deltas, or `rollup_rows` rows in them, start a roll-up, which takes in flat segments up to as
    many rows; a namespace with `graph_rows_min` rows outside of graphs gets a graph; graphs hold up to `graph_rows_max`
    rows; a segment with more than `dead_share_max` dead rows is rewritten. A partition that took no event for
    `settle_seconds` is quiet: then the graphs of a namespace are joined, since one large graph answers faster than
    several smaller ones. The records of a segment are written anew where more than `patched_rows_min` single rows, and
    more than `patched_share_max` of all, changed their metadata, or where there are more than `patch_tiers_max` tiers
    of changes.
    """

    rollup_deltas: int = 16
    rollup_rows: int = 50_000
    graph_rows_min: int = 2_048
    graph_rows_max: int = 1_000_000
    dead_share_max: float = 0.2
    settle_seconds: float = 10.0
    patched_rows_min: int = 1_024
    patched_share_max: float = 1 / 16
    patch_tiers_max: int = 64

    def __post_init__(self) -> None:
        """Refuse numbers that would let a manifest grow without bound."""
        if not 1 <= self.rollup_deltas < RECENT_DELTAS_MAX:
            raise ValueError(f"rollup_deltas must be 1 to {RECENT_DELTAS_MAX - 1}.")


@dataclass(frozen=True, slots=True)
class SegmentSize:
    """What the policy knows of a segment; `namespace` is set for graphs."""

    segment_id: int
    rows: int
    live_rows: int
    namespace: str = ""
    # Live rows of those namespaces that may deserve a graph; empty for graphs.
    large: dict[str, int] = field(default_factory=dict)
    # Metadata changes of single rows, and tiers of changes of either kind (`indexer.segments.patches`).
    patched_rows: int = 0
    patch_tiers: int = 0

    @property
    def dead_share(self) -> float:
        """Share of rows that are dead."""
        return 1 - self.live_rows / self.rows if self.rows else 1.0


@dataclass(frozen=True, slots=True)
class MergePlan:
    """Segments that become one; rows of `graph_namespaces` get graphs. `deltas` recent deltas are rolled up with it.

    With `is_metadata_only` the one input keeps its rows, vectors and graph, and gets new records.
    """

    inputs: tuple[int, ...]
    deltas: int = 0
    graph_namespaces: frozenset[str] = frozenset()
    is_metadata_only: bool = False


def plan_rollup(
    deltas: Sequence[int],
    flats: Sequence[SegmentSize],
    options: MergeOptions,
    *,
    locked: Collection[int] = (),
    is_quiet: bool = False,
    is_builder_idle: bool = False,
) -> MergePlan | None:
    """Plan a roll-up. `deltas` are the row counts of the recent deltas, oldest first; `locked` segments are in a merge.

    Rows that are enough for a graph are not kept waiting by an idle builder, and a quiet partition rolls up what there
    is. Segments that wait for a graph are left alone: they would be written twice. The caller adds the deltas' own
    segments to the inputs.
    """
    total = sum(deltas)
    is_due = len(deltas) >= options.rollup_deltas or total >= options.rollup_rows
    is_due = is_due or (is_builder_idle and total >= options.graph_rows_min) or (is_quiet and len(deltas) > 1)
    if not is_due:
        return None
    inputs = []
    for size in _free(flats, options, locked):
        if size.live_rows > total or size.live_rows + total > options.rollup_rows:
            break
        inputs.append(size.segment_id)
        total += size.live_rows
    return MergePlan(tuple(inputs), len(deltas))


def plan_graphs(
    flats: Sequence[SegmentSize],
    graphs: Sequence[SegmentSize],
    options: MergeOptions,
    *,
    locked: Collection[int] = (),
) -> MergePlan | None:
    """Plan the next graph merge or rewrite, or return None where nothing needs one."""
    free_flats = [size for size in flats if size.segment_id not in locked]
    free_graphs = [size for size in graphs if size.segment_id not in locked]
    large = _large(free_flats, options)
    if large:
        inputs = [size.segment_id for size in free_flats if large.keys() & size.large.keys()]
        for name, rows in large.items():
            inputs.extend(_joining(name, rows, free_graphs, options))
        return MergePlan(tuple(inputs), graph_namespaces=frozenset(large))
    for size in free_graphs:
        if size.dead_share > options.dead_share_max:
            keeps_graph = size.live_rows >= options.graph_rows_min
            return MergePlan((size.segment_id,), graph_namespaces=frozenset([size.namespace] if keeps_graph else []))
    return None


def plan_flats(
    flats: Sequence[SegmentSize], options: MergeOptions, *, locked: Collection[int] = ()
) -> MergePlan | None:
    """Plan to rewrite a flat segment with too many dead rows, or to join flat segments of like size; None = neither.

    So their number grows as the logarithm of their rows, and each row is rewritten about as often.
    """
    for size in flats:
        if size.dead_share > options.dead_share_max and size.segment_id not in locked:
            return MergePlan((size.segment_id,))
    free = _free(flats, options, locked)
    for first, smallest in enumerate(free):
        joined, total = [smallest.segment_id], smallest.live_rows
        for size in free[first + 1 :]:
            if size.live_rows > _FLAT_RATIO * total:
                break
            joined.append(size.segment_id)
            total += size.live_rows
        if len(joined) >= _FLATS_MIN:
            return MergePlan(tuple(joined))
    return None


def plan_settling(
    flats: Sequence[SegmentSize],
    graphs: Sequence[SegmentSize],
    options: MergeOptions,
    *,
    locked: Collection[int] = (),
) -> MergePlan | None:
    """Plan to join the graphs of one namespace, of a quiet partition; None where each has one, or has full ones.

    Flat segments that hold many of its rows join too. Nothing is done for less than one row in `_SETTLED_SHARE`.
    """
    by_name: dict[str, list[SegmentSize]] = {}
    for size in graphs:
        if size.segment_id not in locked:
            by_name.setdefault(size.namespace, []).append(size)
    for name, own in by_name.items():
        joined: list[int] = []
        total = 0
        for size in sorted(own, key=lambda item: item.live_rows):
            if total + size.live_rows > options.graph_rows_max:
                break
            joined.append(size.segment_id)
            total += size.live_rows
        tails = [size for size in flats if name in size.large and size.segment_id not in locked]
        outside = sum(size.large[name] for size in tails)
        largest = max((size.live_rows for size in own if size.segment_id in joined), default=0)
        # To write a large graph again for a handful of rows is not worth it.
        if joined and (total - largest + outside) * _SETTLED_SHARE >= total + outside:
            inputs = [size.segment_id for size in tails]
            return MergePlan((*inputs, *joined), graph_namespaces=frozenset([name]))
    return None


def plan_metadata(
    sizes: Sequence[SegmentSize], options: MergeOptions, *, locked: Collection[int] = ()
) -> MergePlan | None:
    """Plan to write out the metadata changes of the segment that has most of them; None where none has many."""
    due = [
        size
        for size in sizes
        if size.segment_id not in locked
        and (
            size.patched_rows > max(options.patched_rows_min, options.patched_share_max * size.rows)
            or size.patch_tiers > options.patch_tiers_max
        )
    ]
    if not due:
        return None
    most = max(due, key=lambda size: (size.patched_rows, size.patch_tiers))
    return MergePlan((most.segment_id,), is_metadata_only=True)


def _free(flats: Sequence[SegmentSize], options: MergeOptions, locked: Collection[int]) -> list[SegmentSize]:
    """Return the flat segments that may be joined, smallest first.

    Not those in a merge, and not those of which most rows wait for a graph, which takes them as they are.
    """
    large = _large(flats, options)
    return sorted(
        (
            size
            for size in flats
            if size.segment_id not in locked
            and 2 * sum(rows for name, rows in size.large.items() if name in large) <= size.live_rows
        ),
        key=lambda item: item.live_rows,
    )


def _large(flats: Sequence[SegmentSize], options: MergeOptions) -> dict[str, int]:
    """Return the namespaces that have enough rows in flat segments for a graph, with these rows."""
    outside: dict[str, int] = {}
    for size in flats:
        for name, rows in size.large.items():
            outside[name] = outside.get(name, 0) + rows
    return {name: rows for name, rows in outside.items() if rows >= options.graph_rows_min}


def _joining(name: str, rows: int, graphs: Sequence[SegmentSize], options: MergeOptions) -> list[int]:
    """Return the graphs of a namespace that are not much larger than what joins them, smallest first."""
    joined = []
    total = rows
    for size in sorted((item for item in graphs if item.namespace == name), key=lambda item: item.live_rows):
        if size.live_rows > _GRAPH_RATIO * total or size.live_rows + total > options.graph_rows_max:
            break
        joined.append(size.segment_id)
        total += size.live_rows
    return joined
