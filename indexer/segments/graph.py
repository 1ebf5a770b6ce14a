"""A graph object as columns: links, and the rows' vectors as bytes; the same whichever engine built it or walks it.

The vectors themselves are not in it: they lie in the segment's vector object, one row per element. Elements from the
segment's row count on died before it was written; they only lead the way (a graph that is extended keeps them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.segments.container import Container
from schemas.errors import CorruptData

__all__ = [
    "EF_SEARCH",
    "NO_LINK",
    "Codes",
    "GraphOptions",
    "Links",
    "codes_lead",
    "codes_of",
    "encode_codes",
    "links_of",
    "sections_of",
]

# An unused place in a list of links.
NO_LINK = 0xFFFFFFFF
# Candidates of a graph that is too small to be measured, or that the stock engine built.
EF_SEARCH = 200
_CODE_MAX = 127
_CHUNK_ROWS = 8192
# Whether codes tell neighbours apart is looked at for so many rows, and so many neighbours of each.
_LOOKED_AT_ROWS, _LOOKED_AT_LINKS = 256, 8
# What codes lose of two neighbours, at most, of the distance between them.
_LOST_SHARE_MAX = 0.2


@dataclass(frozen=True, slots=True)
class GraphOptions:
    """How graphs are built and searched.

    `m` links per element, twice as many at level 0, and `ef_construction` candidates while building (Malkov and
    Yashunin, arXiv 1603.09320). `ef_search` candidates while searching; 0 = as many as the index's recall target
    needs, measured on each new graph. One thread with a fixed seed makes the same bytes every time; more threads build
    faster. `engine` is `auto`, `native` or `stock`.
    """

    m: int = 16
    ef_construction: int = 200
    ef_search: int = 0
    seed: int = 100
    threads: int = 1
    engine: str = "auto"


@dataclass(frozen=True, slots=True)
class Links:
    """A graph without its vectors, uint32 throughout; unused places hold `NO_LINK` and come last in their list.

    `level0` [elements, 2 m]; `upper_nodes` [u] are the elements with levels above 0, ascending, and
    `upper[upper_starts[i]:upper_starts[i + 1]]` [levels, m] their lists at levels 1, 2, ...
    """

    level0: npt.NDArray[np.uint32]
    upper_nodes: npt.NDArray[np.uint32]
    upper_starts: npt.NDArray[np.uint32]
    upper: npt.NDArray[np.uint32]
    entry: int
    top_level: int

    @property
    def elements(self) -> int:
        """Elements, dead ones included."""
        return len(self.level0)

    @property
    def m(self) -> int:
        """Links per element above level 0."""
        return int(self.upper.shape[1])


@dataclass(frozen=True, slots=True)
class Codes:
    """Vectors as one byte per number: about `values` (int8 [rows, d]) times `scales` (float32 [rows]).

    `errors` (float32 [rows]) bounds the length of the difference, so that a scan over codes knows which rows it has to
    look at exactly.
    """

    values: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    errors: npt.NDArray[np.float32]


def encode_codes(vectors: npt.NDArray[np.float32]) -> Codes:
    """Return the codes of `vectors` (float32 [n, d])."""
    rows, dimension = vectors.shape
    codes = Codes(np.empty((rows, dimension), np.int8), np.empty(rows, np.float32), np.empty(rows, np.float32))
    for begin in range(0, rows, _CHUNK_ROWS):
        chunk = vectors[begin : begin + _CHUNK_ROWS]
        end = begin + len(chunk)
        scales = np.abs(chunk).max(axis=1) / np.float32(_CODE_MAX)
        # A row of zeros, or of numbers too small to be divided by: its code is zero and its error its length.
        scales[~(scales > np.finfo(np.float32).tiny)] = 1
        values = np.rint(chunk / scales[:, np.newaxis])
        differences = chunk.astype(np.float64) - values.astype(np.float64) * scales[:, np.newaxis]
        codes.values[begin:end] = values
        codes.scales[begin:end] = scales
        # Rounded up: a bound.
        codes.errors[begin:end] = np.sqrt(np.einsum("ij,ij->i", differences, differences)) * 1.000001
    return codes


def codes_lead(codes: Codes, links: Links) -> bool:
    """Say whether a walk can go by `codes`: what they lose is small beside the distance of a row to its neighbours.

    It is not where rows lie close together and far from zero. Both the rows and their directions are looked at, since
    one of them is what the index's metric compares.
    """
    rows = len(codes.values)
    chosen = np.unique(np.linspace(0, rows - 1, min(rows, _LOOKED_AT_ROWS)).astype(np.int64))
    near = links.level0[chosen, :_LOOKED_AT_LINKS].astype(np.int64)
    # An unused place, or an element that died and has no code, stands for the row itself and is left out below.
    near = np.where(near < rows, near, chosen[:, np.newaxis])
    # Squares of what a float32 holds fit a float64; what damage made of the numbers leads nowhere.
    with np.errstate(all="ignore"):
        return _lost_share(codes, chosen, near) <= _LOST_SHARE_MAX


def _lost_share(codes: Codes, chosen: npt.NDArray[np.int64], near: npt.NDArray[np.int64]) -> float:
    """Return what the codes of rows (int64 [n]) and their neighbours (int64 [n, links]) lose of the distances, median.

    The rows themselves among their neighbours are left out; infinity where that leaves none.
    """
    here, there = codes.values[chosen].astype(np.float64), codes.values[near].astype(np.float64)
    here *= codes.scales[chosen, np.newaxis]
    there *= codes.scales[near, np.newaxis]
    lost = codes.errors[chosen, np.newaxis] + codes.errors[near]
    distances = np.linalg.norm(here[:, np.newaxis] - there, axis=2)
    # Of unit length, which makes the loss that much larger or smaller; a row of zeros has no direction.
    tiny = np.finfo(np.float32).tiny
    long_here, long_there = np.linalg.norm(here, axis=1, keepdims=True), np.linalg.norm(there, axis=2)
    here /= np.maximum(long_here, tiny)
    there /= np.maximum(long_there, tiny)[:, :, np.newaxis]
    lost_of_unit = codes.errors[chosen, np.newaxis] / np.maximum(long_here, tiny) + codes.errors[near] / np.maximum(
        long_there, tiny
    )
    angles = np.linalg.norm(here[:, np.newaxis] - there, axis=2)
    other = near != chosen[:, np.newaxis]
    if not other.any():
        return np.inf
    worst = np.maximum(lost / np.maximum(distances, tiny), lost_of_unit / np.maximum(angles, tiny))
    return float(np.median(worst[other]))


def sections_of(links: Links, codes: Codes) -> dict[str, bytes | npt.NDArray[Any]]:
    """Return the sections of a graph object."""
    return {
        "graph_head": np.array([links.m, links.entry, links.top_level], np.uint32),
        "graph_links": links.level0,
        "graph_upper_nodes": links.upper_nodes,
        "graph_upper_starts": links.upper_starts,
        "graph_upper_links": links.upper,
        "code_values": codes.values,
        "code_scales": codes.scales,
        "code_errors": codes.errors,
    }


def links_of(container: Container) -> Links:
    """Return the links in place. Raises `CorruptData` where the sections do not fit each other.

    Whether the numbers in them point inside is for the engine to check before it walks.
    """
    head = container.column("graph_head", "<u4")
    level0 = container.column("graph_links", "<u4")
    nodes = container.column("graph_upper_nodes", "<u4")
    starts = container.column("graph_upper_starts", "<u4")
    upper = container.column("graph_upper_links", "<u4")
    m = int(head[0]) if len(head) == 3 else 0
    if not 0 < m <= 10_000 or len(level0) != container.rows * 2 * m or len(starts) != len(nodes) + 1 or len(upper) % m:
        raise CorruptData("A graph's sections do not fit each other.")
    return Links(level0.reshape(-1, 2 * m), nodes, starts, upper.reshape(-1, m), int(head[1]), int(head[2]))


def codes_of(container: Container, rows: int, dimension: int) -> Codes:
    """Return the codes in place. Raises `CorruptData` where they are not those of `rows` rows."""
    values = container.column("code_values", "<i1")
    scales = container.column("code_scales", "<f4")
    errors = container.column("code_errors", "<f4")
    if len(values) != rows * dimension or len(scales) != rows or len(errors) != rows:
        raise CorruptData("A graph's codes do not fit its rows.")
    return Codes(values.reshape(rows, dimension), scales, errors)
