"""An opened segment: rows read in place from its objects. Immutable, shared by every snapshot that names it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from indexer.filtering import Mask, Patch, SliceColumns
from indexer.segments.columns import SegmentColumns
from indexer.segments.container import Container
from indexer.segments.names import NameColumn
from indexer.segments.rows import hash_ids
from indexer.segments.soundness import check_ends, check_hashes, check_order, check_slices
from indexer.segments.sparse import SparseColumns
from schemas.errors import CorruptData
from schemas.filters import Filter
from schemas.records import Sparse

__all__ = ["GraphReader", "SegmentReader", "Slice"]

# Slices of which columns made from documents are kept, per segment: enough for the hot namespaces of one flat segment.
_COLUMNS_KEPT_MAX = 64
# A slice of less than one row in so many is filtered by its documents: numbers are not sorted by namespace.
_SMALL_SLICES = 256


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows of one namespace in a segment: from `start` up to, not including, `end`."""

    number: int
    start: int
    end: int
    offset_min: int
    offset_max: int


class GraphReader(Protocol):
    """An opened graph; only the engine that opened it knows more."""

    # Candidates that reach the recall target.
    ef: int


class SegmentReader:
    """Rows of one segment; see `indexer.segments.rows` for the layout."""

    def __init__(
        self,
        segment_id: int,
        records: Container,
        vectors: Container,
        graph: GraphReader | None = None,
    ) -> None:
        """Read from opened containers; `vectors` may be the same one. Raises `CorruptData` where columns disagree."""
        self.segment_id = segment_id
        self.rows = records.rows
        self.graph = graph
        # For who opens the segment again when only its records were written anew.
        self.vector_container = vectors
        self.dimension = vectors.dimension
        self.hashes = records.column("hash", "<u8")
        self.order = records.column("order", "<u4")
        self.offsets = records.column("offset", "<i8")
        self.times = records.column("time", "<i8")
        id_ends, metadata_ends = records.column("id_ends", "<u8"), records.column("metadata_ends", "<u8")
        # Read one at a time: a view gives plain integers, three times as fast as an array.
        self._id_ends, self._metadata_ends = id_ends.data, metadata_ends.data
        self._id_data = records.blob("id_data")
        self._metadata_data = records.blob("metadata_data")
        self.starts = records.column("namespace_starts", "<u4")
        self.offsets_min = records.column("namespace_offset_min", "<i8")
        self.offsets_max = records.column("namespace_offset_max", "<i8")
        self.names = NameColumn(records.column("namespace_ends", "<u8"), records.blob("namespace_data"))
        self._columns: dict[int, SliceColumns] = {}
        flat: npt.NDArray[np.float32] = vectors.column("vectors", "<f4")
        norms: npt.NDArray[np.float32] = vectors.column("norms", "<f4")
        elements = len(norms) if self.dimension else self.rows
        if len(flat) != elements * self.dimension or elements < self.rows:
            raise CorruptData(f"Segment {segment_id}: its vectors are not those of its rows.")
        # A segment without dense vectors (sparse index) has a matrix of no columns. After the rows come those elements
        # of the graph that died before it was written.
        self.elements = flat.reshape(elements, self.dimension)
        self.vectors = self.elements[: self.rows]
        self.norms = norms[: self.rows]
        self.vectors_address = self.vectors.ctypes.data
        self.norms_address = self.norms.ctypes.data
        self._check()
        # None where no row has sparse values.
        has_sparse = any(name.startswith(("sparse_", "posting_")) for name in records)
        self.sparse_columns = SparseColumns(records, f"Segment {segment_id}") if has_sparse else None
        has_columns = "filter_head" in records
        self._filter_columns = SegmentColumns(records, self.rows, self.metadata) if has_columns else None

    def _check(self) -> None:
        segment, rows, count = f"Segment {self.segment_id}", self.rows, len(self.names)
        lengths = (len(self.hashes), len(self.order), len(self.offsets), len(self.times))
        if lengths != (rows,) * 4 or (len(self.offsets_min), len(self.offsets_max)) != (count, count):
            raise CorruptData(f"{segment}: its columns have different lengths.")
        check_ends(f"{segment}: its ids", np.asarray(self._id_ends), rows, len(self._id_data))
        check_ends(f"{segment}: its metadata", np.asarray(self._metadata_ends), rows, len(self._metadata_data))
        check_slices(f"{segment}: its namespaces", self.starts, count, rows)
        check_order(f"{segment}: its list of ids", self.order, self.starts)
        check_hashes(f"{segment}: its hashes", self.hashes, self.starts)
        if self.graph is not None and count != 1:
            raise CorruptData(f"{segment}: a graph of {count} namespaces.")

    def slice_of(self, name: str) -> Slice | None:
        """Return the rows of a namespace, or None where it has none here."""
        number = self.names.find(name.encode())
        if number < 0:
            return None
        return Slice(
            number,
            int(self.starts[number]),
            int(self.starts[number + 1]),
            int(self.offsets_min[number]),
            int(self.offsets_max[number]),
        )

    def find(self, part: Slice, ids: Sequence[bytes], hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Return the row of each id (hashes as of `hash_ids`) in `part`, -1 where there is none: int64 [n]."""
        column = self.hashes[part.start : part.end]
        at = np.searchsorted(column, hashes)
        found = np.full(len(ids), -1, np.int64)
        inside = np.flatnonzero(at < len(column))
        for i in inside[column[at[inside]] == hashes[inside]].tolist():
            row = part.start + int(at[i])
            # Equal hashes of different ids lie side by side: compare the full id.
            while row < part.end and self.hashes[row] == hashes[i]:
                if self.id_bytes(row) == ids[i]:
                    found[i] = row
                    break
                row += 1
        return found

    def find_one(self, part: Slice, wanted: bytes) -> int:
        """Return the row of one id in `part`, or -1."""
        return int(self.find(part, [wanted], hash_ids([wanted]))[0])

    def id_bytes(self, row: int) -> bytes:
        """Return the id of a row."""
        return bytes(self._id_data[self._id_ends[row] : self._id_ends[row + 1]])

    def metadata(self, row: int) -> bytes:
        """Return the metadata of a row as it was written, without patches."""
        return bytes(self._metadata_data[self._metadata_ends[row] : self._metadata_ends[row + 1]])

    def sparse(self, row: int) -> Sparse | None:
        """Return the sparse values of a row."""
        return None if self.sparse_columns is None else self.sparse_columns.row(row)

    def mask(self, part: Slice, where: Filter, patches: Sequence[Patch] = ()) -> Mask:
        """Return a new bool [end - start]: which rows of `part` match; `patches` count rows from its first.

        By the columns that a merge wrote; where there are none, or they are far larger than the slice, by columns made
        from its documents at first use.
        """
        laid_out = self._filter_columns
        is_large = (part.end - part.start) * _SMALL_SLICES >= self.rows
        if is_large and laid_out is not None and laid_out.knows(where):
            return laid_out.mask(where, part.start, part.end, patches)
        columns = self._columns.get(part.number)
        if columns is None:
            columns = SliceColumns([self.metadata(row) for row in range(part.start, part.end)])
            if len(self._columns) >= _COLUMNS_KEPT_MAX:
                self._columns.clear()
            self._columns[part.number] = columns
        return columns.mask(where, patches)
