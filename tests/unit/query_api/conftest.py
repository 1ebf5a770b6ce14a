"""One pipeline for all tests of the query API that need a live one."""

from __future__ import annotations

import itertools

import httpx2
import pytest
import structlog

from tests.support.api_server import ApiServer

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def _plain_log():
    """Log lines without the framed tracebacks of a terminal, which take seconds."""
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()])
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    # More ports than all tests together make indexes.
    with ApiServer(tmp_path_factory.mktemp("api"), index_ports=64) as running:
        yield running


@pytest.fixture(scope="session")
def http():
    with httpx2.Client(timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def make_index(server, http):
    """Make an index and return its host."""

    def make(**body):
        body = {"name": f"index-{next(_NUMBERS)}", "dimension": 4, "metric": "cosine", **body}
        body = {name: value for name, value in body.items() if value is not None}
        answer = http.post(f"{server.url}/indexes", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["host"]

    return make


@pytest.fixture(scope="session")
def host(make_index):
    """Host of a cosine index of dimension 4 that all tests share."""
    return make_index()


@pytest.fixture
def space():
    """A namespace of the test's own."""
    return f"space-{next(_NUMBERS)}"
