"""Filter columns of a segment: how they are laid out when a merge writes it. `columns` reads them, and has the layout.

Every value of the metadata becomes a few bytes, in one pass over the documents; strings become digests at once, so that
memory does not grow with their lengths.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from indexer.segments.rows import Sections

__all__ = ["BOOLEANS_AT", "digests_of", "lay_out_columns", "posting_words"]

# Documents parsed, and strings digested, at a time.
_CHUNK_ROWS = 8192
# Postings before those of strings: per field the rows that have it, that are false, that are true.
BOOLEANS_AT = (1, 2)
_KINDS = 3
# Places in postings are 32-bit numbers.
_WORDS_MAX = 2**32 - 1


def posting_words(rows: int) -> int:
    """Return the 32-bit words of a bitmap of all rows: a posting of as many words is one, a shorter one lists rows."""
    return -(-rows // 32)


def digests_of(strings: Iterable[str], salt: int) -> npt.NDArray[np.uint64]:
    """Return the digest of each string, uint64 [n, 2]: its first half is what a segment keeps of a string."""
    blake2b, seed = hashlib.blake2b, salt.to_bytes(8, "little")
    data = b"".join([blake2b(text.encode(), digest_size=16, salt=seed).digest() for text in strings])
    return np.frombuffer(data, "<u8").reshape(-1, 2)


class _Pairs(NamedTuple):
    """Values by field and row."""

    fields: npt.NDArray[np.int64]
    rows: npt.NDArray[np.uint32]


class _Places:
    """Fields, by their numbers, and rows of values, in any order."""

    def __init__(self) -> None:
        self.fields = array("I")
        self.rows = array("I")

    def add(self, number: int, rows: array[int]) -> None:
        self.fields.extend(array("I", [number]) * len(rows))
        self.rows.extend(rows)

    def pairs(self, rank: npt.NDArray[np.int64]) -> _Pairs:
        """Return the places as they come, with the rank of each field for its number."""
        fields, rows = (np.frombuffer(part, np.uint32) if part else np.empty(0, np.uint32) for part in self._parts())
        return _Pairs(rank[fields], rows)

    def ordered(self, rank: npt.NDArray[np.int64]) -> _Pairs:
        """Return the places by the rank of their fields, then by row."""
        fields, rows = self.pairs(rank)
        order = np.argsort((fields << 32) | rows, kind="stable")
        return _Pairs(fields[order], rows[order])

    def _parts(self) -> tuple[array[int], array[int]]:
        return self.fields, self.rows


class _Gathered:
    """All values of some documents, by kind."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.present = _Places()
        self.booleans = (_Places(), _Places())
        self.numbers = _Places()
        self.values = array("d")
        self.strings = _Places()
        self.digests: list[npt.NDArray[np.uint64]] = []
        # Strings of the chunk under way.
        self.texts: list[str] = []
        # Fields that some row has and that are not laid out.
        self.left_out: set[str] = set()

    def add(self, name: str, values: Sequence[object], rows: array[int]) -> None:
        """Add the values that a field has in `rows`."""
        number = self.names.setdefault(name, len(self.names))
        self.present.add(number, rows)
        kinds = set(map(type, values))
        if kinds == {str}:
            self.texts += values  # type: ignore[arg-type] # all of them are strings
            self.strings.add(number, rows)
        elif kinds <= {int, float}:
            self.values.extend(values)  # type: ignore[arg-type] # all of them are numbers
            self.numbers.add(number, rows)
        else:
            for row, value in zip(rows, values, strict=True):
                self._add_one(number, value, array("I", [row]))

    def _add_one(self, number: int, value: object, row: array[int]) -> None:
        if isinstance(value, str):
            self.texts.append(value)
            self.strings.add(number, row)
        elif isinstance(value, bool):
            self.booleans[value].add(number, row)
        elif isinstance(value, int | float):
            self.values.append(value)
            self.numbers.add(number, row)
        elif isinstance(value, list):
            items = dict.fromkeys(value)
            self.texts += items
            self.strings.add(number, row * len(items))

    def digest(self, salt: int) -> None:
        """End a chunk: few values of many rows are digested once."""
        distinct = {text: at for at, text in enumerate(dict.fromkeys(self.texts))}
        self.digests.append(digests_of(distinct, salt)[[distinct[text] for text in self.texts]])
        self.texts.clear()


