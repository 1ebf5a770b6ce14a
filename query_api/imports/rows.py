"""From a Parquet file to upserts, some rows at a time: vectors are taken out of Arrow's buffers, not number by number.

Blocking, and all of pyarrow that there is: it is imported by whoever imports first, on the thread that reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import InvalidRequest
from schemas.indexes import IndexSpec
from schemas.limits import BATCH_RECORDS_MAX
from schemas.metadata import canonical_metadata_json
from schemas.operations import Upsert
from schemas.records import Sparse, make_sparse

__all__ = ["ParquetRows", "RowBatch", "check_installed"]

_FLOAT32 = np.dtype("<f4")
_KNOWN = ("id", "values", "metadata", "sparse_values")
# What is decoded at once, and what one append carries at most: well below what the log takes.
_DECODED_BYTES_MAX = 4 * 1024 * 1024
_APPEND_BYTES_MAX = 4 * 1024 * 1024
_BUFFER_BYTES = 1024 * 1024
# Of an event beside its parts: headers, lengths, key.
_EVENT_BYTES = 256


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows `begin` to `end` of a file: `events[i]` is row `rows[i]`; the others are `bad`, each with the reason."""

    begin: int
    end: int
    events: list[Upsert]
    rows: list[int]
    bad: list[tuple[int, str]]


def check_installed() -> None:
    """Raise `InvalidRequest` where pyarrow cannot be imported."""
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415 # an extra
    except ImportError as error:
        raise InvalidRequest("Imports need pyarrow on the server: install freshet[parquet].") from error


