"""HTTP/2 by hand, for what no gRPC client would send."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events

__all__ = ["Answered", "RawHttp2"]


@dataclass
class Answered:
    """What came back on one stream; `reset` is the code of a stream that was broken off."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    reset: int | None = None
    is_over: bool = False

    @property
    def code(self) -> int:
        return int(self.trailers["grpc-status"])

    @property
    def message(self) -> str:
        return unquote(self.trailers.get("grpc-message", ""))


class RawHttp2:
    """One connection to a port of this machine."""

    def __init__(self, port: int, *, timeout: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._port = port
        config = h2.config.H2Configuration(
            header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def begin(
        self, path: str, headers: dict[str, str] | None = None, *, method: str = "POST", end: bool = False
    ) -> int:
        """Send the head of a request; return its stream."""
        stream = self.h2.get_next_available_stream_id()
        lines = {
            ":method": method,
            ":scheme": "http",
            ":path": path,
            ":authority": f"localhost:{self._port}",
            "content-type": "application/grpc",
            "te": "trailers",
            **(headers or {}),
        }
        self.h2.send_headers(stream, list(lines.items()), end_stream=end)
        self._flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send a part of a body that fits into the window."""
        for at in range(0, max(1, len(data)), 16_384):
            part = data[at : at + 16_384]
            self.h2.send_data(stream, part, end_stream=end and at + 16_384 >= len(data))
        self._flush()

    def answer(self, stream: int) -> Answered:
        """Wait for the whole answer. Raises `ConnectionError` where the server closes the connection instead."""
        answered = Answered()
        while not answered.is_over:
            data = self.socket.recv(65_536)
            if not data:
                raise ConnectionError("closed")
            for event in self.h2.receive_data(data):
                self._take(event, stream, answered)
            if not answered.is_over:
                # Else the server may be gone, and what is left to say goes with the next request.
                self._flush()
        return answered

    def call(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> Answered:
        """Send a whole request and return its answer."""
        stream = self.begin(path, headers)
        self.send(stream, body, end=True)
        return self.answer(stream)

    def _take(self, event: h2.events.Event, stream: int, answered: Answered) -> None:
        if getattr(event, "stream_id", None) != stream:
            return
        match event:
            case h2.events.ResponseReceived():
                answered.headers = dict(event.headers)
            case h2.events.DataReceived():
                answered.body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
            case h2.events.TrailersReceived():
                answered.trailers = dict(event.headers)
            case h2.events.StreamReset():
                answered.reset, answered.is_over = int(event.error_code), True
            case h2.events.StreamEnded():
                answered.is_over = True

    def _flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())
