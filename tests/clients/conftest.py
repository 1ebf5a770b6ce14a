"""One server for the programs of a run; each finds it without indexes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.walking import emptied
from tests.support.freshet import Freshet


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Freshet]:
    """`freshet up` on free ports."""
    with Freshet(tmp_path_factory.mktemp("clients")) as server:
        yield server


@pytest.fixture
def server(running: Freshet) -> Iterator[Freshet]:
    """The server, with no index in it."""
    yield from emptied(running)
