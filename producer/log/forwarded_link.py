"""The way of a process that does not own the embedded log to the one that does.

Requests go out in the order in which they were accepted. One that was not sent when the owner could not be reached is
`refused`; one that was sent and not answered is `unknown`, and is never sent again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from producer.log.forwarded_frames import (
    GREETING,
    FrameProtocol,
    Kind,
    decode_appended,
    decode_error,
    decode_made,
    encode_append,
    encode_words,
)
from producer.log.protocol import Appended
from producer.log.sqlite_commits import AppendRequest
from producer.log.sqlite_open import Made
from producer.steps import Step, no_step
from schemas.errors import CorruptData, FreshetError, LogUnavailable

__all__ = ["LinkOptions", "OwnerLink"]

_log = structlog.get_logger(__name__)
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Bounds of the link; seconds, bytes, requests.

    `connect_seconds` is how long a request waits for an owner that is being started again, `answer_seconds` how long
    for an answer before the link is given up. What is over `in_flight_max` or `in_flight_bytes_max` is not sent yet,
    what is over `queue_bytes_max` is not accepted.
    """

    start_seconds: float = 10.0
    connect_seconds: float = 2.0
    answer_seconds: float = 20.0
    retry_seconds_min: float = 0.01
    retry_seconds_max: float = 0.2
    in_flight_max: int = 1_024
    in_flight_bytes_max: int = 32 * _MIB
    queue_bytes_max: int = 256 * _MIB


@dataclass(frozen=True, slots=True)
class _Request:
    kind: Kind
    body: bytes
    decode: Callable[[bytes], object]
    future: asyncio.Future[Any]
    # When it was accepted, on the loop's clock.
    at: float


class _Connection(FrameProtocol):
    """One connection to the owner, as long as it lasts."""

    def __init__(self, link: OwnerLink) -> None:
        super().__init__()
        self._link = link
        self.gone = asyncio.Event()
        self.is_greeted = False
        self.is_watched = False
        self.sent: dict[int, tuple[_Request, float]] = {}
        self.sent_bytes = 0

    def frame_received(self, kind: int, number: int, body: bytes) -> None:
        """See `FrameProtocol`."""
        if number == GREETING:
            self.is_greeted = True
            self._link.greeted(self)
            return
        if number not in self.sent:
            raise CorruptData(f"An answer to request {number}, which nobody waits for.")
        request, _ = self.sent.pop(number)
        self.sent_bytes -= len(request.body)
        self._link.answered(request, kind, body)

    def end_ungreeted(self) -> None:
        """End a connection on which nobody greets; the next one may be to an owner that lives."""
        if not self.is_greeted:
            self.abort()
            self.ended("nobody greets")

    def ended(self, reason: str) -> None:
        """See `FrameProtocol`."""
        if not self.gone.is_set():
            self.gone.set()
            self._link.lost(self, reason)


