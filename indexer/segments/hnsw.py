"""The stock door: the only module that knows the hnswlib module (https://github.com/nmslib/hnswlib).

It stands in where the native engine is missing or switched off, and is what that engine is compared to. Links go in and
out through the library's file format, in a temporary file. House rules, each from a measured trap of hnswlib 0.8.0: a
served graph is never changed; a save is checked against the expected size, since the library ignores write errors;
never ask for more rows than there are, since its exception leaks; `ef` is set on the loaded graph.
"""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import hnswlib
import numpy as np
import numpy.typing as npt

from indexer.segments.graph import NO_LINK, GraphOptions, Links
from schemas.errors import CorruptData
from schemas.indexes import Metric

__all__ = ["StockGraph", "build_stock"]

_SPACES = {Metric.COSINE: "cosine", Metric.DOTPRODUCT: "ip", Metric.EUCLIDEAN: "l2"}
# The head of the library's files: offset of level 0, capacity, count, bytes per element, offsets of label and vector,
# top level, entry, links per element above level 0 and at it, M, level factor, ef of the build (hnswalg.h, saveIndex).
_HEAD = struct.Struct("<QQQQQQiIQQQdQ")
# The third byte of an element's link count.
_DELETED = 0x10000


def build_stock(vectors: npt.NDArray[np.float32], metric: Metric, options: GraphOptions) -> Links:
    """Build a graph over `vectors` (float32 [n, dimension]) and return its links.

    Raises `CorruptData` where the library's file is not as long as it says it must be (a full disk).
    """
    index = hnswlib.Index(space=_SPACES[metric], dim=vectors.shape[1])
    index.init_index(
        max_elements=len(vectors), M=options.m, ef_construction=options.ef_construction, random_seed=options.seed
    )
    index.add_items(vectors, np.arange(len(vectors)), num_threads=options.threads)
    with tempfile.TemporaryDirectory(prefix="freshet-graph-") as folder:
        file = Path(folder) / "graph"
        index.save_index(str(file))
        expected = index.index_file_size()
        if file.stat().st_size != expected:
            raise CorruptData(f"A graph was saved with {file.stat().st_size} of {expected} bytes: is the disk full?")
        return _read(file.read_bytes())


class StockGraph:
    """A loaded graph. Searching is safe from several threads."""

    def __init__(self, links: Links, vectors: npt.NDArray[np.float32], rows: int, metric: Metric, ef: int) -> None:
        """Load `links` over `vectors` (float32 [elements, d]), of which those from `rows` on are dead.

        Raises `CorruptData` where a link points outside.
        """
        _check(links, rows)
        self.ef = ef
        self._rows = rows
        with tempfile.TemporaryDirectory(prefix="freshet-graph-") as folder:
            file = Path(folder) / "graph"
            file.write_bytes(_written(links, _stored(vectors, metric), rows))
            self._index = hnswlib.Index(space=_SPACES[metric], dim=vectors.shape[1])
            self._index.load_index(str(file))
        self._index.set_ef(ef)
        self._index.set_num_threads(1)

    def search(self, query: npt.NDArray[np.float32], rows_wanted: int) -> npt.NDArray[np.int64] | None:
        """Return up to `rows_wanted` row numbers near `query`, best first; None where the graph cannot reach as many.

        The library looks at max(ef, rows_wanted) candidates.
        """
        wanted = min(rows_wanted, self._rows)
        try:
            labels, _ = self._index.knn_query(query[np.newaxis], k=wanted)
        except RuntimeError:
            return None
        rows: npt.NDArray[np.int64] = labels[0].astype(np.int64)
        return rows


def _check(links: Links, rows: int) -> None:
    level0, nodes, starts, upper = links.level0, links.upper_nodes, links.upper_starts, links.upper
    elements = links.elements
    levels = np.zeros(elements, np.int64)
    steps = starts[1:].astype(np.int64) - starts[:-1]
    sound = 0 < rows <= elements > links.entry and len(starts) and starts[0] == 0 and starts[-1] == len(upper)
    sound = sound and bool((steps > 0).all()) and bool((nodes < elements).all())
    sound = sound and bool((np.diff(nodes.astype(np.int64)) > 0).all())
    if sound:
        levels[nodes] = steps
        outside = (level0 >= elements) & (level0 != NO_LINK)
        own = np.arange(len(upper)) - np.repeat(starts[:-1].astype(np.int64), steps) + 1
        used = upper != NO_LINK
        reach = np.where(used & (upper < elements), levels[np.where(upper < elements, upper, 0)], -1)
        sound = not outside.any() and levels[links.entry] == links.top_level
        sound = sound and bool(((reach >= own[:, np.newaxis]) | ~used).all())
    if not sound:
        raise CorruptData("A graph's links point outside of it.")


