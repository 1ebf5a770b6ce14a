"""The one thread that writes the embedded log: it drains its queue into a transaction and commits once for all of it.

Callers on the event loop get a future; all futures of a commit are resolved by one call back to the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from producer.log.protocol import Appended
from producer.log.sqlite_commits import AppendRequest, SqliteCommits
from producer.log.sqlite_file import SqliteLogOptions
from producer.pokes import PokeSender, log_topic
from producer.steps import Step
from schemas.errors import FreshetError, LogUnavailable

__all__ = ["SqliteWriter"]

_Result = TypeVar("_Result")
_Argument = TypeVar("_Argument")


@dataclass(frozen=True, slots=True)
class _Append:
    request: AppendRequest
    future: asyncio.Future[Appended]


@dataclass(frozen=True, slots=True)
class _Job:
    job: Callable[[sqlite3.Connection], object]
    future: asyncio.Future[Any]


class SqliteWriter:
    """Appends and small jobs, in the order in which they came, on a thread of its own. `step` is called there too."""

    def __init__(
        self,
        path: Path,
        options: SqliteLogOptions,
        *,
        clock_ms: Callable[[], int],
        step: Step,
        senders: Sequence[PokeSender],
        committed: Callable[[Collection[int]], None],
    ) -> None:
        self._commits = SqliteCommits(path, options, clock_ms=clock_ms, step=step)
        self._options = options
        self._step = step
        self._senders = senders
        self._committed = committed
        self._queue: queue.SimpleQueue[_Append | _Job | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        # Touched by the thread only.
        self._held: _Append | _Job | None = None
        self._is_stopping = False
        # Touched by the event loop only.
        self._waiting: dict[asyncio.Future[Any], int] = {}
        self._waiting_bytes = 0
        self._is_closed = False

    async def start(self) -> None:
        """Open the file and start the thread. Raises what `connect_writer` raises."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._commits.open)
        self._thread.start()

    def append(self, request: AppendRequest) -> asyncio.Future[Appended]:
        """Accept an append; the future resolves when it is durable, or to the error that says what became of it."""
        future: asyncio.Future[Appended] = self._accept(request.size_bytes)
        self._queue.put(_Append(request, future))
        return future

    def run(self, job: Callable[[sqlite3.Connection], _Result]) -> asyncio.Future[_Result]:
        """Accept a job; it runs in a transaction of its own, after everything accepted before it."""
        future: asyncio.Future[_Result] = self._accept(0)
        self._queue.put(_Job(job, future))
        return future

    async def close(self, deadline_seconds: float) -> None:
        """Finish what was accepted, then close the file; what is still open after the deadline ends as unknown."""
        if self._is_closed or not self._thread.is_alive():
            return
        self._is_closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, deadline_seconds)
        # The answers that the thread sent come before this in the loop's queue.
        await asyncio.sleep(0)
        self._give_up("The log was closed before it answered.")

    def _accept(self, size_bytes: int) -> asyncio.Future[Any]:
        if self._is_closed or not self._thread.is_alive():
            raise LogUnavailable("The log is closed.")
        if self._waiting_bytes and self._waiting_bytes + size_bytes > self._options.queue_bytes_max:
            raise LogUnavailable(
                f"{self._waiting_bytes} bytes wait to be written to the log already, more than its queue takes.",
                waiting_bytes=self._waiting_bytes,
            )
        assert self._loop is not None
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[future] = size_bytes
        self._waiting_bytes += size_bytes
        future.add_done_callback(self._forget)
        return future

    def _forget(self, future: asyncio.Future[Any]) -> None:
        self._waiting_bytes -= self._waiting.pop(future)
        if not future.cancelled():
            # Whoever asked may be gone; then nobody else would look at the error.
            future.exception()

    def _give_up(self, message: str) -> None:
        for future in tuple(self._waiting):
            if not future.done():
                future.set_exception(LogUnavailable(message, outcome="unknown"))

    # What follows runs on the thread, but for `_answer`.

    def _run(self) -> None:
        try:
            while (first := self._take()) is not None:
                if isinstance(first, _Job):
                    self._call(_settle, [(first.future, self._commits.run(first.job))])
                else:
                    self._write(self._gather(first))
                self._commits.checkpoint_if_due()
        finally:
            self._commits.close()
            # Work is open here only by a mistake of ours; those who wait for it must hear of it.
            self._call(self._give_up, "The log's writer stopped; start this process again.")

    def _take(self) -> _Append | _Job | None:
        if self._held is not None:
            held, self._held = self._held, None
            return held
        return None if self._is_stopping else self._queue.get()

    def _gather(self, first: _Append) -> list[_Append]:
        """Take the appends that wait, up to the next job and the size of one transaction."""
        appends = [first]
        size = first.request.size_bytes
        # queue.Empty: nothing waits any more.
        with contextlib.suppress(queue.Empty):
            while size < self._options.commit_bytes_max:
                item = self._queue.get_nowait()
                if isinstance(item, _Append):
                    appends.append(item)
                    size += item.request.size_bytes
                    continue
                self._held = item
                self._is_stopping = item is None
                break
        return appends

    def _write(self, appends: list[_Append]) -> None:
        answers = self._commits.append([append.request for append in appends])
        grown = [a.request for a, answer in zip(appends, answers, strict=True) if isinstance(answer, Appended)]
        if grown:
            self._committed({request.slot for request in grown})
            for log_id in {request.log_id for request in grown}:
                for sender in self._senders:
                    sender.poke(log_topic(log_id))
        self._call(self._answer, [(a.future, answer) for a, answer in zip(appends, answers, strict=True)])

    def _call(self, function: Callable[[_Argument], None], argument: _Argument) -> None:
        assert self._loop is not None
        # RuntimeError: the loop is closed, so nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, argument)

    def _answer(self, answers: Sequence[tuple[asyncio.Future[Any], object]]) -> None:
        self._step("append.before_answer")
        _settle(answers)


def _settle(answers: Sequence[tuple[asyncio.Future[Any], object]]) -> None:
    for future, answer in answers:
        if future.done():
            continue
        if isinstance(answer, FreshetError):
            future.set_exception(answer)
        else:
            future.set_result(answer)
