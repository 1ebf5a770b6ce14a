"""The namespaces of a segment, read in place: sorted names, of which only a few are held in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from indexer.segments.soundness import check_ends

__all__ = ["NameColumn"]

# Every so many names one is held in memory, so that a look-up reads few names in place.
_STEP = 64


class NameColumn(Sequence[bytes]):
    """Distinct names in byte order, as they lie in an object."""

    __slots__ = ("_bounds", "_data", "_steps")

    def __init__(self, ends: npt.NDArray[np.uint64], data: memoryview) -> None:
        """Read from `data`; name i lies from `ends[i]` up to, not including, `ends[i + 1]` (uint64 [names + 1]).

        Raises `CorruptData` where they do not lie one after another.
        """
        check_ends("Namespace names", ends, max(0, len(ends) - 1), len(data))
        # A view with numbers of this machine's own byte order gives plain integers, without an array around each.
        self._bounds = ends.astype(np.uint64, copy=False).data
        self._data = data
        self._steps = [self[at] for at in range(0, len(self), _STEP)]

    def __len__(self) -> int:
        """Return the number of names."""
        return max(0, len(self._bounds) - 1)

    @overload
    def __getitem__(self, at: int) -> bytes: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[bytes]: ...

    def __getitem__(self, at: int | slice) -> bytes | Sequence[bytes]:
        """Return one name, or those of a slice. Raises `IndexError`."""
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(f"Name {at} of {len(self)}.")
        return bytes(self._data[self._bounds[at] : self._bounds[at + 1]])

    def __iter__(self) -> Iterator[bytes]:
        """Yield all names, in order."""
        data = bytes(self._data)
        begin = self._bounds[0] if len(self) else 0
        for end in self._bounds[1:]:
            yield data[begin:end]
            begin = end

    def find(self, name: bytes) -> int:
        """Return the number of a name, or -1 where it is not among them. Reads at most six names in place."""
        step = bisect_right(self._steps, name) - 1
        if step < 0:
            return -1
        low = step * _STEP
        at = bisect_left(self, name, low, min(low + _STEP, len(self)))
        return at if at < len(self) and self[at] == name else -1
