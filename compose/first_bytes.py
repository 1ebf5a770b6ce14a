"""Which version of HTTP a connection speaks: told by its first bytes, under TLS as well."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.config import Config
from uvicorn.server import ServerState

from compose.connections import Connections
from compose.http2 import Http2Protocol, http2_with
from compose.protocol import JoiningProtocol, protocol_with

__all__ = ["FirstBytesProtocol", "first_bytes_with"]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class FirstBytesProtocol(asyncio.Protocol):
    """Hands a new connection that begins with the preface of HTTP/2 to its protocol, others to that of HTTP/1.1."""

    bounds: ClassVar[Connections]
    http1: ClassVar[type[JoiningProtocol]]
    http2: ClassVar[type[Http2Protocol]]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Take what uvicorn gives to every protocol."""
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._since = 0.0
        self._first = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn is called
        """See `asyncio.Protocol`."""
        self._transport = transport
        self._since = self._loop.time()
        if self.bounds.admit(self):
            self._server_state.connections.add(self)  # type: ignore[arg-type] # asked for `shutdown` only
        else:
            # It refuses what is too much in words.
            self._hand_to(self.http1)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._first += data
        if len(self._first) < len(_PREFACE) and _PREFACE.startswith(self._first):
            return
        self._hand_to(self.http2 if self._first.startswith(_PREFACE) else self.http1)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._forget()

    def shutdown(self) -> None:
        """Close: nothing was asked yet."""
        if self._transport is not None:
            self._transport.close()

    def overdue(self, now: float) -> bool:
        """See `Watched`."""
        limits = self.bounds.limits
        return now - self._since > (limits.request_seconds if self._first else limits.first_seconds)

    def give_up(self) -> None:
        """See `Watched`."""
        self._hand_to(self.http1).give_up()

    def _hand_to(self, kind: type[JoiningProtocol | Http2Protocol]) -> JoiningProtocol | Http2Protocol:
        assert self._transport is not None
        self._forget()
        protocol = kind(self._config, self._server_state, self._app_state, self._loop)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if self._first and not self._transport.is_closing():
            protocol.data_received(self._first)
        return protocol

    def _forget(self) -> None:
        self.bounds.forget(self)
        self._server_state.connections.discard(self)


def first_bytes_with(connections: Connections) -> type[FirstBytesProtocol]:
    """Return the protocol of a process whose connections are counted by `connections`."""

    class Bounded(FirstBytesProtocol):
        """The same with the bounds of this process."""

        bounds = connections
        http1 = protocol_with(connections)
        http2 = http2_with(connections)

    return Bounded
