"""HTTP/2 as uvicorn speaks it by zttp, with what belongs together written to its socket in one call.

Both are young. This is the only module that knows them: the program behind asks for no more of an HTTP/2 server than
ASGI with trailers (https://asgi.readthedocs.io/en/latest/extensions.html#http-trailers).
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, ClassVar

import zttp
from uvicorn.protocols.http.zttp_h2_impl import ZttpH2Protocol
from zttp import Event

from compose.connections import Connections
from compose.protocol import JoinedWrites

__all__ = ["Http2Protocol", "http2_with"]

# https://www.rfc-editor.org/rfc/rfc9113#section-7
_NO_ERROR, _ENHANCE_YOUR_CALM = 0, 11
# What zttp lets a connection have in its life is 4,096 requests and 256 that are broken off; then it fails, whatever is
# under way. Before that the client is asked to go on with a new connection: while one request alone is under way, so
# that it hears of it before it asks again, or at the latest when there is just room for what 128 at a time may bring.
_REQUESTS_ALONE, _REQUESTS_MAX = 2_048, 3_900
_RESETS_ALONE, _RESETS_MAX = 64, 100
_LAST_STREAM_MAX = 2**31 - 1
# Events by which a request goes on.
_PROGRESS = (zttp.Request, zttp.Data, zttp.EndOfMessage)


class Http2Protocol(ZttpH2Protocol):
    """uvicorn's protocol over joined writes, on a connection that does not wait for its client for ever.

    A request whose head is all of it is served as well.
    """

    bounds: ClassVar[Connections]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # When a request last went on, and when the client last took something of an answer.
        self._since = self._taken_at = self.loop.time()
        self._unread_bytes = 0
        self._requests = self._resets = 0
        self._is_ending = False
        # Bytes read since the last frame that was whole; a head may come in many that are one to the parser.
        self._fruitless_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn is called
        """See `asyncio.Protocol`."""
        self._joined = JoinedWrites(transport, self.loop)
        super().connection_made(self._joined)  # type: ignore[arg-type] # all that it uses of one
        if not self.bounds.admit(self):
            self._leave(_ENHANCE_YOUR_CALM)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.bounds.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`; a head that does not end is refused before it is kept."""
        self._fruitless_bytes += len(data)
        super().data_received(data)
        if self.shutdown_requested and not self.cycles:
            self._close_connection()
        if self._fruitless_bytes > self.bounds.limits.head_bytes_max and not self.transport.is_closing():
            self._leave(_ENHANCE_YOUR_CALM)

    def events(self) -> Generator[Event]:
        """Yield the events that are there, and take note of progress."""
        for event in super().events():
            self._fruitless_bytes = 0
            if isinstance(event, _PROGRESS):
                self._since = self.loop.time()
            elif isinstance(event, zttp.WindowUpdate):
                self._taken_at = self.loop.time()
            yield event

    def handle_request(self, event: zttp.Request) -> None:
        """Begin a request; one whose head is all of it has its end said by the head alone."""
        if not self.cycles and not self.conn.has_pending_send():
            self._taken_at = self.loop.time()
        super().handle_request(event)
        self._requests += 1
        is_alone = len(self.cycles) == 1
        if self._requests >= (_REQUESTS_ALONE if is_alone else _REQUESTS_MAX) or (
            is_alone and self._resets >= _RESETS_ALONE
        ):
            self._end()
        cycle = self.cycles.get(event.stream_id)
        if event.end_stream and cycle is not None:
            cycle.more_body = False
            cycle.message_event.set()

    def handle_rst_stream(self, event: zttp.RstStream) -> None:
        """Break a request off."""
        super().handle_rst_stream(event)
        self._resets += 1
        if self._resets >= _RESETS_MAX:
            self._end()

    def shutdown(self) -> None:
        """See `ZttpH2Protocol`; the client is told before the last request that is under way ends."""
        self._end()
        super().shutdown()
        self.flush()

    def on_response_complete(self, stream_id: int) -> None:
        """Write the answer now that it is whole, before anything else is done for it; several at once go together."""
        if len(self.cycles) == 1:
            self._joined.flush()
        super().on_response_complete(stream_id)

    def overdue(self, now: float) -> bool:
        """See `Watched`."""
        limits = self.bounds.limits
        unread = self.transport.get_write_buffer_size()
        if unread != self._unread_bytes:
            self._unread_bytes, self._taken_at = unread, now
        if unread or self.conn.has_pending_send():
            return now - self._taken_at > limits.answer_seconds
        self._taken_at = now
        # Where the answer has begun it is a stream of messages, whose client may say more whenever it likes.
        is_begun = any(cycle.more_body and not cycle.response_started for cycle in self.cycles.values())
        waits = is_begun or self._fruitless_bytes > 0
        return waits and not self.flow.read_paused and now - self._since > limits.request_seconds

    def give_up(self) -> None:
        """See `Watched`."""
        if self._unread_bytes:
            self.transport.abort()
        else:
            self._leave(_NO_ERROR)

    def _end(self) -> None:
        """Ask the client to begin nothing more here; what it began until it heard of it is served.

        See https://www.rfc-editor.org/rfc/rfc9113#section-6.8: the client closes, or is closed when it is idle.
        """
        if not self._is_ending:
            self._is_ending = True
            self.conn.close(_NO_ERROR, _LAST_STREAM_MAX)

    def _close_connection(self) -> None:
        """Close, unless the client has yet to make room for what was answered: then when it has, or is overdue."""
        if not self.conn.has_pending_send():
            super()._close_connection()

    def _leave(self, reason: int) -> None:
        """Close the connection with a word."""
        self.conn.close(reason)
        self.flush()
        self.transport.close()


def http2_with(connections: Connections) -> type[Http2Protocol]:
    """Return the protocol of a process whose connections are counted by `connections`."""

    class Bounded(Http2Protocol):
        """The same with the bounds of this process."""

        bounds = connections

    return Bounded
