"""Slow, broken and greedy connections: each is told why or closed, memory stays bounded, others are served."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.client import Client
from schemas.errors import FreshetError
from schemas.limits import BODY_BYTES_MAX, BODY_WITHOUT_RECORDS_BYTES_MAX
from tests.support.freshet import Freshet, records, wait_until

DEMO = {"name": "demo", "dimension": 4, "metric": "cosine", "spec": {"serverless": {"cloud": "aws", "region": "here"}}}
WIDE = {**DEMO, "name": "wide", "dimension": 2_000}
PATIENCE = {"FRESHET_REQUEST_SECONDS": "5", "FRESHET_ANSWER_SECONDS": "1"}
IDLE_CONNECTIONS = 10_000
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Freshet]:
    with Freshet(tmp_path_factory.mktemp("hostile"), PATIENCE) as started:
        started.call("POST", "/indexes", DEMO)
        started.call("POST", "/i/demo/vectors/upsert", {"vectors": records(10)})
        yield started


def connected(server: Freshet, **options: int) -> socket.socket:
    made = socket.socket()
    for name, value in options.items():
        made.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    made.settimeout(30)
    made.connect(("127.0.0.1", server.port))
    return made


def answer(connection: socket.socket) -> tuple[int, dict]:
    """Read to the end of the connection; return status and body."""
    data = b""
    # A server that closes while more is on its way resets the connection after its answer.
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def head_of(path: str, length: int) -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n".encode()


def memory(server: Freshet) -> int:
    """Return the anonymous bytes of the API process."""
    status = Path(f"/proc/{server.children()['serve']}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def is_served(server: Freshet) -> bool:
    found = server.call("POST", "/i/demo/query", {"id": "r1", "topK": 1})
    return [match["id"] for match in found["matches"]] == ["r1"]


@pytest.mark.parametrize(
    "begun",
    [
        b"POST /i/demo/query HTTP/1.1\r\nhost:",
        b"P",
        head_of("/i/demo/query", 100),
        head_of("/i/demo/query", 100) + b"{",
    ],
    ids=["half a head", "one byte", "no body", "half a body"],
)
def test_request_that_stands_still_is_told_so_and_closed(server, begun):
    """Half a head or half a body holds its connection for so long and no longer."""
    with connected(server) as connection:
        connection.sendall(begun)
        status, body = answer(connection)
    assert status == 408
    assert "5 seconds" in body["message"]
    assert is_served(server)


def test_request_in_slow_pieces_is_served(server):
    """Slow is not still: a request that goes on is waited for, however long it takes."""
    body = json.dumps({"id": "r1", "topK": 1}).encode()
    with connected(server) as connection:
        for piece in (head_of("/i/demo/query", len(body))[:-4], b"\r\nconnection: close\r\n\r\n", body[:5], body[5:]):
            connection.sendall(piece)
            time.sleep(2)
        status, found = answer(connection)
    assert status == 200
    assert found["matches"][0]["id"] == "r1"


@pytest.mark.parametrize("flood", [b"x" * 1024, b"a: b\r\n" * 200], ids=["one header", "many headers"])
def test_head_without_end_is_refused(server, flood):
    """A flood of headers is not kept: 431, and the connection is closed."""
    before = memory(server)
    with connected(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\ny: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(20_000):
                connection.sendall(flood)
        status, body = answer(connection)
    assert status == 431
    assert "65536 bytes" in body["message"]
    assert memory(server) - before < 8 * MIB
    assert is_served(server)


def test_trailers_without_end_are_refused(server):
    """What follows a chunked body counts as a head does."""
    with connected(server) as connection:
        connection.sendall(
            b"POST /i/demo/query HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
        )
        with contextlib.suppress(ConnectionError):
            for _ in range(20_000):
                connection.sendall(b"t: " + b"x" * 1_000 + b"\r\n")
        assert answer(connection)[0] == 431
    assert is_served(server)


def test_reader_that_stands_still_is_cut_off(server):
    """An answer that its client does not read is kept for so long and no longer."""
    server.call("POST", "/indexes", WIDE)
    for begin in range(0, 1_000, 100):
        rows = [{"id": f"w{n}", "values": [float(n + 1), *[0.123] * 1_999]} for n in range(begin, begin + 100)]
        server.call("POST", "/i/wide/vectors/upsert", {"vectors": rows})
    wait_until(lambda: server.call("GET", "/i/wide/describe_index_stats")["totalVectorCount"] == 1_000)
    question = json.dumps({"id": "w1", "topK": 1_000, "includeValues": True}).encode()
    held = [connected(server, SO_RCVBUF=4_096) for _ in range(4)]
    for connection in held:
        connection.sendall(head_of("/i/wide/query", len(question)) + question)

    def are_cut() -> bool:
        return server_connections(server) <= 1

    wait_until(are_cut)
    for connection in held:
        connection.close()
    assert is_served(server)
    server.call("DELETE", "/indexes/wide")


def server_connections(server: Freshet) -> int:
    """Return how many connections the control port has, as the kernel counts them."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    local = f"0100007F:{server.port:04X}"
    return sum(line.split()[1] == local and line.split()[3] == "01" for line in lines)


