"""One call: its deadline and its one answer, as headers, messages and trailers of ASGI."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

from query_api.grpc.frames import ENCODINGS, THREAD_BYTES, deflated, frame
from query_api.grpc.status import OK_TRAILERS, headers_of, http_status_of, trailers_of
from query_api.rest.exchange import Send
from schemas.errors import DeadlineExceeded, FreshetError, InvalidRequest

__all__ = ["Exchange", "deadline_exceeded", "timeout_of"]

_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_ACCEPTED = ",".join(["identity", *ENCODINGS]).encode()
# Longer than any call here may take; the event loop's clock does not count further than some years.
_SECONDS_MAX = 86_400.0


def timeout_of(headers: Mapping[bytes, bytes]) -> float | None:
    """Return the seconds that a caller gives its call, None for no limit. Raises `InvalidRequest`."""
    value = headers.get(b"grpc-timeout")
    if value is None:
        return None
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise InvalidRequest(
            "Metadata grpc-timeout must be up to 8 digits and one of H, M, S, m, u and n, "
            f"got {value[:40].decode('latin-1')!r}"
        )
    return min(_SECONDS_MAX, int(match[1]) * _UNITS[match[2]])


def deadline_exceeded(seconds: float) -> DeadlineExceeded:
    """Return what a caller is told whose deadline has passed."""
    return DeadlineExceeded(
        f"The deadline of {seconds:g} s has passed. A write that was accepted is carried out all the same."
    )


class Exchange:
    """Sends the answer to one call; whatever comes after it is dropped.

    `expire` answers by itself when the deadline has passed: what is under way is not torn, so that a write that was
    accepted is appended, and nobody waits for it.
    """

    def __init__(self, send: Send, headers: Mapping[bytes, bytes], request_id: tuple[bytes, bytes]) -> None:
        self._send = send
        self._request_id = request_id
        accepted = headers.get(b"grpc-accept-encoding", b"").split(b",")
        self._takes_gzip = any(encoding.strip() == b"gzip" for encoding in accepted)
        self._has_begun = False
        self._timer: asyncio.TimerHandle | None = None
        self._expiry: asyncio.Task[None] | None = None
        self.is_over = False
        self.http_status = 200

    def begin_deadline(self, seconds: float | None) -> None:
        """Answer `DeadlineExceeded` in so many seconds, unless there is an answer by then."""
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._expire, seconds)

    async def reply(self, message: bytes, headers: Mapping[str, str]) -> None:
        """Answer with one message."""
        if self.is_over:
            return
        smaller: bytes | None = None
        if self._takes_gzip:
            heavy = len(message) >= THREAD_BYTES
            smaller = await asyncio.to_thread(deflated, message) if heavy else deflated(message)
        if not self._take():
            return
        encoding = [] if smaller is None else [(b"grpc-encoding", b"gzip")]
        body = frame(message) if smaller is None else frame(smaller, is_deflated=True)
        await self._start(headers, encoding)
        await self._send({"type": "http.response.body", "body": body})
        await self._send({"type": "http.response.trailers", "headers": OK_TRAILERS})

    async def message(self, message: bytes) -> None:
        """Send one of several messages."""
        if not self._has_begun and not self.is_over:
            self._has_begun = True
            await self._start({}, [])
        if not self.is_over:
            await self._send({"type": "http.response.body", "body": frame(message), "more_body": True})

    async def finish(self) -> None:
        """End an answer of several messages."""
        if self._take():
            if not self._has_begun:
                await self._start({}, [])
            await self._end(OK_TRAILERS)

    async def fail(self, error: FreshetError) -> None:
        """Answer with an error."""
        if self._take():
            self.http_status = http_status_of(error)
            if not self._has_begun:
                await self._start(headers_of(error), [])
            await self._end(trailers_of(error))

    def close(self) -> None:
        """Take note that the client has gone: nobody waits for an answer."""
        self._take()

    def _take(self) -> bool:
        """Say whether there is no answer yet; from now on there is."""
        is_first, self.is_over = not self.is_over, True
        if self._timer is not None:
            self._timer.cancel()
        return is_first

    def _expire(self, seconds: float) -> None:
        self._expiry = asyncio.get_running_loop().create_task(self.fail(deadline_exceeded(seconds)))

    async def _start(self, headers: Mapping[str, str], encoding: list[tuple[bytes, bytes]]) -> None:
        lines = [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", _ACCEPTED), self._request_id]
        lines += encoding
        lines += [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": lines, "trailers": True})

    async def _end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.body", "body": b""})
        await self._send({"type": "http.response.trailers", "headers": trailers})
