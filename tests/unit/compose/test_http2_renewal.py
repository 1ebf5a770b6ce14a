"""A connection of HTTP/2 that is renewed between any two requests: no client can tell."""

from __future__ import annotations

import asyncio
import contextlib
import random

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
import pytest
import uvicorn

from compose import http2
from compose.connections import ConnectionLimits, Connections
from compose.first_bytes import first_bytes_with
from compose.http2_frames import END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame

RST_STREAM, GOAWAY = 3, 7
INITIAL_WINDOW = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE


async def program(scope, receive, send):
    """Answer `/<bytes>/<parts>` with so many bytes in so many parts, in which the length of the body stands first.

    More parts than bytes: only after so many tenths of a millisecond.
    """
    size, parts = map(int, scope["path"].strip("/").split("/"))
    got = 0
    while (message := await receive())["type"] == "http.request":
        got += len(message["body"])
        if not message["more_body"]:
            break
    answer = got.to_bytes(8, "big") + bytes(size)
    if parts > size:
        await asyncio.sleep(parts / 10_000)
    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
    step = max(1, -(-len(answer) // parts))
    for at in range(0, len(answer), step):
        await asyncio.sleep(0)
        body = {"body": answer[at : at + step], "more_body": at + step < len(answer)}
        await send({"type": "http.response.body", **body})
    await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]})


@contextlib.asynccontextmanager
async def serving():
    config = uvicorn.Config(
        program,
        http=first_bytes_with(Connections(ConnectionLimits())),
        port=0,
        lifespan="off",
        log_config=None,
        access_log=False,
        ws="none",
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 # there is nothing to wait for
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


class Client:
    """One connection, several requests at a time; it grants anew what it has read, as the library does."""

    def __init__(self, seed):
        self._random = random.Random(seed)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        # What each request sends and waits for, by stream.
        self._wanted: dict[int, tuple[int, int]] = {}
        self._unsent: dict[int, int] = {}
        self._got: dict[int, bytearray] = {}

    async def run(self, port, requests, *, at_once, window):
        """Make so many requests; raise where an answer is not what it should be."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        self.h2.initiate_connection()
        self.h2.update_settings({INITIAL_WINDOW: window})
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(writer.wait_closed)
            stack.callback(writer.close)
            await stack.enter_async_context(asyncio.timeout(120))
            while requests or self._wanted:
                while requests and len(self._wanted) < at_once:
                    self._begin()
                    requests -= 1
                self._send()
                writer.write(self.h2.data_to_send())
                data = await reader.read(self._random.choice([7, 1_000, 65_536]))
                assert data, "the server closed the connection"
                for event in self.h2.receive_data(data):
                    self._take(event)

    def _begin(self):
        stream = self.h2.get_next_available_stream_id()
        size, sent = (self._random.choice([0, 1, 3_000, 40_000]) for _ in range(2))
        path = f"/{size}/{self._random.choice([1, 3])}"
        # One that a compressing client would refer to later.
        again = ("x-again", "a" * self._random.choice([10, 300]))
        lines = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "x"),
            ("te", "trailers"),
            again,
        ]
        self.h2.send_headers(stream, lines)
        self._wanted[stream], self._unsent[stream], self._got[stream] = (size, sent), sent, bytearray()

    def _send(self):
        for stream in list(self._unsent):
            while room := min(self._unsent[stream], self.h2.local_flow_control_window(stream), 16_384):
                self.h2.send_data(stream, bytes(room))
                self._unsent[stream] -= room
            if not self._unsent[stream]:
                self.h2.end_stream(stream)
                del self._unsent[stream]

    def _take(self, event):
        match event:
            case h2.events.DataReceived():
                self._got[event.stream_id] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.TrailersReceived():
                size, sent = self._wanted.pop(event.stream_id)
                assert bytes(self._got.pop(event.stream_id)) == sent.to_bytes(8, "big") + bytes(size)
            case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                pytest.fail(str(event))


@pytest.mark.asyncio
@pytest.mark.parametrize("window", [500, 65_535, 1_000_000])
@pytest.mark.parametrize("at_once", [1, 5])
async def test_no_request_is_lost_where_any_may_be_the_last_of_a_parser(monkeypatch, at_once, window):
    """Bodies and answers of all sizes, several at a time, through windows of all sizes."""
    renewals = 0
    successor = http2._successor

    def counted(*told):
        nonlocal renewals
        renewals += 1
        return successor(*told)

    monkeypatch.setattr(http2, "_successor", counted)
    monkeypatch.setattr(http2, "_REQUESTS_RENEWED", range(1, 4_000))
    async with serving() as port:
        await asyncio.gather(*(Client(seed).run(port, 60, at_once=at_once, window=window) for seed in range(4)))
    assert renewals > (100 if at_once == 1 else 10)


@pytest.mark.asyncio
async def test_client_is_told_in_time_where_nothing_else_helps(monkeypatch):
    """It may go on until it has heard of it, and what it began is answered."""
    monkeypatch.setattr(http2, "_REQUESTS_RENEWED", ())
    monkeypatch.setattr(http2, "_REQUESTS_MAX", 20)
    begun = [head for _, head in heads(range(1, 51, 2), "/0/1")]
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE + frame(SETTINGS, 0, 0, b"") + b"".join(begun))
        found = []
        async with asyncio.timeout(60):
            while sum(kind == HEADERS and flags & END_STREAM for kind, flags, _ in found) < 25:
                first = await reader.readexactly(9)
                found.append((first[3], first[4], await reader.readexactly(int.from_bytes(first[:3], "big"))))
        writer.close()
        await writer.wait_closed()
    assert [payload for kind, _, payload in found if kind == GOAWAY] == [b"\x7f\xff\xff\xff\0\0\0\0"]


@pytest.mark.asyncio
async def test_requests_that_are_broken_off_at_once_do_not_pile_up():
    """A new parser takes over only when the calls of broken off requests have ended, too."""
    begin = 1
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(SETTINGS, 1, 0, b""))
        peak = 0
        for _ in range(40):
            if writer.is_closing():
                break
            streams, begin = range(begin, begin + 128, 2), begin + 128
            pairs = [begun + frame(RST_STREAM, 0, stream, bytes(4)) for stream, begun in heads(streams, "/0/30000")]
            writer.write(b"".join(pairs))
            await asyncio.sleep(0.02)
            peak = max(peak, len([task for task in asyncio.all_tasks() if "run_asgi" in repr(task)]))
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    assert 0 < peak < 300
    assert reader


def heads(streams, path):
    """Yield streams, and whole requests for `path` that refer to no other."""
    lines = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("te", "trailers")]
    head = hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*line) for line in lines])
    for stream in streams:
        yield stream, frame(HEADERS, END_HEADERS | END_STREAM, stream, head)
