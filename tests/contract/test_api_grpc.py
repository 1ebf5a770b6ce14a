"""The contract of the query API, over gRPC by the official library."""

from __future__ import annotations

import itertools
from typing import Any

import grpc
import httpx2
import orjson
import pytest

from schemas.errors import Code
from tests.contract.api_contract import ApiContract, Refused
from tests.contract.api_sparse_contract import ApiSparseContract
from tests.support.api_server import ApiServer
from tests.support.grpc_client import GrpcClient

_SPACES = itertools.count(1)


class GrpcApi:
    """One namespace of one index over gRPC; remembers the position of its last write."""

    def __init__(self, clients: dict[str, GrpcClient], metric: str, space: str) -> None:
        self._clients = clients
        self._client = clients[metric]
        self.space = space
        self._seen: dict[str, str] = {}

    def on(self, space: str) -> GrpcApi:
        made = GrpcApi(self._clients, "cosine", space)
        made._client, made._seen = self._client, self._seen
        return made

    def on_metric(self, metric: str) -> GrpcApi:
        return GrpcApi(self._clients, metric, self.space)

    def upsert(self, *vectors: dict[str, Any]) -> int:
        return self._call("Upsert", {"vectors": list(vectors), **self._named})["upsertedCount"]

    def query(self, **question: Any) -> dict[str, Any]:
        """Ask; what REST says and takes in fields that the messages do not have stands in the metadata."""
        asked = {}
        if "explain" in question:
            asked["x-freshet-explain"] = orjson.dumps(question.pop("explain")).decode()
        answer, told = self._exchange("Query", {**question, **self._named}, asked)
        assert answer.pop("results") == []
        if "x-freshet-explain" in told:
            answer["explain"] = orjson.loads(told["x-freshet-explain"])
        return answer

    def fetch(self, *ids: str) -> dict[str, Any]:
        return self._call("Fetch", {"ids": list(ids), **self._named})

    def fetch_by_metadata(self, **body: Any) -> dict[str, Any]:
        answer = self._call("FetchByMetadata", {**body, **self._named})
        # A map of protobuf has no order.
        return answer | {"vectors": dict(sorted(answer["vectors"].items()))}

    def update(self, **body: Any) -> dict[str, Any]:
        return self._call("Update", {**body, **self._named})

    def delete(self, **body: Any) -> None:
        assert self._call("Delete", {**body, **self._named}) == {}

    def list_page(self, **parameters: Any) -> dict[str, Any]:
        return self._call("List", {**parameters, **self._named})

    def stats(self) -> dict[str, Any]:
        return self._call("DescribeIndexStats", {})

    def create_namespace(self, name: str) -> None:
        self._call("CreateNamespace", {"name": name})

    def describe_namespace(self, name: str) -> dict[str, Any]:
        answer = self._call("DescribeNamespace", {"namespace": name})
        return {"name": answer["name"], "record_count": answer["recordCount"]}

    def delete_namespace(self, name: str) -> None:
        self._call("DeleteNamespace", {"namespace": name})

    @property
    def _named(self) -> dict[str, str]:
        return {"namespace": self.space}

    def _call(self, method: str, request: dict[str, Any]) -> dict[str, Any]:
        return self._exchange(method, request, {})[0]

    def _exchange(
        self, method: str, request: dict[str, Any], metadata: dict[str, str]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        try:
            answer, told = self._client.call(method, request, {**self._seen, **metadata})
        except grpc.RpcError as error:
            raise Refused(Code(error.code().value[0]), error.details()) from error
        if "x-pinecone-request-lsn" in told:
            self._seen = {"x-freshet-at-least": told["x-freshet-position"], "x-freshet-wait-ms": "20000"}
        return answer, told


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with ApiServer(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(scope="module")
def clients(server: ApiServer) -> Any:
    made = {}
    for metric in ("cosine", "dotproduct", "euclidean"):
        body = {"name": metric, "dimension": 4, "metric": metric, "spec": {"serverless": {"cloud": "c", "region": "r"}}}
        answer = httpx2.post(f"{server.url}/indexes", json=body)
        assert answer.status_code == 201, answer.text
        made[metric] = GrpcClient(answer.json()["host"].removeprefix("http://"))
    body = {"name": "sparse", "vector_type": "sparse", "spec": {"serverless": {"cloud": "c", "region": "r"}}}
    answer = httpx2.post(f"{server.url}/indexes", json=body)
    assert answer.status_code == 201, answer.text
    made["sparse"] = GrpcClient(answer.json()["host"].removeprefix("http://"))
    yield made
    for client in made.values():
        client.channel.close()


class TestGrpc(ApiContract, ApiSparseContract):
    @pytest.fixture
    def api(self, clients: dict[str, GrpcClient]) -> GrpcApi:
        return GrpcApi(clients, "euclidean", f"space-{next(_SPACES)}")