class OwnerLink:
    """Hands packs of records, and the making and dropping of logs, to the owner that listens at `door`."""

    def __init__(self, door: str, options: LinkOptions | None = None, *, step: Step = no_step) -> None:
        self._door = door
        self._options = options or LinkOptions()
        self._step = step
        self._connection: _Connection | None = None
        self._unsent: deque[_Request] = deque()
        self._waiting: dict[asyncio.Future[Any], int] = {}
        self._waiting_bytes = 0
        self._numbers = 0
        self._lost_at = 0.0
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    async def start(self) -> None:
        """Connect, then stay connected, by a task. Raises `LogUnavailable` where the owner does not come."""
        self._task = asyncio.create_task(self._stay_connected(), name="link to the log's owner")
        try:
            async with asyncio.timeout(self._options.start_seconds):
                await self._connected.wait()
        except TimeoutError as error:
            raise LogUnavailable(f"The owner of the log does not answer at {self._door}.") from error

    def append(self, request: AppendRequest) -> asyncio.Future[Appended]:
        """Accept an append; the future resolves when it is durable, or to the error that says what became of it."""
        return self._accept(Kind.APPEND, encode_append(request), decode_appended)

    async def make(self, name: str, log_id: str | None, partitions: int) -> Made:
        """Make the log unless it is there; return its identity and slots. Raises what `Logs.open` raises."""
        made: asyncio.Future[Made] = self._accept(Kind.MAKE, encode_words(name, log_id, partitions), decode_made)
        return await asyncio.shield(made)

    async def drop(self, name: str, log_id: str, partitions: int) -> None:
        """Drop the log. Raises what `Logs.drop` raises."""
        await asyncio.shield(self._accept(Kind.DROP, encode_words(name, log_id, partitions), lambda _: None))

    async def close(self, deadline_seconds: float) -> None:
        """Wait for the answers to what was accepted, then let go; what is open after the deadline ends as unknown."""
        self._is_closed = True
        if self._waiting:
            await asyncio.wait(set(self._waiting), timeout=deadline_seconds)
        for future in tuple(self._waiting):
            if not future.done():
                future.set_exception(LogUnavailable("The log was closed before it answered.", outcome="unknown"))
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._connection is not None:
            self._connection.close()

    # What follows is called by the connection.

    def greeted(self, connection: _Connection) -> None:
        """Begin to send: the owner is there. Before that, a connection may be one that a dying owner never took."""
        self._connection = connection
        self._connected.set()
        self._send_on()

    def answered(self, request: _Request, kind: int, body: bytes) -> None:
        """Pass an answer on, and send what had to wait for it. Raises `CorruptData` where it can't be read."""
        if request.future.done():
            return
        try:
            value = decode_error(body) if kind == Kind.FAILED else request.decode(body)
        except CorruptData:
            request.future.set_exception(LogUnavailable("The log's answer can't be read.", outcome="unknown"))
            raise
        if isinstance(value, FreshetError):
            request.future.set_exception(value)
        else:
            if request.kind is Kind.APPEND:
                self._step("forward.before_answer")
            request.future.set_result(value)
        self._send_on()

    def lost(self, connection: _Connection, reason: str) -> None:
        """Say of everything that was sent and not answered that nobody knows."""
        if connection is not self._connection:
            return
        self._connection = None
        self._connected.clear()
        loop = asyncio.get_running_loop()
        self._lost_at = loop.time()
        if not self._is_closed:
            _log.warning("log.owner_lost", reason=reason, unanswered=len(connection.sent))
        for request, _ in connection.sent.values():
            if not request.future.done():
                request.future.set_exception(
                    LogUnavailable("The owner of the log went away before it answered.", outcome="unknown")
                )
        connection.sent.clear()
        loop.call_later(self._options.connect_seconds, self._expire)

    # -- the link's own

    def _accept(self, kind: Kind, body: bytes, decode: Callable[[bytes], object]) -> asyncio.Future[Any]:
        if self._is_closed or self._task is None:
            raise LogUnavailable("The log is closed.")
        if self._waiting_bytes and self._waiting_bytes + len(body) > self._options.queue_bytes_max:
            raise LogUnavailable(
                f"{self._waiting_bytes} bytes wait to be written to the log already, more than its queue takes.",
                waiting_bytes=self._waiting_bytes,
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting[future] = len(body)
        self._waiting_bytes += len(body)
        future.add_done_callback(self._forget)
        self._unsent.append(_Request(kind, body, decode, future, loop.time()))
        if self._connection is None:
            loop.call_later(self._options.connect_seconds, self._expire)
        self._send_on()
        return future

    def _forget(self, future: asyncio.Future[Any]) -> None:
        self._waiting_bytes -= self._waiting.pop(future)
        if not future.cancelled():
            # Whoever asked may be gone; then nobody else would look at the error.
            future.exception()

    def _send_on(self) -> None:
        """Send what waits, in order, as far as the bounds of what is in flight allow."""
        connection, options = self._connection, self._options
        if connection is None:
            return
        loop = asyncio.get_running_loop()
        while self._unsent and len(connection.sent) < options.in_flight_max:
            size = len(self._unsent[0].body)
            if connection.sent and connection.sent_bytes + size > options.in_flight_bytes_max:
                break
            request = self._unsent.popleft()
            if request.future.done():
                continue
            if not connection.is_watched:
                connection.is_watched = True
                loop.call_later(options.answer_seconds, self._check_answers, connection)
            self._numbers += 1
            connection.sent[self._numbers] = (request, loop.time())
            connection.sent_bytes += size
            if request.kind is Kind.APPEND:
                self._step("forward.before_send")
            connection.send(request.kind, self._numbers, request.body)
            if request.kind is Kind.APPEND:
                self._step("forward.after_send")

    def _check_answers(self, connection: _Connection) -> None:
        """Give a connection up whose oldest request got no answer for too long; else look again when that is due."""
        connection.is_watched = False
        if connection is not self._connection or not connection.sent:
            return
        loop = asyncio.get_running_loop()
        # Dropping a large log takes as long as it takes.
        oldest = (sent_at for request, sent_at in connection.sent.values() if request.kind is not Kind.DROP)
        left = next(oldest, loop.time()) + self._options.answer_seconds - loop.time()
        if left > 0:
            connection.is_watched = True
            loop.call_later(left, self._check_answers, connection)
            return
        connection.abort()
        connection.ended(f"no answer for {self._options.answer_seconds:.0f} s")

    def _expire(self) -> None:
        """Refuse what could not be sent for too long; it never will be."""
        if self._connection is not None:
            return
        # A timer may come a moment early.
        since = asyncio.get_running_loop().time() - self._options.connect_seconds + 0.001
        while self._unsent and max(self._unsent[0].at, self._lost_at) <= since:
            request = self._unsent.popleft()
            if not request.future.done():
                request.future.set_exception(
                    LogUnavailable(f"The owner of the log does not answer at {self._door}; nothing was appended.")
                )

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        pause = self._options.retry_seconds_min
        while True:
            try:
                _, connection = await loop.create_unix_connection(lambda: _Connection(self), self._door)
            except OSError:
                # Nobody listens yet, or not any more: what waits is refused in time.
                connection = None
            if connection is not None:
                loop.call_later(self._options.connect_seconds, connection.end_ungreeted)
                await connection.gone.wait()
                if connection.is_greeted:
                    pause = self._options.retry_seconds_min
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._options.retry_seconds_max)
