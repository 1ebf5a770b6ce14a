"""Pokes: content-free datagrams between the processes of one machine, so that nobody waits for a poll.

A poke says "look again at this topic". Topics: `log:<log_id>` (the log has grown) and
`manifest:<index_id>/<partition>` (there is a newer manifest). A receiver arms itself before it reads; a lost poke
costs one poll, never correctness.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import tempfile
from collections.abc import Callable, Container
from pathlib import Path

from schemas.errors import ConfigError

__all__ = ["PokeReceiver", "PokeSender", "log_topic", "manifest_topic", "socket_path"]

# The address of a Unix socket holds 104 bytes on macOS and 108 on Linux, the closing NUL included.
_PATH_BYTES_MAX = 100
# Linux queues at least this many datagrams per socket (net.unix.max_dgram_qlen) before it refuses more.
_QUEUE_LENGTH = 10
_TOPIC_BYTES_MAX = 512


def log_topic(log_id: str) -> str:
    """Return the topic that is poked when the log has grown."""
    return f"log:{log_id}"


def manifest_topic(index_id: str, partition: int) -> str:
    """Return the topic that is poked when a partition of an index has a newer manifest."""
    return f"manifest:{index_id}/{partition}"


def socket_path(directory: Path, receiver: str) -> str:
    """Return the path of a receiver's socket: inside `directory`, or in the temporary folder where that is too long.

    Both sides compute it, so they agree without talking.
    """
    path = os.fspath(directory.absolute() / f"{receiver}.sock")
    if len(os.fsencode(path)) <= _PATH_BYTES_MAX:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:20]
    return os.fspath(Path(tempfile.gettempdir()) / f"freshet-{os.getuid()}-{digest}.sock")


class PokeSender:
    """Sends pokes to one receiver, of all topics or of those in `only`. Safe to use from any thread."""

    def __init__(self, directory: Path, receiver: str, *, only: Container[str] | None = None) -> None:
        self._only = only
        self._path = socket_path(directory, receiver)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0)

    def poke(self, topic: str) -> None:
        """Say that `topic` has news. Never blocks, never raises: nobody listening or a full queue loses the poke."""
        if self._only is not None and topic not in self._only:
            return
        # Nobody is bound, the queue is full, or this sender is closed: all of them are what the poll is there for.
        with contextlib.suppress(OSError):
            self._socket.sendto(topic.encode(), self._path)

    def close(self) -> None:
        """Release the socket; later pokes are lost."""
        self._socket.close()


class PokeReceiver:
    """Receives pokes for one process and hands them to whoever subscribed to the topic."""

    def __init__(self, directory: Path, receiver: str) -> None:
        self._path = socket_path(directory, receiver)
        self._socket: socket.socket | None = None
        self._callbacks: dict[str, list[Callable[[], None]]] = {}

    async def start(self) -> None:
        """Bind the socket, replacing one that a dead process left behind.

        Raises `ConfigError` where the folder does not take sockets.
        """
        self._socket = _bound(self._path)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._receive)

    def listen(self, topic: str, callback: Callable[[], None]) -> None:
        """Call `callback` on the event loop for every poke of `topic`."""
        self._callbacks.setdefault(topic, []).append(callback)

    def subscribe(self, topic: str) -> asyncio.Event:
        """Return an event of the caller's own, set by every poke of `topic`; clear it before reading on."""
        event = asyncio.Event()
        self.listen(topic, event.set)
        return event

    def unsubscribe(self, topic: str) -> None:
        """Forget every event and callback of `topic`."""
        self._callbacks.pop(topic, None)

    async def close(self) -> None:
        """Stop receiving and remove the socket."""
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = None
        _remove(self._path)

    def _receive(self) -> None:
        """Take every datagram that waits; where the queue may have overflowed, wake all topics."""
        assert self._socket is not None
        topics: set[str] = set()
        received = 0
        # BlockingIOError says that the queue is empty.
        with contextlib.suppress(BlockingIOError):
            while received < 1_000:
                topics.add(self._socket.recv(_TOPIC_BYTES_MAX).decode(errors="replace"))
                received += 1
        if received >= _QUEUE_LENGTH:
            topics.update(self._callbacks)
        for topic in topics:
            for callback in tuple(self._callbacks.get(topic, ())):
                callback()


def _bound(path: str) -> socket.socket:
    receiving = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        receiving.settimeout(0)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        _remove(path)
        receiving.bind(path)
    except OSError as error:
        receiving.close()
        raise ConfigError(
            f"Cannot bind the wake-up socket {path}: {error.strerror}. Use a data directory on a local disk.",
            path=path,
        ) from error
    return receiving


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)
