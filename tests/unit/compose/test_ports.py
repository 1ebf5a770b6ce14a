"""Ports that several processes of ours share, and nobody else."""

from __future__ import annotations

import select
import socket

import pytest

from compose.config import load_settings
from compose.ports import SharedPorts, bind_ports, inherited_ports
from schemas.errors import ConfigError
from tests.support.ports import free_ports


@pytest.fixture
def settings():
    control, *index_ports = free_ports(3)
    chosen = {"port": control, "index_ports": ",".join(map(str, index_ports))}
    return load_settings(overrides=chosen).settings


def accepted(sockets, port: int, connections: int) -> list[int]:
    """Connect so often to `port`; return how many connections each of the sockets got."""
    clients = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(connections)]
    counts = dict.fromkeys(sockets, 0)
    while sum(counts.values()) < connections:
        # A client may be connected a moment before the connection can be accepted.
        coming, _, _ = select.select(sockets, [], [], 10)
        if not coming:
            break
        for listening in coming:
            listening.accept()[0].close()
            counts[listening] += 1
    for client in clients:
        client.close()
    return list(counts.values())


def test_connections_are_spread_over_those_who_listen(settings):
    """Whoever does not listen yet, and whoever is gone, gets none; everybody else gets some."""
    shared = SharedPorts(settings)
    first, second = shared.take(), shared.take()
    assert [len(first), len(second)] == [3, 3]
    port = settings.index_ports[0]
    pair = [next(made for made in made_for if made.getsockname()[1] == port) for made_for in (first, second)]
    assert accepted(pair[:1], port, 20) == [20]
    pair[1].listen(100)
    counts = accepted(pair, port, 64)
    assert sum(counts) == 64
    assert min(counts) > 8
    pair[0].close()
    assert accepted(pair[1:], port, 20) == [20]
    for made in (*first, *second):
        made.close()


def test_shared_port_is_in_use_for_everybody_else(settings):
    """Neither one process nor several of another server get a port that ours share."""
    shared = SharedPorts(settings)
    sockets = shared.take()
    for claim in (bind_ports, SharedPorts):
        with pytest.raises(ConfigError, match=f"{settings.port}: the port is in use"):
            claim(settings)
    others = load_settings(overrides={"port": free_ports(1)[0], "index_ports": settings.index_ports}).settings
    beside = SharedPorts(others)
    assert beside.skipped == settings.index_ports
    for made in (*sockets, *beside.take()):
        made.close()


def test_port_that_somebody_took_while_nobody_listened_is_said(settings):
    """A process of ours that comes back finds the stranger out."""
    for made in (shared := SharedPorts(settings)).take():
        made.close()
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", settings.port))
        stranger.listen()
        with pytest.raises(ConfigError, match="in use"):
            shared.take()
    for made in shared.take():
        made.close()


def test_inherited_sockets_say_which_ports_they_are(settings):
    """A child knows from its sockets which index ports it has; the order of the settings is kept."""
    sockets = SharedPorts(settings).take()
    bound = inherited_ports(settings, [made.detach() for made in reversed(sockets)])
    assert bound.index_ports == settings.index_ports
    assert {made.getsockname()[1] for made in bound.sockets} == {settings.port, *settings.index_ports}
    assert not any(made.get_inheritable() for made in bound.sockets)
    for made in bound.sockets:
        made.close()
