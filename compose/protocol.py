"""HTTP/1.1 as uvicorn speaks it by httptools, with each answer written to its socket in one call.

uvicorn writes the head of an answer when it begins and the body after it. Between the two the kernel wakes the client
for half an answer: that took a quarter of the time of a small query.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from compose.connections import Connections, refusal

__all__ = ["JoinedWrites", "JoiningProtocol", "protocol_with"]


class JoinedWrites:
    """A transport that writes what comes in one turn of the loop at the end of it, or when it is told to."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Write `data` after all that was written before it."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)

    def close(self) -> None:
        """Close after all that was written."""
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Write what waits, now."""
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's own."""
        return getattr(self._transport, name)


class JoiningProtocol(HttpToolsProtocol):
    """uvicorn's protocol over joined writes, on a connection that does not wait for its client for ever."""

    bounds: ClassVar[Connections]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Bytes read since the last progress of the request; of what waits to be written, as last seen.
        self._fruitless_bytes = 0
        self._unread_bytes = 0
        self._since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn is called
        """See `asyncio.Protocol`."""
        self._joined = JoinedWrites(transport, self.loop)
        super().connection_made(self._joined)  # type: ignore[arg-type] # all that it uses of one
        self._since = self.loop.time()
        if not self.bounds.admit(self):
            self._refuse(
                503, "Too many connections are open: close some, or use those that are open for more requests."
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.bounds.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`; a head that does not end is refused before it is kept."""
        self._since = self.loop.time()
        self._fruitless_bytes += len(data)
        super().data_received(data)
        limit = self.bounds.limits.head_bytes_max
        if self._fruitless_bytes > limit and not self.transport.is_closing():
            self._refuse(431, f"The head of a request may have {limit} bytes; this one has more.")

    def on_headers_complete(self) -> None:
        """Go on to the body."""
        self._fruitless_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take in a part of the body."""
        self._fruitless_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Have the whole request."""
        self._fruitless_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Write the answer now that it is whole, before anything else is done for it."""
        self._joined.flush()
        super().on_response_complete()

    def overdue(self, now: float) -> bool:
        """See `Watched`."""
        limits = self.bounds.limits
        unread = self.transport.get_write_buffer_size()
        if unread:
            if unread != self._unread_bytes:
                self._unread_bytes, self._since = unread, now
            return now - self._since > limits.answer_seconds
        self._unread_bytes = 0
        # None until the first head is whole.
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None:
            return now - self._since > (limits.request_seconds if self._fruitless_bytes else limits.first_seconds)
        if cycle.response_complete:
            # Between requests uvicorn's own timer decides, unless the next one was begun.
            return self._fruitless_bytes > 0 and now - self._since > limits.request_seconds
        return cycle.more_body and not self.flow.read_paused and now - self._since > limits.request_seconds

    def give_up(self) -> None:
        """See `Watched`."""
        cycle: RequestResponseCycle | None = self.cycle
        if self._unread_bytes or (cycle is not None and cycle.response_started and not cycle.response_complete):
            self.transport.abort()
            return
        self._refuse(
            408, f"Nothing came for {self.bounds.limits.request_seconds:g} seconds, and the request is not whole."
        )

    def _refuse(self, status: int, message: str) -> None:
        self._joined.write(refusal(status, message))
        self._joined.close()


def protocol_with(connections: Connections) -> type[JoiningProtocol]:
    """Return the protocol of a process whose connections are counted by `connections`."""

    class Bounded(JoiningProtocol):
        """The same with the bounds of this process."""

        bounds = connections

    return Bounded
