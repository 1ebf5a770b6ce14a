"""From a manifest to a snapshot: opens what is new, shares what is not.

The state of a segment at an offset is a function of the log, so a view of an older snapshot is brought forward by the
changes with offsets from there on, whichever objects they lie in.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import orjson
from pyroaring import BitMap

from indexer.key_window import KeyWindow
from indexer.segments.container import Container
from indexer.segments.engines import choose_engine, open_graph, searcher_of
from indexer.segments.graph import EF_SEARCH, GraphOptions
from indexer.segments.reader import GraphReader, SegmentReader
from indexer.segments.view import SegmentView
from indexer.snapshots.layered import Layered
from indexer.snapshots.namespaces import Namespaces
from indexer.snapshots.segment_set import Places, SegmentSet
from indexer.snapshots.snapshot import Snapshot
from indexer.snapshots.store import Store
from schemas.changes import Changes, NamespaceRow, Outcome, Patch, SegmentChanges, decode_changes, merge_namespaces
from schemas.errors import CorruptData
from schemas.idempotency import entries_from_bytes
from schemas.indexes import IndexSpec
from schemas.manifest import DeltaRef, Manifest, ObjectRef, SegmentEntry, SegmentTable, decode_table

__all__ = ["OUTCOMES_KEPT_MS", "SnapshotOpener", "fold_changes"]

# Outcomes survive roll-ups for this long, so that a reader which skips versions still finds them.
OUTCOMES_KEPT_MS = 60_000

_NO_CHANGES = Changes()


@dataclass(slots=True)
class _Building:
    """A snapshot in the making: views by segment number, which were opened just now, and which are not as they were."""

    views: dict[int, SegmentView] = field(default_factory=dict)
    fresh: set[int] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)
    # What `views` began as, where nothing was published since but deltas.
    before: SegmentSet | None = None

    def open(self, segment_id: int, view: SegmentView) -> None:
        self.views[segment_id] = view
        self.fresh.add(segment_id)
        self.changed.add(segment_id)

    def apply(self, changes: SegmentChanges, *, from_offset: int) -> None:
        view = self.views.get(changes.segment_id)
        if view is not None:
            since = 0 if changes.segment_id in self.fresh else from_offset
            self.views[changes.segment_id] = view.with_changes(changes, from_offset=since)
            self.changed.add(changes.segment_id)

    def bury(self, number: int, row: NamespaceRow) -> None:
        view = self.views[number]
        part = view.reader.slice_of(row.name)
        if part is not None and part.offset_max < row.floor and view.live_in(part):
            self.views[number] = view.without_slice(part)
            self.changed.add(number)


class _Objects:
    """The objects that one opening reads: each is read, and its lists are decoded, once."""

    def __init__(self, store: Store, trusted: set[str]) -> None:
        self._store = store
        self._trusted = trusted
        self._containers: dict[str, Container] = {}
        self._changes: dict[str, Changes] = {}

    def container(self, ref: ObjectRef) -> Container:
        if ref.name not in self._containers:
            data = self._store.open(ref, verify=ref.name not in self._trusted)
            self._trusted.add(ref.name)
            self._containers[ref.name] = Container(data, name=ref.name)
        return self._containers[ref.name]

    def changes(self, ref: ObjectRef) -> Changes:
        if ref.name not in self._changes:
            container = self.container(ref)
            has_any = "changes" in container
            self._changes[ref.name] = decode_changes(bytes(container.blob("changes"))) if has_any else _NO_CHANGES
        return self._changes[ref.name]


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

    def open(
        self, old: Snapshot, manifest: Manifest, *, trusted: set[str] | None = None, table: SegmentTable | None = None
    ) -> Snapshot:
        """Return the snapshot of `manifest`, sharing with `old` what both name.

        Digests of objects in `trusted` are not computed again: the caller has just written them, or verified them while
        it opened another manifest; what is verified here is added. Nor is a `table` read again that the caller has just
        written for this manifest.
        Raises `CorruptData` where an object is damaged (fact `name`), `FileNotFoundError` where one is gone.
        """
        if old.lineage != manifest.lineage or old.next_offset > manifest.next_offset:
            old = self.empty()
        objects = _Objects(self._store, set() if trusted is None else trusted)
        if manifest.table == old.manifest.table:
            table = old.table
        table = table or _table(objects, manifest.table)
        shown = old.manifest.recent
        if table is old.table and manifest.recent[: len(shown)] == shown:
            # Nothing but publishes since: what there was stays, so that only what changed is looked at.
            building = _Building(dict(old.segment_set.by_number), before=old.segment_set)
            news = _add_recent(building, {}, manifest.recent[len(shown) :], frozenset(), objects, spec=self._spec)
        else:
            building = _Building()
            known = {_records_name(view.source): view for view in old.views}
            for entry in table.segments:
                self._add(building, known, entry, objects)
            names = {delta.object.name for delta in shown}
            news = _add_recent(building, known, manifest.recent, names, objects, spec=self._spec)
        if table is not old.table:
            _apply_entry_changes(building, old, manifest, table, objects)
        for changes in news:
            for change in changes.segments:
                building.apply(change, from_offset=old.next_offset)
        places = old.segment_set.places if table is old.table else Places(table)
        namespaces, moved = _namespaces(old, manifest, table, news, objects)
        _apply_floors(building, manifest, moved, namespaces, places)
        if building.before is not None:
            segment_set = building.before.with_views(building.views, building.changed)
        else:
            segment_set = SegmentSet(places, building.views)
        if table is not old.table:
            namespaces = namespaces.without_gone(segment_set.views)
        outcomes = _outcomes(old, manifest, table, news, objects)
        keys = _keys(old, manifest, table, news, objects)
        return Snapshot(manifest, self._spec.metric, table, segment_set, namespaces, outcomes, self._searcher, keys)

    def changes(self, ref: ObjectRef) -> Changes:
        """Read the small lists of an object."""
        return _Objects(self._store, set()).changes(ref)

    def _add(
        self, building: _Building, known: Mapping[str, SegmentView], entry: SegmentEntry, objects: _Objects
    ) -> None:
        view = known.get(entry.records.name)
        if view is None:
            reader = self._reader(entry, _same_vectors(known, entry), objects)
            building.open(entry.segment_id, SegmentView(reader, entry, BitMap()))
        else:
            building.views[entry.segment_id] = view if view.source == entry else replace_source(view, entry)

    def _reader(self, entry: SegmentEntry, same: SegmentReader | None, objects: _Objects) -> SegmentReader:
        """Open a segment; of one that has the `same` vectors and graph only the records."""
        records = objects.container(entry.records)
        if same is not None:
            vectors, graph = same.vector_container, same.graph
        else:
            vectors = objects.container(entry.vectors) if entry.vectors is not None else records
            graph = None if entry.graph is None else self._open_graph(entry, entry.graph, vectors, objects)
        with _damage_of(entry.records):
            reader = SegmentReader(entry.segment_id, records, vectors, graph)
            _check_fit(reader, self._spec, entry.rows)
        return reader

    def _open_graph(
        self, entry: SegmentEntry, ref: ObjectRef, vectors: Container, objects: _Objects
    ) -> GraphReader | None:
        container = objects.container(ref)
        if self._graph is None:
            return None
        ef = self._graph.ef_search or entry.graph_ef_search or EF_SEARCH
        with _damage_of(ref):
            return open_graph(self._engine, container, vectors, rows=entry.rows, metric=self._spec.metric, ef=ef)


@contextlib.contextmanager
def _damage_of(ref: ObjectRef) -> Iterator[None]:
    """Say which object is damaged where whoever finds it does not know, so that it is set aside and folded again."""
    try:
        yield
    except CorruptData as error:
        error.facts.setdefault("name", ref.name)
        raise


def _check_fit(reader: SegmentReader, spec: IndexSpec, rows: int) -> None:
    """Raise `CorruptData` where a segment is not as its entry and the index say: queries are that wide."""
    if reader.rows != rows or reader.dimension != spec.dimension:
        raise CorruptData(
            f"Segment {reader.segment_id} has {reader.rows} rows of dimension {reader.dimension}, "
            f"expected {rows} of {spec.dimension}."
        )


def _table(objects: _Objects, ref: ObjectRef | None) -> SegmentTable:
    return SegmentTable() if ref is None else decode_table(bytes(objects.container(ref).blob("table")))


def _add_recent(
    building: _Building,
    known: Mapping[str, SegmentView],
    deltas: Iterable[DeltaRef],
    shown: Collection[str],
    objects: _Objects,
    *,
    spec: IndexSpec,
) -> list[Changes]:
    """Add the rows of recent `deltas`; return the changes of those that may tell this snapshot something."""
    read_all = bool(building.fresh)
    news: list[Changes] = []
    for delta in deltas:
        view = known.get(delta.object.name) if delta.segment_id else None
        if view is not None:
            building.views[delta.segment_id] = view
        # From the first delta that the old snapshot does not show, all later ones are read.
        read_all = read_all or delta.object.name not in shown
        if not read_all:
            continue
        if delta.segment_id and view is None:
            container = objects.container(delta.object)
            with _damage_of(delta.object):
                reader = SegmentReader(delta.segment_id, container, container)
                _check_fit(reader, spec, delta.rows)
            building.open(delta.segment_id, SegmentView(reader, delta, BitMap()))
        news.append(objects.changes(delta.object))
    return news


def _apply_entry_changes(
    building: _Building, old: Snapshot, manifest: Manifest, table: SegmentTable, objects: _Objects
) -> None:
    seen = {entry.records.name: {ref.name for ref in entry.changes} for entry in old.table.segments}
    for entry in table.segments:
        refs = entry.changes
        if entry.segment_id not in building.fresh:
            if old.next_offset >= manifest.next_offset:
                continue  # a merge: the old view shows all of it
            refs = tuple(ref for ref in refs if ref.name not in seen.get(entry.records.name, ()))
        for ref in refs:
            for change in objects.changes(ref).segments:
                if change.segment_id == entry.segment_id:
                    building.apply(change, from_offset=old.next_offset)


def _namespaces(
    old: Snapshot, manifest: Manifest, table: SegmentTable, news: list[Changes], objects: _Objects
) -> tuple[Namespaces, Iterable[NamespaceRow]]:
    """Return the namespaces and those rows that changed since `old`, at the cost of the lists that it does not show."""
    if old.next_offset >= manifest.next_offset:
        return old.namespaces, ()  # a merge: the same namespaces, said in fewer lists
    lists = [changes.namespaces for changes in news]
    if table is not old.table:
        if table.namespaces[:1] != old.table.namespaces[:1]:
            # Whoever writes the first list anew leaves out namespaces that are gone: `old` would keep them for ever.
            refs = [*table.namespaces, *(delta.object for delta in manifest.recent)]
            rows = merge_namespaces([objects.changes(ref).namespaces for ref in refs])
            known = old.namespaces
            return Namespaces(rows), [row for row in rows.values() if row.floor and known.get(row.name) != row]
        shown = {ref.name for ref in old.table.namespaces}
        lists += [objects.changes(ref).namespaces for ref in table.namespaces if ref.name not in shown]
    changed = merge_namespaces(lists, from_offset=old.next_offset)
    return old.namespaces.with_rows(changed), changed.values()


def _outcomes(
    old: Snapshot, manifest: Manifest, table: SegmentTable, news: list[Changes], objects: _Objects
) -> Layered[int, Outcome]:
    added = {item.offset: item for changes in news for item in changes.outcomes if item.offset >= old.next_offset}
    if table is old.table:
        return old.outcomes.with_items(added)
    oldest_ms = manifest.created_ms - OUTCOMES_KEPT_MS
    kept = {key: item for key, item in old.outcomes.joined().items() if item.time_ms >= oldest_ms}
    if table.outcomes is not None:
        kept |= {item.offset: item for item in objects.changes(table.outcomes).outcomes}
    return Layered(kept | added)


def _keys(old: Snapshot, manifest: Manifest, table: SegmentTable, news: list[Changes], objects: _Objects) -> KeyWindow:
    if old.next_offset >= manifest.next_offset:
        return old.keys  # a merge: the same keys, said in fewer lists
    shown = {ref.name for ref in old.table.keys}
    lists = [objects.changes(ref).keys for ref in table.keys if ref.name not in shown] + [one.keys for one in news]
    return old.keys.with_entries(map(entries_from_bytes, filter(None, lists)), next_offset=manifest.next_offset)


def fold_changes(segment_id: int, changes: Iterable[SegmentChanges], *, from_offset: int = 0) -> SegmentChanges:
    """Return one `SegmentChanges` that says what `changes` say, from an offset on.

    Patches that later ones cover are left out, so that it grows with the rows of the segment, not with its history.
    """
    items = list(changes)
    rows = np.concatenate([item.killed_rows for item in items] or [np.empty(0, np.uint32)])
    offsets = np.concatenate([item.killed_offsets for item in items] or [np.empty(0, np.int64)])
    rows, offsets = rows[offsets >= from_offset], offsets[offsets >= from_offset]
    order = np.argsort(rows, kind="stable")
    later = (p for item in items for p in item.patches[bisect_left(item.patches, from_offset, key=_offset) :])
    patches = {(p.offset, p.rows): p for p in later}
    return SegmentChanges(segment_id, rows[order], offsets[order], _uncovered(patches.values()))


def _offset(patch: Patch) -> int:
    return patch.offset


def _uncovered(patches: Iterable[Patch]) -> tuple[Patch, ...]:
    """Return the patches in offset order, without those rows of which later ones set every field again."""
    covered: dict[str, BitMap] = {}
    kept: list[Patch] = []
    for patch in sorted(patches, key=lambda item: item.offset, reverse=True):
        rows = BitMap.deserialize(patch.rows)
        fields = list(orjson.loads(patch.set_metadata))
        again = rows.copy()
        # In place: what is covered may be large where a patch has one row.
        for field_name in fields:
            known = covered.setdefault(field_name, BitMap())
            again &= known
            known |= rows
        if len(again) < len(rows):
            kept.append(replace(patch, rows=(rows - again).serialize()) if again else patch)
    return tuple(reversed(kept))


def replace_source(view: SegmentView, entry: SegmentEntry) -> SegmentView:
    """Return the view under a new mention, with its history folded into few items, so that it stays bounded.

    Items are folded as layers are, with those that are not much larger: a long history is not gone through for a
    short one that follows it.
    """
    changes = view.changes
    if len(changes) <= 1:
        return view.named(entry)
    first = len(changes) - 1
    size = _size(changes[first])
    while first and _size(changes[first - 1]) <= 2 * size:
        first -= 1
        size += _size(changes[first])
    folded = fold_changes(entry.segment_id, changes[first:])
    return SegmentView(view.reader, entry, view.dead, (*changes[:first], folded), view.patches)


def _size(changes: SegmentChanges) -> int:
    return len(changes.killed_rows) + len(changes.patches)


def _same_vectors(known: Mapping[str, SegmentView], entry: SegmentEntry) -> SegmentReader | None:
    """Return the opened segment whose records were written anew as those of `entry`, None where there is none."""
    if entry.vectors is None:
        return None
    for view in known.values():
        source = view.source
        if isinstance(source, SegmentEntry) and source.vectors == entry.vectors and source.graph == entry.graph:
            return view.reader
    return None


def _records_name(source: SegmentEntry | DeltaRef) -> str:
    return source.records.name if isinstance(source, SegmentEntry) else source.object.name


def _apply_floors(
    building: _Building, manifest: Manifest, changed: Iterable[NamespaceRow], namespaces: Namespaces, places: Places
) -> None:
    """Bury slices whose rows are all older than their namespace's deletion: new deletions, and new segments."""
    for number in building.fresh:
        names = building.views[number].reader.names
        buried = namespaces.buried
        # Whichever are fewer: a large new segment of an index where nothing was ever deleted costs nothing.
        known = buried.joined().values() if len(buried) < len(names) else map(buried.get, map(bytes.decode, names))
        for row in known:
            if row is not None:
                building.bury(number, row)
    recent = [delta.segment_id for delta in manifest.recent if delta.segment_id]
    for row in changed:
        if row.floor:
            for number in (*places.numbers(row.name), *recent):
                building.bury(number, row)
