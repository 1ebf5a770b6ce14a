"""The fold of events on top of a snapshot: new rows, kills and patches of older ones, namespaces, outcomes.

Pure and deterministic: no I/O, no clock. Fold order is offset order; look-ups go to the memtable's own rows first, then
to the snapshot under it minus what this memtable has killed. A memtable lives for one publish.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from indexer.filtering import SliceColumns
from indexer.key_window import KeyFold
from indexer.segments.bitmaps import bitmap_of, rows_of
from indexer.segments.patches import NO_PATCHES, AppliedPatch, Patches
from indexer.segments.rows import Rows
from indexer.segments.view import SegmentView
from indexer.snapshots.snapshot import Snapshot
from schemas.changes import Changes, DeadLetter, NamespaceRow, Outcome, Patch, SegmentChanges
from schemas.errors import Code
from schemas.events import (
    CreateNamespace,
    Delete,
    DeleteNamespace,
    DeleteWhere,
    Event,
    Update,
    UpdateWhere,
    Upsert,
)
from schemas.filters import Filter, filter_from_json
from schemas.idempotency import Mark
from schemas.metadata import merge_metadata
from schemas.records import Sparse

__all__ = ["Folded", "Memtable"]


@dataclass(frozen=True, slots=True)
class Folded:
    """An event with where it stood: its offset and append time (milliseconds since 1970), and its idempotency key."""

    offset: int
    time_ms: int
    namespace: str
    event: Event
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    values: bytes
    sparse: Sparse | None
    metadata: bytes
    offset: int
    time_ms: int


@dataclass(slots=True)
class _Pending:
    """What this memtable does to one older segment."""

    dead: BitMap = field(default_factory=BitMap)
    kills: list[tuple[npt.NDArray[np.uint32], int]] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    # What they come to, without those that nobody had to know of yet.
    _applied: Patches = NO_PATCHES
    _waiting: list[AppliedPatch] = field(default_factory=list)

    def patch(self, rows: BitMap, offset: int, set_metadata: bytes) -> None:
        self.patches.append(Patch(offset, rows.serialize(), set_metadata))
        self._waiting.append(AppliedPatch(rows, set_metadata))

    def patched(self) -> Patches:
        """Return what the patches come to."""
        if self._waiting:
            self._applied = self._applied.with_patches(self._waiting)
            self._waiting.clear()
        return self._applied


class Memtable:
    """Events folded since the last publish."""

    def __init__(self, base: Snapshot, dimension: int) -> None:
        """Begin empty on top of `base`; `dimension` is 0 for sparse indexes."""
        self._base = base
        self._dimension = dimension
        self._rows: dict[str, dict[str, _Row]] = {}
        self._pending: dict[int, _Pending] = {}
        self._namespaces: dict[str, NamespaceRow] = {}
        # Namespaces deleted since the base: none of the base's rows of theirs count any more.
        self._buried: set[str] = set()
        self._located: dict[tuple[str, str], tuple[SegmentView, int]] = {}
        self._keys = KeyFold(base.keys)
        self.outcomes: list[Outcome] = []
        self.dead_letters: list[DeadLetter] = []

    def fold(self, batch: Sequence[Folded]) -> None:
        """Fold `batch`, which must be in offset order and validated."""
        self._locate(batch)
        for item in batch:
            if item.mark is not None and (use := self._keys.repeated(item.mark, item.offset)) is not None:
                if not isinstance(item.event, Upsert | Update | Delete):
                    # What came of it is told again.
                    self.outcomes.append(Outcome(item.offset, use.code, use.matched_records, item.time_ms))
                continue
            match item.event:
                case Upsert() | Update() | Delete():
                    self._fold_record(item, item.event)
                case UpdateWhere() | DeleteWhere():
                    self._fold_where(item, item.event)
                case DeleteNamespace(keep):
                    self._delete_namespace(item, keep=keep)
                case CreateNamespace(schema):
                    self._create_namespace(item, schema)
                case _:
                    assert_never(item.event)
            if item.mark is not None:
                self._keys.note(item.mark, item.offset, self.outcomes)

    def __bool__(self) -> bool:
        """Say whether a publish would have anything to write."""
        lists = (self._pending, self._namespaces, self.outcomes, self.dead_letters, self._keys)
        return any(self._rows.values()) or any(lists)

    def rows(self) -> Rows:
        """Return the new rows as columns."""
        names = sorted((name for name, rows in self._rows.items() if rows), key=str.encode)
        flat = [(number, key, row) for number, name in enumerate(names) for key, row in self._rows[name].items()]
        vectors = None
        if self._dimension:
            data = b"".join([row.values for _, _, row in flat])
            vectors = np.frombuffer(data, "<f4").reshape(len(flat), self._dimension)
        return Rows(
            names=names,
            namespace=np.array([number for number, _, _ in flat], np.int64),
            ids=[key.encode() for _, key, _ in flat],
            metadata=[row.metadata for _, _, row in flat],
            offsets=np.array([row.offset for _, _, row in flat], np.int64),
            times=np.array([row.time_ms for _, _, row in flat], np.int64),
            sparse=[row.sparse for _, _, row in flat],
            vectors=vectors,
        )

    def changes(self) -> Changes:
        """Return everything but the new rows."""
        return Changes(
            segments=tuple(_sealed(number, pending) for number, pending in sorted(self._pending.items())),
            namespaces=tuple(self._namespaces.values()),
            outcomes=tuple(self.outcomes),
            dead_letters=tuple(self.dead_letters),
            keys=self._keys.entries().tobytes(),
        )

    def _locate(self, batch: Sequence[Folded]) -> None:
        """Look up all ids, and all keys, of the batch at once: one binary search per segment instead of per event."""
        self._keys.locate({item.mark.digest for item in batch if item.mark is not None})
        wanted: dict[str, list[str]] = {}
        for item in batch:
            if isinstance(item.event, Upsert | Update | Delete):
                wanted.setdefault(item.namespace, []).append(item.event.id)
        for name, ids in wanted.items():
            for key, place in self._base.locate(name, ids).items():
                self._located[name, key] = place

    def _older(self, name: str, key: str) -> tuple[SegmentView, int] | None:
        """Return where the id's live row of the base lies."""
        if name in self._buried:
            return None
        place = self._located.get((name, key))
        if place is None:
            return None
        pending = self._pending.get(place[0].segment_id)
        return None if pending is not None and place[1] in pending.dead else place

    def _fold_record(self, item: Folded, event: Upsert | Update | Delete) -> None:
        own = self._rows.setdefault(item.namespace, {})
        older = None if event.id in own else self._older(item.namespace, event.id)
        match event:
            case Upsert(key, values, sparse, metadata):
                own[key] = _Row(values, sparse, metadata, item.offset, item.time_ms)
                self._touch(item)
            case Update(key, values_or_none, sparse, set_metadata):
                if older is not None and values_or_none is None and sparse is None:
                    if set_metadata is not None:
                        self._patch(older[0], BitMap([older[1]]), item.offset, set_metadata)
                    return
                old = own[key] if key in own else self._row_of(older)
                if old is None:
                    return
                own[key] = _Row(
                    old.values if values_or_none is None else values_or_none,
                    old.sparse if sparse is None else sparse,
                    merge_metadata(old.metadata, set_metadata or b""),
                    item.offset,
                    item.time_ms,
                )
            case Delete(key):
                own.pop(key, None)
            case _:
                assert_never(event)
        if older is not None:
            self._kill(older[0], np.array([older[1]], np.uint32), item.offset)

    def _row_of(self, place: tuple[SegmentView, int] | None) -> _Row | None:
        """Return an older row as it is now, pending patches included."""
        if place is None:
            return None
        view, row = place
        record = view.record(row)
        metadata = record.metadata
        pending = self._pending.get(view.segment_id)
        if pending is not None:
            metadata = pending.patched().metadata(row, metadata)
        values = b"" if record.values is None else record.values.astype("<f4").tobytes()
        return _Row(values, record.sparse, metadata, 0, 0)

    def _fold_where(self, item: Folded, event: UpdateWhere | DeleteWhere) -> None:
        where = filter_from_json(event.filter)
        matched = 0
        for view, rows in self._matching(item.namespace, where):
            matched += len(rows)
            if isinstance(event, UpdateWhere):
                self._patch(view, bitmap_of(rows), item.offset, event.set_metadata)
            else:
                self._kill(view, rows, item.offset)
        own = self._rows.get(item.namespace, {})
        keys = list(own)
        mask = SliceColumns([own[key].metadata for key in keys]).mask(where)
        for at in np.flatnonzero(mask).tolist():
            key = keys[at]
            matched += 1
            if isinstance(event, UpdateWhere):
                merged = merge_metadata(own[key].metadata, event.set_metadata)
                own[key] = replace(own[key], metadata=merged, offset=item.offset, time_ms=item.time_ms)
            else:
                del own[key]
        self.outcomes.append(Outcome(item.offset, Code.OK, matched, item.time_ms))

    def _matching(self, name: str, where: Filter) -> Iterator[tuple[SegmentView, npt.NDArray[np.uint32]]]:
        """Yield the live rows of the base that match as of now, per segment."""
        if name in self._buried:
            return
        for view, part in list(self._base.slices(name)):
            pending = self._pending.get(view.segment_id)
            mask = view.matching(part, where, pending=pending.patched() if pending is not None else NO_PATCHES)
            rows = (np.flatnonzero(mask) + part.start).astype(np.uint32)
            if pending is not None and pending.dead and len(rows):
                rows = rows_of(bitmap_of(rows) - pending.dead).astype(np.uint32)
            if len(rows):
                yield view, rows

    def _namespace(self, name: str) -> NamespaceRow:
        known = self._namespaces.get(name) or self._base.namespaces.get(name)
        return known or NamespaceRow(name, exists=False, floor=0, offset=0)

    def _touch(self, item: Folded) -> None:
        known = self._namespace(item.namespace)
        if not known.exists:
            self._namespaces[item.namespace] = replace(known, exists=True, offset=item.offset, schema=b"")

    def _delete_namespace(self, item: Folded, *, keep: bool) -> None:
        known = self._namespace(item.namespace)
        code = Code.OK if known.exists else Code.NOT_FOUND
        if known.exists:
            self._rows.pop(item.namespace, None)
            self._buried.add(item.namespace)
            self._namespaces[item.namespace] = NamespaceRow(
                item.namespace,
                exists=keep,
                floor=item.offset,
                offset=item.offset,
                schema=known.schema if keep else b"",
            )
        self.outcomes.append(Outcome(item.offset, code, 0, item.time_ms))

    def _create_namespace(self, item: Folded, schema: bytes) -> None:
        known = self._namespace(item.namespace)
        code = Code.ALREADY_EXISTS if known.exists else Code.OK
        if not known.exists:
            self._namespaces[item.namespace] = replace(known, exists=True, offset=item.offset, schema=schema)
        self.outcomes.append(Outcome(item.offset, code, 0, item.time_ms))

    def _kill(self, view: SegmentView, rows: npt.NDArray[np.uint32], offset: int) -> None:
        pending = self._pending.setdefault(view.segment_id, _Pending())
        pending.kills.append((rows, offset))
        pending.dead |= bitmap_of(rows)

    def _patch(self, view: SegmentView, rows: BitMap, offset: int, set_metadata: bytes) -> None:
        self._pending.setdefault(view.segment_id, _Pending()).patch(rows, offset, set_metadata)


def _sealed(segment_id: int, pending: _Pending) -> SegmentChanges:
    rows = np.concatenate([rows for rows, _ in pending.kills] or [np.empty(0, np.uint32)])
    offsets = np.concatenate(
        [np.full(len(rows), offset, np.int64) for rows, offset in pending.kills] or [np.empty(0, np.int64)]
    )
    order = np.argsort(rows, kind="stable")
    return SegmentChanges(
        segment_id,
        rows[order],
        offsets[order],
        tuple(pending.patches),
    )
