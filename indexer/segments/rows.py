"""Rows of a segment as columns: how they are laid out when written.

Rows are sorted by namespace (bytes), then by the 64-bit hash of their id; `order` permutes them into id order within
each namespace. So id look-ups are a binary search in place and a listing is a merge of permutations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.records import Sparse

__all__ = ["Rows", "Sections", "hash_ids", "lay_out", "lay_out_metadata"]

Sections = dict[str, "bytes | npt.NDArray[Any]"]


@dataclass(slots=True)
class Rows:
    """Columns of n rows in any order.

    `names` are distinct namespace names sorted by their bytes and `namespace` int64 [n] points into them; `ids` are
    ASCII bytes; `metadata` canonical JSON; `offsets` and `times` int64 [n]; `vectors` float32 [n, dimension] or None.
    """

    names: list[str]
    namespace: npt.NDArray[np.int64]
    ids: list[bytes]
    metadata: list[bytes]
    offsets: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    sparse: list[Sparse | None]
    vectors: npt.NDArray[np.float32] | None


def hash_ids(ids: Iterable[bytes]) -> npt.NDArray[np.uint64]:
    """Return the 64-bit hash of each id: BLAKE2b of 8 bytes, little-endian."""
    blake2b = hashlib.blake2b
    return np.frombuffer(b"".join([blake2b(item, digest_size=8).digest() for item in ids]), "<u8")


def lay_out(rows: Rows) -> tuple[Sections, Sections, npt.NDArray[np.int64]]:
    """Sort `rows` and return record sections, vector sections, and the permutation (new row -> old row, int64 [n])."""
    hashes = hash_ids(rows.ids)
    permutation = np.lexsort((hashes, rows.namespace))
    namespace = rows.namespace[permutation]
    starts = np.searchsorted(namespace, np.arange(len(rows.names) + 1)).astype(np.uint32)
    ids = [rows.ids[i] for i in permutation.tolist()]
    offsets = rows.offsets[permutation]
    name_ends, name_data = _strings([name.encode() for name in rows.names])
    id_ends, id_data = _strings(ids)
    spaces = namespace.tolist()
    order = np.array(sorted(range(len(ids)), key=lambda row: (spaces[row], ids[row])), np.uint32)
    records: Sections = {
        "namespace_ends": name_ends,
        "namespace_data": name_data,
        "namespace_starts": starts,
        "namespace_offset_min": _reduce(np.minimum, offsets, starts),
        "namespace_offset_max": _reduce(np.maximum, offsets, starts),
        "hash": hashes[permutation],
        "order": order,
        "id_ends": id_ends,
        "id_data": id_data,
        "offset": offsets,
        "time": rows.times[permutation],
        **lay_out_metadata([rows.metadata[i] for i in permutation.tolist()]),
    }
    if any(item is not None for item in rows.sparse):
        records |= _sparse_sections([rows.sparse[i] for i in permutation.tolist()])
    vectors: Sections = {}
    if rows.vectors is not None:
        matrix = rows.vectors[permutation]
        vectors = {"vectors": matrix, "norms": np.einsum("ij,ij->i", matrix, matrix)}
    return records, vectors, permutation


def lay_out_metadata(documents: Sequence[bytes]) -> Sections:
    """Return the record sections of the metadata of rows, in their final order."""
    ends, data = _strings(documents)
    return {"metadata_ends": ends, "metadata_data": data}


def _strings(items: Sequence[bytes]) -> tuple[npt.NDArray[np.uint64], bytes]:
    ends = np.zeros(len(items) + 1, np.uint64)
    np.cumsum([len(item) for item in items], out=ends[1:])
    return ends, b"".join(items)


def _reduce(function: np.ufunc, values: npt.NDArray[np.int64], starts: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    if not len(values):
        return np.empty(0, np.int64)
    reduced: npt.NDArray[np.int64] = function.reduceat(values, starts[:-1].astype(np.int64))
    return reduced


def _sparse_sections(items: Sequence[Sparse | None]) -> Sections:
    # A row without sparse values has length 0; one with none at all (0 entries) is the same thing.
    lengths = [0 if item is None else len(item.indices) for item in items]
    ends = np.zeros(len(items) + 1, np.uint64)
    np.cumsum(lengths, out=ends[1:])
    present = [item for item in items if item is not None]
    return {
        "sparse_ends": ends,
        "sparse_indices": np.concatenate([item.indices for item in present]).astype(np.uint32),
        "sparse_values": np.concatenate([item.values for item in present]).astype(np.float32),
    }