def _stored(vectors: npt.NDArray[np.float32], metric: Metric) -> npt.NDArray[np.float32]:
    """Return the vectors as the library keeps them: of length 1 for cosine."""
    if metric is not Metric.COSINE:
        return vectors
    # Squares may be more than a float32 holds: such a row is 0, as it ranks.
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def _element(m0: int, dimension: int) -> np.dtype[np.void]:
    return np.dtype([("count", "<u4"), ("links", "<u4", (m0,)), ("vector", "<f4", (dimension,)), ("label", "<u8")])


def _written(links: Links, vectors: npt.NDArray[np.float32], rows: int) -> bytes:
    """Return the library's file of a graph."""
    elements, m0 = links.level0.shape
    m, dimension = links.m, vectors.shape[1]
    kind = _element(m0, dimension)
    records = np.zeros(elements, kind)
    used = links.level0 != NO_LINK
    records["count"] = used.sum(axis=1)
    records["count"][rows:] |= _DELETED
    records["links"] = np.where(used, links.level0, 0)
    records["vector"] = vectors
    records["label"] = np.arange(elements)
    label, vector = kind.fields["label"][1], kind.fields["vector"][1]  # type: ignore[index] # it has fields
    head = _HEAD.pack(
        *(0, elements, elements, kind.itemsize, label, vector, links.top_level, links.entry),
        *(m, m0, m, 1 / np.log(m) if m > 1 else 1.0, 200),
    )
    lists = np.zeros((len(links.upper), m + 1), np.uint32)
    used = links.upper != NO_LINK
    lists[:, 0] = used.sum(axis=1)
    lists[:, 1:] = np.where(used, links.upper, 0)
    sizes = np.zeros(elements, np.int64)
    sizes[links.upper_nodes] = np.diff(links.upper_starts.astype(np.int64)) * lists.itemsize * (m + 1)
    tail, at = [], 0
    for size in sizes.tolist():
        tail.append(struct.pack("<I", size))
        if size:
            count = size // (lists.itemsize * (m + 1))
            tail.append(lists[at : at + count].tobytes())
            at += count
    return b"".join([head, records.tobytes(), *tail])


def _read(data: bytes) -> Links:
    """Return the links of the library's file, by label."""
    _, _, count, size, label, vector, top_level, entry, m, m0, *_ = _HEAD.unpack_from(data)
    kind = _element(m0, (label - vector) // 4)
    records = np.frombuffer(data, kind, count, _HEAD.size)
    labels = records["label"].astype(np.uint32)
    level0 = np.full((count, m0), NO_LINK, np.uint32)
    level0[labels] = _relabelled(records["links"], records["count"], labels)
    at = _HEAD.size + count * size
    found: list[tuple[int, npt.NDArray[np.uint32]]] = []
    for element in range(count):
        (length,) = struct.unpack_from("<I", data, at)
        if length:
            lists = np.frombuffer(data, "<u4", length // 4, at + 4).reshape(-1, m + 1)
            found.append((int(labels[element]), _relabelled(lists[:, 1:], lists[:, 0], labels)))
        at += 4 + length
    found.sort(key=lambda item: item[0])
    starts = np.cumsum([0, *(len(lists) for _, lists in found)]).astype(np.uint32)
    upper = np.concatenate([lists for _, lists in found]) if found else np.empty((0, m), np.uint32)
    nodes = np.array([node for node, _ in found], np.uint32)
    return Links(level0, nodes, starts, upper, int(labels[entry]), max(0, top_level))


def _relabelled(
    lists: npt.NDArray[np.uint32], counts: npt.NDArray[np.uint32], labels: npt.NDArray[np.uint32]
) -> npt.NDArray[np.uint32]:
    used = np.arange(lists.shape[1]) < (counts & 0xFFFF)[:, np.newaxis]
    return np.where(used, labels[lists], np.uint32(NO_LINK)).astype(np.uint32)
