"""API keys over gRPC: the same keys as over REST open the same, by the metadata `api-key`."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import httpx2
import pytest

from producer.keys import create_key, new_key, revoke_key
from query_api.grpc import health_pb2
from query_api.grpc.service import VectorService
from schemas.keys import Role
from tests.support.api_server import ApiServer
from tests.support.grpc_client import GrpcClient

READS = {"Query", "Fetch", "FetchByMetadata", "List", "DescribeIndexStats", "ListNamespaces", "DescribeNamespace"}
WRITES = {"Upsert", "Delete", "Update", "CreateNamespace", "DeleteNamespace"}
# The least that a method needs to be answered by more than "malformed".
MESSAGES = {
    "Query": {"top_k": 1, "id": "x", "namespace": "a"},
    "Fetch": {"ids": ["x"], "namespace": "a"},
    "FetchByMetadata": {"filter": {"n": 1}, "namespace": "a"},
    "List": {"namespace": "a"},
    "DescribeIndexStats": {},
    "ListNamespaces": {},
    "DescribeNamespace": {"namespace": "a"},
    "Upsert": {"vectors": [{"id": "y", "values": [1, 2, 3, 4]}], "namespace": "a"},
    "Delete": {"ids": ["y"], "namespace": "a"},
    "Update": {"id": "y", "set_metadata": {"n": 1}, "namespace": "a"},
    "CreateNamespace": {"name": "new"},
    "DeleteNamespace": {"namespace": "new"},
}


class Keyed:
    """A server with keys, and two indexes, each with a client."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.admin, _ = self.make(Role.ADMIN)
        self.clients = {}
        for name in ("movies", "actors"):
            body = {"name": name, "dimension": 4, "metric": "cosine"}
            made = httpx2.post(f"{server.url}/indexes", json=body, headers={"api-key": self.admin})
            assert made.status_code == 201, made.text
            self.clients[name] = GrpcClient(f"localhost:{made.json()['host'].rpartition(':')[2]}")
        self.call(self.admin, "Upsert", MESSAGES["Upsert"])

    def make(self, role: Role, **scope: tuple[str, ...]) -> tuple[str, str]:
        key, kept = new_key(role, created_ms=1_700_000_000_000, **scope)
        self.server.call(lambda: create_key(self.server.catalog, kept))
        return key, kept.id

    def call(self, key: str | None, method: str, message: dict | None = None, index: str = "movies") -> dict:
        metadata = {} if key is None else {"api-key": key}
        answer, _ = self.clients[index].call(method, MESSAGES[method] if message is None else message, metadata)
        return answer

    def code(self, key: str | None, method: str, message: dict | None = None, index: str = "movies") -> grpc.StatusCode:
        try:
            self.call(key, method, message, index)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    with ApiServer(tmp_path_factory.mktemp("keyed")) as server:
        made = Keyed(server)
        yield made
        for client in made.clients.values():
            client.channel.close()


def test_every_method_is_thought_of() -> None:
    """A method that is added stands in one of the tables."""
    assert set(VectorService(None, None).methods) == READS | WRITES == set(MESSAGES)


@pytest.mark.parametrize("method", sorted(MESSAGES))
def test_nothing_is_answered_without_a_key(keyed: Keyed, method: str) -> None:
    for key in (None, "", "fsk_0123456789ab_wrong", keyed.admin[:-1]):
        assert keyed.code(key, method) == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("method", sorted(MESSAGES))
def test_a_key_that_may_read_reads_and_does_not_write(keyed: Keyed, method: str) -> None:
    key, _ = keyed.make(Role.READ)
    refused = keyed.code(key, method) == grpc.StatusCode.PERMISSION_DENIED
    assert refused == (method in WRITES)


def test_a_key_opens_the_indexes_of_its_scope(keyed: Keyed) -> None:
    key, _ = keyed.make(Role.WRITE, indexes=("movies",))
    assert keyed.code(key, "Upsert") == grpc.StatusCode.OK
    assert keyed.code(key, "Upsert", index="actors") == grpc.StatusCode.PERMISSION_DENIED
    assert keyed.code(key, "Query", index="actors") == grpc.StatusCode.PERMISSION_DENIED


def test_a_key_opens_the_namespaces_of_its_scope(keyed: Keyed) -> None:
    key, _ = keyed.make(Role.WRITE, namespaces=("a",))
    elsewhere = {**MESSAGES["Upsert"], "namespace": "b"}
    assert keyed.code(key, "Upsert") == grpc.StatusCode.OK
    assert keyed.code(key, "Upsert", elsewhere) == grpc.StatusCode.PERMISSION_DENIED
    assert keyed.code(key, "Fetch", {"ids": ["x"], "namespace": ""}) == grpc.StatusCode.PERMISSION_DENIED
    keyed.call(keyed.admin, "Upsert", elsewhere)
    assert set(keyed.call(key, "DescribeIndexStats").get("namespaces", {})) <= {"a"}


def test_a_revoked_key_opens_nothing_from_the_next_call_on(keyed: Keyed) -> None:
    key, name = keyed.make(Role.READ)
    assert keyed.code(key, "Query") == grpc.StatusCode.OK
    keyed.server.call(lambda: revoke_key(keyed.server.catalog, name))
    assert keyed.code(key, "Query") == grpc.StatusCode.UNAUTHENTICATED


def test_health_is_told_to_everybody(keyed: Keyed) -> None:
    """Whoever watches processes needs no key; reflection is for callers."""
    channel = keyed.clients["movies"].channel
    answer = health_pb2.HealthCheckResponse
    check = channel.unary_unary("/grpc.health.v1.Health/Check", response_deserializer=answer.FromString)
    assert check(b"").status == answer.SERVING
    info = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    with pytest.raises(grpc.RpcError) as caught:
        list(info(iter([b"\x3a\x00"])))
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
