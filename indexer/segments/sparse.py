"""Sparse values of a segment, read in place: by row, and by index where a merge wrote postings.

Sections, of R rows with E entries of T distinct indices:

- `sparse_ends` uint64 [R + 1], `sparse_indices` uint32 [E], `sparse_values` float32 [E]: the entries of each row, by
  ascending index.
- `posting_indices` uint32 [T]: distinct indices, ascending.
- `posting_starts` uint64 [T + 1], `posting_rows` uint32 [E], `posting_values` float32 [E]: the rows that have an index,
  ascending, and their values there.

Products of two float32 are exact in float64, and a row adds them up in the order of their indices, by postings as by
rows, here as in the native engine: a score is the same to the bit wherever a row lies.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from indexer.segments.container import Container
from indexer.segments.rows import Sections
from indexer.segments.soundness import check_ends
from schemas.errors import CorruptData
from schemas.records import Sparse

__all__ = ["SparseColumns", "SparseLoad", "lay_out_postings"]


class SparseLoad(NamedTuple):
    """About what a query finds in some rows: entries to look at, rows that share an index; `posted` = by postings."""

    entries: float
    sharing: float
    posted: bool


class _Columns(ctypes.Structure):
    """`SparseColumns` of sparse.h."""

    _fields_ = (
        ("ends", ctypes.c_void_p),
        ("indices", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("terms", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("term_count", ctypes.c_uint64),
    )


def lay_out_postings(records: Sections) -> Sections:
    """Return the posting sections of a segment with these record sections; none where no row has sparse values."""
    if "sparse_ends" not in records:
        return {}
    ends, indices, values = (np.asarray(records[f"sparse_{name}"]) for name in ("ends", "indices", "values"))
    # Rows ascend within an index, since entries lie by row.
    order = np.argsort(indices, kind="stable")
    ordered = indices[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return {
        "posting_indices": ordered[begins],
        "posting_starts": np.append(begins, len(ordered)).astype(np.uint64),
        "posting_rows": _rows_of(ends)[order],
        "posting_values": values[order],
    }


def _rows_of(ends: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
    """Return the row of each entry."""
    return np.repeat(np.arange(len(ends) - 1, dtype=np.uint32), np.diff(ends).astype(np.int64))


class SparseColumns:
    """Sparse values of all rows of a segment. Safe to use from several threads."""

    def __init__(self, records: Container, what: str) -> None:
        """Read the sections of `records`, a container that has them; `what` names it.

        Raises `CorruptData` where they do not fit each other or the number of rows.
        """
        self._rows = records.rows
        self._ends = records.column("sparse_ends", "<u8")
        self._indices = records.column("sparse_indices", "<u4")
        self._values = records.column("sparse_values", "<f4")
        self.has_postings = any(name.startswith("posting_") for name in records)
        self._terms = records.column("posting_indices", "<u4")
        self._starts = records.column("posting_starts", "<u8")
        self._posted = records.column("posting_rows", "<u4")
        self._weights = records.column("posting_values", "<f4")
        check_ends(f"{what}: its sparse values", self._ends, self._rows, len(self._indices))
        if len(self._values) != len(self._indices) or not np.isfinite(self._values).all():
            raise CorruptData(f"{what}: its sparse values are not those of its indices.")
        if self.has_postings:
            self._check_postings(what)
        places = (self._ends, self._indices, self._values)
        posted = (self._terms, self._starts, self._posted, self._weights)
        addresses = [column.ctypes.data if self.has_postings else None for column in posted]
        self._view = _Columns(*(column.ctypes.data for column in places), *addresses, len(self._terms))
        self.address = ctypes.addressof(self._view)

    def _check_postings(self, what: str) -> None:
        terms, rows = self._terms, self._posted
        check_ends(f"{what}: its postings", self._starts, len(terms), len(rows))
        starts = self._starts.astype(np.int64)
        rises = rows[1:] > rows[:-1]
        rises[starts[1:-1] - 1] = True
        is_sound = (
            len(rows) == len(self._weights) == len(self._indices)
            and bool((terms[1:] > terms[:-1]).all())
            and bool((starts[1:] > starts[:-1]).all())
            and bool(rises.all())
            and (not len(rows) or int(rows.max()) < self._rows)
            and bool(np.isfinite(self._weights).all())
        )
        if not is_sound:
            raise CorruptData(f"{what}: its postings are not those of its sparse values.")

    def row(self, row: int) -> Sparse | None:
        """Return the sparse values of a row, None where it has none."""
        begin, end = int(self._ends[row]), int(self._ends[row + 1])
        if begin == end:
            return None
        return Sparse(self._indices[begin:end], self._values[begin:end])

    def load(self, start: int, end: int, query: Sparse) -> SparseLoad:
        """Return what scoring the rows from `start` up to `end` takes, from sizes alone.

        Nothing where none of them can share an index with the query.
        """
        if not self.has_postings:
            entries = int(self._ends[end] - self._ends[start])
            return SparseLoad(entries, min(end - start, entries), posted=False)
        _, begins, stops = self._found(query)
        lengths = (stops - begins).astype(np.float64)
        share = (end - start) / self._rows
        # As if one index of a row said nothing of the others.
        sharing = 1.0 - float(np.prod(1.0 - lengths / self._rows))
        return SparseLoad(float(lengths.sum()) * share, sharing * (end - start), posted=True)

    def scores(self, start: int, end: int, query: Sparse) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Return the product of each row from `start` up to `end` with the query (float64 [end - start]).

        And whether it shares an index with it (bool [end - start]).
        """
        find = self._posted_entries if self.has_postings else self._own_entries
        rows, products_of_entries = find(start, end, query)
        sharing = np.zeros(end - start, np.bool_)
        sharing[rows] = True
        # One addition after another, in the order of the indices.
        products = np.bincount(rows, products_of_entries, end - start).astype(np.float64, copy=False)
        return products, sharing

    def _found(self, query: Sparse) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the query's values at those of its indices that some row has, with the bounds of their postings."""
        if not len(self._terms):
            return np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int64)
        places = np.minimum(np.searchsorted(self._terms, query.indices), len(self._terms) - 1)
        is_there = self._terms[places] == query.indices
        places = places[is_there]
        bounds = self._starts[places].astype(np.int64), self._starts[places + 1].astype(np.int64)
        return query.values[is_there], *bounds

    def _posted_entries(
        self, start: int, end: int, query: Sparse
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        rows, products = [np.empty(0, np.intp)], [np.empty(0)]
        values, begins, stops = self._found(query)
        for value, begin, stop in zip(values.tolist(), begins.tolist(), stops.tolist(), strict=True):
            first, last = begin + np.searchsorted(self._posted[begin:stop], np.array([start, end]))
            rows.append(self._posted[first:last].astype(np.intp) - start)
            products.append(self._weights[first:last].astype(np.float64) * value)
        return np.concatenate(rows), np.concatenate(products)

    def _own_entries(self, start: int, end: int, query: Sparse) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        begin, stop = int(self._ends[start]), int(self._ends[end])
        indices = self._indices[begin:stop]
        places = np.minimum(np.searchsorted(query.indices, indices), len(query.indices) - 1)
        is_there = query.indices[places] == indices
        rows = _rows_of(self._ends[start : end + 1])[is_there].astype(np.intp)
        values = self._values[begin:stop][is_there].astype(np.float64)
        return rows, values * query.values[places[is_there]].astype(np.float64)
