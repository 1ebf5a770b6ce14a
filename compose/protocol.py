"""HTTP/1.1 as uvicorn speaks it by httptools, with each answer written to its socket in one call.

uvicorn writes the head of an answer when it begins and the body after it. Between the two the kernel wakes the client
for half an answer: that took a quarter of the time of a small query.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["JoiningProtocol"]


class _JoinedWrites:
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
    """uvicorn's protocol over joined writes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn is called
        """See `asyncio.Protocol`."""
        self._joined = _JoinedWrites(transport, self.loop)
        super().connection_made(self._joined)  # type: ignore[arg-type] # all that it uses of one

    def on_response_complete(self) -> None:
        """Write the answer now that it is whole, before anything else is done for it."""
        self._joined.flush()
        super().on_response_complete()
