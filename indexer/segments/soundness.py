"""What has to hold between the columns of a segment before a row of it is read.

Objects are checked against their digests, but a writer may err, and bits may turn later: a number that points outside
is told when a segment is opened, as `CorruptData`. The cost is a few passes over small columns, none over vectors or
text.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import CorruptData

__all__ = ["check_ends", "check_hashes", "check_order", "check_slices"]


def check_ends(what: str, ends: npt.NDArray[np.unsignedinteger[Any]], count: int, size: int) -> None:
    """Raise `CorruptData` unless `ends` (unsigned [count + 1]) cuts `size` into `count` pieces, one after another."""
    if len(ends) != count + 1 or ends[0] != 0 or ends[-1] != size or (ends[1:] < ends[:-1]).any():
        raise CorruptData(f"{what} do not lie one after another.")


def check_slices(what: str, starts: npt.NDArray[np.uint32], count: int, rows: int) -> None:
    """Raise `CorruptData` unless `starts` (uint32 [count + 1]) cuts `rows` into `count` slices, none of them empty."""
    check_ends(what, starts, count, rows)
    if (starts[1:] == starts[:-1]).any():
        raise CorruptData(f"{what} are empty.")


def check_order(what: str, order: npt.NDArray[np.uint32], starts: npt.NDArray[np.uint32]) -> None:
    """Raise `CorruptData` unless `order` (uint32 [rows]) permutes the rows of each slice among themselves."""
    if not len(order):
        return
    is_within = int(order.max()) < len(order)
    if is_within:
        seen = np.zeros(len(order), np.bool_)
        seen[order] = True
        is_within = bool(seen.all())
    if is_within and len(starts) > 2:
        begins = starts[:-1].astype(np.int64)
        # Each row is there once: slices keep to themselves where the least and the greatest of each are its own.
        is_within = bool(
            (np.minimum.reduceat(order, begins) == begins).all()
            and (np.maximum.reduceat(order, begins) < starts[1:]).all()
        )
    if not is_within:
        raise CorruptData(f"{what} is not an order of its rows.")


def check_hashes(what: str, hashes: npt.NDArray[np.uint64], starts: npt.NDArray[np.uint32]) -> None:
    """Raise `CorruptData` unless `hashes` (uint64 [rows]) ascend within each slice, as binary searches need."""
    falls = hashes[1:] < hashes[:-1]
    if falls.any():
        falls[starts[1:-1].astype(np.int64) - 1] = False
        if falls.any():
            raise CorruptData(f"{what} do not ascend.")
