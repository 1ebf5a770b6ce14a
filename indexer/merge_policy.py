"""Which segments to merge, from their sizes alone. Pure: data in, data out.

Two kinds of merges run beside each other. A roll-up turns recent deltas and flat segments that are not larger than what
joins them into one flat segment. A graph merge takes the rows of namespaces that have grown past a threshold out of
the flat segments and gives each a graph, joined with those of its graphs that are not larger than what joins them, so
that a row enters few graphs. A segment with too many dead rows is rewritten alone. Of one with many metadata changes
only the records are written anew, with the same row numbers: its vectors and its graph stay.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from schemas.limits import RECENT_DELTAS_MAX

__all__ = ["MergeOptions", "MergePlan", "SegmentSize", "plan_graphs", "plan_metadata", "plan_rollup", "plan_settling"]


# A quiet namespace is settled where one row in so many lies outside of its largest graph.
_SETTLED_SHARE = 64


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """When to merge.

    `rollup_deltas` recent deltas, or `rollup_rows` rows in them, start a roll-up; a namespace with `graph_rows_min`
    rows outside of graphs gets a graph; graphs hold up to `graph_rows_max` rows; a segment with more than
    `dead_share_max` dead rows is rewritten. A partition that took no event for `settle_seconds` is quiet: then the
    graphs of a namespace are joined, since one large graph answers faster than several smaller ones.
    The records of a segment are written anew where more than `patched_rows_min` single rows, and more than
    `patched_share_max` of all, changed their metadata, or where there are more than `patch_tiers_max` tiers of changes.
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
    is. The caller adds the deltas' own segments to the inputs.
    """
    total = sum(deltas)
    is_due = len(deltas) >= options.rollup_deltas or total >= options.rollup_rows
    is_due = is_due or (is_builder_idle and total >= options.graph_rows_min) or (is_quiet and len(deltas) > 1)
    if not is_due:
        return None
    inputs = []
    for size in sorted(flats, key=lambda item: item.live_rows):
        if size.segment_id in locked:
            continue
        if size.live_rows > total:
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
    outside: dict[str, int] = {}
    for size in free_flats:
        for name, rows in size.large.items():
            outside[name] = outside.get(name, 0) + rows
    large = {name: rows for name, rows in outside.items() if rows >= options.graph_rows_min}
    if large:
        inputs = [size.segment_id for size in free_flats if large.keys() & size.large.keys()]
        for name, rows in large.items():
            inputs.extend(_joining(name, rows, free_graphs, options))
        return MergePlan(tuple(inputs), graph_namespaces=frozenset(large))
    for size in (*free_graphs, *free_flats):
        if size.dead_share > options.dead_share_max:
            keeps_graph = bool(size.namespace) and size.live_rows >= options.graph_rows_min
            return MergePlan((size.segment_id,), graph_namespaces=frozenset([size.namespace] if keeps_graph else []))
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


def _joining(name: str, rows: int, graphs: Sequence[SegmentSize], options: MergeOptions) -> list[int]:
    """Return the graphs of a namespace that are not larger than what joins them, smallest first."""
    joined = []
    total = rows
    for size in sorted((item for item in graphs if item.namespace == name), key=lambda item: item.live_rows):
        if size.live_rows > total or size.live_rows + total > options.graph_rows_max:
            break
        joined.append(size.segment_id)
        total += size.live_rows
    return joined
