"""The contract of what callers ask for, over REST."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from schemas.errors import Code
from tests.contract.api_contract import Refused
from tests.contract.asked_contract import AskedContract
from tests.support.api_server import ApiServer

_SPACES = itertools.count(1)


class RestDoor:
    """One namespace of an index over REST."""

    def __init__(self, server: ApiServer, host: str, http: httpx2.Client) -> None:
        self._http = http
        self._host = host
        self._named = {"namespace": f"space-{next(_SPACES)}"}
        self.pause, self.resume = server.pause_indexing, server.resume_indexing

    def upsert(self, *vectors: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
        return self._call("POST", "/vectors/upsert", headers, json={"vectors": list(vectors), **self._named})

    def update(self, body: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
        return self._call("POST", "/vectors/update", headers, json={**body, **self._named})

    def fetch(self, *ids: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
        answer = self._call("GET", "/vectors/fetch", headers, params={"ids": list(ids), **self._named})
        return dict(answer["vectors"])

    def query(self, headers: dict[str, str]) -> list[str]:
        answer = self._call("POST", "/query", headers, json={"vector": [1, 0, 0, 0], "topK": 100, **self._named})
        return [match["id"] for match in answer["matches"]]

    def _call(self, method: str, path: str, headers: dict[str, str] | None, **request: Any) -> dict[str, Any]:
        answer = self._http.request(method, self._host + path, headers=headers or {}, **request)
        if answer.status_code != 200:
            raise Refused(Code(answer.json()["code"]), answer.json()["message"])
        return dict(answer.json())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(scope="module")
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def host(server: ApiServer, http: httpx2.Client) -> str:
    answer = http.post(f"{server.url}/indexes", json={"name": "asked", "dimension": 4, "metric": "euclidean"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["host"])


class TestRestAsked(AskedContract):
    @pytest.fixture
    def door(self, server: ApiServer, host: str, http: httpx2.Client) -> RestDoor:
        return RestDoor(server, host, http)
