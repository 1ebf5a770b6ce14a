"""Native threads that search while the event loop goes on: no interpreter lock, one wake-up for all that is done."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import select
from collections.abc import Callable

import numpy as np

from indexer.segments.native import Engine, SearchJob

__all__ = ["SearchThreads"]

# Searches taken back at once.
_TAKEN_MAX = 64


class SearchThreads:
    """Carries out searches on `threads` threads of the engine. For one event loop: not to be used from several threads.

    `fileno` becomes readable when `collect` has something to do.
    """

    def __init__(self, engine: Engine, threads: int) -> None:
        """Start the threads. Raises `MemoryError`, `OSError`."""
        self._library = engine.native
        self._reading, self._writing = os.pipe()
        for end in (self._reading, self._writing):
            os.set_blocking(end, False)
        self._tickets = itertools.count(1)
        self._running: dict[int, tuple[SearchJob, Callable[[], None]]] = {}
        self._done = np.empty(_TAKEN_MAX, np.uint64)
        self._handle = ctypes.c_void_p()
        if self._library.freshet_pool_new(threads, self._writing, ctypes.byref(self._handle)):
            raise MemoryError("The threads that search could not be started.")

    def fileno(self) -> int:
        """Return the descriptor to watch for reading."""
        return self._reading

    def submit(self, job: SearchJob, done: Callable[[], None]) -> None:
        """Carry out `job` soon; `done` is called by `collect` after that. Raises `MemoryError`."""
        ticket = next(self._tickets)
        # Kept here whatever becomes of who asked: the threads read and write its memory.
        self._running[ticket] = (job, done)
        if self._library.freshet_pool_submit(self._handle, job.ticketed(ticket)):
            del self._running[ticket]
            raise MemoryError("The native engine ran out of memory.")

    def collect(self) -> None:
        """Call back for every search that is done."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reading, 4096)
        while count := self._library.freshet_pool_take(self._handle, self._done.ctypes.data, _TAKEN_MAX):
            for ticket in self._done[:count].tolist():
                _, done = self._running.pop(ticket)
                done()

    def close(self) -> None:
        """Wait for the searches that were submitted, which are called back, and end the threads."""
        if self._handle.value is not None:
            while self._running:
                select.select([self._reading], [], [])
                self.collect()
            self._library.freshet_pool_free(self._handle)
            self._handle = ctypes.c_void_p()
            os.close(self._reading)
            os.close(self._writing)
