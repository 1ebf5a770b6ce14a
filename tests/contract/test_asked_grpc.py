"""The contract of what callers ask for, over gRPC."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import grpc
import httpx2
import pytest

from schemas.errors import Code
from tests.contract.api_contract import Refused
from tests.contract.asked_contract import AskedContract
from tests.support.api_server import ApiServer
from tests.support.grpc_client import GrpcClient

_SPACES = itertools.count(1)


class GrpcDoor:
    """One namespace of an index over gRPC; what REST says in the body of a write stands in its metadata."""

    def __init__(self, server: ApiServer, client: GrpcClient) -> None:
        self._client = client
        self._named = {"namespace": f"space-{next(_SPACES)}"}
        self.pause, self.resume = server.pause_indexing, server.resume_indexing

    def upsert(self, *vectors: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
        return self._write("Upsert", {"vectors": list(vectors), **self._named}, headers)

    def update(self, body: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
        return self._write("Update", {**body, **self._named}, headers)

    def fetch(self, *ids: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
        answer, _ = self._call("Fetch", {"ids": list(ids), **self._named}, headers)
        return dict(answer["vectors"])

    def query(self, headers: dict[str, str]) -> list[str]:
        answer, _ = self._call("Query", {"vector": [1, 0, 0, 0], "topK": 100, **self._named}, headers)
        return [match["id"] for match in answer["matches"]]

    def _write(self, method: str, request: dict[str, Any], headers: dict[str, str] | None) -> dict[str, Any]:
        answer, told = self._call(method, request, headers)
        if "x-freshet-visible" in told:
            lsn, applied = int(told["x-pinecone-request-lsn"]), int(told["x-freshet-applied-lsn"])
            visible = told["x-freshet-visible"] == "true"
            answer |= {"durable": True, "visible": visible, "lsn": lsn, "appliedLsn": applied}
        return answer

    def _call(
        self, method: str, request: dict[str, Any], headers: dict[str, str] | None
    ) -> tuple[dict[str, Any], dict[str, str]]:
        try:
            return self._client.call(method, request, headers)
        except grpc.RpcError as error:
            raise Refused(Code(error.code().value[0]), error.details()) from error


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: ApiServer) -> Iterator[GrpcClient]:
    answer = httpx2.post(f"{server.url}/indexes", json={"name": "asked", "dimension": 4, "metric": "euclidean"})
    assert answer.status_code == 201, answer.text
    with GrpcClient(answer.json()["host"].removeprefix("http://")) as made:
        yield made


class TestGrpcAsked(AskedContract):
    @pytest.fixture
    def door(self, server: ApiServer, client: GrpcClient) -> GrpcDoor:
        return GrpcDoor(server, client)
