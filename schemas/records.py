"""Records and vectors: what a client upserts and fetches, in the one form that every room uses.

Guarantees: dense vectors are little-endian float32; a `Sparse` has as many values as indices, its indices ascend and
are distinct. Whether a record fits an index is `schemas.events.validate`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import InvalidRequest
from schemas.limits import ID_BYTES_MAX, NAMESPACE_BYTES_MAX
from schemas.metadata import shown

__all__ = [
    "Record",
    "Sparse",
    "check_id",
    "check_namespace",
    "dense_bytes",
    "dense_values",
    "make_sparse",
]

_FLOAT32 = np.dtype("<f4")
_UINT32_MAX = 2**32 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Sparse:
    """A sparse vector: `indices` uint32 [n], ascending and distinct; `values` float32 [n]. Made by `make_sparse`."""

    indices: npt.NDArray[np.uint32]
    values: npt.NDArray[np.float32]

    def __eq__(self, other: object) -> bool:
        """Equal where all bytes are, so a not-a-number equals itself."""
        if not isinstance(other, Sparse):
            return NotImplemented
        return self.indices.tobytes() == other.indices.tobytes() and self.values.tobytes() == other.values.tobytes()

    def __hash__(self) -> int:
        return hash((self.indices.tobytes(), self.values.tobytes()))


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """What a client upserts and fetches.

    `values` is float32 [dimension] or None, `metadata` a canonical flat JSON object or `b""`.
    """

    id: str
    values: npt.NDArray[np.float32] | None
    sparse: Sparse | None
    metadata: bytes

    def __eq__(self, other: object) -> bool:
        """Equal where id, the bytes of both vectors, and metadata are."""
        if not isinstance(other, Record):
            return NotImplemented
        return (self.id, self.sparse, self.metadata) == (other.id, other.sparse, other.metadata) and (
            dense_bytes(self.values) == dense_bytes(other.values)
        )

    def __hash__(self) -> int:
        return hash((self.id, self.metadata))


def check_id(name: str) -> None:
    """Raise `InvalidRequest` unless `name` is a record id: 1 to 512 ASCII characters without NUL."""
    if not name:
        raise InvalidRequest("Vector ID must not be empty")
    if len(name) > ID_BYTES_MAX:
        raise InvalidRequest(
            f"Vector ID is {len(name)} characters long, which exceeds the limit of {ID_BYTES_MAX}", limit=ID_BYTES_MAX
        )
    if not name.isascii() or "\0" in name:
        raise InvalidRequest(f"Vector ID must be ASCII without NUL characters, got {name[:80]!r}")


def check_namespace(name: str) -> None:
    """Raise `InvalidRequest` unless `name` can be a namespace: up to 512 ASCII characters without NUL."""
    if len(name) > NAMESPACE_BYTES_MAX:
        raise InvalidRequest(
            f"Namespace is {len(name)} characters long, which exceeds the limit of {NAMESPACE_BYTES_MAX}",
            limit=NAMESPACE_BYTES_MAX,
        )
    if not name.isascii() or "\0" in name:
        raise InvalidRequest(f"Namespace must be ASCII without NUL characters, got {name[:80]!r}")


def dense_values(values: bytes) -> npt.NDArray[np.float32]:
    """Return float32 [n] over little-endian bytes, without a copy. The length must be a multiple of 4."""
    return np.frombuffer(values, dtype=_FLOAT32)


def dense_bytes(values: object) -> bytes:
    """Return a dense vector as little-endian float32 bytes; None and an empty one are `b""`.

    `values` is an array of numbers [n], or a list of JSON numbers. A number beyond float32 becomes infinite, which
    `validate` refuses. Raises `InvalidRequest` for anything that is not a list of numbers.
    """
    if values is None:
        return b""
    return _float32(values, "Vector values").tobytes()


def make_sparse(indices: object, values: object) -> Sparse | None:
    """Return a sparse vector sorted by index, None where it is empty.

    `indices` and `values` are arrays or lists of JSON numbers. Raises `InvalidRequest` for unequal lengths, an index
    twice, one outside uint32, or anything that is not a number.
    """
    numbers = _float32(values, "Sparse vector values")
    places = _uint32(indices)
    if len(numbers) != len(places):
        raise InvalidRequest(
            f"Sparse vector must have as many values as indices, got {len(places)} indices and {len(numbers)} values"
        )
    if not len(places):
        return None
    order = np.argsort(places, kind="stable")
    places, numbers = places[order], numbers[order]
    twice = np.flatnonzero(places[1:] == places[:-1])
    if len(twice):
        raise InvalidRequest(f"Sparse vector indices must be distinct, got {int(places[twice[0]])} more than once")
    return Sparse(places, numbers)


def _float32(values: object, what: str) -> npt.NDArray[np.float32]:
    if isinstance(values, np.ndarray):
        if values.ndim != 1 or values.dtype.kind not in "fiu":
            raise InvalidRequest(f"{what} must be a flat list of numbers")
        with np.errstate(over="ignore", under="ignore"):
            return values.astype(_FLOAT32)
    if not isinstance(values, list | tuple):
        raise InvalidRequest(f"{what} must be a list of numbers, got '{shown(values)}'")
    if not set(map(type, values)) <= {int, float}:
        wrong = next(item for item in values if type(item) not in (int, float))
        raise InvalidRequest(f"{what} must be numbers, got '{shown(wrong)}'")
    try:
        with np.errstate(over="ignore", under="ignore"):
            return np.array(values, dtype=np.float64).astype(_FLOAT32)
    except OverflowError:
        # An integer beyond float64: as infinite as one beyond float32.
        return np.array([math.inf] * len(values), dtype=_FLOAT32)


def _uint32(indices: object) -> npt.NDArray[np.uint32]:
    if isinstance(indices, np.ndarray):
        if indices.ndim != 1 or indices.dtype.kind not in "iu":
            raise InvalidRequest("Sparse vector indices must be a flat list of integers")
        if len(indices) and (int(indices.min()) < 0 or int(indices.max()) > _UINT32_MAX):
            raise InvalidRequest(f"Sparse vector indices must lie between 0 and {_UINT32_MAX}")
        return indices.astype(np.dtype("<u4"))
    if not isinstance(indices, list | tuple):
        raise InvalidRequest(f"Sparse vector indices must be a list of integers, got '{shown(indices)}'")
    for index in indices:
        if type(index) is not int or not 0 <= index <= _UINT32_MAX:
            raise InvalidRequest(
                f"Sparse vector indices must be integers between 0 and {_UINT32_MAX}, got '{shown(index)}'"
            )
    return np.array(indices, dtype=np.dtype("<u4"))
