"""Filters evaluated over metadata: one document at a time, or the rows of a slice at once.

Semantics (DESIGN: frozen, since a replay evaluates them again): a missing field matches nothing but `$exists: false`;
types are strict (1, true and "1" differ), numbers are float64; on a list of strings a positive operator matches where
any element does, a negated one where no element equals an operand. `SliceColumns.mask` and `matches` agree, and so do
the columns that lie in segments (`indexer.segments.columns`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, assert_never

import numpy as np
import numpy.typing as npt
import orjson

from schemas.filters import And, Exists, Filter, OneOf, Or, Range, RangeOperator, fields_of

__all__ = ["Leaf", "Mask", "Patch", "SliceColumns", "evaluate", "holds", "matches", "number_bounds"]

Mask = npt.NDArray[np.bool_]
Leaf = OneOf | Range | Exists


class Patch(Protocol):
    """What was set on some rows after they were written."""

    def apply(self, leaf: Leaf, found: Mask) -> None:
        """Write into `found` for those rows on which the leaf's field was set whether they match."""


# Documents parsed at a time: enough to make the call's cost vanish, few enough to stay small in memory.
_CHUNK_ROWS = 4096
# Where the bound lies among ascending numbers that equal it.
_SIDES: dict[RangeOperator, Literal["left", "right"]] = {
    RangeOperator.LT: "left",
    RangeOperator.LTE: "right",
    RangeOperator.GT: "right",
    RangeOperator.GTE: "left",
}


def matches(where: Filter, document: Mapping[str, object]) -> bool:
    """Return whether a metadata document matches the filter."""
    match where:
        case And(parts):
            return all(matches(part, document) for part in parts)
        case Or(parts):
            return any(matches(part, document) for part in parts)
        case _:
            if where.field in document:
                return holds(where, document[where.field])
            return isinstance(where, Exists) and not where.present


def evaluate(where: Filter, mask_of: Callable[[Leaf], Mask], patches: Sequence[Patch] = ()) -> Mask:
    """Return a new bool [rows]: which rows match, where `mask_of` returns a new one for a leaf.

    `patches` are in offset order: each is merged over the metadata of exactly its rows before the filter is evaluated.
    The cost is that of the filter plus the patched rows, never of a row at a time.
    """
    match where:
        case And(parts):
            found = evaluate(parts[0], mask_of, patches)
            for part in parts[1:]:
                found &= evaluate(part, mask_of, patches)
            return found
        case Or(parts):
            found = evaluate(parts[0], mask_of, patches)
            for part in parts[1:]:
                found |= evaluate(part, mask_of, patches)
            return found
        case _:
            found = mask_of(where)
            # A leaf looks at one field, and a patch replaces the whole field: the last one on a row decides.
            for patch in patches:
                patch.apply(where, found)
            return found


def number_bounds(numbers: npt.NDArray[np.float64], operator: RangeOperator, bound: float) -> tuple[int, int]:
    """Return which of ascending `numbers` are in a range: from, up to."""
    place = int(np.searchsorted(numbers, bound, side=_SIDES[operator]))
    return (0, place) if operator in (RangeOperator.LT, RangeOperator.LTE) else (place, len(numbers))


def holds(leaf: Leaf, value: object) -> bool:
    """Return whether a field that is present, with `value`, matches."""
    match leaf:
        case Exists(_, present):
            return present
        case OneOf(_, strings, numbers, booleans, negated):
            if isinstance(value, list):
                found = any(item in strings for item in value)
            elif isinstance(value, bool):
                found = value in booleans
            elif isinstance(value, int | float):
                found = float(value) in numbers
            else:
                found = value in strings
            return found is not negated
        case Range(_, operator, bound):
            if isinstance(value, bool) or not isinstance(value, int | float):
                return False
            return _in_range(operator, float(value), bound)
        case _:
            assert_never(leaf)


def _in_range(operator: RangeOperator, value: float, bound: float) -> bool:
    match operator:
        case RangeOperator.GT:
            return value > bound
        case RangeOperator.GTE:
            return value >= bound
        case RangeOperator.LT:
            return value < bound
        case RangeOperator.LTE:
            return value <= bound
        case _:
            assert_never(operator)


