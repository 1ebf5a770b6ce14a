"""From a manifest to a snapshot: opens what is new, shares what is not.

The state of a segment at an offset is a function of the log, so a view of an older snapshot is brought forward by the
changes with offsets from there on, whichever objects they lie in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import orjson
from pyroaring import BitMap

from indexer.segments.container import Container
from indexer.segments.engines import choose_engine, open_graph, searcher_of
from indexer.segments.graph import EF_SEARCH, GraphOptions
from indexer.segments.reader import GraphReader, SegmentReader
from indexer.segments.view import SegmentView, applied_patch
from indexer.snapshots.snapshot import Snapshot
from indexer.snapshots.store import Store
from schemas.changes import Changes, NamespaceRow, Outcome, Patch, SegmentChanges, decode_changes, merge_namespaces
from schemas.errors import CorruptData
from schemas.indexes import IndexSpec
from schemas.manifest import DeltaRef, Manifest, ObjectRef, SegmentEntry, SegmentTable, decode_table

__all__ = ["OUTCOMES_KEPT_MS", "SnapshotOpener", "fold_changes"]

# Outcomes survive roll-ups for this long, so that a reader which skips versions still finds them.
OUTCOMES_KEPT_MS = 60_000

_NO_CHANGES = Changes()


@dataclass(slots=True)
class _Building:
    """A snapshot in the making: views by segment number, and which of them were opened just now."""

    views: dict[int, SegmentView] = field(default_factory=dict)
    fresh: set[int] = field(default_factory=set)

    def apply(self, changes: SegmentChanges, *, from_offset: int) -> None:
        view = self.views.get(changes.segment_id)
        if view is not None:
            since = 0 if changes.segment_id in self.fresh else from_offset
            self.views[changes.segment_id] = view.with_changes(changes, from_offset=since)


class SnapshotOpener:
    """Opens snapshots of one partition of one index."""

    def __init__(self, store: Store, spec: IndexSpec, partition: int, graph: GraphOptions | None) -> None:
        """Read from `store`. `graph` says how graphs are opened and searched; None opens none (an indexer)."""
        self._store = store
        self._spec = spec
        self._partition = partition
        self._graph = graph
        # An indexer does not search.
        self._engine = None if graph is None else choose_engine(graph.engine)
        self._searcher = searcher_of(self._engine)

    def empty(self) -> Snapshot:
        """Return the snapshot before the first manifest."""
        manifest = Manifest(self._spec.index_id, self._spec.log_id, self._partition, version=0, epoch=0, next_offset=0)
        return Snapshot(manifest, self._spec.metric, searcher=self._searcher)

    def open(self, old: Snapshot, manifest: Manifest, *, trusted: Iterable[str] = ()) -> Snapshot:
        """Return the snapshot of `manifest`, sharing with `old` what both name.

        Objects in `trusted` were written by the caller: their digests are not computed again.
        Raises `CorruptData` where an object is damaged (fact `name`), `FileNotFoundError` where one is gone.
        """
        if old.lineage != manifest.lineage or old.next_offset > manifest.next_offset:
            old = self.empty()
        skip = frozenset(trusted)
        table = old.table if manifest.table == old.manifest.table else self._table(manifest.table, skip)
        building = _Building()
        known = {_records_name(view.source): view for view in old.views}
        for entry in table.segments:
            self._add(building, known, entry, skip)
        news = self._add_recent(building, known, old, manifest, skip)
        if table is not old.table:
            self._apply_entry_changes(building, old, manifest, table, skip)
        for changes in news:
            for change in changes.segments:
                building.apply(change, from_offset=old.next_offset)
        namespaces = self._namespaces(old, manifest, table, news, skip)
        _apply_floors(building, _changed(old.namespaces, namespaces), namespaces)
        outcomes = self._outcomes(old, manifest, table, news, skip)
        views = tuple(building.views.values())
        return Snapshot(manifest, self._spec.metric, table, views, namespaces, outcomes, self._searcher)

    def changes(self, ref: ObjectRef, trusted: frozenset[str] = frozenset()) -> Changes:
        """Read the small lists of an object."""
        return _changes_of(self._container(ref, trusted))

    def _namespaces(
        self, old: Snapshot, manifest: Manifest, table: SegmentTable, news: list[Changes], trusted: frozenset[str]
    ) -> Mapping[str, NamespaceRow]:
        lists = [changes.namespaces for changes in news]
        if table is not old.table:
            shown = old.table.namespaces
            if not shown or table.namespaces[: len(shown)] != shown:
                # The lists may have been written anew since, without namespaces that are gone: `old` is no help.
                refs = [*table.namespaces, *(delta.object for delta in manifest.recent)]
                return merge_namespaces([self.changes(ref, trusted).namespaces for ref in refs])
            lists += [self.changes(ref, trusted).namespaces for ref in table.namespaces[len(shown) :]]
        if not any(lists):
            return old.namespaces
        return merge_namespaces([tuple(old.namespaces.values()), *lists])

    def _outcomes(
        self, old: Snapshot, manifest: Manifest, table: SegmentTable, news: list[Changes], trusted: frozenset[str]
    ) -> Mapping[int, Outcome]:
        added = {item.offset: item for changes in news for item in changes.outcomes}
        if table is old.table:
            return {**old.outcomes, **added} if added else old.outcomes
        oldest_ms = manifest.created_ms - OUTCOMES_KEPT_MS
        kept = {key: item for key, item in old.outcomes.items() if item.time_ms >= oldest_ms}
        if table.outcomes is not None:
            kept |= {item.offset: item for item in self.changes(table.outcomes, trusted).outcomes}
        return kept | added

    def _table(self, ref: ObjectRef | None, trusted: frozenset[str]) -> SegmentTable:
        if ref is None:
            return SegmentTable()
        return decode_table(bytes(self._container(ref, trusted).blob("table")))

    def _add(
        self, building: _Building, known: Mapping[str, SegmentView], entry: SegmentEntry, trusted: frozenset[str]
    ) -> None:
        view = known.get(entry.records.name)
        if view is None:
            view = SegmentView(self._reader(entry, trusted), entry, BitMap())
            building.fresh.add(entry.segment_id)
        elif view.source != entry:
            view = replace_source(view, entry)
        building.views[entry.segment_id] = view

    def _add_recent(
        self,
        building: _Building,
        known: Mapping[str, SegmentView],
        old: Snapshot,
        manifest: Manifest,
        trusted: frozenset[str],
    ) -> list[Changes]:
        """Add the rows of recent deltas; return the changes of those that may tell this snapshot something."""
        read_all = bool(building.fresh)
        shown = {delta.object.name for delta in old.manifest.recent}
        news: list[Changes] = []
        for delta in manifest.recent:
            view = known.get(delta.object.name) if delta.segment_id else None
            if view is not None:
                building.views[delta.segment_id] = view
            # From the first delta that the old snapshot does not show, all later ones are read.
            read_all = read_all or delta.object.name not in shown
            if not read_all:
                continue
            container = self._container(delta.object, trusted)
            if delta.segment_id and view is None:
                reader = SegmentReader(delta.segment_id, container, container)
                building.views[delta.segment_id] = SegmentView(reader, delta, BitMap())
                building.fresh.add(delta.segment_id)
            news.append(_changes_of(container))
        return news

    def _apply_entry_changes(
        self, building: _Building, old: Snapshot, manifest: Manifest, table: SegmentTable, trusted: frozenset[str]
    ) -> None:
        read: dict[str, Changes] = {}
        seen = {entry.records.name: {ref.name for ref in entry.changes} for entry in old.table.segments}
        for entry in table.segments:
            refs = entry.changes
            if entry.segment_id not in building.fresh:
                if old.next_offset >= manifest.next_offset:
                    continue  # a merge: the old view shows all of it
                refs = tuple(ref for ref in refs if ref.name not in seen.get(entry.records.name, ()))
            for ref in refs:
                if ref.name not in read:
                    read[ref.name] = self.changes(ref, trusted)
                for change in read[ref.name].segments:
                    if change.segment_id == entry.segment_id:
                        building.apply(change, from_offset=old.next_offset)

    def _reader(self, entry: SegmentEntry, trusted: frozenset[str]) -> SegmentReader:
        records = self._container(entry.records, trusted)
        vectors = self._container(entry.vectors, trusted) if entry.vectors is not None else records
        graph = None if entry.graph is None else self._open_graph(entry, entry.graph, vectors, trusted)
        reader = SegmentReader(entry.segment_id, records, vectors, graph)
        if reader.rows != entry.rows:
            raise CorruptData(f"Segment {entry.segment_id} has {reader.rows} rows, expected {entry.rows}.")
        return reader

    def _open_graph(
        self, entry: SegmentEntry, ref: ObjectRef, vectors: Container, trusted: frozenset[str]
    ) -> GraphReader | None:
        container = self._container(ref, trusted)
        if self._graph is None:
            return None
        ef = self._graph.ef_search or entry.graph_ef_search or EF_SEARCH
        return open_graph(self._engine, container, vectors, rows=entry.rows, metric=self._spec.metric, ef=ef)

    def _container(self, ref: ObjectRef, trusted: frozenset[str]) -> Container:
        return Container(self._store.open(ref, verify=ref.name not in trusted), name=ref.name)


def _changes_of(container: Container) -> Changes:
    return decode_changes(bytes(container.blob("changes"))) if "changes" in container else _NO_CHANGES


def fold_changes(segment_id: int, changes: Iterable[SegmentChanges], *, from_offset: int = 0) -> SegmentChanges:
    """Return one `SegmentChanges` that says what `changes` say, from an offset on.

    Patches that later ones cover are left out, so that it grows with the rows of the segment, not with its history.
    """
    items = list(changes)
    rows = np.concatenate([item.killed_rows for item in items] or [np.empty(0, np.uint32)])
    offsets = np.concatenate([item.killed_offsets for item in items] or [np.empty(0, np.int64)])
    rows, offsets = rows[offsets >= from_offset], offsets[offsets >= from_offset]
    order = np.argsort(rows, kind="stable")
    patches = {(p.offset, p.rows): p for item in items for p in item.patches if p.offset >= from_offset}
    return SegmentChanges(segment_id, rows[order], offsets[order], _uncovered(patches.values()))


def _uncovered(patches: Iterable[Patch]) -> tuple[Patch, ...]:
    """Return the patches in offset order, without those rows of which later ones set every field again."""
    covered: dict[str, BitMap] = {}
    kept: list[Patch] = []
    for patch in sorted(patches, key=lambda item: item.offset, reverse=True):
        rows = BitMap.deserialize(patch.rows)
        fields = list(orjson.loads(patch.set_metadata))
        left = rows - BitMap.intersection(*(covered.get(field, BitMap()) for field in fields))
        for field_name in fields:
            covered[field_name] = covered.get(field_name, BitMap()) | rows
        if left:
            kept.append(patch if len(left) == len(rows) else replace(patch, rows=left.serialize()))
    return tuple(reversed(kept))


def replace_source(view: SegmentView, entry: SegmentEntry) -> SegmentView:
    """Return the view under a new mention, with its history folded into one item, so that it stays bounded."""
    if len(view.changes) <= 1:
        return view.named(entry)
    folded = fold_changes(entry.segment_id, view.changes)
    return SegmentView(view.reader, entry, view.dead, (folded,), tuple(map(applied_patch, folded.patches)))


def _records_name(source: SegmentEntry | DeltaRef) -> str:
    return source.records.name if isinstance(source, SegmentEntry) else source.object.name


def _changed(old: Mapping[str, NamespaceRow], new: Mapping[str, NamespaceRow]) -> list[NamespaceRow]:
    return [] if new is old else [row for name, row in new.items() if old.get(name) is not row]


def _apply_floors(building: _Building, changed: Iterable[NamespaceRow], namespaces: Mapping[str, NamespaceRow]) -> None:
    """Bury slices whose rows are all older than their namespace's deletion: new deletions, and new segments."""
    for number in building.fresh:
        for name in building.views[number].reader.names:
            row = namespaces.get(name.decode())
            if row is not None and row.floor:
                _bury(building, number, row)
    for row in changed:
        if row.floor:
            for number in building.views:
                _bury(building, number, row)


def _bury(building: _Building, number: int, row: NamespaceRow) -> None:
    view = building.views[number]
    part = view.reader.slice_of(row.name)
    if part is not None and part.offset_max < row.floor and view.live_in(part):
        building.views[number] = view.without_slice(part)
