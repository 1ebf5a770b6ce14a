"""Metadata changes of a segment's rows that are not written out yet: a few tiers, oldest first. They never change.

A change of few rows joins a tier of rows, in which each has one document, all that was set on it; like the layers of
`indexer.snapshots.layered`, tiers are joined with what comes on top of them, so that a publish costs what it changes. A
change of many rows is a tier of its own, a bitmap and one document, and no row of it is an object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from indexer.filtering import Leaf, Mask, Patch, SliceColumns, holds
from indexer.segments.bitmaps import bitmap_of, rows_of
from schemas.changes import Patch as WrittenPatch
from schemas.filters import Exists
from schemas.metadata import merge_metadata, metadata_document

__all__ = ["NO_PATCHES", "AppliedPatch", "Patches", "applied_patch"]

# A change of more rows is a tier of its own.
_FEW_ROWS = 64
# A tier of rows is joined with what comes on top of it as long as it is not larger than so many times that.
_RATIO = 2
# Of a tier of rows of which fewer than one in so many are asked for, documents are looked at one at a time.
_SMALL_PARTS = 16


@dataclass(frozen=True, slots=True)
class AppliedPatch:
    """A metadata change of some rows, decoded."""

    rows: BitMap
    encoded: bytes


def applied_patch(patch: WrittenPatch) -> AppliedPatch:
    """Return a patch decoded."""
    return AppliedPatch(BitMap.deserialize(patch.rows), patch.set_metadata)


class _RowTier:
    """Few rows, or many that came one by one: `documents[i]` is set on the i-th of `rows`."""

    def __init__(self, rows: BitMap, documents: Sequence[bytes]) -> None:
        self.rows = rows
        self.documents = documents

    def __reduce__(self) -> tuple[Any, ...]:
        return _RowTier, (self.rows, self.documents)

    def document(self, row: int) -> bytes:
        return self.documents[self.rows.rank(row) - 1]

    @cached_property
    def _places(self) -> npt.NDArray[np.int64]:
        return rows_of(self.rows)

    @cached_property
    def _columns(self) -> SliceColumns:
        return SliceColumns(self.documents)

    def clipped(self, start: int, end: int, rows: int) -> Patch | None:  # as of `_WideTier`
        first, last = np.searchsorted(self._places, [start, end]).tolist()
        return _RowPatch(self, first, last, start) if first < last else None

    def apply(self, leaf: Leaf, found: Mask, first: int, last: int, start: int) -> None:
        places = self._places[first:last] - start
        if (last - first) * _SMALL_PARTS < len(self.documents):
            for place, document in zip(places.tolist(), self.documents[first:last], strict=True):
                values = metadata_document(document)
                if leaf.field in values:
                    found[place] = holds(leaf, values[leaf.field])
            return
        present = self._columns.mask(Exists(leaf.field, present=True))[first:last]
        if present.any():
            found[places[present]] = self._columns.mask(leaf)[first:last][present]

    def joined(self, newer: _RowTier) -> _RowTier:
        """Return one tier that says what this one and then `newer` say."""
        documents = dict(zip(self.rows, self.documents, strict=True))
        for row, document in zip(newer.rows, newer.documents, strict=True):
            documents[row] = merge_metadata(documents.get(row, b""), document)
        rows = self.rows | newer.rows
        return _RowTier(rows, [documents[row] for row in rows])


@dataclass(frozen=True, slots=True)
class _RowPatch:
    tier: _RowTier
    first: int
    last: int
    start: int

    def apply(self, leaf: Leaf, found: Mask) -> None:
        self.tier.apply(leaf, found, self.first, self.last, self.start)


@dataclass(frozen=True)
class _WideTier:
    """Many rows on which the same was set."""

    rows: BitMap
    encoded: bytes

    def __reduce__(self) -> tuple[Any, ...]:
        return _WideTier, (self.rows, self.encoded)

    def document(self, row: int) -> bytes:  # as of `_RowTier`
        return self.encoded

    @cached_property
    def values(self) -> Mapping[str, object]:
        return metadata_document(self.encoded)

    def clipped(self, start: int, end: int, rows: int) -> Patch | None:
        count = self.rows.range_cardinality(start, end)
        return _WidePatch(self, start, end, rows) if count else None

    def mask(self, start: int, end: int, rows: int) -> Mask:
        """Return which of the rows from `start` to `end` are in it; one for all `rows` of the segment is kept."""
        if end - start == rows:
            return self._mask_of(rows)
        mask = np.zeros(end - start, np.bool_)
        mask[rows_of(self.rows & BitMap(range(start, end))) - start] = True
        return mask

    def _mask_of(self, rows: int) -> Mask:
        mask: Mask | None = self.__dict__.get("whole")
        if mask is None:
            mask = np.zeros(rows, np.bool_)
            mask[rows_of(self.rows)] = True
            self.__dict__["whole"] = mask
        return mask


@dataclass(frozen=True, slots=True)
class _WidePatch:
    tier: _WideTier
    start: int
    end: int
    rows: int

    def apply(self, leaf: Leaf, found: Mask) -> None:
        if leaf.field not in self.tier.values:
            return
        mask = self.tier.mask(self.start, self.end, self.rows)
        if holds(leaf, self.tier.values[leaf.field]):
            np.logical_or(found, mask, out=found)
        else:
            found[mask] = False


class Patches:
    """All changes of a segment's metadata as of one moment. Safe to use from several threads, and to pickle."""

    __slots__ = ("tiers",)

    def __init__(self, tiers: tuple[_RowTier | _WideTier, ...] = ()) -> None:
        """Hold `tiers`, oldest first."""
        self.tiers = tiers

    def __bool__(self) -> bool:
        """Say whether anything was changed."""
        return bool(self.tiers)

    @property
    def single_rows(self) -> int:
        """Rows in tiers of rows, counted once per tier: what is held as objects."""
        return sum(len(tier.documents) for tier in self.tiers if isinstance(tier, _RowTier))

    def with_patches(self, patches: Iterable[AppliedPatch]) -> Patches:
        """Return what these and then `patches`, in offset order, say. Costs what they change; itself for none."""
        tiers = list(self.tiers)
        few: dict[int, bytes] = {}
        for patch in patches:
            if len(patch.rows) <= _FEW_ROWS:
                for row in patch.rows:
                    few[row] = merge_metadata(few.get(row, b""), patch.encoded)
            else:
                _push_rows(tiers, few)
                _push_wide(tiers, _WideTier(patch.rows, patch.encoded))
                few = {}
        _push_rows(tiers, few)
        return Patches(tuple(tiers)) if tiers != list(self.tiers) else self

    def metadata(self, row: int, document: bytes) -> bytes:
        """Return the metadata of a row after all changes, from what it was written with."""
        for tier in self.tiers:
            if row in tier.rows:
                document = merge_metadata(document, tier.document(row))
        return document

    def clipped(self, start: int, end: int, rows: int) -> list[Patch]:
        """Return the changes of rows from `start` to `end`, of a segment of `rows`, for a mask of these."""
        parts = (tier.clipped(start, end, rows) for tier in self.tiers)
        return [part for part in parts if part is not None]


