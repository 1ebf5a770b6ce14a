"""How fast the rows of a partition come into graphs, from the snapshots that were shown: what a full tail waits for."""

from __future__ import annotations

import math

from indexer.snapshots.snapshot import Snapshot

__all__ = ["GraphPace"]

# A shorter tail waits for nothing: what came into graphs then says nothing of how fast they can grow.
_PRESSED_ROWS = 10_000


class GraphPace:
    """Rows per second that came into graphs since the tail grew long; graphs grow in steps, so over all of it."""

    def __init__(self, pressed_rows: int = _PRESSED_ROWS) -> None:
        """Measure while the tail is longer than `pressed_rows`."""
        self._pressed_rows = pressed_rows
        self._began: tuple[float, int] | None = None
        self.rows_per_second: float | None = None

    def note(self, snapshot: Snapshot, now: float) -> None:
        """Take in a snapshot that is shown from `now` on, in seconds of any steady clock."""
        in_graphs = snapshot.live_rows - snapshot.tail_rows
        if snapshot.tail_rows <= self._pressed_rows:
            self._began = None
        elif self._began is None:
            self._began = now, in_graphs
        elif in_graphs > self._began[1] and now > self._began[0]:
            self.rows_per_second = (in_graphs - self._began[1]) / (now - self._began[0])

    def seconds_for(self, rows: int, *, unknown: float, most: float) -> float:
        """Return in how many whole seconds `rows` will be in graphs: `unknown` before any were measured."""
        if self.rows_per_second is None:
            return unknown
        return min(most, max(1.0, math.ceil(rows / self.rows_per_second)))