class ParquetRows:
    """The rows of one open Parquet file, as records of an index."""

    def __init__(self, opened: Any, name: str, spec: IndexSpec) -> None:
        """Read the footer. Raises `InvalidRequest` where it is no Parquet file, or its columns do not fit."""
        import pyarrow as pa  # noqa: PLC0415 # an extra
        from pyarrow import parquet  # noqa: PLC0415 # an extra

        self._pa = pa
        self._name = name
        self._spec = spec
        try:
            # Without reading ahead, and by way of a buffer: a row group may be as large as the file.
            self._file = parquet.ParquetFile(opened, pre_buffer=False, buffer_size=_BUFFER_BYTES)
            schema = self._file.schema_arrow
        except (OSError, ValueError, NotImplementedError) as error:
            raise InvalidRequest(f"File {name} cannot be read as Parquet: {_said(error)}") from error
        self.rows = int(self._file.metadata.num_rows)
        self._columns = [column for column in _KNOWN if column in schema.names]
        self.ignored = tuple(column for column in schema.names if column not in _KNOWN)
        self._check(schema)

    def batches(self, start: int) -> Iterator[RowBatch]:
        """Yield the rows from number `start` on, each batch small enough for one append.

        Raises `InvalidRequest` where the file is damaged.
        """
        width = 4 * max(self._spec.dimension, 1)
        size = max(1, min(BATCH_RECORDS_MAX, _DECODED_BYTES_MAX // width))
        groups, begin = self._from_group(start)
        try:
            for group in groups:
                # One at a time: a batch of several would end elsewhere for a reader that begins at a later group, and
                # where batches end must be the same for everybody who goes on with an import.
                for batch in self._file.iter_batches(
                    size, row_groups=[group], columns=self._columns, use_threads=False
                ):
                    end = begin + batch.num_rows
                    if end > start:
                        left = batch.slice(max(0, start - begin))
                        yield from _parted(self._decoded(left, end - left.num_rows))
                    begin = end
        except (OSError, ValueError, NotImplementedError) as error:
            raise InvalidRequest(f"File {self._name} is damaged near row {begin}: {_said(error)}") from error

    def _from_group(self, start: int) -> tuple[list[int], int]:
        """Return the row groups that row `start` and later ones lie in, and the first row of the first of them."""
        begin = 0
        count = self._file.metadata.num_row_groups
        for group in range(count):
            rows = self._file.metadata.row_group(group).num_rows
            if begin + rows > start:
                return list(range(group, count)), begin
            begin += rows
        return [], begin

    def _check(self, schema: Any) -> None:
        """Raise `InvalidRequest` unless the columns are of the types wanted."""
        types = self._pa.types
        if len(set(self._columns)) != sum(name in _KNOWN for name in schema.names):
            raise InvalidRequest(f"File {self._name} has a column twice.")
        kinds = {name: schema.field(name).type for name in self._columns}

        def want(name: str, wanted: str, *, is_fine: bool) -> None:
            if not is_fine:
                raise InvalidRequest(f"File {self._name}: column '{name}' must be {wanted}, it is {kinds[name]}.")

        def is_text(kind: Any) -> bool:
            return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))

        if "id" not in kinds:
            raise InvalidRequest(f"File {self._name} has no column 'id'.")
        if "values" not in kinds and "sparse_values" not in kinds:
            raise InvalidRequest(f"File {self._name} has neither a column 'values' nor 'sparse_values'.")
        want("id", "STRING", is_fine=is_text(_undictionary(types, kinds["id"])))
        if "values" in kinds:
            fine = _is_list(types, kinds["values"]) and types.is_floating(kinds["values"].value_type)
            want("values", "LIST<FLOAT>", is_fine=bool(fine))
            if types.is_fixed_size_list(kinds["values"]) and kinds["values"].list_size != self._spec.dimension:
                raise InvalidRequest(
                    f"File {self._name}: vectors of column 'values' have {kinds['values'].list_size} dimensions, the "
                    f"index has {self._spec.dimension}."
                )
        if "metadata" in kinds:
            fine = is_text(_undictionary(types, kinds["metadata"])) or types.is_null(kinds["metadata"])
            want("metadata", "STRING that holds JSON", is_fine=bool(fine))
        if "sparse_values" in kinds:
            want(
                "sparse_values",
                "STRUCT<indices: LIST<UINT32>, values: LIST<FLOAT>>",
                is_fine=_is_sparse(types, kinds["sparse_values"]),
            )

    def _decoded(self, batch: Any, begin: int) -> RowBatch:
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        count = batch.num_rows
        ids = columns["id"].to_pylist()
        values = _Lists(columns["values"]) if "values" in columns else None
        sparse = _Sparses(columns["sparse_values"]) if "sparse_values" in columns else None
        metadata = columns["metadata"].to_pylist() if "metadata" in columns else [None] * count
        dense = values.as_bytes() if values is not None else [b""] * count
        events: list[Upsert] = []
        rows: list[int] = []
        bad: list[tuple[int, str]] = []
        for at in range(count):
            identity, vector, text = ids[at], dense[at], metadata[at]
            if identity is None or vector is None:
                bad.append((begin + at, "has no id" if identity is None else "has a null among its values"))
                continue
            try:
                document = canonical_metadata_json(text.encode()) if text else b""
                events.append(Upsert(identity, vector, None if sparse is None else sparse.row(at), document))
            except (InvalidRequest, UnicodeEncodeError) as error:
                bad.append((begin + at, f"'{identity[:80]}': {error}"))
                continue
            rows.append(begin + at)
        return RowBatch(begin, begin + count, events, rows, bad)


