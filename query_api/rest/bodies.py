"""Vectors out of a JSON body without an object per number: native code takes them out, the rest is parsed as ever.

It is compiled when the environment is made (sources in `cpp/`). Where it is missing, and for every body that it does
not understand, the JSON parser reads the whole body and says what is wrong.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import structlog

from schemas.limits import BATCH_RECORDS_MAX

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


class Lifter:
    """The compiled library. Safe to use from several threads."""

    def __init__(self, file: Path) -> None:
        """Load `file`. Raises `OSError`, also where it is of another version than this module."""
        # Loaded twice: one lets other threads run during a call, the other does not.
        self._patient, self._quick = ctypes.CDLL(str(file)), ctypes.PyDLL(str(file))
        for library in (self._patient, self._quick):
            library.freshet_bodies_interface.restype = ctypes.c_uint32
            if library.freshet_bodies_interface() != _INTERFACE:
                raise OSError(f"{file} is of another version: make the environment again.")
            for name in ("freshet_lift_upsert", "freshet_lift_query"):
                function = getattr(library, name)
                function.argtypes = (ctypes.c_void_p,)
                function.restype = ctypes.c_int32

    def upsert(self, body: bytes, dimension: int) -> Lifted | None:
        """Take `vectors[].values` out, lists of `dimension` finite numbers each; None where there is anything else."""
        if not dimension:
            return None
        # Lists of so many numbers have so many bytes at least.
        most = len(body) // (_NUMBER_BYTES * dimension) + 1
        return self._lift("freshet_lift_upsert", body, dimension, min(BATCH_RECORDS_MAX, most))

    def query(self, body: bytes, dimension: int) -> Lifted | None:
        """Take `vector` out, likewise; a body without one has no rows."""
        return None if not dimension else self._lift("freshet_lift_query", body, dimension, 1)

    def _lift(self, name: str, body: bytes, dimension: int, rows_max: int) -> Lifted | None:
        library = self._quick if len(body) <= _QUICK_BYTES else self._patient
        matrix = np.empty((rows_max, dimension), np.float32)
        rest = np.empty(len(body) + _PLACE_BYTES * rows_max, np.uint8)
        task = _Task(body, len(body), matrix.ctypes.data, rest.ctypes.data, 0, dimension, rows_max, 0)
        if not getattr(library, name)(ctypes.addressof(task)):
            return None
        try:
            document = orjson.loads(rest.data[: task.rest_size])
        except orjson.JSONDecodeError:
            # The whole body is no JSON either; an error names the place in it.
            return None
        return Lifted(document, matrix[: task.rows])


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
