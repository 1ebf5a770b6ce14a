"""What belongs to a gRPC call beside its message: deadlines, compression, sizes, addresses, trailers, services."""

from __future__ import annotations

import gzip
import queue
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import httpx2
import numpy as np
import pytest

from query_api.grpc import health_pb2, reflection_pb2
from query_api.grpc import vector_service_pb2 as pb
from query_api.grpc.exchange import timeout_of
from query_api.grpc.frames import frame
from query_api.writes import WriteOptions
from schemas.limits import APPEND_BYTES_MAX
from tests.support.api_server import PATIENT, ApiServer
from tests.support.grpc_client import GrpcClient
from tests.support.raw_http2 import RawHttp2

UPSERT, QUERY, FETCH = (f"/VectorService/{name}" for name in ("Upsert", "Query", "Fetch"))
SPEC = {"serverless": {"cloud": "c", "region": "r"}}


def make_index(server: ApiServer, name: str, dimension: int = 4) -> int:
    """Return the port of a new index."""
    body = {"name": name, "dimension": dimension, "metric": "cosine", "spec": SPEC}
    answer = httpx2.post(f"{server.url}/indexes", json=body)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["host"].rpartition(":")[2])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(scope="module")
def port(server: ApiServer) -> int:
    return make_index(server, "calls")


@pytest.fixture
def client(port: int) -> Iterator[GrpcClient]:
    with GrpcClient(f"localhost:{port}") as made:
        yield made


def upsert(name: str = "a", namespace: str = "", **metadata: Any) -> bytes:
    vector = pb.Vector(id=name, values=[1, 2, 3, 4])
    vector.metadata.update(metadata)
    return pb.UpsertRequest(vectors=[vector], namespace=namespace).SerializeToString()


def test_a_deadline_that_passes_is_answered_and_the_write_is_kept(server: ApiServer, port: int) -> None:
    """The server itself says so in time; what it had accepted is appended all the same, once."""
    server.pause_indexing()
    try:
        with RawHttp2(port) as raw:
            began = time.monotonic()
            waiting = {"grpc-timeout": "300m", "x-freshet-wait-visible-ms": "20000"}
            answered = raw.call(UPSERT, frame(upsert("late", "deadline")), waiting)
            assert answered.code == 4
            assert "deadline of 0.3 s has passed" in answered.message
            assert 0.25 < time.monotonic() - began < 5
            before = answered.headers
            assert before["content-type"] == "application/grpc"
    finally:
        server.resume_indexing()
    with GrpcClient(f"localhost:{port}") as client:
        _, told = client.call("Upsert", {"vectors": [{"id": "b", "values": [1, 0, 0, 0]}], "namespace": "deadline"})
        seen = {"x-freshet-at-least": told["x-freshet-position"], "x-freshet-wait-ms": "20000"}
        answer, _ = client.call("List", {"namespace": "deadline"}, seen)
        assert [one["id"] for one in answer["vectors"]] == ["b", "late"]


@pytest.mark.parametrize("timeout", ["", "10", "S", "-1S", "123456789S", "1.5S", "1s", "10 S"])
def test_a_deadline_that_is_none_is_refused(port: int, timeout: str) -> None:
    with RawHttp2(port) as raw:
        answered = raw.call(QUERY, frame(b""), {"grpc-timeout": timeout})
        assert answered.code == 3
        assert "grpc-timeout" in answered.message


@pytest.mark.parametrize("timeout", ["99999999H", "20S", "60000m", "99999999u"])
def test_a_deadline_far_away_changes_nothing(port: int, timeout: str) -> None:
    request = pb.QueryRequest(vector=[1, 2, 3, 4], top_k=1).SerializeToString()
    with RawHttp2(port) as raw:
        assert raw.call(QUERY, frame(request), {"grpc-timeout": timeout}).code == 0


