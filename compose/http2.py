"""HTTP/2 as uvicorn speaks it by zttp, with what belongs together written to its socket in one call.

Both are young. This is the only module that knows them: the program behind asks for no more of an HTTP/2 server than
ASGI with trailers (https://asgi.readthedocs.io/en/latest/extensions.html#http-trailers).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, ClassVar

import structlog
import zttp
from uvicorn.protocols.http.zttp_h2_impl import ZttpH2Protocol
from zttp import Event

from compose.connections import Connections
from compose.http2_frames import (
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD_BYTES,
    HEADERS,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    Frames,
    frame,
)
from compose.protocol import JoinedWrites

__all__ = ["Http2Protocol", "http2_with"]

_log = structlog.get_logger(__name__)
# https://www.rfc-editor.org/rfc/rfc9113#section-7
_NO_ERROR, _PROTOCOL_ERROR, _ENHANCE_YOUR_CALM = 0, 1, 11
# What zttp lets a connection have in its life is 4,096 requests and 256 that are broken off; then it fails, whatever is
# under way. From so many on, a new zttp takes over as soon as nothing is under way, and new requests wait for that for
# a moment. At the latest, with just room for what 128 requests at a time may bring until it hears of it, the client is
# asked to go on with a new connection; not all clients do that without failing calls.
_REQUESTS_RENEWED, _REQUESTS_MAX = (2_048, 3_000), 3_900
_RESETS_RENEWED, _RESETS_MAX = 64, 100
_RENEWALS_MAX = 1_000
_HOLD_SECONDS, _HOLD_BYTES_MAX = 0.1, 256 * 1024
_LAST_STREAM_MAX = 2**31 - 1
_WINDOW_BYTES = 65_535
# So much of what a client sent zttp may not have granted anew yet.
_UNGRANTED_BYTES_MAX = _WINDOW_BYTES // 2
# https://www.rfc-editor.org/rfc/rfc9113#section-6.5.2
_HEADER_TABLE_SIZE, _INITIAL_WINDOW_SIZE = 1, 4
_KNOWN_SETTINGS = frozenset({1, 2, 3, 4, 5, 6, 8})
# A request for `/`, by the static table.
_SMALLEST_HEAD = b"\x83\x86\x84"
# Events by which a request goes on.
_PROGRESS = (zttp.Request, zttp.Data, zttp.EndOfMessage)


class RenewedProtocol(ZttpH2Protocol):
    """uvicorn's protocol with parsers that take over from each other, so that their count of requests has no end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._frames = Frames()
        # The settings of the client, as they are now.
        self._settings: dict[int, int] = {}
        self._has_greeted = self._is_ending = False
        # Calls of the program; those of requests that were broken off go on for a while.
        self._running = 0
        # Of the parser; and how many there were before it.
        self._requests = self._resets = self._renewals = 0

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        whole = self._frames.take(data)
        if whole:
            super().data_received(whole)
        else:
            self._put_off_idleness()
        if self._frames.is_holding:
            self._renew()
        if self._frames.held_bytes > _HOLD_BYTES_MAX:
            self._go_on()

    def flush(self) -> None:
        """See `ZttpH2Protocol`; the first settings ask the client to refer to no head that it sent before."""
        data = self.conn.data_to_send()
        if data and not self._has_greeted:
            self._has_greeted = True
            data = _without_header_table(data)
        if data:
            self.transport.write(data)

    def events(self) -> Generator[Event]:
        """Yield the events that are there, and take note of settings."""
        for event in super().events():
            if isinstance(event, zttp.Settings):
                self._settings |= {key: value for key, value in event.params if key in _KNOWN_SETTINGS}
            elif isinstance(event, zttp.RstStream):
                self._frames.forget(event.stream_id)
            yield event

    def handle_request(self, event: zttp.Request) -> None:
        """Begin a request, unless its path or method is no text."""
        if not (event.target.isascii() and event.method.isascii()):
            self.conn.stream(event.stream_id).reset(_PROTOCOL_ERROR)
            self._frames.forget(event.stream_id)
            return
        super().handle_request(event)
        self._running += 1
        self._requests += 1
        if self._requests >= _REQUESTS_MAX:
            self._end()
        elif self._requests in _REQUESTS_RENEWED:
            self._hold()

    def handle_rst_stream(self, event: zttp.RstStream) -> None:
        """Break a request off."""
        super().handle_rst_stream(event)
        self._resets += 1
        if self._resets >= _RESETS_MAX:
            self._end()
        elif self._resets == _RESETS_RENEWED:
            self._hold()

    def on_response_complete(self, stream_id: int) -> None:
        """End a request."""
        super().on_response_complete(stream_id)
        self._running -= 1
        if self._frames.is_holding and not self._running:
            self.loop.call_soon(self._carefully, self._renew)

    def _hold(self) -> None:
        """Let new requests wait for a moment, so that those under way come to an end."""
        if not self._frames.is_holding and self._frames.are_settings_taken and self._renewals < _RENEWALS_MAX:
            self._frames.hold()
            self.loop.call_later(_HOLD_SECONDS, self._carefully, self._go_on)

    def _renew(self) -> None:
        """Let a new parser take over where nothing is under way, and go on."""
        is_over = not self._running and self._frames.is_between_requests and not self.conn.has_pending_send()
        if is_over and self._frames.is_holding and not self._is_ending and not self.transport.is_closing():
            self.conn = _successor(self.conn, self._settings, self._frames.last_stream)
            self._requests = self._resets = 0
            self._renewals += 1
            # What the old one had not granted yet; a little more does no harm.
            grant = _UNGRANTED_BYTES_MAX.to_bytes(4, "big")
            self.transport.write(frame(WINDOW_UPDATE, 0, 0, grant))
            self._go_on()

    def _go_on(self) -> None:
        """Serve what was held back."""
        held = self._frames.release()
        if held and not self.transport.is_closing():
            super().data_received(b"".join(held))

    def _carefully(self, step: Callable[[], None]) -> None:
        """Do what is to be done later as the event loop does what it reads: a failure ends the connection."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody waits on this connection for ever
            _log.error("connection.failed", error=repr(error), exc_info=error)
            self.transport.abort()

    def _put_off_idleness(self) -> None:
        """Begin to count anew how long nothing was said."""
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _end(self) -> None:
        """Ask the client to begin nothing more here; what it began until it heard of it is served.

        See https://www.rfc-editor.org/rfc/rfc9113#section-6.8: the client closes, or is closed when it is idle.
        """
        if not self._is_ending:
            self._is_ending = True
            self.conn.close(_NO_ERROR, _LAST_STREAM_MAX)


class Http2Protocol(RenewedProtocol):
    """The same over joined writes, on a connection that does not wait for its client for ever.

    A request whose head is all of it is served as well.
    """

    bounds: ClassVar[Connections]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # When a request last went on, and when the client last took something of an answer.
        self._since = self._taken_at = self.loop.time()
        self._unread_bytes = 0
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
        if not self._frames.is_holding:
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
        cycle = self.cycles.get(event.stream_id)
        if event.end_stream and cycle is not None:
            cycle.more_body = False
            cycle.message_event.set()

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

    def _close_connection(self) -> None:
        """Close, unless the client has yet to make room for what was answered: then when it has, or is overdue."""
        if not self.conn.has_pending_send():
            super()._close_connection()

    def _leave(self, reason: int) -> None:
        """Close the connection with a word."""
        self.conn.close(reason)
        self.flush()
        self.transport.close()


def _without_header_table(greeting: bytes) -> bytes:
    """Return the first frame of a server, its settings, with a header table of no bytes."""
    settings = bytearray(greeting)
    for at in range(FRAME_HEAD_BYTES, FRAME_HEAD_BYTES + int.from_bytes(greeting[:3], "big"), 6):
        if int.from_bytes(settings[at : at + 2], "big") == _HEADER_TABLE_SIZE:
            settings[at + 2 : at + 6] = bytes(4)
    return bytes(settings)


def _successor(old: zttp.H2Connection, settings: dict[int, int], last_stream: int) -> zttp.H2Connection:
    """Return what stands where `old` stands between two requests, and has counted none.

    It is told what it would know: the client's settings, its last request, and the window that is left for answers. The
    client's heads refer to no earlier ones, by the server's settings, nor do those of zttp.
    """
    window = old.send_window
    spent = max(0, _WINDOW_BYTES - window)
    told = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in settings.items())
    frames = [
        PREFACE,
        frame(SETTINGS, 0, 0, told),
        frame(HEADERS, END_HEADERS | END_STREAM, last_stream, _SMALLEST_HEAD),
    ]
    if (missing := spent - settings.get(_INITIAL_WINDOW_SIZE, _WINDOW_BYTES)) > 0:
        frames.append(frame(WINDOW_UPDATE, 0, last_stream, missing.to_bytes(4, "big")))
    if window > _WINDOW_BYTES:
        frames.append(frame(WINDOW_UPDATE, 0, 0, (window - _WINDOW_BYTES).to_bytes(4, "big")))
    made: zttp.H2Connection = zttp.Connection(zttp.SERVER, protocol=zttp.HTTP2)
    made.initiate_connection()
    made.receive_data(b"".join(frames))
    while made.next_event() is not zttp.NEED_DATA:
        continue
    stream = made.stream(last_stream)
    stream.send_response(200, [])
    if spent:
        stream.send_data(bytes(spent))
    stream.end_message()
    # Nobody hears of this.
    made.data_to_send()
    assert made.send_window == window
    assert not made.has_pending_send()
    return made


def http2_with(connections: Connections) -> type[Http2Protocol]:
    """Return the protocol of a process whose connections are counted by `connections`."""

    class Bounded(Http2Protocol):
        """The same with the bounds of this process."""

        bounds = connections

    return Bounded
