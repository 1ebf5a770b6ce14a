"""Small things that tests of the indexer are built from: indexes, vectors, events, metadata, filters.

Vectors have coordinates that are multiples of 1/8 between -3 and 3, so that products and norms are exact in float32 and
a score can be compared to the last bit, ties included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from schemas.filters import filter_to_json, parse_filter
from schemas.indexes import IndexSpec, Metric, VectorType
from schemas.metadata import canonical_metadata
from schemas.operations import DeleteWhere, Update, UpdateWhere, Upsert
from schemas.partitions import partition_of
from schemas.records import Sparse, make_sparse

__all__ = [
    "DIMENSION",
    "LOG_ID",
    "delete_where",
    "dense",
    "filter_bytes",
    "metadata",
    "names_in",
    "sparse",
    "spec_of",
    "update",
    "update_where",
    "upsert",
    "upserts",
    "words",
]

DIMENSION = 4
LOG_ID = "L" * 22
_POOL = 256


def spec_of(
    metric: Metric = Metric.COSINE, *, dimension: int = DIMENSION, partitions: int = 1, name: str = "films"
) -> IndexSpec:
    """Return an index; dimension 0 makes it a sparse one."""
    kind = VectorType.DENSE if dimension else VectorType.SPARSE
    return IndexSpec(name, LOG_ID, partitions, dimension, metric, kind)


def names_in(partition: int, partitions: int, count: int) -> list[str]:
    """Return `count` namespaces that lie in `partition`."""
    names = (f"ns-{number}" for number in range(1000))
    return [name for name in names if partition_of(name, partitions) == partition][:count]


def _pool(dimension: int) -> npt.NDArray[np.float32]:
    source = np.random.default_rng(dimension)
    pool = np.clip(np.round(source.standard_normal((_POOL, dimension)) * 8) / 8, -3, 3)
    pool[~pool.any(axis=1)] = 1
    return pool.astype(np.float32)


_POOLS: dict[int, npt.NDArray[np.float32]] = {}


def dense(number: int, dimension: int = DIMENSION) -> npt.NDArray[np.float32]:
    """Return vector `number` of a fixed pool of 256, never zero: float32 [dimension]."""
    if dimension not in _POOLS:
        _POOLS[dimension] = _pool(dimension)
    return _POOLS[dimension][number % _POOL]


def sparse(number: int) -> Sparse:
    """Return a small sparse vector."""
    found = make_sparse([number, number + 7, 2**32 - 1 - number], [0.5, -1.0, 3.0])
    assert found is not None
    return found


def words(number: int, count: int = 5) -> Sparse:
    """Return a sparse vector of `count` of 24 indices from all over their space, so that most have one in common.

    Values are multiples of 1/2 between -2 and 2, zero among them: products and sums are exact.
    """
    source = np.random.default_rng(number)
    places = np.unique(np.concatenate([np.arange(12), 2**32 - 1 - np.arange(12) * 357_913_941]))
    found = make_sparse(source.permutation(places)[:count], source.integers(-4, 5, count) / 2)
    assert found is not None
    return found


def metadata(document: Mapping[str, object] | None) -> bytes:
    """Return canonical metadata."""
    return canonical_metadata(document)


def filter_bytes(where: object) -> bytes:
    """Return the canonical JSON of a filter given as the value that a client sends."""
    tree = parse_filter(where)
    assert tree is not None
    return filter_to_json(tree)


def upsert(
    key: str, number: int, document: Mapping[str, object] | None = None, *, dimension: int = DIMENSION
) -> Upsert:
    """Return an upsert of pool vector `number`; of a sparse vector where `dimension` is 0."""
    if not dimension:
        return Upsert(key, b"", sparse(number), metadata(document))
    return Upsert(key, dense(number, dimension).tobytes(), None, metadata(document))


def update(key: str, document: Mapping[str, object]) -> Update:
    """Return an update of metadata only."""
    return Update(key, None, None, metadata(document))


def update_where(where: object, document: Mapping[str, object]) -> UpdateWhere:
    """Return an update by filter."""
    return UpdateWhere(filter_bytes(where), metadata(document))


def delete_where(where: object) -> DeleteWhere:
    """Return a delete by filter."""
    return DeleteWhere(filter_bytes(where))


def upserts(keys: Iterable[str], first: int = 0, *, dimension: int = DIMENSION) -> list[Upsert]:
    """Return upserts of `keys` with pool vectors from `first` on and a number `n` in their metadata."""
    return [
        upsert(key, number, {"n": number % 5, "g": "xyz"[number % 3]}, dimension=dimension)
        for number, key in enumerate(keys, first)
    ]
