"""Slow, broken and greedy connections of HTTP/2: each is closed, memory stays bounded, others are served."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from query_api.grpc import vector_service_pb2 as pb
from query_api.grpc.frames import frame
from tests.support.freshet import Freshet, records
from tests.support.raw_http2 import RawHttp2

DEMO = {"name": "demo", "dimension": 4, "metric": "cosine", "spec": {"serverless": {"cloud": "aws", "region": "here"}}}
WIDE = {**DEMO, "name": "wide", "dimension": 2_000}
PATIENCE = {"FRESHET_REQUEST_SECONDS": "5", "FRESHET_ANSWER_SECONDS": "1"}
QUERY = "/VectorService/Query"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Freshet]:
    with Freshet(tmp_path_factory.mktemp("hostile"), PATIENCE) as started:
        yield started


@pytest.fixture(scope="module")
def port(server: Freshet) -> int:
    host = server.call("POST", "/indexes", DEMO)["host"]
    answer = httpx2.post(
        f"{host}/vectors/upsert",
        json={"vectors": records(10)},
        headers={"x-freshet-wait-visible-ms": "20000"},
        timeout=60,
    )
    assert answer.json()["visible"] is True
    return int(host.rpartition(":")[2])


@pytest.fixture(autouse=True)
def others_are_served(port: int) -> Iterator[None]:
    yield
    with RawHttp2(port) as raw:
        assert raw.call(QUERY, frame(pb.QueryRequest(id="r1", top_k=1).SerializeToString())).code == 0


def memory(server: Freshet) -> int:
    """Return the anonymous bytes of the API process."""
    status = Path(f"/proc/{server.children()['serve']}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def is_closed_within(raw: RawHttp2, seconds: float) -> bool:
    """Read until the server closes the connection."""
    deadline = time.monotonic() + seconds
    raw.socket.settimeout(0.2)
    while time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            try:
                if not raw.socket.recv(65_536):
                    return True
            except ConnectionError:
                return True
    return False


@pytest.mark.parametrize("sent", [b"", b"\0\0", frame(b"x" * 100)[:50]])
def test_a_call_that_stands_still_is_given_up(port: int, sent: bytes) -> None:
    """After its head, within the head of its message, within the message."""
    with RawHttp2(port) as raw:
        raw.send(raw.begin(QUERY), sent)
        assert is_closed_within(raw, 20)


def test_a_call_in_slow_pieces_is_served(port: int) -> None:
    """Slow is not still."""
    body = frame(pb.QueryRequest(id="r1", top_k=1).SerializeToString())
    with RawHttp2(port) as raw:
        stream = raw.begin(QUERY)
        for piece in (body[:2], body[2:7], body[7:]):
            time.sleep(2)
            raw.send(stream, piece)
        raw.send(stream, b"", end=True)
        assert raw.answer(stream).code == 0


@pytest.mark.parametrize("line", [(":path", b"/\xff"), (":method", b"G\xff"), (":path", b"/a?\xc3\xa9")])
def test_a_head_that_is_no_text_breaks_its_own_call_off(server: Freshet, port: int, line: tuple[str, bytes]) -> None:
    """As the protocol says of malformed requests; others on the connection are served, and nothing is our failure."""
    with RawHttp2(port) as raw:
        lines = {":method": b"POST", ":scheme": b"http", ":path": QUERY.encode(), ":authority": b"x", **dict([line])}
        stream = raw.h2.get_next_available_stream_id()
        raw.h2.send_headers(stream, [(name.encode(), value) for name, value in lines.items()], end_stream=True)
        raw.socket.sendall(raw.h2.data_to_send())
        assert raw.answer(stream).reset == 1
        assert raw.call(QUERY, frame(pb.QueryRequest(id="r1", top_k=1).SerializeToString())).code == 0
    assert "Traceback" not in server.log_text


def test_a_head_without_end_is_refused(server: Freshet, port: int) -> None:
    """Neither one that goes on in ever more frames, nor its bytes, are kept."""
    before = memory(server)
    with RawHttp2(port) as raw:
        begun = b"\x00\x00\x01\x01\x00" + struct.pack(">I", 1) + b"\x83"
        more = b"\x00\x40\x00\x09\x00" + struct.pack(">I", 1) + b"\x00\x01a\x7f\x81\x7e" + b"v" * 255
        more = more[:9] + more[9:].ljust(16_384, b"v")
        with contextlib.suppress(OSError):
            raw.socket.sendall(begun)
            for _ in range(2_000):
                raw.socket.sendall(more)
        assert is_closed_within(raw, 20)
    assert memory(server) - before < 8 * MIB


def test_streams_that_are_reset_at_once_cost_little(server: Freshet, port: int) -> None:
    """Thousands of calls that nobody waits for do not pile up."""
    before = memory(server)
    with RawHttp2(port) as raw, contextlib.suppress(OSError):
        for _ in range(3_000):
            stream = raw.h2.get_next_available_stream_id()
            lines = [(":method", "POST"), (":scheme", "http"), (":path", QUERY), ("content-type", "application/grpc")]
            raw.h2.send_headers(stream, lines)
            raw.h2.reset_stream(stream)
            raw.socket.sendall(raw.h2.data_to_send())
    assert memory(server) - before < 32 * MIB


@pytest.mark.parametrize("how", ["no window", "no reading"])
def test_an_answer_that_is_not_taken_is_given_up(server: Freshet, port: int, how: str) -> None:
    """Whether the client grants no window, or does not read what it granted one for."""
    assert port
    host = server.call("POST", "/indexes", {**WIDE, "name": f"wide-{how.replace(' ', '-')}"})["host"]
    wide = int(host.rpartition(":")[2])
    rows = [{"id": f"w{n}", "values": [float(n + 1), *[0.123] * 1_999]} for n in range(500)]
    for begin in range(0, 500, 100):
        sent = {"vectors": rows[begin : begin + 100]}
        httpx2.post(f"{host}/vectors/upsert", json=sent, headers={"x-freshet-wait-visible-ms": "20000"}, timeout=60)
    question = pb.QueryRequest(id="w1", top_k=500, include_values=True).SerializeToString()
    with RawHttp2(wide) as raw:
        if how == "no reading":
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            raw.h2.update_settings({4: 2**30})
            raw.h2.increment_flow_control_window(2**30)
        # Several answers: one might lie in the kernel's buffers whole.
        for _ in range(1 if how == "no window" else 6):
            raw.send(raw.begin(QUERY), frame(question), end=True)
        if how == "no window":
            # The first windows are used up, then nothing more is granted.
            assert is_closed_within(raw, 20)
        else:
            deadline = time.monotonic() + 20
            while connections_to(wide) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert connections_to(wide) == 0


def connections_to(port: int) -> int:
    """Return how many connections a port of this machine has, by its own side."""
    wanted = f"0100007F:{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[1] == wanted and line.split()[3] == "01" for line in lines)


@pytest.mark.parametrize("how", ["the server stops", "the client says goodbye"])
def test_an_answer_that_is_under_way_is_sent_to_its_end(tmp_path: Path, how: str) -> None:
    """What waits for room in the client's window still comes, and the connection is closed after it."""
    with Freshet(tmp_path, {"FRESHET_STOP_SECONDS": "60"}) as server:
        host = server.call("POST", "/indexes", WIDE)["host"]
        rows = [{"id": f"w{n}", "values": [float(n + 1), *[0.123] * 1_999]} for n in range(50)]
        sent = {"vectors": rows}
        httpx2.post(f"{host}/vectors/upsert", json=sent, headers={"x-freshet-wait-visible-ms": "20000"}, timeout=60)
        question = pb.QueryRequest(id="w1", top_k=50, include_values=True).SerializeToString()
        with RawHttp2(int(host.rpartition(":")[2]), timeout=30) as raw:
            stream = raw.begin(QUERY)
            raw.send(stream, frame(question), end=True)
            # Until the first window is full: more comes only when the client makes room.
            time.sleep(0.5)
            if how == "the server stops":
                assert server.process is not None
                server.process.send_signal(signal.SIGTERM)
            else:
                raw.socket.sendall(struct.pack(">IBII", 8 << 8 | 7, 0, 0, 0) + b"\0\0\0\0")
            time.sleep(0.5)
            answered = raw.answer(stream)
            assert answered.code == 0
            assert len(pb.QueryResponse.FromString(bytes(answered.body[5:])).matches) == 50
            assert is_closed_within(raw, 20)
