"""A lean HTTP/1.1 client for load: one connection, keep-alive, no validation. Not for anything else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import orjson


@dataclass(frozen=True)
class Answer:
    """Status, lower-case headers and body of an answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict:
        return orjson.loads(self.body)


class Connection:
    """One connection to the server."""

    def __init__(self, port: int, prefix: str = "") -> None:
        self._port = port
        self._prefix = prefix
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def call(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Answer:
        """Send a request and return the answer; reconnect where the connection was closed."""
        if self._writer is None or self._writer.is_closing():
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)
        data = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = (
            f"{method} {self._prefix}{path} HTTP/1.1\r\nhost: localhost\r\napi-key: bench\r\n"
            f"content-type: application/json\r\ncontent-length: {len(data)}\r\n{extra}\r\n"
        )
        self._writer.write(head.encode() + data)
        return await self._answer()

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    async def _answer(self) -> Answer:
        assert self._reader is not None
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {}
        for line in head[1:]:
            name, _, value = line.partition(": ")
            if name:
                headers[name.lower()] = value
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(head[0].split(" ")[1]), headers, body)
