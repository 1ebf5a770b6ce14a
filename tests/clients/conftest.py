"""One server for the programs of a run; each finds it without indexes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.walking import emptied
from tests.support.freshet import Freshet
from tests.support.ports import free_ports


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Freshet]:
    """`freshet up` on free ports. What a program has beyond five indexes at once, it reaches by their paths."""
    settings = {"FRESHET_INDEX_PORTS": ",".join(map(str, free_ports(5)))}
    with Freshet(tmp_path_factory.mktemp("clients"), settings) as server:
        yield server


@pytest.fixture
def server(running: Freshet) -> Iterator[Freshet]:
    """The server, with no index in it."""
    yield from emptied(running)
