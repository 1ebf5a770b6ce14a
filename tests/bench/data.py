"""What is measured on: the WordNet set where it lies beside the checkout, else clustered synthetic vectors."""

from __future__ import annotations

import gzip
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"
_VECTORS = _FOLDER / "wordnet-minilm-384-int8.npy"
_METADATA = _FOLDER / "wordnet.jsonl.gz"


@dataclass(frozen=True)
class DataSet:
    """Unit vectors float32 [n, d], one metadata object a row, and query vectors float32 [q, d] that are no rows."""

    name: str
    vectors: np.ndarray
    metadata: list[dict]
    queries: np.ndarray


def load(rows: int, *, queries: int = 500, seed: int = 7) -> DataSet:
    """Return `rows` rows; the queries are rows of the set that are left out."""
    rng = np.random.default_rng(seed)
    if _VECTORS.exists():
        coded = np.load(_VECTORS, mmap_mode="r")
        chosen = rng.permutation(len(coded))[: rows + queries]
        vectors = coded[np.sort(chosen)].astype(np.float32)
        with gzip.open(_METADATA, "rt") as file:
            lines = [json.loads(line) for line in itertools.islice(file, len(coded))]
        metadata = [_flat(lines[i]) for i in np.sort(chosen).tolist()]
        name = "WordNet glosses, MiniLM, 384 dimensions"
    else:
        centres = rng.standard_normal((200, 384)).astype(np.float32)
        which = rng.integers(0, len(centres), rows + queries)
        vectors = centres[which] + 0.6 * rng.standard_normal((rows + queries, 384)).astype(np.float32)
        metadata = [{"cluster": int(c)} for c in which]
        name = "synthetic clusters, 384 dimensions (the WordNet set is not here)"
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = rng.permutation(len(vectors))
    asked, kept = order[:queries], order[queries : queries + rows]
    return DataSet(name, vectors[kept], [metadata[i] for i in kept.tolist()], vectors[asked])


def true_neighbours(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Return the row numbers of the k nearest rows by inner product: int [q, k]."""
    return np.argsort(-(queries @ vectors.T), axis=1)[:, :k]


def _flat(document: dict) -> dict:
    return {
        key: value
        for key, value in document.items()
        if isinstance(value, str | int | float | bool) or _is_strings(value)
    }


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
