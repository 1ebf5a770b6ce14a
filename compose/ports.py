"""The ports of the API: bound once, at start, by one process."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from compose.config import Settings
from schemas.errors import ConfigError

__all__ = ["BACKLOG", "BoundPorts", "bind_ports", "check_control_port"]

# Connections that wait to be accepted, per port.
BACKLOG = 4_096
# How long a process that was just killed may take to let go of its ports.
_DYING_SECONDS = 1.0
_RETRY_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class BoundPorts:
    """Listening sockets, the index ports among them, and those that somebody else has."""

    sockets: Sequence[socket.socket]
    index_ports: tuple[int, ...]
    skipped: tuple[int, ...]


def bind_ports(settings: Settings) -> BoundPorts:
    """Bind the control port and every free index port.

    Raises `ConfigError` where the control port is in use; an index port in use elsewhere is skipped.
    """
    control = _control(settings)
    wanted = [port for port in settings.index_ports if port != settings.port]
    sockets = _free(settings.bind, wanted)
    missing = [port for port in wanted if port not in sockets]
    if missing:
        # A server that was killed a moment ago may still be letting go of them.
        time.sleep(_DYING_SECONDS / 4)
        sockets |= _free(settings.bind, missing)
    bound = tuple(port for port in wanted if port in sockets)
    return BoundPorts([control, *sockets.values()], bound, tuple(port for port in wanted if port not in sockets))


def check_control_port(settings: Settings) -> None:
    """Raise `ConfigError` where the control port is in use, before anything is started."""
    _control(settings).close()


def _free(host: str, ports: Sequence[int]) -> dict[int, socket.socket]:
    """Return a listening socket for every port that nobody else has."""
    sockets: dict[int, socket.socket] = {}
    for port in ports:
        # In use elsewhere: the caller says so.
        with contextlib.suppress(OSError):
            sockets[port] = _listening(host, port)
    return sockets


def _control(settings: Settings) -> socket.socket:
    deadline = time.monotonic() + _DYING_SECONDS
    try:
        while True:
            try:
                return _listening(settings.bind, settings.port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_SECONDS)
    except OSError as error:
        reason = "is in use by another program" if error.errno == errno.EADDRINUSE else f"({error.strerror})"
        raise ConfigError(
            f"Cannot listen on {settings.bind}:{settings.port}: the port {reason}. Stop it, or choose another port: "
            "FRESHET_PORT, or --port.",
            port=settings.port,
        ) from error


def _listening(host: str, port: int) -> socket.socket:
    """Return a listening socket. It listens at once, since two bound sockets that don't would not see each other."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it: an answer is never held back to be joined with the next one.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
        listening.settimeout(0)
    except OSError:
        listening.close()
        raise
    return listening
