"""The ports of the API: bound once, at start, by one process.

Several API processes share them by SO_REUSEPORT: the kernel spreads connections over those that listen. Their
supervisor binds the first sockets alone, so that a port in use elsewhere is found out, and hands every process that it
starts sockets of its own; those of a process that died are gone with it.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from compose.config import Settings
from schemas.errors import ConfigError

__all__ = ["BACKLOG", "BoundPorts", "SharedPorts", "bind_ports", "check_control_port", "inherited_ports"]

# Connections that wait to be accepted, per port.
BACKLOG = 4_096
# How long a process that was just killed may take to let go of its ports.
_DYING_SECONDS = 1.0
_RETRY_SECONDS = 0.05


class _Sharing(Enum):
    """Whether a port is for one socket; for the first of several; for one more beside that."""

    ALONE = 1
    FIRST = 2
    JOINING = 3


@dataclass(frozen=True, slots=True)
class BoundPorts:
    """Sockets to listen on, the index ports among them, and those that somebody else has."""

    sockets: Sequence[socket.socket]
    index_ports: tuple[int, ...]
    skipped: tuple[int, ...]


def bind_ports(settings: Settings, *, is_shared: bool = False) -> BoundPorts:
    """Bind the control port and every free index port; where `is_shared`, others of ours may bind them as well later.

    Raises `ConfigError` where the control port is in use; an index port in use elsewhere is skipped.
    """
    sharing = _Sharing.FIRST if is_shared else _Sharing.ALONE
    control = _control(settings, sharing)
    wanted = [port for port in settings.index_ports if port != settings.port]
    sockets = _free(settings.bind, wanted, sharing)
    missing = [port for port in wanted if port not in sockets]
    if missing:
        # A server that was killed a moment ago may still be letting go of them.
        time.sleep(_DYING_SECONDS / 4)
        sockets |= _free(settings.bind, missing, sharing)
    bound = tuple(port for port in wanted if port in sockets)
    return BoundPorts([control, *sockets.values()], bound, tuple(port for port in wanted if port not in sockets))


def check_control_port(settings: Settings) -> None:
    """Raise `ConfigError` where the control port is in use, before anything is started."""
    _control(settings, _Sharing.ALONE).close()


def inherited_ports(settings: Settings, descriptors: Sequence[int]) -> BoundPorts:
    """Return the ports whose sockets this process was started with."""
    by_port = {made.getsockname()[1]: made for made in (socket.socket(fileno=number) for number in descriptors)}
    for made in by_port.values():
        made.settimeout(0)
        # Not for the processes that this one starts.
        made.set_inheritable(False)
    index_ports = tuple(port for port in settings.index_ports if port in by_port and port != settings.port)
    return BoundPorts(list(by_port.values()), index_ports, ())


class SharedPorts:
    """The ports of several API processes, as their supervisor hands them out."""

    def __init__(self, settings: Settings) -> None:
        """Bind what is free. Raises `ConfigError` as `bind_ports`."""
        self._settings = settings
        bound = bind_ports(settings, is_shared=True)
        self.index_ports = bound.index_ports
        self.skipped = bound.skipped
        self._first: Sequence[socket.socket] = bound.sockets

    def take(self) -> Sequence[socket.socket]:
        """Return sockets for one process that is about to be started; the caller closes its copies afterwards.

        Raises `ConfigError` where somebody else has taken the control port while no process of ours listened.
        """
        first, self._first = self._first, ()
        if first:
            return first
        control = _control(self._settings, _Sharing.JOINING)
        return [control, *_free(self._settings.bind, self.index_ports, _Sharing.JOINING).values()]


def _free(host: str, ports: Sequence[int], sharing: _Sharing) -> dict[int, socket.socket]:
    """Return a socket for every port that nobody else has. Raises `ConfigError` where the process has too many open."""
    sockets: dict[int, socket.socket] = {}
    for port in ports:
        try:
            sockets[port] = _bound(host, port, sharing)
        except OSError as error:
            # In use elsewhere: the caller says so.
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise ConfigError(
                    f"Too many open files at index port {port}: set fewer FRESHET_INDEX_PORTS, or raise `ulimit -n`."
                ) from error
    return sockets


def _control(settings: Settings, sharing: _Sharing) -> socket.socket:
    deadline = time.monotonic() + _DYING_SECONDS
    try:
        while True:
            try:
                return _bound(settings.bind, settings.port, sharing)
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


def _bound(host: str, port: int, sharing: _Sharing) -> socket.socket:
    """Return a bound socket. It listens at once, since two bound sockets that don't would not see each other.

    One that joins listens only when its process does: what the kernel gave it before would wait for that.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it: an answer is never held back to be joined with the next one.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sharing is _Sharing.JOINING:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
        if sharing is _Sharing.FIRST:
            # After binding alone, so that nobody else has the port, and before listening, so that it is spread.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sharing is not _Sharing.JOINING:
            bound.listen(BACKLOG)
        bound.settimeout(0)
    except OSError:
        bound.close()
        raise
    return bound
