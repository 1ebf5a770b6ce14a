"""Filter columns of a segment, read in place: no value of the metadata is an object in memory.

Sections, of F fields and S distinct strings (per field; those of a list stand for themselves):

- `filter_head` uint32 [1]: the salt of the digests.
- `filter_field_ends` uint64 [F + 1], `filter_field_data`: names of fields in byte order.
- `filter_field_strings`, `filter_field_numbers` uint32 [F + 1]: where the strings and numbers of each field begin.
- `filter_left_out_ends` uint64, `filter_left_out_data`: names, in byte order, of fields that have no column, since no
  schema makes them filterable. Without these sections all have one.
- `filter_hashes` uint64 [S]: by field ascending; no two strings of a field have the same.
- `filter_starts` uint32 [3 F + S + 1], `filter_postings` uint32: postings of rows that have a field, rows where it is
  false, rows where it is true, F of each, and of strings. A posting lists ascending rows; where that would be as long
  as a bitmap of all rows, it is one.
- `filter_numbers` float64, `filter_number_rows` uint32: by field ascending, and the row of each.

The strings themselves lie in the documents: the one of a posting's first row says whether the hash is that of the
string asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import assert_never

import numpy as np
import numpy.typing as npt

from indexer.filtering import Leaf, Mask, Patch, evaluate, number_bounds
from indexer.segments.column_writer import BOOLEANS_AT, digests_of, posting_words
from indexer.segments.container import Container
from indexer.segments.names import NameColumn
from schemas.errors import CorruptData
from schemas.filters import Exists, Filter, OneOf, Range, fields_of
from schemas.metadata import metadata_document

__all__ = ["SegmentColumns"]

_BITS = 32


class SegmentColumns:
    """Which rows match, by postings and sorted numbers. Safe to use from several threads."""

    def __init__(self, container: Container, rows: int, document: Callable[[int], bytes]) -> None:
        """Read the sections of `container`; `document` returns the metadata of a row as it was written.

        Raises `CorruptData` where the sections do not fit each other or `rows`.
        """
        self._rows = rows
        self._words = posting_words(rows)
        self._document = document
        head = container.column("filter_head", "<u4")
        self._names = NameColumn(container.column("filter_field_ends", "<u8"), container.blob("filter_field_data"))
        self._field_strings = container.column("filter_field_strings", "<u4")
        self._field_numbers = container.column("filter_field_numbers", "<u4")
        self._hashes = container.column("filter_hashes", "<u8")
        self._starts = container.column("filter_starts", "<u4")
        self._postings = container.column("filter_postings", "<u4")
        self._numbers = container.column("filter_numbers", "<f8")
        self._number_rows = container.column("filter_number_rows", "<u4")
        self._left_out = _left_out(container)
        if len(head) != 1 or not (self._has_sound_fields(container) and self._has_sound_values()):
            raise CorruptData("The filter columns of a segment do not fit each other.")
        self._salt = int(head[0])

    def mask(self, where: Filter, start: int, end: int, patches: Sequence[Patch] = ()) -> Mask:
        """Return a new bool [end - start]: which of these rows match; `patches` count rows from `start`."""
        return evaluate(where, lambda leaf: self._leaf(leaf, start, end), patches)

    def knows(self, where: Filter) -> bool:
        """Say whether there are columns of all fields that a filter names."""
        return not self._left_out or not any(field.encode() in self._left_out for field in fields_of(where))

    def _leaf(self, leaf: Leaf, start: int, end: int) -> Mask:
        found = np.zeros(end - start, np.bool_)
        field = self._names.find(leaf.field.encode())
        match leaf:
            case Exists(_, present):
                if field >= 0:
                    self._add(found, field, start)
                return found if present else ~found
            case Range(_, operator, bound):
                if field >= 0:
                    begin, stop = self._field_numbers[field : field + 2].tolist()
                    lower, upper = number_bounds(self._numbers[begin:stop], operator, bound)
                    self._add_numbers(found, begin + lower, begin + upper, start)
                return found
            case OneOf():
                if field < 0:
                    return found
                self._add_equal(found, leaf, field, start)
                if not leaf.negated:
                    return found
                having = np.zeros(end - start, np.bool_)
                self._add(having, field, start)
                return having & ~found
            case _:
                assert_never(leaf)

    def _add_equal(self, found: Mask, leaf: OneOf, field: int, start: int) -> None:
        fields = len(self._names)
        if leaf.strings:
            for posting in self._postings_of(field, leaf.strings):
                self._add(found, posting, start)
        if leaf.numbers:
            begin, stop = self._field_numbers[field : field + 2].tolist()
            own = self._numbers[begin:stop]
            operands = np.array(leaf.numbers, np.float64)
            lower, upper = np.searchsorted(own, operands, "left"), np.searchsorted(own, operands, "right")
            for at in np.flatnonzero(lower < upper).tolist():
                self._add_numbers(found, begin + int(lower[at]), begin + int(upper[at]), start)
        for boolean in leaf.booleans:
            self._add(found, BOOLEANS_AT[boolean] * fields + field, start)

    def _postings_of(self, field: int, strings: Sequence[str]) -> list[int]:
        """Return the numbers of those postings that are really of one of `strings`."""
        begin, stop = self._field_strings[field : field + 2].tolist()
        own = self._hashes[begin:stop]
        if not len(own):
            return []
        digests = digests_of(strings, self._salt)[:, 0]
        places = np.minimum(np.searchsorted(own, digests), len(own) - 1)
        first_string = (BOOLEANS_AT[True] + 1) * len(self._names)
        name = self._names[field].decode()
        found = []
        for at in np.flatnonzero(own[places] == digests).tolist():
            posting = first_string + begin + int(places[at])
            value = metadata_document(self._document(self._first_row(posting))).get(name)
            if strings[at] in value if isinstance(value, list) else strings[at] == value:
                found.append(posting)
        return found

    def _first_row(self, posting: int) -> int:
        words = self._posting(posting)
        if len(words) < self._words:
            return int(words[0])
        at = int(np.flatnonzero(words)[0])
        word = int(words[at])
        return at * _BITS + (word & -word).bit_length() - 1

    def _posting(self, posting: int) -> npt.NDArray[np.uint32]:
        begin, stop = self._starts[posting : posting + 2].tolist()
        return self._postings[begin:stop]

    def _add(self, found: Mask, posting: int, start: int) -> None:
        """Set those of the rows from `start` on that are in a posting."""
        words = self._posting(posting)
        end = start + len(found)
        if len(words) == self._words:
            data = words.view(np.uint8)[start // 8 : -(-end // 8)]
            skipped = start % 8
            found |= np.unpackbits(data, bitorder="little")[skipped : skipped + len(found)].view(np.bool_)
            return
        if len(found) < self._rows:
            begin, stop = np.searchsorted(words, np.array([start, end], np.uint32)).tolist()
            words = words[begin:stop] - np.uint32(start)
        found[words] = True

    def _add_numbers(self, found: Mask, begin: int, stop: int, start: int) -> None:
        rows = self._number_rows[begin:stop]
        if len(found) < self._rows:
            rows = rows[(rows >= start) & (rows < start + len(found))] - np.uint32(start)
        found[rows] = True

    def _has_sound_fields(self, container: Container) -> bool:
        fields = len(self._names)
        ends = container.column("filter_field_ends", "<u8").astype(np.int64)
        if not _ascends(ends, len(container.blob("filter_field_data"))):
            return False
        names = list(self._names)
        return (
            all(one < other for one, other in pairwise(names))
            and len(self._field_strings) == len(self._field_numbers) == fields + 1
            and len(self._starts) == (BOOLEANS_AT[True] + 1) * fields + len(self._hashes) + 1
            and _ascends(self._field_strings, len(self._hashes))
            and _ascends(self._field_numbers, len(self._numbers))
            and _ascends(self._starts, len(self._postings))
        )

    def _has_sound_values(self) -> bool:
        if len(self._number_rows) != len(self._numbers) or not np.isfinite(self._numbers).all():
            return False
        if len(self._number_rows) and int(self._number_rows.max()) >= self._rows:
            return False
        if not _ascends_within(self._numbers, self._field_numbers, strictly=False):
            return False
        return _ascends_within(self._hashes, self._field_strings, strictly=True) and self._has_sound_postings()

    def _has_sound_postings(self) -> bool:
        starts = self._starts.astype(np.int64)
        lengths = starts[1:] - starts[:-1]
        if (lengths > self._words).any() or not (lengths[(BOOLEANS_AT[True] + 1) * len(self._names) :] > 0).all():
            return False
        is_bitmap = lengths == self._words
        in_bitmap = np.repeat(is_bitmap, lengths)
        bitmaps = self._postings[in_bitmap].reshape(-1, max(1, self._words))
        used = self._rows % _BITS
        if used and (bitmaps[:, -1] >> np.uint32(used)).any():
            return False
        if not bitmaps.any(axis=1).all():
            return False
        listed = self._postings[~in_bitmap]
        places = np.concatenate([[0], np.cumsum(np.where(is_bitmap, 0, lengths))])
        return (not len(listed) or int(listed.max()) < self._rows) and _ascends_within(listed, places, strictly=True)


def _left_out(container: Container) -> frozenset[bytes]:
    if not any(name.startswith("filter_left_out_") for name in container):
        return frozenset()
    ends, data = container.column("filter_left_out_ends", "<u8"), container.blob("filter_left_out_data")
    is_sound = _ascends(ends.astype(np.int64), len(data))
    names = list(NameColumn(ends, data)) if is_sound else []
    if not is_sound or not all(one < other for one, other in pairwise(names)):
        raise CorruptData("The list of fields without columns of a segment is broken.")
    return frozenset(names)


def _ascends(bounds: npt.NDArray[np.integer], end: int) -> bool:
    """Say whether `bounds` go from 0 to `end` without a step back."""
    return bool(len(bounds) and bounds[0] == 0 and bounds[-1] == end and (bounds[1:] >= bounds[:-1]).all())


def _ascends_within(values: npt.NDArray[np.number], bounds: npt.NDArray[np.integer], *, strictly: bool) -> bool:
    """Say whether `values` ascend from each bound to the next."""
    if len(values) < 2:
        return True
    fine = values[1:] > values[:-1] if strictly else values[1:] >= values[:-1]
    inner = bounds[(bounds > 0) & (bounds < len(values))].astype(np.int64)
    fine[inner - 1] = True
    return bool(fine.all())
