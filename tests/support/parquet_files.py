"""Parquet files as people give them to imports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

COLUMNS = {
    "id": pa.string(),
    "values": pa.list_(pa.float32()),
    "metadata": pa.string(),
    "sparse_values": pa.struct([("indices", pa.list_(pa.uint32())), ("values", pa.list_(pa.float32()))]),
}


def write_rows(path: Path, rows: list[dict[str, Any]], *, group_rows: int = 1_000, **types: pa.DataType) -> None:
    """Write rows with the columns that the first one has; `types` instead of the usual ones."""
    kinds = {**COLUMNS, **types}
    columns = {name: pa.array([row.get(name) for row in rows], kinds.get(name)) for name in rows[0]}
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path, row_group_size=group_rows)


def plain_rows(count: int, *, begin: int = 0, dimension: int = 4) -> list[dict[str, Any]]:
    """Return rows with their number as metadata."""
    return [
        {
            "id": f"r{n}",
            "values": [1.0, n, n % 1_000, *([0.5] * (dimension - 3))],
            "metadata": json.dumps({"n": n}),
        }
        for n in range(begin, begin + count)
    ]


def write_many(path: Path, count: int, *, dimension: int, seed: int = 0, begin: int = 0) -> np.ndarray:
    """Write many rows quickly; return their vectors."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    table = pa.table(
        {
            "id": [f"r{n}" for n in range(begin, begin + count)],
            "values": pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), dimension),
            "metadata": [f'{{"n":{n}}}' for n in range(begin, begin + count)],
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=10_000, compression="none")
    return vectors
