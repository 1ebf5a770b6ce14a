"""The graph door: the only module that knows hnswlib (https://github.com/nmslib/hnswlib).

House rules, each from a measured trap of hnswlib 0.8.0: a served graph is never changed; a save is checked against
the expected size, since the library ignores write errors; never ask for more rows than there are, since its exception
leaks; `ef` is not in the file, so it is set at load.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import hnswlib
import numpy as np
import numpy.typing as npt

from schemas.errors import CorruptData
from schemas.indexes import Metric

__all__ = ["Graph", "GraphOptions", "build_graph"]

_SPACES = {Metric.COSINE: "cosine", Metric.DOTPRODUCT: "ip", Metric.EUCLIDEAN: "l2"}


@dataclass(frozen=True, slots=True)
class GraphOptions:
    """How graphs are built and searched.

    `m` links per row, `ef_construction` and `ef_search` candidates (Malkov and Yashunin, arXiv 1603.09320).
    One thread with a fixed seed makes the same bytes every time; more threads build faster.
    """

    m: int = 16
    ef_construction: int = 200
    ef_search: int = 200
    seed: int = 100
    threads: int = 1


def build_graph(vectors: npt.NDArray[np.float32], metric: Metric, options: GraphOptions, file: Path) -> None:
    """Build a graph over `vectors` (float32 [n, dimension]; row number = label) and write it to `file`.

    Raises `CorruptData` where the file is not as long as the library says it must be (a full disk).
    """
    index = hnswlib.Index(space=_SPACES[metric], dim=vectors.shape[1])
    index.init_index(
        max_elements=len(vectors), M=options.m, ef_construction=options.ef_construction, random_seed=options.seed
    )
    index.add_items(vectors, np.arange(len(vectors)), num_threads=options.threads)
    index.save_index(str(file))
    expected = index.index_file_size()
    if file.stat().st_size != expected:
        raise CorruptData(f"A graph was saved with {file.stat().st_size} of {expected} bytes: is the disk full?")


class Graph:
    """A loaded graph. Searching is safe from several threads."""

    def __init__(self, file: Path, *, rows: int, dimension: int, metric: Metric, ef_search: int) -> None:
        """Load `file`, whose digest was verified. Raises `CorruptData` where it does not hold `rows` rows."""
        self._index = hnswlib.Index(space=_SPACES[metric], dim=dimension)
        try:
            self._index.load_index(str(file))
        except RuntimeError as error:
            raise CorruptData(f"A graph cannot be loaded: {error}.", name=file.name) from error
        if self._index.get_current_count() != rows:
            raise CorruptData(f"A graph holds {self._index.get_current_count()} rows, expected {rows}.", name=file.name)
        self._rows = rows
        self._index.set_ef(ef_search)
        self._index.set_num_threads(1)

    def search(self, query: npt.NDArray[np.float32], rows_wanted: int) -> npt.NDArray[np.int64] | None:
        """Return up to `rows_wanted` row numbers near `query`, best first; None where the graph cannot reach as many.

        The library looks at max(ef_search, rows_wanted) candidates.
        """
        wanted = min(rows_wanted, self._rows)
        try:
            labels, _ = self._index.knn_query(query[np.newaxis], k=wanted)
        except RuntimeError:
            return None
        rows: npt.NDArray[np.int64] = labels[0].astype(np.int64)
        return rows
