"""Row numbers as bitmaps and back, array-wise: made of a list or a numpy array, a bitmap takes ten times as long."""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

__all__ = ["bitmap_of", "rows_of"]


def bitmap_of(rows: npt.NDArray[np.integer]) -> BitMap:
    """Return the bitmap of row numbers in any order."""
    return BitMap(array("I", np.ascontiguousarray(rows, np.uint32).tobytes()))


def rows_of(bitmap: BitMap) -> npt.NDArray[np.int64]:
    """Return the rows of a bitmap, ascending: int64 [n]."""
    return np.asarray(bitmap.to_array(), np.int64)
