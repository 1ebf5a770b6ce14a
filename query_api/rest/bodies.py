"""Vectors out of a JSON body without an object per number: native code takes them out, the rest is parsed as ever.

It is compiled when the environment is made (sources in `cpp/`). Where it is missing, and for every body that it does
not understand, the JSON parser reads the whole body and says what is wrong.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import structlog

from schemas.limits import BATCH_RECORDS_MAX, DIMENSION_MAX

__all__ = ["BODIES_FILE", "Lifted", "Lifter", "find_lifter"]

BODIES_FILE = Path(sys.prefix) / "lib" / "freshet" / "bodies.so"

_log = structlog.get_logger(__name__)
_INTERFACE = 1
# What a row number may take more than the vector in whose place it stands (bodies.cpp).
_PLACE_BYTES = 12
# The shortest number and its comma.
_NUMBER_BYTES = 2
# Below, letting others run meanwhile costs more than it gives them.
_QUICK_BYTES = 64 * 1024

_Function = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Lifted:
    """A body whose vectors were taken out: `document` has a row number in the place of each, `rows` float32 [n, d]."""

    document: dict[str, object]
    rows: npt.NDArray[np.float32]

    @property
    def vector(self) -> npt.NDArray[np.float32] | None:
        """The one vector of a query, float32 [d]; None where the body has none."""
        return self.rows[0] if len(self.rows) else None


class _Task(ctypes.Structure):
    """`Task` of bodies.cpp."""

    _fields_ = (
        ("body", ctypes.c_char_p),
        ("size", ctypes.c_uint64),
        ("matrix", ctypes.c_void_p),
        ("rest", ctypes.c_void_p),
        ("rest_size", ctypes.c_uint64),
        ("dimension", ctypes.c_uint32),
        ("rows_max", ctypes.c_uint32),
        ("rows", ctypes.c_uint32),
    )


class _Scratch:
    """Room for what comes out of a body of up to `_QUICK_BYTES`, used again and again."""

    def __init__(self) -> None:
        self.matrix = ctypes.create_string_buffer(4 * (_QUICK_BYTES // _NUMBER_BYTES + DIMENSION_MAX))
        self.rest = ctypes.create_string_buffer(_QUICK_BYTES + _PLACE_BYTES * BATCH_RECORDS_MAX)
        places = (ctypes.addressof(self.matrix), ctypes.addressof(self.rest))
        self.task = _Task(None, 0, *places, 0, 0, 0, 0)
        self.address = ctypes.addressof(self.task)


class Lifter:
    """The compiled library. Safe to use from several threads."""

    def __init__(self, file: Path) -> None:
        """Load `file`. Raises `OSError`, also where it is of another version than this module."""
        # Loaded twice: one lets other threads run during a call, the other does not.
        patient, quick = ctypes.CDLL(str(file)), ctypes.PyDLL(str(file))
        patient.freshet_bodies_interface.restype = ctypes.c_uint32
        if patient.freshet_bodies_interface() != _INTERFACE:
            raise OSError(f"{file} is of another version: make the environment again.")
        self._upsert = (patient.freshet_lift_upsert, quick.freshet_lift_upsert)
        self._query = (patient.freshet_lift_query, quick.freshet_lift_query)
        for function in (*self._upsert, *self._query):
            function.argtypes = (ctypes.c_void_p,)
            function.restype = ctypes.c_int32
        self._free: list[_Scratch] = []

    def upsert(self, body: bytes, dimension: int) -> Lifted | None:
        """Take `vectors[].values` out, lists of `dimension` finite numbers each; None where there is anything else."""
        if not 0 < dimension <= DIMENSION_MAX:
            return None
        # Lists of so many numbers have so many bytes at least.
        most = min(BATCH_RECORDS_MAX, len(body) // (_NUMBER_BYTES * dimension) + 1)
        patient, quick = self._upsert
        if len(body) <= _QUICK_BYTES:
            return self._lift_quickly(quick, body, dimension, most)
        return _lift(patient, body, dimension, most)

    def query(self, body: bytes, dimension: int) -> Lifted | None:
        """Take `vector` out, likewise; a body without one has no rows."""
        if not 0 < dimension <= DIMENSION_MAX:
            return None
        patient, quick = self._query
        if len(body) <= _QUICK_BYTES:
            return self._lift_quickly(quick, body, dimension, 1)
        return _lift(patient, body, dimension, 1)

    def _lift_quickly(self, function: _Function, body: bytes, dimension: int, rows_max: int) -> Lifted | None:
        # Taken out while it is in use; where another thread has it, this one gets its own.
        try:
            scratch = self._free.pop()
        except IndexError:
            scratch = _Scratch()
        task = scratch.task
        task.body, task.size = body, len(body)
        task.dimension, task.rows_max, task.rows = dimension, rows_max, 0
        is_understood = function(scratch.address)
        matrix = ctypes.string_at(scratch.matrix, 4 * dimension * task.rows)
        rest = ctypes.string_at(scratch.rest, task.rest_size) if is_understood else b""
        task.body = None
        self._free.append(scratch)
        return _lifted(rest, np.frombuffer(matrix, np.float32).reshape(-1, dimension)) if is_understood else None


def _lift(function: _Function, body: bytes, dimension: int, rows_max: int) -> Lifted | None:
    matrix = np.empty((rows_max, dimension), np.float32)
    rest = np.empty(len(body) + _PLACE_BYTES * rows_max, np.uint8)
    task = _Task(body, len(body), matrix.ctypes.data, rest.ctypes.data, 0, dimension, rows_max, 0)
    if not function(ctypes.addressof(task)):
        return None
    return _lifted(rest.data[: task.rest_size], matrix[: task.rows])


def _lifted(rest: bytes | memoryview, rows: npt.NDArray[np.float32]) -> Lifted | None:
    try:
        return Lifted(orjson.loads(rest), rows)
    except orjson.JSONDecodeError:
        # The whole body is no JSON either; an error names the place in it.
        return None


@lru_cache(maxsize=1)
def find_lifter() -> Lifter | None:
    """Return the library, loaded once; None, and a warning, where it is missing or of another version."""
    try:
        return Lifter(BODIES_FILE)
    except OSError as error:
        _log.warning(
            "native_bodies_missing",
            reason=str(error),
            file=str(BODIES_FILE),
            effect="vectors are read by the JSON parser instead: large upserts hold up other requests for longer",
            remedy="`make up` compiles it",
        )
        return None
