"""gRPC messages in a body: one flag, four bytes of length, the message.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. A message that is broken is the client's
mistake, whatever is wrong with it; it is never more than `bytes_max` long, also once it is inflated.
"""

from __future__ import annotations

import asyncio
import zlib

from query_api.rest.exchange import Receive
from schemas.errors import InvalidRequest, PayloadTooLarge, Unimplemented

__all__ = ["ENCODINGS", "MESSAGE_BYTES_MAX", "THREAD_BYTES", "Gone", "Messages", "deflated", "frame"]

MESSAGE_BYTES_MAX = 128 * 1024 * 1024
# What a client may have compressed its messages by, and zlib's name for it.
ENCODINGS = {"gzip": 31, "deflate": 15}
# From here on work on a message is done on a thread.
THREAD_BYTES = 64 * 1024
_HEAD_BYTES = 5
# Smaller answers fit into a few packets; for what grows no smaller by a fifth, inflating costs more than it saves.
_DEFLATED_BYTES_MIN = 16 * 1024
_SAMPLE_BYTES = 2 * 1024
_WORTH = 0.8


class Gone(Exception):
    """The client went away before its request was whole."""


class Messages:
    """Takes the messages out of a request's body as they arrive."""

    def __init__(self, receive: Receive, *, encoding: str = "identity", bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        """Read by `receive`; `encoding` is the header `grpc-encoding`."""
        self._receive = receive
        self._encoding = encoding
        self._bytes_max = bytes_max
        self._buffer = bytearray()
        self._is_over = False

    async def next(self) -> bytes | None:
        """Return the next message, None after the last one.

        Raises `Gone`; `InvalidRequest` for what is no message, `PayloadTooLarge`, `Unimplemented` for its encoding.
        """
        if not await self._fill(_HEAD_BYTES):
            if self._buffer:
                raise InvalidRequest(
                    f"Invalid request: the body ends {len(self._buffer)} bytes into the {_HEAD_BYTES} before a message"
                )
            return None
        flag, length = self._buffer[0], int.from_bytes(self._buffer[1:_HEAD_BYTES], "big")
        if flag > 1:
            raise InvalidRequest(f"Invalid request: the flag before a message must be 0 or 1, got {flag}")
        if length > self._bytes_max:
            raise self._too_large(length)
        if flag:
            self._check_encoding()
        end = _HEAD_BYTES + length
        if not await self._fill(end):
            raise InvalidRequest(
                f"Invalid request: the message has {len(self._buffer) - _HEAD_BYTES} of the {length} bytes announced"
            )
        with memoryview(self._buffer) as buffer:
            message = bytes(buffer[_HEAD_BYTES:end])
        del self._buffer[:end]
        if not flag:
            return message
        if length < THREAD_BYTES:
            return self._inflated(message)
        return await asyncio.to_thread(self._inflated, message)

    async def only(self) -> bytes:
        """Return the one message of a unary request. Raises as `next`, and where there are more or none."""
        message = await self.next()
        if message is None:
            raise InvalidRequest("Invalid request: the body has no message")
        if self._buffer or await self._fill(1):
            raise InvalidRequest("Invalid request: the body has more than one message; the method takes one")
        return message

    async def gone(self) -> None:
        """Return when the client has gone away."""
        while (await self._receive())["type"] != "http.disconnect":
            continue

    async def _fill(self, size: int) -> bool:
        """Read until `size` bytes wait; say no where the body ends before."""
        while len(self._buffer) < size and not self._is_over:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            self._buffer += message.get("body", b"")
            self._is_over = not message.get("more_body", False)
        return len(self._buffer) >= size

    def _check_encoding(self) -> None:
        if self._encoding in ENCODINGS:
            return
        if self._encoding == "identity":
            raise InvalidRequest("Invalid request: a message is flagged as compressed, and no 'grpc-encoding' says how")
        raise Unimplemented(
            f"Messages compressed by '{self._encoding[:40]}' are not understood; these are: {', '.join(ENCODINGS)}"
        )

    def _inflated(self, data: bytes) -> bytes:
        inflating = zlib.decompressobj(ENCODINGS[self._encoding])
        try:
            message = inflating.decompress(data, self._bytes_max + 1)
        except zlib.error as error:
            raise InvalidRequest(f"Invalid request: the message is not what {self._encoding} makes: {error}") from error
        if len(message) > self._bytes_max:
            raise self._too_large(len(message))
        if not inflating.eof:
            raise InvalidRequest(f"Invalid request: the message is cut off within its {self._encoding} data")
        return message

    def _too_large(self, size: int) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"The message of {size} bytes is larger than the limit of {self._bytes_max}: send fewer records at a time.",
            limit=self._bytes_max,
        )


def frame(message: bytes, *, is_deflated: bool = False) -> bytes:
    """Return a message as it stands in a body."""
    return bytes((is_deflated,)) + len(message).to_bytes(4, "big") + message


def deflated(message: bytes) -> bytes | None:
    """Return a message in gzip, None where that does not pay."""
    if len(message) < _DEFLATED_BYTES_MIN:
        return None
    # Vectors hardly shrink: a piece from the middle tells, at a fraction of the cost.
    middle = len(message) // 2
    sample = message[middle : middle + _SAMPLE_BYTES]
    if len(zlib.compress(sample, 1)) > _WORTH * len(sample):
        return None
    packing = zlib.compressobj(1, zlib.DEFLATED, ENCODINGS["gzip"])
    smaller = packing.compress(message) + packing.flush()
    return smaller if len(smaller) <= _WORTH * len(message) else None
