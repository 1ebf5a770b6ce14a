"""Ports for servers of tests, outside the range from which the kernel gives ports to everybody who names none."""

from __future__ import annotations

import contextlib
import secrets
import socket

__all__ = ["free_port", "free_ports"]

_LOW, _HIGH = 10_000, 32_000


def free_ports(count: int) -> list[int]:
    """Return ports that are free now; nobody is given one of them by chance while they are not listened on."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            probe = stack.enter_context(socket.socket())
            port = _LOW + secrets.randbelow(_HIGH - _LOW)
            # Taken: another one will do.
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
        return found


def free_port() -> int:
    """Return one port that is free now."""
    return free_ports(1)[0]
