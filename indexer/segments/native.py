"""The native engine: searches and builds in C++, called without the interpreter lock (sources in `cpp/`).

It is compiled beside hnswlib when the environment is made, against the headers of the pinned hnswlib release. Where it
is missing or of another version, `load_engine` says why and the stock module takes its place.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from indexer.segments.graph import Codes, GraphOptions, Links, codes_lead
from schemas.errors import CorruptData
from schemas.indexes import Metric
from schemas.records import Sparse

__all__ = [
    "ENGINE_FILE",
    "HIT",
    "SCAN",
    "SLICE",
    "SPARSE",
    "WALK",
    "Engine",
    "NativeBuilder",
    "NativeGraph",
    "SearchJob",
    "load_engine",
    "slices_of",
]

ENGINE_FILE = Path(sys.prefix) / "lib" / "freshet" / "engine.so"

_INTERFACE = 3
_METRICS = {Metric.COSINE: 0, Metric.DOTPRODUCT: 1, Metric.EUCLIDEAN: 2}
# `Plan` of search.h.
SCAN, WALK, SPARSE = 0, 1, 2
# The structures of search.h.
SLICE = np.dtype(
    [
        ("vectors", "<u8"),
        ("norms", "<u8"),
        ("mask", "<u8"),
        ("graph", "<u8"),
        ("codes", "<u8"),
        ("rows", "<u4"),
        ("allowed", "<u4"),
        ("plan", "<u4"),
        ("ef", "<u4"),
        ("budget", "<u4"),
        ("found", "<u4"),
        ("evaluated", "<u8"),
        ("nanoseconds", "<u8"),
        ("sparse", "<u8"),
        ("first", "<u8"),
    ]
)
HIT = np.dtype([("rank", "<f8"), ("slice", "<u4"), ("row", "<u4")])
# `Code` of engine.cpp.
_OUT_OF_MEMORY, _MISTAKEN = 1, 4
# Hits beyond the wanted ones that tie with the last of them.
_TIES_ROOM = 64
# Indices and values of no sparse part.
_NOTHING = np.empty(0, np.uint32), np.empty(0, np.float32)


class _Graph(ctypes.Structure):
    """`Graph` of graph.h."""

    _fields_ = (
        ("links", ctypes.c_void_p),
        ("upper_nodes", ctypes.c_void_p),
        ("upper_starts", ctypes.c_void_p),
        ("upper_links", ctypes.c_void_p),
        ("elements", ctypes.c_uint32),
        ("rows", ctypes.c_uint32),
        ("upper", ctypes.c_uint32),
        ("upper_lists", ctypes.c_uint32),
        ("m0", ctypes.c_uint32),
        ("m", ctypes.c_uint32),
        ("entry", ctypes.c_uint32),
        ("top_level", ctypes.c_uint32),
    )


class _Codes(ctypes.Structure):
    """`Codes` of distance.h."""

    _fields_ = (
        ("bytes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("errors", ctypes.c_void_p),
        ("leads", ctypes.c_uint32),
    )


class NativeGraph:
    """Links that were checked, as the engine sees them. Safe to walk from several threads; nothing is copied."""

    def __init__(self, engine: Engine, links: Links, rows: int, ef: int, codes: Codes | None = None) -> None:
        """Check `links` over `rows` live rows; `ef` candidates reach the recall target.

        Raises `CorruptData` where a number points outside.
        """
        self.ef = ef
        self.elements = links.elements
        self._memory = (links, codes)  # what the pointers below point to
        self._view = _Graph(
            links.level0.ctypes.data,
            links.upper_nodes.ctypes.data,
            links.upper_starts.ctypes.data,
            links.upper.ctypes.data,
            links.elements,
            rows,
            len(links.upper_nodes),
            len(links.upper),
            links.level0.shape[1],
            links.m,
            links.entry,
            links.top_level,
        )
        self.address = ctypes.addressof(self._view)
        self.codes_address = 0
        if codes is not None:
            places = [array.ctypes.data for array in (codes.values, codes.scales, codes.errors)]
            self._codes = _Codes(*places, codes_lead(codes, links))
            self.codes_address = ctypes.addressof(self._codes)
        engine.check(self)


class _Job(ctypes.Structure):
    """`Job` of pool.h."""

    _fields_ = (
        ("slices", ctypes.c_void_p),
        ("query", ctypes.c_void_p),
        ("sparse_indices", ctypes.c_void_p),
        ("sparse_values", ctypes.c_void_p),
        ("hits", ctypes.c_void_p),
        ("ticket", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("dimension", ctypes.c_uint32),
        ("sparse_count", ctypes.c_uint32),
        ("metric", ctypes.c_uint32),
        ("wanted", ctypes.c_uint32),
        ("room", ctypes.c_uint32),
        ("found", ctypes.c_uint32),
        ("tied", ctypes.c_uint32),
        ("code", ctypes.c_int32),
    )


class SearchJob:
    """A search of `slices` (`SLICE` [n], whose last fields it fills in) for the best `wanted` rows, and its result.

    `query` is float32 [d], in C order; None for a query that is `sparse` alone. The memory that the slices point to
    must stay alive until it is done: `owner` is kept for that.
    """

    __slots__ = ("_hits", "_memory", "_view", "address")

    def __init__(
        self,
        slices: npt.NDArray[np.void],
        query: npt.NDArray[np.float32] | None,
        metric: Metric,
        wanted: int,
        *,
        sparse: Sparse | None = None,
        owner: object = None,
    ) -> None:
        room = wanted + _TIES_ROOM
        self._hits = np.empty(room, HIT)
        indices, values = _NOTHING if sparse is None else map(np.ascontiguousarray, (sparse.indices, sparse.values))
        self._memory = (slices, query, indices, values, owner)  # what the pointers below point to
        place, dimension = (None, 0) if query is None else (query.ctypes.data, len(query))
        places = (slices.ctypes.data, place, indices.ctypes.data, values.ctypes.data, self._hits.ctypes.data)
        numbers = (len(slices), dimension, len(indices), _METRICS[metric], wanted, room)
        self._view = _Job(*places, 0, *numbers, 0, 0, 0)
        self.address = ctypes.addressof(self._view)

    def ticketed(self, ticket: int) -> int:
        """Mark the job with a number and return its address."""
        self._view.ticket = ticket
        return self.address

    def hits(self) -> tuple[npt.NDArray[np.void], bool]:
        """Return what was found, as `Engine.search` does. Raises `MemoryError`."""
        _raise_for(self._view.code)
        return self._hits[: self._view.found], bool(self._view.tied)


class Engine:
    """The compiled library."""

    def __init__(self, file: Path) -> None:
        """Load `file`. Raises `OSError`, also where it is of another version than this module."""
        library = ctypes.CDLL(str(file))
        library.freshet_interface.restype = ctypes.c_uint32
        if library.freshet_interface() != _INTERFACE:
            raise OSError(f"{file} is of another version: make the environment again.")
        pointer, number, text = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int32
        signatures = {
            "check": (pointer,),
            "search": (pointer,),
            "pool_new": (number, text, pointer),
            "pool_submit": (pointer, pointer),
            "ranks": (pointer, number, pointer),
            "builder_new": (pointer, number, number, number, number, number, number, pointer),
            "builder_load": (pointer, pointer, pointer, number, number),
            "builder_add": (pointer, pointer, number, number),
            "builder_measure": (pointer, pointer),
            "builder_write": (pointer, pointer, pointer, pointer, pointer),
        }
        for name, types in signatures.items():
            function = getattr(library, f"freshet_{name}")
            function.argtypes = types
            function.restype = text
        for name in ("builder_free", "pool_free"):
            getattr(library, f"freshet_{name}").argtypes = (pointer,)
            getattr(library, f"freshet_{name}").restype = None
        library.freshet_pool_take.argtypes = (pointer, pointer, number)
        library.freshet_pool_take.restype = number
        self.native = library

    def check(self, graph: NativeGraph) -> None:
        """Raise `CorruptData` where a link of `graph` points outside of it."""
        if self.native.freshet_check(graph.address):
            raise CorruptData("A graph's links point outside of it.")

    def search(
        self, slices: npt.NDArray[np.void], query: npt.NDArray[np.float32], metric: Metric, wanted: int
    ) -> tuple[npt.NDArray[np.void], bool]:
        """Search `slices` (`SLICE` [n], whose last fields are filled in) for the best `wanted` rows.

        Return them (`HIT`, best first, with those that tie with the last) and whether more of that rank were left out.
        The memory that the slices point to must stay alive. Raises `MemoryError`.
        """
        job = SearchJob(slices, query, metric, wanted)
        self.run(job)
        return job.hits()

    def run(self, job: SearchJob) -> None:
        """Carry out a search here and now, without the interpreter lock."""
        self.native.freshet_search(job.address)

    def ranks(
        self,
        part: npt.NDArray[np.void],
        query: npt.NDArray[np.float32] | None,
        metric: Metric,
        sparse: Sparse | None = None,
    ) -> npt.NDArray[np.float64]:
        """Rank every row of a slice (`SLICE` [1]) against a query: float64 [rows].

        A row that the plan `SPARSE` leaves out has no rank: NaN.
        """
        ranks = np.empty(int(part[0]["rows"]))
        job = SearchJob(part, query, metric, 0, sparse=sparse)
        _raise_for(self.native.freshet_ranks(job.address, 0, ranks.ctypes.data))
        return ranks

    def builder(
        self, vectors: npt.NDArray[np.float32], metric: Metric, options: GraphOptions, *, rows: int
    ) -> NativeBuilder:
        """Begin a graph over `vectors` (float32 [elements, d], C order), of which those from `rows` on are dead.

        Raises `ValueError` where `m` of the options is not between 2 and 10,000.
        """
        return NativeBuilder(self.native, vectors, metric, options, rows)


class NativeBuilder:
    """A graph in the making, by hnswlib's own algorithm. A context manager: it ends with the block."""

    def __init__(
        self,
        library: ctypes.CDLL,
        vectors: npt.NDArray[np.float32],
        metric: Metric,
        options: GraphOptions,
        rows: int,
    ) -> None:
        self._library = library
        self._vectors = np.ascontiguousarray(vectors, np.float32)
        self._options = options
        self._rows = rows
        self._handle = ctypes.c_void_p()
        elements, dimension = self._vectors.shape
        _raise_for(
            library.freshet_builder_new(
                self._vectors.ctypes.data,
                elements,
                dimension,
                _METRICS[metric],
                options.m,
                options.ef_construction,
                options.seed,
                ctypes.byref(self._handle),
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.freshet_builder_free(self._handle)
        self._handle = ctypes.c_void_p()

    def load(self, graph: NativeGraph, ids: npt.NDArray[np.uint32]) -> None:
        """Take over a checked graph of the same `m`, whose element i is number ids[i] now: uint32 [its elements].

        Raises `ValueError` where something was inserted before, `m` is another one, or the numbers are not so many
        different ones of the elements.
        """
        if len(ids) != graph.elements:
            raise ValueError(f"A graph of {graph.elements} elements was given {len(ids)} numbers.")
        numbers = np.ascontiguousarray(ids, np.uint32)
        code = self._library.freshet_builder_load(
            self._handle, graph.address, numbers.ctypes.data, self._rows, self._options.seed
        )
        _raise_for(code)

    def add(self, ids: npt.NDArray[np.uint32]) -> None:
        """Insert elements by their numbers: uint32 [n].

        Raises `ValueError` where a number is not one of the elements, or was given before.
        """
        numbers = np.ascontiguousarray(ids, np.uint32)
        code = self._library.freshet_builder_add(self._handle, numbers.ctypes.data, len(numbers), self._options.threads)
        _raise_for(code)

    def links(self) -> Links:
        """Return the links as they are now; elements that were not inserted have none.

        Raises `ValueError` where none was inserted.
        """
        sizes = _Graph()
        _raise_for(self._library.freshet_builder_measure(self._handle, ctypes.byref(sizes)))
        level0 = np.empty((sizes.elements, sizes.m0), np.uint32)
        nodes = np.empty(sizes.upper, np.uint32)
        starts = np.empty(sizes.upper + 1, np.uint32)
        upper = np.empty((sizes.upper_lists, sizes.m), np.uint32)
        places = [array.ctypes.data for array in (level0, nodes, starts, upper)]
        _raise_for(self._library.freshet_builder_write(self._handle, *places))
        return Links(level0, nodes, starts, upper, sizes.entry, sizes.top_level)


@lru_cache(maxsize=1)
def load_engine() -> Engine:
    """Return the engine, loaded once. Raises `OSError` where it is missing or of another version."""
    return Engine(ENGINE_FILE)


def slices_of(rows: Sequence[tuple[int, ...]]) -> npt.NDArray[np.void]:
    """Return slices from (vectors, norms, mask, graph, codes, rows, allowed, plan, ef, budget), pointers as numbers."""
    return np.array([(*row, 0, 0, 0, 0, 0) for row in rows], SLICE)


def _raise_for(code: int) -> None:
    if code == _OUT_OF_MEMORY:
        raise MemoryError("The native engine ran out of memory.")
    if code == _MISTAKEN:
        raise ValueError("The native engine was given numbers that are not those of a graph's elements.")
    if code:
        raise RuntimeError(f"The native engine failed with code {code}.")
