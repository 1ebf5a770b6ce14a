"""Where a search runs: on the event loop itself while questions come one at a time, in threads while they crowd.

A thread costs as much as a small search, for the hand-over there and back; but the native engine searches without the
interpreter lock, so that two threads use two cores.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

__all__ = ["SearchOptions", "Searches"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Which searches stay on the loop, by the microseconds that they promise to take.

    Those below `inline_us` always; those below `alone_us` unless others came at the same time within `crowded_ms`.
    """

    inline_us: float = 30
    alone_us: float = 2_000
    crowded_ms: float = 50


class Searches:
    """Runs searches."""

    def __init__(self, threads: Executor, options: SearchOptions) -> None:
        self._threads = threads
        self._options = options
        self._in_threads = 0
        # A search ran on the loop in this turn of it: one that finds this set came at the same time.
        self._is_taken = False
        self._crowded_until = 0.0

    async def run(self, cost_ns: float, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what `function` returns, which promises to take `cost_ns` nanoseconds."""
        if self._stays(cost_ns / 1000):
            return function(*args, **kwargs)
        self._in_threads += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))
        finally:
            self._in_threads -= 1

    def _stays(self, cost_us: float) -> bool:
        if cost_us <= self._options.inline_us:
            return True
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._is_taken or self._in_threads:
            self._crowded_until = now + self._options.crowded_ms / 1000
        if cost_us > self._options.alone_us or now < self._crowded_until:
            return False
        self._is_taken = True
        loop.call_soon(self._leave)
        return True

    def _leave(self) -> None:
        self._is_taken = False