@pytest.mark.parametrize(("timeout", "seconds"), [(b"99999999n", 0.099999999), (b"1000000u", 1.0), (b"2M", 120.0)])
def test_a_deadline_is_read_in_its_unit(timeout: bytes, seconds: float) -> None:
    """Those that are too near to be waited for, too."""
    assert timeout_of({b"grpc-timeout": timeout}) == pytest.approx(seconds)


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate, grpc.Compression.NoCompression])
def test_requests_may_be_compressed(client: GrpcClient, algorithm: grpc.Compression) -> None:
    """By what the official library can do."""
    vectors = [{"id": f"z{n}", "values": [1, 1, 1, n + 1], "metadata": {"t": "again " * 200}} for n in range(20)]
    body = {"vectors": vectors, "namespace": "zip"}
    answer, told = client.call("Upsert", body, {"x-freshet-wait-visible-ms": "20000"}, compression=algorithm)
    assert (answer["upsertedCount"], told["x-freshet-visible"]) == (20, "true")
    fetched, _ = client.call("Fetch", {"ids": ["z7"], "namespace": "zip"})
    assert fetched["vectors"]["z7"]["metadata"] == vectors[7]["metadata"]


def test_answers_are_compressed_for_who_takes_it_and_where_it_pays(port: int, client: GrpcClient) -> None:
    """An answer of much text is; a small one, and one for a client that takes none, is not."""
    vectors = [{"id": f"z{n}", "values": [1, 1, 1, n + 1], "metadata": {"t": f"{n} again " * 500}} for n in range(20)]
    client.call("Upsert", {"vectors": vectors, "namespace": "text"}, {"x-freshet-wait-visible-ms": "20000"})
    many = frame(pb.FetchRequest(ids=[f"z{n}" for n in range(20)], namespace="text").SerializeToString())
    few = frame(pb.FetchRequest(ids=["nobody"], namespace="text").SerializeToString())
    with RawHttp2(port) as raw:
        plain = raw.call(FETCH, many)
        assert plain.body[0] == 0
        assert "grpc-encoding" not in plain.headers
        small = raw.call(FETCH, few, {"grpc-accept-encoding": "identity,deflate,gzip"})
        assert small.body[0] == 0
        packed = raw.call(FETCH, many, {"grpc-accept-encoding": "identity, deflate, gzip"})
        assert (packed.body[0], packed.headers["grpc-encoding"]) == (1, "gzip")
        assert len(packed.body) < len(plain.body) / 4
        one, other = (pb.FetchResponse.FromString(body) for body in (plain.body[5:], gzip.decompress(packed.body[5:])))
        assert one == other


def test_an_upsert_larger_than_an_append_of_the_log_arrives_whole(server: ApiServer) -> None:
    """It is split into packs; the position is after the last one. A mistake in the last record leaves nothing."""
    port = make_index(server, "large", 4_096)
    rows = np.random.default_rng(3).random((1_000, 4_096), np.float32)
    request = pb.UpsertRequest(vectors=[pb.Vector(id=f"r{n}", values=row.tolist()) for n, row in enumerate(rows)])
    with GrpcClient(f"localhost:{port}") as client:
        assert request.ByteSize() > 16_000_000
        request.vectors[-1].values.append(1.0)
        with pytest.raises(grpc.RpcError, match="Vector dimension 4097 does not match"):
            client.send("Upsert", request)
        del request.vectors[-1].values[-1]
        answer, call = client.send("Upsert", request, {"x-freshet-wait-visible-ms": "30000"})
        told = {one.key: one.value for one in call.initial_metadata()}
        assert (answer.upserted_count, told["x-pinecone-request-lsn"]) == (1_000, "1000")
        assert told["x-freshet-visible"] == "true"
        found, _ = client.send("Query", pb.QueryRequest(id="r617", top_k=1, include_values=True))
        assert found.matches[0].id == "r617"
        assert np.array_equal(np.array(found.matches[0].values, np.float32), rows[617])
        wide, _ = client.send("Query", pb.QueryRequest(vector=rows[5].tolist(), top_k=1_000, include_values=True))
        assert {match.id for match in wide.matches} == {f"r{n}" for n in range(1_000)}


