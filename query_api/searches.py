"""Where a search runs: on the event loop itself while questions come one at a time, in threads while they crowd.

A thread costs as much as a small search, for the hand-over there and back; but the native engine searches without the
interpreter lock, so that two threads use two cores. Its own threads are handed a search that is all planned, and never
wait for that lock; what else there is to do for an answer is done on the loop.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from indexer.segments.native import Engine
from indexer.segments.search import Search
from indexer.segments.searching import SearchThreads

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

    def __init__(self, threads: Executor, options: SearchOptions, *, native_threads: int) -> None:
        self._threads = threads
        self._native_threads = native_threads
        self._native: SearchThreads | None = None
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

    async def carry_out(self, cost_ns: float, search: Search) -> None:
        """Carry out a search that was planned, which promises to take `cost_ns` nanoseconds."""
        if self._stays(cost_ns / 1000):
            search.run()
            return
        loop = asyncio.get_running_loop()
        self._in_threads += 1
        try:
            if search.job is None or search.engine is None:
                await loop.run_in_executor(self._threads, search.run)
                return
            done: asyncio.Future[None] = loop.create_future()
            self._threads_of(search.engine, loop).submit(search.job, functools.partial(_settle, done))
            await done
        finally:
            self._in_threads -= 1

    def close(self) -> None:
        """Wait for the searches that run in native threads, and end these."""
        if self._native is not None:
            asyncio.get_running_loop().remove_reader(self._native.fileno())
            self._native.close()
            self._native = None

    def _threads_of(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> SearchThreads:
        if self._native is None:
            self._native = SearchThreads(engine, self._native_threads)
            loop.add_reader(self._native.fileno(), self._native.collect)
        return self._native

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


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