NO_PATCHES = Patches()


def _push_rows(tiers: list[_RowTier | _WideTier], few: Mapping[int, bytes]) -> None:
    if few:
        rows = bitmap_of(np.fromiter(few, np.uint32, len(few)))
        _push_tier(tiers, _RowTier(rows, [few[row] for row in rows]))


def _push_tier(tiers: list[_RowTier | _WideTier], tier: _RowTier) -> None:
    while tiers and isinstance(older := tiers[-1], _RowTier) and len(older.documents) <= _RATIO * len(tier.documents):
        tiers.pop()
        tier = older.joined(tier)
    tiers.append(tier)


def _push_wide(tiers: list[_RowTier | _WideTier], tier: _WideTier) -> None:
    """Add a tier. Older ones lose the rows on which it sets again all that they set.

    Those that have few rows left become tiers of rows, so that what lay below and above them is joined.
    """
    if tiers and isinstance(newest := tiers[-1], _WideTier) and newest.encoded == tier.encoded:
        tiers.pop()
        tier = _WideTier(newest.rows | tier.rows, tier.encoded)
    kept: list[_RowTier | _WideTier] = []
    for older in tiers:
        if isinstance(older, _RowTier):
            _push_tier(kept, older)
            continue
        is_covered = older.values.keys() <= tier.values.keys() and older.rows.intersect(tier.rows)
        left = _WideTier(older.rows - tier.rows, older.encoded) if is_covered else older
        if len(left.rows) > _FEW_ROWS:
            kept.append(left)
        elif left.rows:
            _push_tier(kept, _RowTier(left.rows, [left.encoded] * len(left.rows)))
    tiers[:] = [*kept, tier]
