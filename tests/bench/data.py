"""What is measured on: the WordNet set where it lies beside the checkout, else clustered synthetic vectors."""

from __future__ import annotations

import gzip
import itertools
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

__all__ = ["DataSet", "clustered", "load", "true_neighbours"]

_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"
_VECTORS = _FOLDER / "wordnet-minilm-384-int8.npy"
_METADATA = _FOLDER / "wordnet.jsonl.gz"
_BLOCK_ROWS = 65_536
# Of a synthetic set: rows of a cluster lie in a space of so few dimensions around their centre, as real ones do.
_INNER_DIMENSIONS = 32
_CENTRES = 200
# Length of what is added to a query that is unlike the rows, relative to the query.
_FOREIGN_NOISE = 0.4


@dataclass(frozen=True)
class DataSet:
    """Unit vectors float32 [n, d], one metadata object a row, and queries float32 [q, d] that are no rows.

    `foreign` are queries unlike the rows: the middle of two rows of different groups (of WordNet: different
    lexicographer files), moved at random. They stand for queries from another source of text than the rows.
    """

    name: str
    vectors: np.ndarray
    metadata: list[dict]
    queries: np.ndarray
    foreign: np.ndarray


@lru_cache(maxsize=2)
def load(rows: int, *, queries: int = 500, seed: int = 7) -> DataSet:
    """Return `rows` rows; the queries are rows of the set that are left out."""
    if not _VECTORS.exists():
        return clustered(rows, 384, queries=queries, seed=seed)
    rng = np.random.default_rng(seed)
    coded = np.load(_VECTORS, mmap_mode="r")
    if rows + queries > len(coded):
        raise ValueError(f"The set has {len(coded)} rows, not {rows} and {queries} queries.")
    chosen = np.sort(rng.permutation(len(coded))[: rows + queries])
    vectors = _unit(coded[chosen].astype(np.float32))
    with gzip.open(_METADATA, "rt") as file:
        lines = [json.loads(line) for line in itertools.islice(file, len(coded))]
    metadata = [_flat(lines[i]) for i in chosen.tolist()]
    return _split("WordNet glosses, MiniLM, 384 dimensions", vectors, metadata, "lexfile", (rows, queries, rng))


@lru_cache(maxsize=2)
def clustered(rows: int, dimension: int, *, queries: int = 500, seed: int = 7) -> DataSet:
    """Return synthetic rows in clusters."""
    rng = np.random.default_rng(seed)
    count = rows + queries
    centres = rng.standard_normal((_CENTRES, dimension)).astype(np.float32)
    inner = min(_INNER_DIMENSIONS, dimension)
    spread = rng.standard_normal((_CENTRES, inner, dimension)).astype(np.float32) / np.sqrt(inner)
    which = np.sort(rng.integers(0, _CENTRES, count))
    vectors = np.empty((count, dimension), np.float32)
    for cluster in range(_CENTRES):
        begin, end = np.searchsorted(which, [cluster, cluster + 1])
        offsets = rng.standard_normal((end - begin, inner)).astype(np.float32)
        vectors[begin:end] = centres[cluster] + 0.8 * (offsets @ spread[cluster])
    name = f"synthetic clusters, {dimension} dimensions"
    return _split(name, _unit(vectors), [{"cluster": int(c)} for c in which], "cluster", (rows, queries, rng))


def true_neighbours(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Return the row numbers of the k nearest rows by inner product, best first: int [q, k]."""
    best_score = np.empty((len(queries), 0), np.float32)
    best_row = np.empty((len(queries), 0), np.int64)
    for begin in range(0, len(vectors), _BLOCK_ROWS):
        scores = queries @ vectors[begin : begin + _BLOCK_ROWS].T
        rows = np.broadcast_to(np.arange(begin, begin + scores.shape[1]), scores.shape)
        scores, rows = np.hstack([best_score, scores]), np.hstack([best_row, rows])
        order = np.argpartition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]
        best_score = np.take_along_axis(scores, order, axis=1)
        best_row = np.take_along_axis(rows, order, axis=1)
    return np.take_along_axis(best_row, np.argsort(-best_score, axis=1), axis=1)


def _split(
    name: str, vectors: np.ndarray, metadata: list[dict], group: str, drawn: tuple[int, int, np.random.Generator]
) -> DataSet:
    rows, queries, rng = drawn
    order = rng.permutation(len(vectors))
    asked, kept = order[:queries], order[queries : queries + rows]
    kept_metadata = [metadata[i] for i in kept.tolist()]
    foreign = _foreign(vectors[kept], [document[group] for document in kept_metadata], queries, rng)
    return DataSet(name, vectors[kept], kept_metadata, vectors[asked], foreign)


def _foreign(vectors: np.ndarray, groups: list, queries: int, rng: np.random.Generator) -> np.ndarray:
    made = []
    while len(made) < queries:
        one, other = rng.integers(0, len(vectors), 2).tolist()
        if groups[one] != groups[other]:
            noise = rng.standard_normal(vectors.shape[1])
            middle = _unit((vectors[one] + vectors[other])[np.newaxis])[0]
            made.append(middle + _FOREIGN_NOISE * noise / np.linalg.norm(noise))
    return _unit(np.array(made, np.float32))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _flat(document: dict) -> dict:
    return {
        key: value
        for key, value in document.items()
        if isinstance(value, str | int | float | bool) or _is_strings(value)
    }


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
