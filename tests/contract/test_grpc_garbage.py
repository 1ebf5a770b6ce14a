"""Whatever a client sends to the gRPC door: it is told so, the server goes on, and nobody else notices."""

from __future__ import annotations

import contextlib
import gzip
import logging
import random
import socket
import struct
import threading
from collections.abc import Iterator

import httpx2
import pytest

from query_api.grpc import vector_service_pb2 as pb
from query_api.grpc.frames import MESSAGE_BYTES_MAX, frame
from tests.support.api_server import ApiServer
from tests.support.grpc_client import GrpcClient
from tests.support.raw_http2 import RawHttp2

METHODS = sorted(pb.DESCRIPTOR.services_by_name["VectorService"].methods_by_name)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# UNKNOWN and INTERNAL: what a client's mistake must never be.
OURS = {2, 13}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(scope="module")
def port(server: ApiServer) -> int:
    spec = {"serverless": {"cloud": "c", "region": "r"}}
    body = {"name": "fuzzed", "dimension": 4, "metric": "dotproduct", "spec": spec}
    return int(httpx2.post(f"{server.url}/indexes", json=body).json()["host"].rpartition(":")[2])


@pytest.fixture(autouse=True)
def others_are_served(port: int, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A well-behaved client calls on while a test runs: no call of it fails, nothing goes wrong within the server."""
    failed: list[BaseException] = []
    stop = threading.Event()

    def call_on() -> None:
        try:
            with GrpcClient(f"localhost:{port}") as client:
                while not stop.is_set():
                    client.call("Upsert", {"vectors": [{"id": "well", "values": [1, 2, 3, 4]}], "namespace": "well"})
                    client.call("Query", {"vector": [1, 2, 3, 4], "topK": 1, "namespace": "well"})
                    stop.wait(0.02)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the test
            failed.append(error)

    thread = threading.Thread(target=call_on)
    thread.start()
    # The web server's own log goes no further up.
    served = logging.getLogger("uvicorn.error")
    served.addHandler(caplog.handler)
    yield
    served.removeHandler(caplog.handler)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
    assert not failed
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def valid(method: str, rng: random.Random) -> bytes:
    """Return a message that the method takes."""
    vector = pb.Vector(id="v", values=[rng.random() for _ in range(4)])
    vector.metadata.update({"a": 1, "b": ["x"], "c": True})
    vector.sparse_values.indices.extend([1, 2])
    vector.sparse_values.values.extend([0.5, 1])
    query = pb.QueryRequest(vector=[1, 2, 3, 4], top_k=3, namespace="n")
    query.filter.update({"a": {"$gt": 0}})
    made = {
        "Upsert": pb.UpsertRequest(vectors=[vector] * rng.randint(1, 4), namespace="n"),
        "Query": query,
        "Fetch": pb.FetchRequest(ids=["v"], namespace="n"),
        "Update": pb.UpdateRequest(id="v", values=[4, 3, 2, 1], namespace="n"),
        "Delete": pb.DeleteRequest(ids=["nobody"], namespace="n"),
        "List": pb.ListRequest(limit=2, namespace="n"),
    }
    return made.get(method, pb.DescribeNamespaceRequest(namespace="n")).SerializeToString()


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return `data` with bytes changed, left out, put in or said twice."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(4):
            case 0 if at < len(out):
                out[at] = rng.randrange(256)
            case 1:
                del out[at : at + rng.randint(1, 8)]
            case 2:
                out[at:at] = rng.randbytes(rng.randint(1, 8))
            case _:
                out[at:at] = out[: rng.randint(0, 20)]
    return bytes(out)


@pytest.mark.parametrize("seed", range(6))
def test_damaged_messages_get_an_answer(port: int, seed: int) -> None:
    """Whole messages of damaged protobuf: an answer, or the client's mistake; never ours."""
    rng = random.Random(seed)
    with RawHttp2(port) as raw:
        for _ in range(120):
            method = rng.choice(METHODS)
            message = damaged(valid(method, rng), rng) if rng.random() < 0.8 else rng.randbytes(rng.randint(0, 60))
            answered = raw.call(f"/VectorService/{method}", frame(message), {"grpc-timeout": "20S"})
            assert answered.headers[":status"] == "200"
            assert answered.code not in OURS, (method, message, answered.message)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_frames_get_an_answer(port: int, seed: int) -> None:
    """Short frames, wrong lengths and flags, two messages, compression that is none."""
    rng = random.Random(seed)
    with RawHttp2(port) as raw:
        for _ in range(120):
            method = rng.choice(METHODS)
            message = valid(method, rng)
            encoding = rng.choice(["identity", "gzip", "deflate", "snappy", "", "x" * 300])
            body = rng.choice(
                [
                    frame(message)[: rng.randint(0, 4)],
                    frame(message)[:-1] if message else b"\0",
                    frame(message) * 2,
                    frame(message) + b"\0",
                    frame(message, is_deflated=True),
                    frame(gzip.compress(message)[: rng.randint(1, 20)], is_deflated=True),
                    bytes((rng.randint(2, 255),)) + frame(message)[1:],
                    b"\0"
                    + struct.pack(">I", rng.choice([len(message) + 1, MESSAGE_BYTES_MAX + 1, 2**32 - 1]))
                    + message,
                    damaged(frame(message), rng),
                ]
            )
            answered = raw.call(f"/VectorService/{method}", body, {"grpc-encoding": encoding})
            assert answered.headers[":status"] == "200"
            assert answered.code not in OURS, (method, body, answered.message)


def test_a_huge_length_is_refused_before_its_bytes_come(port: int) -> None:
    """The answer does not wait for what would never fit."""
    with RawHttp2(port) as raw:
        stream = raw.begin("/VectorService/Upsert")
        raw.send(stream, b"\0\xff\xff\xff\xff" + b"x" * 1_000)
        answered = raw.answer(stream)
        assert answered.code == 3
        assert "4294967295 bytes is larger than the limit" in answered.message
        assert raw.call("/VectorService/Query", frame(valid("Query", random.Random(1)))).code == 0


def test_what_inflates_without_end_is_refused(port: int) -> None:
    """A message that says little and means more than the limit."""
    bomb = gzip.compress(bytes(MESSAGE_BYTES_MAX + 1), 9)
    with RawHttp2(port) as raw:
        stream = raw.begin("/VectorService/Upsert", {"grpc-encoding": "gzip"})
        body = frame(bomb, is_deflated=True)
        for at in range(0, len(body), 16_384):
            while raw.h2.local_flow_control_window(stream) < 16_384:
                raw.h2.receive_data(raw.socket.recv(65_536))
            raw.send(stream, body[at : at + 16_384], end=at + 16_384 >= len(body))
        answered = raw.answer(stream)
        assert answered.code == 3
        assert "larger than the limit" in answered.message


def test_a_client_that_goes_away_leaves_nothing_behind(port: int) -> None:
    """Within the head of a message, within it, after it, by a reset stream or by a closed connection."""
    body = frame(valid("Upsert", random.Random(2)))
    for size in (0, 3, 10, len(body)):
        for how in ("reset", "close"):
            with RawHttp2(port) as raw:
                stream = raw.begin("/VectorService/Upsert")
                raw.send(stream, body[:size])
                if how == "reset":
                    raw.h2.reset_stream(stream)
                    raw.send(raw.begin("/VectorService/Query"), body, end=True)


def test_requests_that_are_no_calls_are_answered_over_http2(port: int) -> None:
    """Other methods, types and paths reach REST; a request without a body does not hang."""
    with RawHttp2(port) as raw:
        for method, path, kind, status in (
            ("GET", "/describe_index_stats", "application/json", "200"),
            ("GET", "/VectorService/Query", "application/grpc", "404"),
            ("DELETE", "/namespaces/nobody", "application/grpc", "404"),
            ("POST", "/VectorService/Query", "application/grpc-web", "404"),
            ("POST", "/VectorService/Query", "application/grpc+json", "404"),
            ("POST", "/query", "application/json", "400"),
        ):
            stream = raw.begin(path, {"content-type": kind}, method=method, end=True)
            answered = raw.answer(stream)
            assert answered.headers[":status"] == status, (method, path, answered.body)


def http2_frame(rng: random.Random) -> bytes:
    """Return a frame of any type, flags and stream, often of another length than it says."""
    size = rng.choice([0, 1, 4, 5, 6, 8, 9, 100, 16_384])
    said = size if rng.random() < 0.8 else rng.choice([0, 1, size + 1, 16_385, 2**24 - 1])
    kind = rng.choice([*range(11), 200])
    flags = rng.choice([0, 1, 4, 5, 8, 0x20, 0x24, 0x2D, 0xFF])
    stream = rng.choice([0, 1, 2, 3, 5, 2**31 - 1, 2**32 - 1])
    return struct.pack(">I", said)[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + rng.randbytes(size)


@pytest.mark.parametrize("seed", range(4))
def test_garbage_after_the_preface_ends_its_own_connection_at_most(port: int, seed: int) -> None:
    """Frames of any kind, in any pieces, between and within calls; then whatever HTTP/1.1 would make of it."""
    rng = random.Random(seed)
    for _ in range(60):
        with RawHttp2(port) as raw, contextlib.suppress(OSError):
            raw.socket.settimeout(0.05)
            if rng.random() < 0.7:
                stream = raw.begin("/VectorService/Query")
                raw.send(stream, frame(valid("Query", rng)), end=rng.random() < 0.5)
            for _ in range(rng.randint(1, 8)):
                raw.socket.sendall(http2_frame(rng) if rng.random() < 0.9 else rng.randbytes(200))
                if rng.random() < 0.3:
                    raw.socket.recv(65_536)


@pytest.mark.parametrize(
    "first",
    [
        PREFACE[:-1] + b"X",
        PREFACE[:10],
        PREFACE[:3] + b"NT / HTTP/1.1\r\n\r\n",
        b"\0" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"P",
    ],
)
def test_first_bytes_that_are_neither_version_end_their_connection(port: int, first: bytes) -> None:
    """Half a preface, TLS where there is none, and nonsense; closed by the client without another word."""
    with socket.create_connection(("127.0.0.1", port), 5) as raw:
        raw.sendall(first)
        raw.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while data := raw.recv(4_096):
                answer += data
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")


def test_either_version_may_arrive_byte_by_byte(port: int) -> None:
    """The first bytes are waited for."""
    with socket.create_connection(("127.0.0.1", port), 5) as raw:
        for byte in b"POST /query HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}":
            raw.send(bytes((byte,)))
        assert raw.recv(65_536).startswith(b"HTTP/1.1 400")
    with socket.create_connection(("127.0.0.1", port), 5) as raw:
        for byte in PREFACE + b"\0\0\0\4\0\0\0\0\0":
            raw.send(bytes((byte,)))
        # A frame of settings.
        assert raw.recv(65_536)[3] == 4