class _Lists:
    """A column of lists of numbers: one flat array, and where each row's part of it lies."""

    def __init__(self, column: Any) -> None:
        self._count = len(column)
        self._is_null = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
        if hasattr(column.type, "list_size"):
            size = column.type.list_size
            self._begins = (np.arange(self._count + 1, dtype=np.int64) + column.offset) * size
        else:
            self._begins = column.offsets.to_numpy().astype(np.int64)
        first, last = int(self._begins[0]), int(self._begins[-1])
        flat = column.values.slice(first, last - first)
        self._begins = self._begins - first
        self._holes = (
            np.concatenate(([0], np.cumsum(flat.is_null().to_numpy(zero_copy_only=False)))) if flat.null_count else None
        )
        self.flat: npt.NDArray[Any] = flat.to_numpy(zero_copy_only=False)

    def as_bytes(self) -> list[bytes | None]:
        """Return each row as little-endian float32; `b""` for null, None for a row with a null in it."""
        with np.errstate(over="ignore", under="ignore"):
            numbers = np.ascontiguousarray(self.flat, dtype=_FLOAT32).tobytes()
        begins = (4 * self._begins).tolist()
        rows: list[bytes | None] = [numbers[begins[at] : begins[at + 1]] for at in range(self._count)]
        for at in self._special().tolist():
            rows[at] = b"" if self.is_null(at) else None
        return rows

    def is_null(self, at: int) -> bool:
        """Say whether there is no list in that row."""
        return bool(self._is_null is not None and self._is_null[at])

    def row(self, at: int) -> npt.NDArray[Any]:
        """Return the numbers of one row. Raises `InvalidRequest` where one of them is null."""
        begin, end = self._begins[at], self._begins[at + 1]
        if self._holes is not None and self._holes[end] > self._holes[begin]:
            raise InvalidRequest("has a null among its numbers")
        return self.flat[begin:end]

    def _special(self) -> npt.NDArray[np.int64]:
        special = np.zeros(self._count, dtype=bool) if self._is_null is None else self._is_null.copy()
        if self._holes is not None:
            special |= self._holes[self._begins[1:]] > self._holes[self._begins[:-1]]
        return np.flatnonzero(special)


class _Sparses:
    """A column of sparse vectors."""

    def __init__(self, column: Any) -> None:
        self._is_null = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
        # Unlike `field`, it knows of the slice that the column may be.
        indices, values = (column.flatten()[column.type.get_field_index(name)] for name in ("indices", "values"))
        self._indices = _Lists(indices)
        self._values = _Lists(values)

    def row(self, at: int) -> Sparse | None:
        """Return one sparse vector, None where there is none. Raises `InvalidRequest`."""
        if self._is_null is not None and self._is_null[at]:
            return None
        indices = _NOTHING if self._indices.is_null(at) else self._indices.row(at)
        values = _NOTHING if self._values.is_null(at) else self._values.row(at)
        return make_sparse(indices, values)


_NOTHING: npt.NDArray[np.uint32] = np.zeros(0, dtype=np.uint32)


def _parted(batch: RowBatch) -> Iterator[RowBatch]:
    """Part a batch where one append would be too large."""
    sizes = [event.size_bytes + _EVENT_BYTES for event in batch.events]
    if sum(sizes) <= _APPEND_BYTES_MAX:
        yield batch
        return
    begin, first, size = batch.begin, 0, 0
    for at, each in enumerate(sizes):
        if size + each > _APPEND_BYTES_MAX and at > first:
            end = batch.rows[at]
            yield _part(batch, begin, end, slice(first, at))
            begin, first, size = end, at, 0
        size += each
    yield _part(batch, begin, batch.end, slice(first, None))


def _part(batch: RowBatch, begin: int, end: int, which: slice) -> RowBatch:
    bad = [each for each in batch.bad if begin <= each[0] < end]
    return RowBatch(begin, end, batch.events[which], batch.rows[which], bad)


def _is_list(types: Any, kind: Any) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_sparse(types: Any, kind: Any) -> bool:
    if not types.is_struct(kind) or kind.get_field_index("indices") < 0 or kind.get_field_index("values") < 0:
        return False
    indices, values = kind.field("indices").type, kind.field("values").type
    return bool(
        _is_list(types, indices)
        and types.is_integer(indices.value_type)
        and _is_list(types, values)
        and types.is_floating(values.value_type)
    )


def _undictionary(types: Any, kind: Any) -> Any:
    return kind.value_type if types.is_dictionary(kind) else kind


def _said(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
