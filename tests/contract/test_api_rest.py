"""The contract of the query API, over REST."""

from __future__ import annotations

import itertools
from typing import Any

import httpx2
import pytest

from schemas.errors import Code
from tests.contract.api_contract import ApiContract, Refused
from tests.contract.api_sparse_contract import ApiSparseContract
from tests.support.api_server import ApiServer

_SPACES = itertools.count(1)


class RestApi:
    """One namespace of one index over REST; remembers the position of its last write."""

    def __init__(self, http: httpx2.Client, hosts: dict[str, str], metric: str, space: str) -> None:
        self._http = http
        self._hosts = hosts
        self._host = hosts[metric]
        self.space = space
        self._seen: dict[str, str] = {}

    def on(self, space: str) -> RestApi:
        made = RestApi(self._http, self._hosts, "cosine", space)
        made._host, made._seen = self._host, self._seen
        return made

    def on_metric(self, metric: str) -> RestApi:
        return RestApi(self._http, self._hosts, metric, self.space)

    def upsert(self, *vectors: dict[str, Any]) -> int:
        return self._post("/vectors/upsert", {"vectors": list(vectors), **self._named})["upsertedCount"]

    def query(self, **question: Any) -> dict[str, Any]:
        return self._post("/query", {**question, **self._named})

    def fetch(self, *ids: str) -> dict[str, Any]:
        return self._call("GET", "/vectors/fetch", params={"ids": list(ids), **self._named})

    def fetch_by_metadata(self, **body: Any) -> dict[str, Any]:
        return self._post("/vectors/fetch_by_metadata", {**body, **self._named})

    def update(self, **body: Any) -> dict[str, Any]:
        return self._post("/vectors/update", {**body, **self._named})

    def delete(self, **body: Any) -> None:
        assert self._post("/vectors/delete", {**body, **self._named}) == {}

    def list_page(self, **parameters: Any) -> dict[str, Any]:
        return self._call("GET", "/vectors/list", params={**parameters, **self._named})

    def stats(self) -> dict[str, Any]:
        return self._post("/describe_index_stats", {})

    def create_namespace(self, name: str) -> None:
        self._post("/namespaces", {"name": name})

    def describe_namespace(self, name: str) -> dict[str, Any]:
        return self._call("GET", f"/namespaces/{name}")

    def delete_namespace(self, name: str) -> None:
        self._call("DELETE", f"/namespaces/{name}")

    @property
    def _named(self) -> dict[str, str]:
        return {"namespace": self.space}

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._call("POST", path, json=body)

    def _call(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        answer = self._http.request(method, self._host + path, headers=self._seen, **request)
        if answer.status_code != 200:
            raise Refused(Code(answer.json()["code"]), answer.json()["message"])
        if "x-pinecone-request-lsn" in answer.headers:
            self._seen = {"x-freshet-at-least": answer.headers["x-freshet-position"], "x-freshet-wait-ms": "20000"}
        return answer.json()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with ApiServer(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(scope="module")
def http() -> Any:
    with httpx2.Client(timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def hosts(server: ApiServer, http: httpx2.Client) -> dict[str, str]:
    made = {}
    for metric in ("cosine", "dotproduct", "euclidean"):
        body = {"name": metric, "dimension": 4, "metric": metric, "spec": {"serverless": {"cloud": "c", "region": "r"}}}
        answer = http.post(f"{server.url}/indexes", json=body)
        assert answer.status_code == 201, answer.text
        made[metric] = answer.json()["host"]
    body = {"name": "sparse", "vector_type": "sparse", "spec": {"serverless": {"cloud": "c", "region": "r"}}}
    made["sparse"] = http.post(f"{server.url}/indexes", json=body).json()["host"]
    return made


class TestRest(ApiContract, ApiSparseContract):
    @pytest.fixture
    def api(self, http: httpx2.Client, hosts: dict[str, str]) -> RestApi:
        return RestApi(http, hosts, "euclidean", f"space-{next(_SPACES)}")