def test_ten_thousand_idle_connections_cost_little_and_disturb_nobody(server):
    """They are all taken, and their memory is a few kilobytes each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(IDLE_CONNECTIONS, hard - 3_000)
    assert count > 500, f"only {hard} files may be open: too few for this test"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before = memory(server)
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(connected(server))
            wait_until(lambda: server_connections(server) >= count)
            assert is_served(server)
            assert (memory(server) - before) / count < 20 * 1024
        wait_until(lambda: server_connections(server) < 10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert is_served(server)


def test_too_many_connections_are_refused_with_a_reason(tmp_path):
    """Above the bound a new one gets 503 and is closed; those that are open are served, and room is used again."""
    with Freshet(tmp_path, {"FRESHET_CONNECTIONS_MAX": "20"}) as server:
        server.call("POST", "/indexes", DEMO)
        with Client(server.url) as kept, contextlib.ExitStack() as stack:
            assert kept.call("GET", "/indexes")["indexes"]
            held = [stack.enter_context(connected(server)) for _ in range(19)]
            wait_until(lambda: server_connections(server) == 20)
            with connected(server) as refused:
                status, body = answer(refused)
            assert status == 503
            assert "Too many connections" in body["message"]
            assert kept.call("GET", "/indexes")["indexes"]
            held.pop().close()

            def is_admitted() -> bool:
                # The server may still be about to see that one is gone.
                with contextlib.suppress(FreshetError):
                    return bool(server.call("GET", "/indexes")["indexes"])
                return False

            wait_until(is_admitted)


def test_body_of_a_hundred_megabytes_is_refused_without_being_kept(server):
    """It is read to its end, so that the client reads why, and thrown away."""
    before = memory(server)
    size = 100 * MIB
    with connected(server) as connection:
        connection.sendall(head_of("/i/demo/vectors/upsert", size))
        peak = before
        for _ in range(size // MIB):
            connection.sendall(b"x" * MIB)
            peak = max(peak, memory(server))
        connection.shutdown(socket.SHUT_WR)
        status, body = answer(connection)
    assert status == 413
    assert str(BODY_BYTES_MAX) in body["message"]
    assert peak - before < 3 * BODY_BYTES_MAX
    assert is_served(server)


BOMBS = {
    "brackets": b"[" * BODY_WITHOUT_RECORDS_BYTES_MAX,
    "objects": b'{"a":' * (BODY_WITHOUT_RECORDS_BYTES_MAX // 5),
    "filter": b'{"topK":1,"id":"r1","filter":' + b'{"$and":[' * 100_000 + b"]}" * 100_000 + b"}",
    "digits": b'{"topK":' + b"9" * 1_000_000 + b',"id":"r1"}',
    "exponent": b'{"topK":1,"vector":[1e999999999,1,1,1]}',
    "key": b'{"' + b"k" * 3 * MIB + b'":1}',
    "same key": b"{" + b'"topK":1,' * 400_000 + b'"id":7}',
    "escapes": b'{"id":"' + rb"\u0000" * 500_000 + b'","topK":1}',
    "surrogate": rb'{"id":"\ud800","topK":1}',
    "not text": b'{"id":"\xff\xfe","topK":1}',
    "vector": b'{"topK":1,"vector":[' + b"0," * 2_000_000 + b"0]}",
    "operands": b'{"topK":1,"id":"r1","filter":{"a":{"$in":[' + b'"x",' * 900_000 + b'"x"]}}}',
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_json_bomb_is_a_mistake_of_the_client(server, bomb):
    """Deep, long, repeated or broken: a 400 that says what is wrong."""
    with connected(server) as connection:
        connection.sendall(head_of("/i/demo/query", len(bomb))[:-2] + b"connection: close\r\n\r\n" + bomb)
        status, body = answer(connection)
    assert status == 400, body
    assert body["message"]
    assert is_served(server)


def test_connections_cut_in_the_middle_leave_nothing(server):
    """Whether the head, the body or the answer is cut off, nothing is written, and nothing is logged as our failure."""
    row = json.dumps({"vectors": [{"id": "cut", "values": [1, 2, 3, 4]}]}).encode()
    whole = head_of("/i/demo/vectors/upsert", len(row)) + row
    for length in range(0, len(whole), 3):
        with connected(server) as connection:
            connection.sendall(whole[:length])
            # Closed with a reset, as by a client that is killed.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until(lambda: server_connections(server) < 10)
    assert server.call("GET", "/i/demo/vectors/fetch?ids=cut")["vectors"] == {}
    assert "request.failed" not in server.log_text
    assert "Traceback" not in server.log_text


def test_bodies_that_come_together_are_held_up_to_a_bound(tmp_path):
    """Above it a request is told to come again later, while it is still coming; those that are whole are served."""
    bound = 8 * MIB
    with Freshet(tmp_path, {"FRESHET_BODIES_BYTES_MAX": str(bound), "FRESHET_REQUEST_SECONDS": "60"}) as server:
        server.call("POST", "/indexes", DEMO)
        before = memory(server)
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(connected(server)) for _ in range(7)]
            for connection in held:
                connection.sendall(head_of("/i/demo/vectors/upsert", 2 * MIB) + b" " * MIB)
            # The server may still be reading what is held.
            wait_until(lambda: sent_late(server)[0] == 429)
            status, body = sent_late(server)
            assert status == 429, body
            assert str(bound) in body["message"]
            assert memory(server) - before < 3 * bound
            # Small ones find room, and what was held is room again.
            assert server.call("POST", "/i/demo/vectors/upsert", {"vectors": records(1)})["upsertedCount"] == 1
        large = {"vectors": records(1), "filler": "x" * 6 * MIB}

        def is_taken() -> bool:
            # The server may still be about to see that those are gone.
            with contextlib.suppress(FreshetError):
                return server.call("POST", "/i/demo/vectors/upsert", large)["upsertedCount"] == 1
            return False

        wait_until(is_taken)


def sent_late(server: Freshet) -> tuple[int, dict]:
    """Send two MiB of an upsert that is none; return status and body."""
    with connected(server) as late:
        late.sendall(head_of("/i/demo/vectors/upsert", 2 * MIB)[:-2] + b"connection: close\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            late.sendall(b" " * 2 * MIB)
        return answer(late)
