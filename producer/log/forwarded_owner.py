"""The door at which the owner of the embedded log takes packs from the other processes of its data directory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from producer.log.forwarded_frames import (
    GREETING,
    FrameProtocol,
    Kind,
    decode_append,
    decode_words,
    encode_appended,
    encode_error,
    encode_words,
)
from producer.log.protocol import Appended
from producer.log.sqlite_commits import AppendRequest
from producer.log.sqlite_open import Made
from schemas.errors import ConfigError, CorruptData, FreshetError

__all__ = ["DoorOptions", "Owner", "OwnerDoor"]

_log = structlog.get_logger(__name__)


class Owner(Protocol):
    """Who writes the embedded log: `SqliteLogs`, whose docstrings say what these do."""

    def accept(self, request: AppendRequest) -> asyncio.Future[Appended]:
        """Accept packed records."""
        ...

    async def make(self, name: str, log_id: str | None, partitions: int) -> Made:
        """Make a log."""
        ...

    async def drop(self, name: str, log_id: str, partitions: int) -> None:
        """Drop a log."""
        ...


@dataclass(frozen=True, slots=True)
class DoorOptions:
    """Above so many unanswered requests or bytes of one connection no more is read from it."""

    under_way_max: int = 2_048
    under_way_bytes_max: int = 64 * 1024 * 1024


class OwnerDoor:
    """Listens at a path; appends of one connection are accepted in the order in which they came."""

    def __init__(self, logs: Owner, options: DoorOptions | None = None) -> None:
        self.logs = logs
        self.options = options or DoorOptions()
        self._path = ""
        self._server: asyncio.Server | None = None
        self._guests: set[_Guest] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self, path: str) -> None:
        """Listen at `path`, replacing a socket that a dead process left behind. Raises `ConfigError`."""
        self._path = path
        try:
            _remove(path)
            self._server = await asyncio.get_running_loop().create_unix_server(lambda: _Guest(self), path)
        except OSError as error:
            raise ConfigError(f"Cannot bind the socket of the log's owner {path}: {error.strerror}.") from error

    async def close(self, linger_seconds: float) -> None:
        """Wait until every guest has left, since their last writers may need us; then close the door."""
        if self._server is None:
            return
        with contextlib.suppress(TimeoutError):  # those who stay too long are told by the closed connection
            async with asyncio.timeout(linger_seconds):
                await self._empty.wait()
        self._server.close()
        _remove(self._path)
        for guest in tuple(self._guests):
            await guest.leave()
        self._server = None

    # What follows is called by the connections.

    def came(self, guest: _Guest) -> None:
        """Take note of a new connection."""
        self._guests.add(guest)
        self._empty.clear()

    def left(self, guest: _Guest) -> None:
        """Take note that a connection is gone."""
        self._guests.discard(guest)
        if not self._guests:
            self._empty.set()


class _Guest(FrameProtocol):
    """One connection of another process."""

    def __init__(self, door: OwnerDoor) -> None:
        super().__init__()
        self._door = door
        self._under_way: dict[asyncio.Future[object], int] = {}
        self._bytes = 0
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._door.came(self)
        self.send(Kind.DONE, GREETING, b"")

    def frame_received(self, kind: int, number: int, body: bytes) -> None:
        """Accept a request at once; its answer goes out when it is there."""
        try:
            if kind == Kind.APPEND:
                self._track(self._door.logs.accept(decode_append(body)), number, len(body), _appended)
            elif kind == Kind.MAKE:
                name, log_id, partitions = decode_words(body, 3)
                self._task(self._door.logs.make(name, log_id, partitions), number, _made)
            elif kind == Kind.DROP:
                name, log_id, partitions = decode_words(body, 3)
                self._task(self._door.logs.drop(name, log_id, partitions), number, lambda _: b"")
            else:
                raise CorruptData(f"A request of a kind that nobody knows: {kind}.")
        except CorruptData:
            raise
        except FreshetError as error:
            self.send(Kind.FAILED, number, encode_error(error))

    def ended(self, reason: str) -> None:
        """See `FrameProtocol`; what was accepted is carried out."""
        _log.debug("log.guest_left", reason=reason)
        self._door.left(self)

    async def leave(self) -> None:
        """Read no more, answer what was accepted, close."""
        self._pause()
        if self._under_way:
            await asyncio.wait(set(self._under_way))
            # The answers are sent by callbacks of the same turn.
            await asyncio.sleep(0)
        self.close()

    def _task(self, work: Coroutine[object, object, object], number: int, encode: Callable[[object], bytes]) -> None:
        self._track(asyncio.create_task(work), number, 0, encode)

    def _track(
        self,
        future: asyncio.Future[object] | asyncio.Future[Appended],
        number: int,
        size: int,
        encode: Callable[[object], bytes],
    ) -> None:
        def done(answer: asyncio.Future[object]) -> None:
            self._bytes -= self._under_way.pop(answer)
            error = answer.exception()
            if error is None:
                self.send(Kind.DONE, number, encode(answer.result()))
            elif isinstance(error, FreshetError):
                self.send(Kind.FAILED, number, encode_error(error))
            else:
                _log.critical("log.request_failed", exc_info=error)
                # It is not known what became of the request: a closed connection says so.
                self.abort()
            self._resume_if_due()

        self._under_way[future] = size  # type: ignore[index] # a future of what `encode` takes
        self._bytes += size
        future.add_done_callback(done)  # type: ignore[arg-type]
        options = self._door.options
        if len(self._under_way) >= options.under_way_max or self._bytes >= options.under_way_bytes_max:
            self._pause()

    def _pause(self) -> None:
        if not self._is_paused and self._transport is not None and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def _resume_if_due(self) -> None:
        options = self._door.options
        is_low = len(self._under_way) < options.under_way_max // 2 and self._bytes < options.under_way_bytes_max // 2
        if self._is_paused and is_low and self._transport is not None and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def _appended(value: object) -> bytes:
    assert isinstance(value, Appended)
    return encode_appended(value)


def _made(value: object) -> bytes:
    assert isinstance(value, tuple)
    log_id, slots = value
    return encode_words(log_id, list(slots))
