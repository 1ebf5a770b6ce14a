"""What `freshet load` reads: jsonl, npy with jsonl beside it, parquet; one row, one record of the upsert call.

Rows are numbered from 0, so that a load goes on where it stopped. A row that makes no record carries the reason.
"""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

import numpy as np
import orjson

from schemas.errors import ConfigError

__all__ = ["Row", "RowFile", "open_rows"]

# Names that other tools give to the column with the vector.
_VECTOR_NAMES = ("values", "vector", "embedding")
_SPARSE_NAMES = ("sparseValues", "sparse_values")
_PARQUET_ROWS = 1_024


@dataclass(frozen=True, slots=True)
class Row:
    """Row `number` of the input: a `record` for upsert, or a `problem`; `source` is what was read, for the report."""

    number: int
    record: Mapping[str, Any] | None
    problem: str = ""
    source: object = None


class RowFile(Protocol):
    """An input file, or files that belong together."""

    @property
    def paths(self) -> Sequence[Path]:
        """The files it consists of."""
        ...

    @property
    def total(self) -> int:
        """Number of rows."""
        ...

    def rows(self, start: int) -> Iterator[Row]:
        """Yield the rows from number `start` on."""
        ...


def open_rows(file: Path, records: Path | None) -> RowFile:
    """Open `file` by its ending; `records` is the jsonl file that belongs to an npy file.

    Raises `ConfigError` where it can't be read or its kind is not known.
    """
    name = file.name.removesuffix(".gz")
    try:
        if name.endswith((".jsonl", ".ndjson")):
            return _JsonLines(file)
        if file.suffix == ".npy":
            beside = [file.with_suffix(".jsonl"), file.with_suffix(".jsonl.gz")]
            return _Npy(file, records or next((each for each in beside if each.exists()), None))
        if file.suffix == ".parquet":
            return _Parquet(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot read {file}: {error}.", file=str(file)) from error
    raise ConfigError(f"{file} is none of the kinds that can be loaded: .jsonl, .npy (with a .jsonl), .parquet.")


class _JsonLines:
    def __init__(self, file: Path) -> None:
        self.paths = (file,)
        self.total = _count_lines(file)

    def rows(self, start: int) -> Iterator[Row]:
        for number, line in _lines(self.paths[0], start):
            try:
                parsed = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield Row(number, None, f"not JSON: {error}", line.decode(errors="replace"))
                continue
            if not isinstance(parsed, dict):
                yield Row(number, None, "not a JSON object", parsed)
                continue
            yield _row(number, parsed, source=parsed)


class _Npy:
    """Vectors as an array [rows, dimension], ids and metadata as lines of a jsonl file in the same order."""

    def __init__(self, file: Path, records: Path | None) -> None:
        self._vectors = np.load(file, mmap_mode="r", allow_pickle=False)
        if self._vectors.ndim != 2 or self._vectors.dtype.kind not in "fiu":
            raise ConfigError(
                f"{file} holds {self._vectors.dtype} {self._vectors.shape}; wanted numbers [rows, dimension]."
            )
        self.total = len(self._vectors)
        self._records = records
        self.paths = (file,) if records is None else (file, records)
        if records is not None and (lines := _count_lines(records)) != self.total:
            raise ConfigError(f"{file} has {self.total} rows and {records} {lines}: they don't belong together.")

    def rows(self, start: int) -> Iterator[Row]:
        if self._records is None:
            lines: Iterator[tuple[int, bytes]] = ((number, b"{}") for number in range(start, self.total))
        else:
            lines = _lines(self._records, start)
        for number, line in lines:
            values = np.ascontiguousarray(self._vectors[number], dtype=np.float32)
            try:
                parsed = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield Row(number, None, f"not JSON: {error}", line.decode(errors="replace"))
                continue
            if not isinstance(parsed, dict):
                yield Row(number, None, "not a JSON object", parsed)
                continue
            yield _row(number, {"id": str(number), **parsed, "values": values}, source=parsed)


class _Parquet:
    def __init__(self, file: Path) -> None:
        try:
            from pyarrow import parquet  # noqa: PLC0415 # an extra
        except ImportError as error:
            raise ConfigError("Parquet files need pyarrow: install freshet[parquet].") from error
        self._file = parquet.ParquetFile(file)
        self.paths = (file,)
        self.total = int(self._file.metadata.num_rows)

    def rows(self, start: int) -> Iterator[Row]:
        number = 0
        for batch in self._file.iter_batches(batch_size=_PARQUET_ROWS):
            if number + batch.num_rows <= start:
                number += batch.num_rows
                continue
            for row in batch.to_pylist():
                if number >= start:
                    yield _row(number, _from_columns(row), source=row)
                number += 1


def _from_columns(row: dict[str, Any]) -> dict[str, Any]:
    """Bring a parquet row into the form of a jsonl row: metadata may be a struct or JSON text, null means absent."""
    found = {name: value for name, value in row.items() if value is not None}
    metadata = found.get("metadata")
    if isinstance(metadata, str):
        try:
            found["metadata"] = orjson.loads(metadata)
        except orjson.JSONDecodeError:
            found["metadata"] = {"metadata": metadata}
    elif isinstance(metadata, dict):
        found["metadata"] = {name: value for name, value in metadata.items() if value is not None}
    return found


def _row(number: int, found: dict[str, Any], *, source: object) -> Row:
    """Make a record of what a row holds: what is neither id nor vector is metadata, unless there is a `metadata`."""
    identity = found.pop("id", None)
    if isinstance(identity, int) and not isinstance(identity, bool):
        identity = str(identity)
    if not isinstance(identity, str) or not identity:
        return Row(number, None, "has no id", source)
    record: dict[str, Any] = {"id": identity}
    vector = next((name for name in _VECTOR_NAMES if name in found), None)
    if vector is not None:
        record["values"] = found.pop(vector)
    sparse = next((name for name in _SPARSE_NAMES if name in found), None)
    if sparse is not None:
        record["sparseValues"] = found.pop(sparse)
    metadata = found.pop("metadata", found)
    if metadata:
        record["metadata"] = metadata
    return Row(number, record, "", source)


def _open(file: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(file, "rb")) if file.suffix == ".gz" else file.open("rb")


def _lines(file: Path, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, numbered from 0, from number `start` on."""
    with _open(file) as lines:
        yield from itertools.islice(enumerate(line for line in lines if line.strip()), start, None)


def _count_lines(file: Path) -> int:
    with _open(file) as lines:
        return sum(1 for line in lines if line.strip())
