"""A lean gRPC client for load: one HTTP/2 connection, one call at a time, heads encoded once. Not for anything else.

What comes back is told by its frames: an answer has a message, an error has none.
"""

from __future__ import annotations

import asyncio
import struct

import hpack

from compose.http2_frames import END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE, frame

__all__ = ["GrpcConnection"]

_DATA, _RST, _PING, _GOAWAY = 0, 3, 6, 7
_ACK = 1
_WIDE = 2**30
_FRAME_BYTES = 16_384
_READ_BYTES = 1 << 18


class GrpcConnection:
    """One connection to the control port; the index is the first label of the host name."""

    def __init__(self, port: int, index: str) -> None:
        self._port = port
        self._authority = f"{index}.localhost:{port}"
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._heads: dict[str, bytes] = {}
        self._unread = b""
        self._stream = 1
        self._window = self._stream_window = self._first_window = 65_535

    async def call(self, method: str, message: bytes) -> bytes:
        """Send one message and return the one that is the answer. Raises `RuntimeError` where it is an error."""
        if self._writer is None:
            await self._open()
        assert self._writer is not None
        stream, self._stream = self._stream, self._stream + 2
        self._stream_window = self._first_window
        body = b"\0" + len(message).to_bytes(4, "big") + message
        parts = [frame(HEADERS, END_HEADERS, stream, self._head(method))]
        at = 0
        while at < len(body):
            room = min(_FRAME_BYTES, self._window, self._stream_window, len(body) - at)
            if room <= 0:
                self._writer.write(b"".join(parts))
                parts = []
                await self._next(stream)
                continue
            end = at + room == len(body)
            parts.append(frame(_DATA, END_STREAM if end else 0, stream, body[at : at + room]))
            self._window -= room
            self._stream_window -= room
            at += room
        self._writer.write(b"".join(parts))
        return await self._answer(stream, method)

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    async def _open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)
        settings = struct.pack(">HI", 4, _WIDE)
        grown = struct.pack(">I", _WIDE)
        self._writer.write(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, grown))

    def _head(self, method: str) -> bytes:
        """Return the encoded head of a call; it refers to nothing that was said before."""
        if method not in self._heads:
            lines = [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", f"/VectorService/{method}"),
                (":authority", self._authority),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                ("api-key", "bench"),
                ("grpc-timeout", "20S"),
            ]
            self._heads[method] = hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*line) for line in lines])
        return self._heads[method]

    async def _answer(self, stream: int, method: str) -> bytes:
        data: list[bytes] = []
        while True:
            kind, flags, place, payload = await self._next(stream)
            if place != stream:
                continue
            if kind == _DATA:
                data.append(payload)
            if kind == _RST or (kind in (_DATA, HEADERS) and flags & END_STREAM):
                break
        body = b"".join(data)
        if not body or len(body) != 5 + int.from_bytes(body[1:5], "big"):
            raise RuntimeError(f"{method} was answered by an error")
        return body[5:]

    async def _next(self, stream: int) -> tuple[int, int, int, bytes]:
        """Read a frame, and keep account of windows."""
        assert self._writer is not None
        await self._fill(9)
        head = self._unread[:9]
        kind, flags = head[3], head[4]
        place = int.from_bytes(head[5:], "big")
        end = 9 + int.from_bytes(head[:3], "big")
        await self._fill(end)
        payload, self._unread = self._unread[9:end], self._unread[end:]
        if kind == WINDOW_UPDATE:
            grown = int.from_bytes(payload, "big")
            if place == 0:
                self._window += grown
            elif place == stream:
                self._stream_window += grown
        elif kind == SETTINGS and not flags & _ACK:
            self._writer.write(frame(SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._writer.write(frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            raise RuntimeError(f"The server closed the connection: {payload!r}")
        return kind, flags, place, payload

    async def _fill(self, size: int) -> None:
        """Read until `size` bytes wait. Raises `ConnectionError` where the server closes before."""
        assert self._reader is not None
        while len(self._unread) < size:
            data = await self._reader.read(_READ_BYTES)
            if not data:
                raise ConnectionError("The server closed the connection within a frame")
            self._unread += data