def test_a_large_upsert_that_comes_again_under_its_key_undoes_nothing(server: ApiServer) -> None:
    """Every pack of it is known again, and none is taken for another."""
    port = make_index(server, "again", 4_096)
    rows = np.random.default_rng(4).random((600, 4_096), np.float32)
    request = pb.UpsertRequest(vectors=[pb.Vector(id=f"r{n}", values=row.tolist()) for n, row in enumerate(rows)])
    assert request.ByteSize() > APPEND_BYTES_MAX
    keyed = {"freshet-idempotency-key": "large", "x-freshet-wait-visible-ms": "30000"}
    with GrpcClient(f"localhost:{port}") as client:
        client.send("Upsert", request, keyed)
        stats, _ = client.call("DescribeIndexStats", {})
        assert stats["totalVectorCount"] == 600
        changed = {"vectors": [{"id": name, "values": [1.0] * 4_096} for name in ("r0", "r599")]}
        client.call("Upsert", changed)
        _, call = client.send("Upsert", request, keyed)
        told = {one.key: one.value for one in call.initial_metadata()}
        assert told["x-freshet-visible"] == "true"
        fetched, _ = client.send("Fetch", pb.FetchRequest(ids=["r0", "r599"]))
        assert [set(vector.values) for vector in fetched.vectors.values()] == [{1.0}, {1.0}]


