"""A segment as of one snapshot: immutable rows, minus kills, with patches. A change makes a new view."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from indexer.segments.bitmaps import bitmap_of, rows_of
from indexer.segments.patches import NO_PATCHES, Patches, applied_patch
from indexer.segments.planner import SlicePlan
from indexer.segments.reader import SegmentReader, Slice
from schemas.changes import SegmentChanges
from schemas.errors import CorruptData
from schemas.filters import Filter
from schemas.manifest import DeltaRef, SegmentEntry
from schemas.records import Record

__all__ = ["PlannedSlice", "SegmentView"]

# Which rows of a slice may be answers (bool [rows], None = all), how many they are, and how they are searched.
PlannedSlice = tuple[npt.NDArray[np.bool_] | None, int, SlicePlan]

# A part of a segment smaller than one in so many is not worth a mask of all rows.
_SMALL_PARTS = 8


class SegmentView:
    """Rows of one segment that are alive as of a snapshot."""

    def __init__(
        self,
        reader: SegmentReader,
        source: SegmentEntry | DeltaRef,
        dead: BitMap,
        changes: tuple[SegmentChanges, ...] = (),
        patches: Patches = NO_PATCHES,
    ) -> None:
        """Combine; `source` says how the manifest names the segment, `changes` is all that was applied, in order."""
        self.reader = reader
        self.source = source
        self.dead = dead
        self.changes = changes
        self.patches = patches
        # How searches without a filter go about its slices, by slice and number of rows wanted: theirs to fill.
        self.plans: dict[tuple[int, int], PlannedSlice] = {}

    @property
    def segment_id(self) -> int:
        """Number of the segment."""
        return self.source.segment_id

    @property
    def in_graph(self) -> bool:
        """Say whether the rows have a graph; an indexer does not load it."""
        return isinstance(self.source, SegmentEntry) and self.source.graph is not None

    @property
    def live_rows(self) -> int:
        """Rows that are alive."""
        return self.reader.rows - len(self.dead)

    @cached_property
    def alive(self) -> npt.NDArray[np.bool_]:
        """Which rows are alive: bool [rows]."""
        mask = np.ones(self.reader.rows, np.bool_)
        if self.dead:
            mask[rows_of(self.dead)] = False
        return mask

    def alive_in(self, part: Slice) -> npt.NDArray[np.bool_]:
        """Return which rows of `part` are alive: bool [end - start], not to be changed.

        A small part of a large segment is read from the bitmap: the mask of all rows is made anew after each kill.
        """
        if "alive" in self.__dict__ or (part.end - part.start) * _SMALL_PARTS >= self.reader.rows:
            return self.alive[part.start : part.end]
        mask = np.ones(part.end - part.start, np.bool_)
        dead = self.dead & BitMap(range(part.start, part.end))
        if dead:
            mask[rows_of(dead) - part.start] = False
        return mask

    def named(self, source: SegmentEntry | DeltaRef) -> SegmentView:
        """Return the same rows under another mention in the manifest."""
        view = SegmentView(self.reader, source, self.dead, self.changes, self.patches)
        if "alive" in self.__dict__:
            view.__dict__["alive"] = self.alive
        return view

    def with_changes(self, changes: SegmentChanges, *, from_offset: int = 0) -> SegmentView:
        """Return the view after those of `changes` whose offset is at least `from_offset`.

        Raises `CorruptData` where they name rows that there are not.
        """
        later = changes.killed_offsets >= from_offset
        patches = [patch for patch in changes.patches if patch.offset >= from_offset]
        if not later.any() and not patches:
            return self
        rows = changes.killed_rows[later]
        dead = self.dead | bitmap_of(rows)
        decoded = [applied_patch(patch) for patch in patches]
        if any(named and named.max() >= self.reader.rows for named in (dead, *(patch.rows for patch in decoded))):
            raise CorruptData(f"Segment {self.segment_id}: changes of rows that it does not have.")
        kept = SegmentChanges(changes.segment_id, rows, changes.killed_offsets[later], tuple(patches))
        applied = self.patches.with_patches(decoded)
        return SegmentView(self.reader, self.source, dead, (*self.changes, kept), applied)

    def without_slice(self, part: Slice) -> SegmentView:
        """Return the view after the namespace of `part` was deleted."""
        dead = self.dead.copy()
        dead.add_range(part.start, part.end)
        return SegmentView(self.reader, self.source, dead, self.changes, self.patches)

    def live_in(self, part: Slice) -> int:
        """Return the number of live rows of a namespace."""
        if not self.dead:
            return part.end - part.start
        return part.end - part.start - int(self.dead.range_cardinality(part.start, part.end))

    def counts(self) -> npt.NDArray[np.int64]:
        """Return live rows per namespace of the segment: int64 [names]."""
        starts = self.reader.starts.astype(np.int64)
        counts: npt.NDArray[np.int64] = np.diff(starts)
        if self.dead:
            dead = rows_of(self.dead)
            counts = counts - np.bincount(np.searchsorted(starts, dead, "right") - 1, minlength=len(counts))
        return counts

    def metadata(self, row: int) -> bytes:
        """Return the metadata of a row with its patches, as JSON; empty where it has none."""
        document = self.reader.metadata(row)
        return self.patches.metadata(row, document) if self.patches else document

    def record(self, row: int, *, values: bool = True, metadata: bool = True) -> Record:
        """Return a row as a record; `values` covers sparse values too."""
        reader = self.reader
        return Record(
            reader.id_bytes(row).decode(),
            reader.vectors[row] if values and reader.vectors.shape[1] else None,
            reader.sparse(row) if values else None,
            self.metadata(row) if metadata else b"",
        )

    def matching(self, part: Slice, where: Filter | None, *, pending: Patches = NO_PATCHES) -> npt.NDArray[np.bool_]:
        """Return which rows of `part` are alive and match, `pending` patches applied last: bool [end - start]."""
        alive = self.alive_in(part)
        if where is None:
            return alive
        place = (part.start, part.end, self.reader.rows)
        patches = [*self.patches.clipped(*place), *pending.clipped(*place)]
        mask = self.reader.mask(part, where, patches)
        mask &= alive
        return mask

    def ids(self, part: Slice, *, prefix: bytes, after: bytes | None) -> Iterator[bytes]:
        """Yield the live ids of `part` that begin with `prefix` and come after `after`, in byte order."""
        reader = self.reader
        order = reader.order[part.start : part.end]
        key = _Ids(reader, order)
        at = bisect_left(key, prefix)
        if after is not None and after >= prefix:
            at = bisect_right(key, after)
        for row in order[at:].tolist():
            if row in self.dead:
                continue
            found = reader.id_bytes(row)
            if not found.startswith(prefix):
                return
            yield found

    def rows_by_id(self, part: Slice, where: Filter, *, after: bytes | None, limit: int) -> list[int]:
        """Return up to `limit` live rows of `part` that match, in byte order of their ids, those after `after`."""
        reader = self.reader
        order = reader.order[part.start : part.end]
        if after is not None:
            order = order[bisect_right(_Ids(reader, order), after) :]
        matching = self.matching(part, where)
        rows: list[int] = order[matching[order - np.uint32(part.start)]][:limit].tolist()
        return rows


class _Ids(Sequence[bytes]):
    """Ids in the order of a permutation, for bisection."""

    def __init__(self, reader: SegmentReader, order: npt.NDArray[np.uint32]) -> None:
        self._reader = reader
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, at: int) -> bytes:  # type: ignore[override] # bisection asks for single items only
        return self._reader.id_bytes(int(self._order[at]))
