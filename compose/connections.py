"""Bounds on what one connection may hold: time without a byte, bytes of a head, and its place among the others.

A client that sends half a request, or does not read its answer, keeps memory and an open file. Nothing of that is an
error while it lasts for a moment; here is how long a moment is.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import orjson
import structlog

__all__ = ["ConnectionLimits", "Connections", "Watched", "open_files_max", "refusal"]

_log = structlog.get_logger(__name__)
# Open files kept for logs, snapshots and sockets of our own, of many; of few, this share is kept.
_FILES_KEPT, _FILES_KEPT_SHARE = 2_048, 0.5
# As many as a process asks for where more would be allowed.
_FILES_MAX = 65_536
_SWEEPS = 4
_REASONS = {408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}
_GRPC_CODES = {408: 4, 431: 3, 503: 14}


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Seconds without any progress, bytes and counts after which a connection is given up.

    `request_seconds`: of a request that was begun. `first_seconds`: before the first byte. `answer_seconds`: of an
    answer that its client does not read. `head_bytes_max`: of request line and headers. `connections_max`: open at a
    time, 0 for what the process may have of open files, less those that it needs itself.
    """

    request_seconds: float = 30.0
    first_seconds: float = 75.0
    answer_seconds: float = 60.0
    head_bytes_max: int = 64 * 1024
    connections_max: int = 0


class Watched(Protocol):
    """A connection, as it is looked at now and then."""

    def overdue(self, now: float) -> bool:
        """Say whether it has waited too long for its client, at the loop time `now`."""

    def give_up(self) -> None:
        """Close it, with a word of why where the client can still be told."""


class Connections:
    """All connections of a process: counted, and looked at a few times per shortest wait."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._most = limits.connections_max or _spare(open_files_max())
        self._open: set[Watched] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._is_full = False

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: Watched) -> bool:
        """Take a new connection in; False where there are too many."""
        if len(self._open) >= self._most:
            if not self._is_full:
                self._is_full = True
                _log.warning("connections.full", open=len(self._open), limit=self._most)
            return False
        self._is_full = False
        self._open.add(connection)
        if self._sweep is None:
            self._arm()
        return True

    def forget(self, connection: Watched) -> None:
        """Let a connection go that was closed."""
        self._open.discard(connection)

    def _arm(self) -> None:
        limits = self.limits
        pause = min(limits.request_seconds, limits.first_seconds, limits.answer_seconds) / _SWEEPS
        self._sweep = asyncio.get_running_loop().call_later(pause, self._look)

    def _look(self) -> None:
        self._sweep = None
        now = asyncio.get_running_loop().time()
        for connection in list(self._overdue(now)):
            connection.give_up()
        if self._open:
            self._arm()

    def _overdue(self, now: float) -> Iterator[Watched]:
        return (connection for connection in self._open if connection.overdue(now))


def refusal(status: int, message: str) -> bytes:
    """Return a whole answer of HTTP/1.1 that says why a connection is closed."""
    body = orjson.dumps({"code": _GRPC_CODES[status], "message": message, "details": []})
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    if status == 503:
        head += "retry-after: 1\r\n"
    return f"{head}connection: close\r\n\r\n".encode() + body


def open_files_max() -> int:
    """Let this process open as many files as it is allowed to, and return how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, _FILES_MAX)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def _spare(files: int) -> int:
    return files - _FILES_KEPT if files > 2 * _FILES_KEPT else int(files * _FILES_KEPT_SHARE)