@dataclass(frozen=True, slots=True)
class _Column:
    """One field of a slice. Row numbers are uint32; a row of a list stands under each of its elements."""

    present: Mask
    # String -> its number; its rows are string_rows[string_starts[number] : string_starts[number + 1]].
    vocabulary: Mapping[str, int]
    string_starts: npt.NDArray[np.int64]
    string_rows: npt.NDArray[np.uint32]
    # Ascending numbers and the row of each.
    numbers: npt.NDArray[np.float64]
    number_rows: npt.NDArray[np.uint32]
    true_rows: npt.NDArray[np.uint32]
    false_rows: npt.NDArray[np.uint32]

    def mask(self, leaf: Leaf) -> Mask:
        """Return a new mask of the rows that match."""
        match leaf:
            case Exists(_, present):
                return self.present.copy() if present else ~self.present
            case Range(_, operator, bound):
                found = np.zeros(len(self.present), dtype=np.bool_)
                begin, end = number_bounds(self.numbers, operator, bound)
                found[self.number_rows[begin:end]] = True
                return found
            case OneOf():
                found = np.zeros(len(self.present), dtype=np.bool_)
                for rows in self._equal(leaf):
                    found[rows] = True
                return self.present & ~found if leaf.negated else found
            case _:
                assert_never(leaf)

    def _equal(self, leaf: OneOf) -> Sequence[npt.NDArray[np.uint32]]:
        found: list[npt.NDArray[np.uint32]] = []
        for string in leaf.strings:
            number = self.vocabulary.get(string)
            if number is not None:
                found.append(self.string_rows[self.string_starts[number] : self.string_starts[number + 1]])
        if leaf.numbers:
            operands = np.array(leaf.numbers, dtype=np.float64)
            begins = np.searchsorted(self.numbers, operands, side="left").tolist()
            ends = np.searchsorted(self.numbers, operands, side="right").tolist()
            found.extend(self.number_rows[begin:end] for begin, end in zip(begins, ends, strict=True) if begin < end)
        found.extend(self.true_rows if boolean else self.false_rows for boolean in leaf.booleans)
        return found


class _ColumnBuilder:
    """Gathers the values of one field, row by row."""

    def __init__(self) -> None:
        self._present: list[int] = []
        self._vocabulary: dict[str, int] = {}
        self._string_numbers: list[int] = []
        self._string_rows: list[int] = []
        self._numbers: list[float] = []
        self._number_rows: list[int] = []
        self._boolean_rows: tuple[list[int], list[int]] = ([], [])

    def add(self, row: int, value: object) -> None:
        """Add a value of one row; rows ascend."""
        self._present.append(row)
        if isinstance(value, str):
            self._add_string(row, value)
        elif isinstance(value, bool):
            self._boolean_rows[value].append(row)
        elif isinstance(value, int | float):
            self._numbers.append(value)
            self._number_rows.append(row)
        elif isinstance(value, list):
            for item in value:
                self._add_string(row, item)

    def _add_string(self, row: int, value: str) -> None:
        self._string_numbers.append(self._vocabulary.setdefault(value, len(self._vocabulary)))
        self._string_rows.append(row)

    def column(self, rows: int) -> _Column:
        """Return the column of a slice of that many rows."""
        present = np.zeros(rows, dtype=np.bool_)
        present[self._present] = True
        string_numbers = np.array(self._string_numbers, dtype=np.int64)
        order = np.argsort(string_numbers, kind="stable")
        starts = np.zeros(len(self._vocabulary) + 1, dtype=np.int64)
        np.cumsum(np.bincount(string_numbers, minlength=len(self._vocabulary)), out=starts[1:])
        numbers = np.array(self._numbers, dtype=np.float64)
        ascending = np.argsort(numbers, kind="stable")
        return _Column(
            present=present,
            vocabulary=self._vocabulary,
            string_starts=starts,
            string_rows=np.array(self._string_rows, dtype=np.uint32)[order],
            numbers=numbers[ascending],
            number_rows=np.array(self._number_rows, dtype=np.uint32)[ascending],
            true_rows=np.array(self._boolean_rows[True], dtype=np.uint32),
            false_rows=np.array(self._boolean_rows[False], dtype=np.uint32),
        )


class SliceColumns:
    """An immutable view of the metadata of consecutive rows.

    A field's column is built when a filter first asks for it, in one pass over the documents for all fields that are
    new; it is kept for good. Safe to share between threads: at worst two of them build the same column.
    """

    def __init__(self, documents: Sequence[bytes]) -> None:
        """Take canonical metadata, one document a row; `b""` is none."""
        self._documents = documents
        self._columns: dict[str, _Column] = {}
        self.rows = len(documents)

    def mask(self, where: Filter, patches: Sequence[Patch] = ()) -> Mask:
        """Return a new bool [rows]: which rows match; see `evaluate`."""
        self._build(fields_of(where))
        return evaluate(where, lambda leaf: self._columns[leaf.field].mask(leaf), patches)

    def _build(self, fields: frozenset[str]) -> None:
        missing = [field for field in fields if field not in self._columns]
        if not missing:
            return
        builders = {field: _ColumnBuilder() for field in missing}
        for begin in range(0, self.rows, _CHUNK_ROWS):
            chunk = self._documents[begin : begin + _CHUNK_ROWS]
            documents = orjson.loads(b"[" + b",".join([document or b"{}" for document in chunk]) + b"]")
            for row, document in enumerate(documents, begin):
                for field, builder in builders.items():
                    if field in document:
                        builder.add(row, document[field])
        self._columns |= {field: builder.column(self.rows) for field, builder in builders.items()}
