"""What passes between the owner of the embedded log and the processes that hand it packs, over a Unix socket.

A frame is `<body length: u32> <kind: u8> <number: u64> body`, little-endian; an answer carries the number of its
request. Both ends are the same version of the same program on one machine.
"""

from __future__ import annotations

import asyncio
import json
import struct
from enum import IntEnum
from typing import Any, cast

import schemas.errors
from producer.log.protocol import Appended
from producer.log.sqlite_commits import AppendRequest
from producer.log.sqlite_open import Made
from producer.log.sqlite_rows import Run
from schemas.errors import CorruptData, FreshetError, PayloadTooLarge
from schemas.limits import APPEND_BYTES_MAX

__all__ = [
    "FRAME_BYTES_MAX",
    "GREETING",
    "FrameProtocol",
    "Kind",
    "decode_append",
    "decode_appended",
    "decode_error",
    "decode_made",
    "decode_words",
    "encode_append",
    "encode_appended",
    "encode_error",
    "encode_frame",
    "encode_words",
]

# The largest append and what frames its records: 12 bytes each, and 6 for each of their headers.
FRAME_BYTES_MAX = 2 * APPEND_BYTES_MAX
# The number of the frame with which the owner begins every connection; requests are numbered from 1.
GREETING = 0
_HEAD = struct.Struct("<IBQ")
_APPEND = struct.Struct("<BqI")
_RUN = struct.Struct("<II")
_APPENDED = struct.Struct("<qq")


class Kind(IntEnum):
    """What a frame says."""

    APPEND = 1
    MAKE = 2
    DROP = 3
    DONE = 4
    FAILED = 5


class FrameProtocol(asyncio.Protocol):
    """One end of a connection: cuts what comes into frames. Subclasses say what a frame means."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()

    def frame_received(self, kind: int, number: int, body: bytes) -> None:
        """Take a frame. Raises `CorruptData` for one that means nothing, which ends the connection."""
        raise NotImplementedError

    def ended(self, reason: str) -> None:
        """Take note that the connection is gone."""
        raise NotImplementedError

    def send(self, kind: Kind, number: int, body: bytes) -> None:
        """Send a frame; nothing where the connection is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode_frame(kind, number, body))

    def close(self) -> None:
        """Close after all that was sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # uvloop's transports are none by inheritance.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._buffer += data
        at = 0
        try:
            while len(self._buffer) - at >= _HEAD.size:
                length, kind, number = _HEAD.unpack_from(self._buffer, at)
                if length > FRAME_BYTES_MAX:
                    raise CorruptData(f"A frame of {length} bytes; at most {FRAME_BYTES_MAX} are taken.")
                if len(self._buffer) - at < _HEAD.size + length:
                    break
                begin = at + _HEAD.size
                at = begin + length
                self.frame_received(kind, number, bytes(self._buffer[begin:at]))
        except CorruptData as error:
            self.abort()
            self.ended(error.message)
        del self._buffer[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.ended(str(exc) if exc else "it was closed")


def encode_frame(kind: Kind, number: int, body: bytes) -> bytes:
    """Return the bytes of a frame."""
    return _HEAD.pack(len(body), kind, number) + body


def encode_append(request: AppendRequest) -> bytes:
    """Return the body of an append. Raises `PayloadTooLarge` where millions of tiny records don't fit into a frame."""
    log_id = request.log_id.encode()
    parts = [_APPEND.pack(len(log_id), request.slot, request.size_bytes), log_id]
    for run in request.runs:
        parts += (_RUN.pack(run.count, len(run.data)), run.data)
    body = b"".join(parts)
    if len(body) > FRAME_BYTES_MAX:
        raise PayloadTooLarge(
            f"One append is {len(body)} bytes with the frames of its records; at most {FRAME_BYTES_MAX} are taken. "
            "Send fewer records at once.",
            size_bytes=len(body),
            limit_bytes=FRAME_BYTES_MAX,
        )
    return body


def decode_append(body: bytes) -> AppendRequest:
    """Return what `encode_append` was given. Raises `CorruptData`."""
    try:
        id_length, slot, size_bytes = _APPEND.unpack_from(body)
        at = _APPEND.size + id_length
        log_id = body[_APPEND.size : at].decode()
        runs = []
        while at < len(body):
            count, length = _RUN.unpack_from(body, at)
            at += _RUN.size + length
            runs.append(Run(count, body[at - length : at]))
    except (struct.error, UnicodeDecodeError) as error:
        raise CorruptData(f"An append that can't be read: {error}.") from error
    if at != len(body):
        raise CorruptData("An append that is cut short.")
    return AppendRequest(log_id, slot, runs, size_bytes)


def encode_appended(appended: Appended) -> bytes:
    """Return the body of the answer to an append."""
    return _APPENDED.pack(appended.begin_offset, appended.next_offset)


def decode_appended(body: bytes) -> Appended:
    """Return what `encode_appended` was given. Raises `CorruptData`."""
    try:
        return Appended(*_APPENDED.unpack(body))
    except struct.error as error:
        raise CorruptData(f"An answer that can't be read: {error}.") from error


def encode_words(*words: object) -> bytes:
    """Return the body of what is rare: a JSON array."""
    return json.dumps(words).encode()


def decode_words(body: bytes, count: int) -> list[Any]:
    """Return the array of `count` words. Raises `CorruptData`."""
    try:
        words = json.loads(body)
    except ValueError as error:
        raise CorruptData(f"A frame that can't be read: {error}.") from error
    if not isinstance(words, list) or len(words) != count:
        raise CorruptData(f"A frame of {count} words was expected.")
    return words


def decode_made(body: bytes) -> Made:
    """Return identity and slots of a log that was made. Raises `CorruptData`."""
    log_id, slots = decode_words(body, 2)
    return str(log_id), [int(slot) for slot in slots]


def encode_error(error: FreshetError) -> bytes:
    """Return the body of an error: its kind, message, pause before the next try, and facts."""
    words = (type(error).__name__, error.message, error.retry_after_seconds, error.facts)
    return json.dumps(words, default=str).encode()


def decode_error(body: bytes) -> FreshetError:
    """Return the error as its thrower made it. Raises `CorruptData`."""
    kind, message, retry_after_seconds, facts = decode_words(body, 4)
    known = getattr(schemas.errors, str(kind), None) if kind in schemas.errors.__all__ else None
    if not (isinstance(known, type) and issubclass(known, FreshetError)):
        raise CorruptData(f"An error of a kind that nobody knows: {kind}.")
    if retry_after_seconds is not None:
        facts["retry_after_seconds"] = retry_after_seconds
    return known(message, **facts)
