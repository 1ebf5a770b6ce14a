"""Plan, freeze and commit the merges of a partition.

While a merge runs, kills and patches go on landing on its inputs. They are carried through the merge's moves when it
commits: the state that the new manifest shows is the same, in fewer segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pyroaring import BitMap

from indexer.merge_policy import (
    MergePlan,
    SegmentSize,
    plan_flats,
    plan_graphs,
    plan_metadata,
    plan_rollup,
    plan_settling,
)
from indexer.merger import MergeInput, MergeJob, MergeResult, Moves
from indexer.partition import PartitionIndexer
from indexer.segments.bitmaps import bitmap_of, rows_of
from indexer.segments.container import pack
from indexer.segments.view import SegmentView
from indexer.snapshots.namespaces import Namespaces
from indexer.snapshots.opener import OUTCOMES_KEPT_MS, fold_changes
from indexer.snapshots.store import new_object_name
from schemas.changes import Changes, DeadLetter, NamespaceRow, Outcome, SegmentChanges, merge_namespaces
from schemas.errors import CommitConflict, CorruptData
from schemas.idempotency import entries_from_bytes, joined_entries
from schemas.manifest import DeltaRef, ObjectRef, SegmentEntry, SegmentTable, encode_table

__all__ = ["LANES", "Merges"]

# Kinds of merges, in the order in which they choose their inputs: one of each may be under way.
LANES = ("rollup", "graph", "rewrite")

# Objects with changes of one segment, or with namespace rows, before they are folded into one.
_LISTED_MAX = 8


@dataclass(slots=True)
class _Carried:
    """Counts of what was carried through merges, for tests and metrics."""

    kills: int = 0
    patches: int = 0


class Merges:
    """The merges of one partition: at most one of each lane at a time."""

    def __init__(self, partition: PartitionIndexer) -> None:
        """Work on `partition`, whose only caller is the caller of this object."""
        self._partition = partition
        self._running: dict[str, MergeJob] = {}
        # Rows per large namespace of each flat segment when it was first seen: they only die, so it is an upper bound,
        # and planning costs no more than the number of segments.
        self._large: dict[int, dict[str, int]] = {}
        self.carried = _Carried()

    def forget(self) -> None:
        """Drop what is running: after a take-over its results are not wanted any more."""
        self._running.clear()
        self._large.clear()

    def next_job(self, lane: str, *, is_quiet: bool = False) -> MergeJob | None:
        """Freeze and return the next merge of `lane` (see `LANES`) or None. It ends by `commit` or `abandon`.

        In a quiet partition the graphs of a namespace are joined where nothing else is due.
        """
        if lane in self._running:
            return None
        plan = self._plan(lane, is_quiet=is_quiet)
        if plan is None:
            return None
        snapshot = self._partition.snapshot
        inputs = set(plan.inputs)
        deltas: tuple[str, ...] = ()
        if plan.deltas:
            rolled = snapshot.manifest.recent[: plan.deltas]
            inputs |= {delta.segment_id for delta in rolled if delta.segment_id}
            deltas = tuple(delta.object.name for delta in rolled)
        views = [view for view in snapshot.views if view.segment_id in inputs]
        job = MergeJob(
            self._partition.spec,
            self._partition.partition,
            tuple(map(_freeze, views)),
            plan.graph_namespaces,
            self._partition.options.graph,
            snapshot.next_offset,
            deltas,
            self._partition.options.merge.dead_share_max,
            is_large=lane != "rollup",
            rewritten=_entry(snapshot.segment_set.by_number[plan.inputs[0]]) if plan.is_metadata_only else None,
            schemas=_schemas(snapshot.namespaces, views),
        )
        self._running[lane] = job
        self._partition.step("merge.after_freeze")
        return job

    def abandon(self, lane: str) -> None:
        """Forget a merge that failed; what it wrote is garbage."""
        self._running.pop(lane, None)

    def commit(self, lane: str, result: MergeResult) -> None:
        """Commit a finished merge in a manifest of its own.

        Raises `CommitConflict`; `StoreUnavailable`, after which it can be tried again.
        """
        job = self._running[lane]
        partition = self._partition
        snapshot = partition.snapshot
        partition.step("merge.before_commit")
        first_id = snapshot.manifest.next_segment_id
        outputs = [replace(entry, segment_id=first_id + at) for at, entry in enumerate(result.outputs)]
        carried = self._carry(job, result, outputs)
        rolled = [delta for delta in snapshot.manifest.recent if delta.object.name in job.deltas]
        table, changes = self._table(job, outputs, carried, rolled)
        name = new_object_name(partition.spec.index_id, partition.partition, "table")
        table_ref = partition.store.put(name, pack({"table": encode_table(table)}))
        manifest = snapshot.manifest.advance(
            recent=tuple(delta for delta in snapshot.manifest.recent if delta.object.name not in job.deltas),
            table=table_ref,
            next_segment_id=first_id + len(outputs),
            created_ms=partition.clock_ms(),
        )
        trusted = [name, *(ref.name for entry in outputs for ref in _parts(entry)), *(ref.name for ref in changes)]
        partition.step("merge.before_manifest")
        partition.commit(manifest, trusted, table=table)
        del self._running[lane]
        partition.rebase()
        partition.step("merge.after_manifest")

    def _plan(self, lane: str, *, is_quiet: bool) -> MergePlan | None:
        snapshot = self._partition.snapshot
        options = self._partition.options.merge
        locked = {item.segment_id for job in self._running.values() for item in job.inputs}
        is_dense = bool(self._partition.spec.dimension)
        flats = self._flats(options.graph_rows_min // 16 if is_dense else None)
        if lane == "rollup":
            deltas = [delta.rows for delta in snapshot.manifest.recent]
            is_idle = is_dense and "graph" not in self._running
            return plan_rollup(deltas, flats, options, locked=locked, is_quiet=is_quiet, is_builder_idle=is_idle)
        graphs = [_size(view, {}) for view in snapshot.views if view.in_graph]
        if lane == "rewrite":
            plan = plan_flats(flats, options, locked=locked)
            return plan or plan_metadata([*graphs, *flats], options, locked=locked)
        plan = plan_graphs(flats, graphs, options, locked=locked)
        return plan_settling(flats, graphs, options, locked=locked) if plan is None and is_quiet else plan

    def _flats(self, large_rows_min: int | None) -> list[SegmentSize]:
        """Return the flat segments, with namespaces that may deserve a graph; None: rows without vectors have none."""
        views = [view for view in self._partition.snapshot.views if _is_flat(view)]
        if large_rows_min is None:
            return [_size(view, {}) for view in views]
        self._large = {
            view.segment_id: self._large[view.segment_id]
            if view.segment_id in self._large
            else _large_namespaces(view, max(1, large_rows_min))
            for view in views
        }
        return [_size(view, self._large[view.segment_id]) for view in views]

    def _carry(self, job: MergeJob, result: MergeResult, outputs: Sequence[SegmentEntry]) -> list[SegmentChanges]:
        """Return what landed on the inputs since they were frozen, in terms of the outputs."""
        views = self._partition.snapshot.segment_set.by_number
        changes: dict[int, list[SegmentChanges]] = {}
        for item, moves in zip(job.inputs, result.moves, strict=True):
            view = views.get(item.segment_id)
            if view is None:
                raise CommitConflict(f"Segment {item.segment_id} is gone: the merge was overtaken.")
            landed = fold_changes(item.segment_id, view.changes, from_offset=job.frozen_offset)
            if job.rewritten is not None:
                # All rows keep their places, those too that were dead when it was frozen.
                kills = [replace(change, patches=()) for change in view.changes]
                landed = replace(fold_changes(item.segment_id, kills), patches=landed.patches)
            for at, entry in enumerate(outputs):
                moved = _move(landed, moves, at, entry.segment_id)
                if len(moved.killed_rows) or moved.patches:
                    changes.setdefault(entry.segment_id, []).append(moved)
                    self.carried.kills += len(moved.killed_rows)
                    self.carried.patches += len(moved.patches)
        return [fold_changes(number, parts) for number, parts in changes.items()]

    def _table(
        self,
        job: MergeJob,
        outputs: Sequence[SegmentEntry],
        carried: Sequence[SegmentChanges],
        rolled: Sequence[DeltaRef],
    ) -> tuple[SegmentTable, list[ObjectRef]]:
        """Return the new table, and the objects written for it: what the rolled deltas said of other segments."""
        partition, snapshot = self._partition, self._partition.snapshot
        inputs = {item.segment_id for item in job.inputs}
        kept = [entry for entry in snapshot.table.segments if entry.segment_id not in inputs]
        views = snapshot.segment_set.by_number
        read = [partition.opener.changes(delta.object) for delta in rolled]
        touched = {change.segment_id for changes in read for change in changes.segments}
        segments = list(carried)
        # Objects with changes that stay listed beside what is written now.
        beside: dict[int, tuple[ObjectRef, ...]] = {}
        for entry in kept:
            if entry.segment_id in touched:
                folded, beside[entry.segment_id] = self._entry_changes(entry, read)
                segments.append(folded)
        namespaces, lists = self._namespace_rows(read)
        keys, key_lists = self._keys(read)
        letters = self._dead_letters(read)
        outcomes = self._outcomes(rolled)
        written = any((segments, letters, outcomes))
        changes = Changes(tuple(segments), outcomes=outcomes, dead_letters=letters)
        ref = partition.put_changes(changes) if written else None
        # In an object of their own, whose size says how many they are.
        list_ref = partition.put_changes(Changes(namespaces=namespaces)) if namespaces else None
        key_ref = partition.put_changes(Changes(keys=keys)) if keys else None
        named = {change.segment_id for change in segments}
        entries = [
            _with_changes(
                replace(entry, changes=beside.get(entry.segment_id, entry.changes)),
                views.get(entry.segment_id),
                ref if entry.segment_id in named else None,
            )
            for entry in (*kept, *outputs)
        ]
        table = SegmentTable(
            tuple(entries),
            lists if list_ref is None else (*lists, list_ref),
            _listed(snapshot.table.dead_letters, ref, letters, told=any(changes.dead_letters for changes in read)),
            ref if outcomes else None,
            key_lists if key_ref is None else (*key_lists, key_ref),
        )
        return table, [item for item in (ref, list_ref, key_ref) if item is not None]

    def _entry_changes(
        self, entry: SegmentEntry, read: Sequence[Changes]
    ) -> tuple[SegmentChanges, tuple[ObjectRef, ...]]:
        """Return what to write of a segment's changes, and the older objects with such that stay beside it.

        They are joined as segments are, so that a stream of changes costs the logarithm of their number.
        """
        number, refs = entry.segment_id, entry.changes
        first = len(refs) if len(refs) < _LISTED_MAX else _joined_from(refs)
        if not first and refs:
            return fold_changes(number, self._partition.snapshot.segment_set.by_number[number].changes), ()
        told = [*(self._partition.opener.changes(ref) for ref in refs[first:]), *read]
        parts = [change for changes in told for change in changes.segments if change.segment_id == number]
        return fold_changes(number, parts), refs[:first]

    def _namespace_rows(self, read: Sequence[Changes]) -> tuple[tuple[NamespaceRow, ...], tuple[ObjectRef, ...]]:
        """Return the namespace rows to write, and the older lists that stay beside them.

        Lists are joined as segments are, those that are not larger than what joins them, so that a namespace that is
        made or deleted costs the logarithm of their number, not their number.
        """
        rows = [row for changes in read for row in changes.namespaces]
        snapshot = self._partition.snapshot
        lists = snapshot.table.namespaces
        if not rows or len(lists) < _LISTED_MAX:
            return tuple(rows), lists
        first = _joined_from(lists)
        if first:
            older = [self._partition.opener.changes(ref).namespaces for ref in lists[first:]]
            return tuple(merge_namespaces([*older, rows]).values()), lists[:first]
        # Only where all are written anew it is known which of the deleted ones nobody needs any more.
        return tuple(snapshot.namespaces.needed(snapshot.views).values()), ()

    def _keys(self, read: Sequence[Changes]) -> tuple[bytes, tuple[ObjectRef, ...]]:
        """Return the idempotency keys to write, and the older lists that stay beside them: joined as namespaces are."""
        told = [changes.keys for changes in read if changes.keys]
        snapshot = self._partition.snapshot
        lists = snapshot.table.keys
        first = len(lists)
        if told and first >= _LISTED_MAX:
            first = _joined_from(lists)
            told += [self._partition.opener.changes(ref).keys for ref in lists[first:]]
        joined = joined_entries(map(entries_from_bytes, told), next_offset=snapshot.next_offset)
        return joined.tobytes(), lists[:first]

    def _dead_letters(self, read: Sequence[Changes]) -> tuple[DeadLetter, ...]:
        letters = tuple(letter for changes in read for letter in changes.dead_letters)
        table = self._partition.snapshot.table
        if letters and len(table.dead_letters) >= _LISTED_MAX:
            older = [self._partition.opener.changes(ref).dead_letters for ref in table.dead_letters]
            return tuple(letter for part in older for letter in part) + letters
        return letters

    def _outcomes(self, rolled: Sequence[DeltaRef]) -> tuple[Outcome, ...]:
        """Return the outcomes that the new table tells of: those below the deltas that are not rolled up."""
        snapshot = self._partition.snapshot
        names = {delta.object.name for delta in rolled}
        left = [delta.begin_offset for delta in snapshot.manifest.recent if delta.object.name not in names]
        end = min(left, default=snapshot.next_offset)
        oldest_ms = self._partition.clock_ms() - OUTCOMES_KEPT_MS
        known = snapshot.outcomes.joined().values()
        return tuple(item for item in known if item.offset < end and item.time_ms >= oldest_ms)


def _listed(
    old: tuple[ObjectRef, ...], ref: ObjectRef | None, rows: Sequence[object], *, told: bool
) -> tuple[ObjectRef, ...]:
    """Return the objects with rows of one kind, where `rows` are what `ref` holds of it.

    Where the rolled deltas `told` something and the list is full, `rows` are all there are, even if that is none.
    """
    own = (ref,) if ref is not None and rows else ()
    return own if told and len(old) >= _LISTED_MAX else (*old, *own)


def _joined_from(refs: Sequence[ObjectRef]) -> int:
    """Return from which on `refs` are joined: the last one, and those that are not much larger than what joins them."""
    first = len(refs) - 1
    joined_bytes = refs[first].size_bytes
    while first and refs[first - 1].size_bytes <= 2 * joined_bytes:
        first -= 1
        joined_bytes += refs[first].size_bytes
    return first


def _with_changes(entry: SegmentEntry, view: SegmentView | None, ref: ObjectRef | None) -> SegmentEntry:
    changes = entry.changes if ref is None else (*entry.changes, ref)
    dead_rows = len(view.dead) if view is not None else entry.dead_rows
    return replace(entry, changes=changes, dead_rows=dead_rows)


def _parts(entry: SegmentEntry) -> list[ObjectRef]:
    return [ref for ref in (entry.records, entry.vectors, entry.graph) if ref is not None]


def _is_flat(view: SegmentView) -> bool:
    return isinstance(view.source, SegmentEntry) and not view.in_graph


def _large_namespaces(view: SegmentView, least: int) -> dict[str, int]:
    """Return the live rows of those namespaces that have at least `least`."""
    counts = view.counts()
    return {view.reader.names[at].decode(): int(counts[at]) for at in np.flatnonzero(counts >= least).tolist()}


def _size(view: SegmentView, large: dict[str, int]) -> SegmentSize:
    namespace = view.source.namespace if isinstance(view.source, SegmentEntry) else ""
    patched = view.patches
    return SegmentSize(
        view.segment_id,
        view.reader.rows,
        view.live_rows,
        namespace,
        large,
        patched_rows=patched.single_rows,
        patch_tiers=len(patched.tiers),
    )


def _entry(view: SegmentView) -> SegmentEntry:
    """Return how the table names a segment. Raises `CorruptData` for one that it does not name."""
    if not isinstance(view.source, SegmentEntry):
        raise CorruptData(f"Segment {view.segment_id} is not in the table: its metadata is not written anew.")
    return view.source


def _schemas(namespaces: Namespaces, views: Sequence[SegmentView]) -> dict[str, bytes]:
    """Return the schemas of those namespaces of `views` that were made with one."""
    known = namespaces.with_schema
    if not known:
        return {}
    names = {name.decode() for view in views for name in view.reader.names}
    return {name: known[name].schema for name in names if name in known}


def _freeze(view: SegmentView) -> MergeInput:
    source = view.source
    records = source.records if isinstance(source, SegmentEntry) else source.object
    vectors = source.vectors if isinstance(source, SegmentEntry) else None
    graph = source.graph if isinstance(source, SegmentEntry) else None
    return MergeInput(view.segment_id, records, vectors or records, view.dead.serialize(), view.patches, graph)


def _move(landed: SegmentChanges, moves: Moves, output: int, segment_id: int) -> SegmentChanges:
    """Return what `landed` on an input says of one output."""
    at = landed.killed_rows.astype(np.int64)
    here = moves.output[at] == output
    patches = []
    for patch in landed.patches:
        rows = rows_of(BitMap.deserialize(patch.rows))
        rows = rows[moves.output[rows] == output]
        if len(rows):
            patches.append(replace(patch, rows=bitmap_of(moves.row[rows]).serialize()))
    return SegmentChanges(segment_id, moves.row[at[here]], landed.killed_offsets[here], tuple(patches))
