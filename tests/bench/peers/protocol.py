"""What a peer has to do for the comparison; each adapter says it in the peer's own client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

__all__ = ["UNFILTERED", "Absent", "Peer", "PeerFactory"]

# Above what any filter lets pass: rows that are written singly are not among the true answers.
UNFILTERED = 10_000


class Absent(Exception):
    """The peer is not on this machine; the text says what is missing."""


class Peer(Protocol):
    """One empty collection of cosine vectors with a number `draw` (0 to 9,999) per row.

    `search` and `write` are called from several threads.
    """

    name: str
    # What to know beside its figures: embedded or a server, synced or not.
    remark: str
    # Values of the knob that trades speed for recall, least first.
    knobs: Sequence[int]

    def load(self, first: int, vectors: np.ndarray, draws: np.ndarray) -> None:
        """Insert rows `first`, `first + 1`, ...: vectors float32 [n, d], draws int [n]."""
        ...

    def finish_load(self) -> None:
        """Wait until everything that was loaded is indexed."""
        ...

    def tune(self, knob: int) -> None:
        """Search with this value of the knob from now on."""
        ...

    def search(self, query: np.ndarray, below: int | None) -> list[int]:
        """Return the 10 nearest row numbers, of rows whose `draw` is less than `below` where that is given."""
        ...

    def write(self, row: int, vector: np.ndarray) -> None:
        """Insert one row with the draw `UNFILTERED`; return when it is acknowledged."""
        ...

    def has(self, row: int) -> bool:
        """Say whether a read shows the row."""
        ...

    def close(self) -> None:
        """End what was started, and remove its data."""
        ...


PeerFactory = Callable[[int], Peer]