def test_who_must_wait_is_told_for_how_long(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where REST sends Retry-After, the trailers say so in both spellings that clients know."""
    options = replace(PATIENT, writes=WriteOptions(tail_rows_max=3, tail_retry_seconds=1.5))
    with ApiServer(tmp_path_factory.mktemp("full"), options=options) as server:
        port = make_index(server, "full")
        vectors = [{"id": str(n), "values": [1, 2, 3, n + 1]} for n in range(10)]
        with GrpcClient(f"localhost:{port}", options=(("grpc.enable_retries", 0),)) as client:
            client.call("Upsert", {"vectors": vectors}, {"x-freshet-wait-visible-ms": "20000"})
            by_rest = httpx2.post(f"http://localhost:{port}/vectors/upsert", json={"vectors": vectors})
            assert by_rest.status_code == 429
            with pytest.raises(grpc.RpcError) as refused:
                client.call("Upsert", {"vectors": vectors})
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.value.details() == by_rest.json()["message"]
    trailers = {one.key: one.value for one in refused.value.trailing_metadata()}
    assert trailers["retry-after"] == by_rest.headers["retry-after"]
    assert 0 < int(trailers["grpc-retry-pushback-ms"]) <= 1_000 * int(trailers["retry-after"])


@pytest.mark.usefixtures("port")
def test_an_index_is_reached_by_its_port_or_by_its_name(server: ApiServer) -> None:
    """By the first label of the host name on the control port; there, without one, the answer says what to do."""
    control = f"localhost:{server.ports[0]}"
    body = {"vector": [1, 2, 3, 4], "topK": 1}
    with GrpcClient(control, options=(("grpc.default_authority", "calls.example.com"),)) as client:
        client.call("Query", body)
    words = "call it on the index's own port"
    for authority in (control, "nobody.example.com"):
        options = (("grpc.default_authority", authority),)
        with GrpcClient(control, options=options) as client, pytest.raises(grpc.RpcError, match=words) as refused:
            client.call("Query", body)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    # They are given out in order, and there are more than indexes.
    with (
        GrpcClient(f"localhost:{server.ports[-1]}") as client,
        pytest.raises(grpc.RpcError, match="No index is assigned"),
    ):
        client.call("Query", body)


def test_a_method_that_is_not_served_is_named(port: int) -> None:
    with RawHttp2(port) as raw:
        for path in ("/VectorService/Vanish", "/other.Service/Query", "/VectorService/", "/nothing"):
            answered = raw.call(path, frame(b""))
            assert answered.code == 12
            assert path in answered.message


def test_messages_of_errors_survive_the_trailers(port: int) -> None:
    """Percent signs, line breaks and letters beyond ASCII are spelled as the protocol says; very long ones are cut."""
    request = pb.QueryRequest(vector=[1, 2, 3, 4], top_k=1)
    request.filter.update({"f": {"$100%\n é": 1}})
    with RawHttp2(port) as raw:
        answered = raw.call(QUERY, frame(request.SerializeToString()))
        assert answered.code == 3
        assert "'$100%\n é' for field 'f'" in answered.message
        request.filter.Clear()
        request.filter.update({"f" * 30_000: {"$x": 1}})
        answered = raw.call(QUERY, frame(request.SerializeToString()))
        assert answered.code == 3
        assert len(answered.message) < 5_000


def test_connections_carry_many_calls_at_once(client: GrpcClient) -> None:
    """A slow call does not hold up the others on its connection."""
    request = pb.QueryRequest(vector=[1, 2, 3, 4], top_k=1)
    method = client.channel.unary_unary(
        QUERY, request_serializer=pb.QueryRequest.SerializeToString, response_deserializer=pb.QueryResponse.FromString
    )
    answers = [method.future(request, timeout=300) for _ in range(2_000)]
    assert all(answer.result().usage.read_units == 1 for answer in answers)


def test_a_channel_is_used_for_as_many_calls_as_one_likes(port: int) -> None:
    """More than the HTTP/2 behind counts on a connection; none fails, also where the client repeats nothing."""
    request = pb.QueryRequest(vector=[1, 2, 3, 4], top_k=1).SerializeToString()
    options = (("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1))
    with grpc.insecure_channel(f"localhost:{port}", options=options) as channel, ThreadPoolExecutor(4) as threads:
        method = channel.unary_unary(QUERY)
        for calls in (threads.map, map):
            assert all(calls(lambda _: method(request, timeout=300), range(5_000)))


@pytest.mark.parametrize("place", ["control", "index"])
def test_health_is_told_on_every_port(server: ApiServer, port: int, place: str) -> None:
    """For the server and for its services; a service that nobody serves is not found, or unknown to who watches."""
    with grpc.insecure_channel(f"localhost:{server.ports[0] if place == 'control' else port}") as channel:
        kinds = {
            "request_serializer": health_pb2.HealthCheckRequest.SerializeToString,
            "response_deserializer": health_pb2.HealthCheckResponse.FromString,
        }
        check = channel.unary_unary("/grpc.health.v1.Health/Check", **kinds)
        for service in ("", "VectorService", "grpc.health.v1.Health"):
            assert check(health_pb2.HealthCheckRequest(service=service), timeout=10).status == 1
        with pytest.raises(grpc.RpcError) as refused:
            check(health_pb2.HealthCheckRequest(service="none"), timeout=10)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch", **kinds)
        for service, status in (("", 1), ("none", 3)):
            watching = watch(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert next(watching).status == status
            watching.cancel()
        with pytest.raises(grpc.RpcError) as refused:
            list(watch(health_pb2.HealthCheckRequest(), timeout=0.3))
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_watchers_learn_that_a_server_stops(tmp_path_factory: pytest.TempPathFactory) -> None:
    """They are told, and do not keep it from stopping."""
    with ApiServer(tmp_path_factory.mktemp("stop")) as server:
        channel = grpc.insecure_channel(f"localhost:{server.ports[0]}")
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        watching = watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(watching).status == 1
        began = time.monotonic()
    assert [one.status for one in watching] == [2]
    assert time.monotonic() - began < 10
    channel.close()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_tells_of_services_and_messages(server: ApiServer, version: str) -> None:
    """Asked one question after the other on one stream, as the command-line tools do."""
    with grpc.insecure_channel(f"localhost:{server.ports[0]}") as channel:
        info = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        questions: queue.Queue[Any] = queue.Queue()
        answers = info(iter(questions.get, None), timeout=20)

        def ask(**what: Any) -> reflection_pb2.ServerReflectionResponse:
            questions.put(reflection_pb2.ServerReflectionRequest(**what))
            return next(answers)

        listed = ask(list_services="").list_services_response.service
        assert [one.name for one in listed] == [
            "VectorService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
        ]
        whole = pb.DESCRIPTOR.serialized_pb
        for symbol in ("VectorService", "VectorService.Upsert", "QueryRequest", "UpsertRequest.vectors"):
            found = ask(file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto
            assert list(found) == [whole]
        (needed,) = ask(file_by_filename="google/protobuf/struct.proto").file_descriptor_response.file_descriptor_proto
        assert b"google.protobuf" in needed
        assert ask(all_extension_numbers_of_type="Vector").all_extension_numbers_response.base_type_name == "Vector"
        for missing in (
            {"file_containing_symbol": "VectorService.Vanish"},
            {"file_containing_symbol": "grpc.health.v1.Nothing"},
            {"file_by_filename": "etc/passwd"},
            {"all_extension_numbers_of_type": "Nothing"},
            {"file_containing_extension": {"containing_type": "Vector", "extension_number": 1}},
        ):
            assert ask(**missing).error_response.error_code == 5
        assert ask().error_response.error_code == 3
        questions.put(None)
        assert list(answers) == []