def lay_out_columns(documents: Sequence[bytes], filterable: frozenset[str] | None = None, *, salt: int = 0) -> Sections:
    """Return the column sections of a segment whose rows have `documents` (canonical metadata, `b""` is none).

    Fields that are not `filterable` get no column; None: all do. There are no sections where postings would have 2**32
    words: such a segment is filtered by its documents.
    """
    gathered = _gather(documents, filterable, salt)
    ordered = sorted(gathered.names, key=str.encode)
    fields = len(ordered)
    rank = np.empty(fields, np.int64)
    rank[[gathered.names[name] for name in ordered]] = np.arange(fields)
    strings, hashes = _by_hash(gathered, rank)
    if strings is None:
        return lay_out_columns(documents, filterable, salt=salt + 1)
    groups = [places.ordered(rank) for places in (gathered.present, *gathered.booleans)]
    numbered = [_Pairs(pairs.fields + at * fields, pairs.rows) for at, pairs in enumerate(groups)]
    new_string = _changes(strings.fields, hashes)
    string_group = np.cumsum(new_string) - 1
    numbered.append(_Pairs(string_group + _KINDS * fields, strings.rows))
    count = int(new_string.sum())
    postings = _postings(
        np.concatenate([pairs.fields for pairs in numbered]),
        np.concatenate([pairs.rows for pairs in numbered]),
        _KINDS * fields + count,
        posting_words(len(documents)),
    )
    if postings is None:
        return {}
    numbers, values = _by_value(gathered, rank)
    every = np.arange(fields + 1)
    return {
        "filter_head": np.array([salt], np.uint32),
        **_names("filter_field", ordered),
        **_names("filter_left_out", sorted(gathered.left_out, key=str.encode)),
        "filter_field_strings": np.searchsorted(strings.fields[new_string], every).astype(np.uint32),
        "filter_field_numbers": np.searchsorted(numbers.fields, every).astype(np.uint32),
        "filter_hashes": hashes[new_string],
        "filter_starts": postings[0],
        "filter_postings": postings[1],
        "filter_numbers": values,
        "filter_number_rows": numbers.rows,
    }


def _names(section: str, names: Sequence[str]) -> Sections:
    encoded = [name.encode() for name in names]
    ends = np.zeros(len(encoded) + 1, np.uint64)
    np.cumsum([len(name) for name in encoded], out=ends[1:])
    return {f"{section}_ends": ends, f"{section}_data": b"".join(encoded)}


def _gather(documents: Sequence[bytes], filterable: frozenset[str] | None, salt: int) -> _Gathered:
    gathered = _Gathered()
    for begin in range(0, len(documents), _CHUNK_ROWS):
        chunk = documents[begin : begin + _CHUNK_ROWS]
        # Documents with the same fields are taken together: most rows of an index look alike.
        alike: dict[tuple[str, ...], tuple[array[int], list[dict[str, object]]]] = {}
        for row, document in enumerate(orjson.loads(b"[" + b",".join([item or b"{}" for item in chunk]) + b"]"), begin):
            rows, found = alike.setdefault(tuple(document), (array("I"), []))
            rows.append(row)
            found.append(document)
        for names, (rows, found) in alike.items():
            for name, values in zip(names, zip(*[item.values() for item in found], strict=True), strict=True):
                if filterable is None or name in filterable:
                    gathered.add(name, values, rows)
                else:
                    gathered.left_out.add(name)
        if gathered.texts:
            gathered.digest(salt)
    return gathered


def _by_hash(
    gathered: _Gathered, rank: npt.NDArray[np.int64]
) -> tuple[_Pairs, npt.NDArray[np.uint64]] | tuple[None, npt.NDArray[np.uint64]]:
    """Return strings by field, hash and row, with their hashes; None where two of one field have the same hash."""
    fields, rows = gathered.strings.pairs(rank)
    digests = np.concatenate(gathered.digests) if gathered.digests else np.empty((0, 2), np.uint64)
    order = np.lexsort((rows, digests[:, 0], fields))
    fields, hashes, others = fields[order], digests[order, 0], digests[order, 1]
    same = ~_changes(fields, hashes)
    if (others[1:][same[1:]] != others[:-1][same[1:]]).any():
        return None, hashes
    return _Pairs(fields, rows[order]), hashes


def _by_value(gathered: _Gathered, rank: npt.NDArray[np.int64]) -> tuple[_Pairs, npt.NDArray[np.float64]]:
    fields, rows = gathered.numbers.pairs(rank)
    values = np.frombuffer(gathered.values, np.float64) if gathered.values else np.empty(0)
    order = np.lexsort((rows, values, fields))
    return _Pairs(fields[order], rows[order]), values[order]


def _changes(fields: npt.NDArray[np.int64], hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Return where another pair of field and hash begins: bool [n]."""
    begins = np.ones(len(fields), np.bool_)
    begins[1:] = (fields[1:] != fields[:-1]) | (hashes[1:] != hashes[:-1])
    return begins


def _postings(
    group: npt.NDArray[np.int64], rows: npt.NDArray[np.uint32], groups: int, words: int
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]] | None:
    """Return where the posting of each group begins (uint32 [groups + 1]), and all their words."""
    counts = np.bincount(group, minlength=groups)
    is_bitmap = counts >= words
    starts = np.zeros(groups + 1, np.int64)
    np.cumsum(np.where(is_bitmap, words, counts), out=starts[1:])
    if starts[-1] > _WORDS_MAX:
        return None
    posted = np.zeros(int(starts[-1]), np.uint32)
    in_bitmap = is_bitmap[group]
    first = np.cumsum(counts) - counts
    listed = ~in_bitmap
    posted[(starts[group] + np.arange(len(group)) - first[group])[listed]] = rows[listed]
    rows = rows[in_bitmap]
    if len(rows):
        place = starts[group[in_bitmap]] + (rows >> 5)
        begins = np.flatnonzero(np.concatenate([[True], place[1:] != place[:-1]]))
        posted[place[begins]] = np.bitwise_or.reduceat(np.uint32(1) << (rows & np.uint32(31)), begins)
    return starts.astype(np.uint32), posted
