"""gRPC messages in bodies, whole and broken, in whatever pieces they arrive."""

from __future__ import annotations

import asyncio
import gzip
import random
import zlib

import pytest

from query_api.grpc.frames import Gone, Messages, deflated, frame
from schemas.errors import FreshetError, InvalidRequest, PayloadTooLarge, Unimplemented


def receiving(*parts: bytes, gone: bool = False):
    """Return an ASGI receive that gives these parts, then the end, or a client that has gone."""
    left = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    left.append({"type": "http.disconnect"} if gone else {"type": "http.request", "body": b"", "more_body": False})
    turns = iter(left)

    async def receive():
        return next(turns)

    return receive


def only(*parts: bytes, gone: bool = False, **options) -> bytes:
    return asyncio.run(Messages(receiving(*parts, gone=gone), **options).only())


def all_of(*parts: bytes, **options) -> list[bytes]:
    async def read() -> list[bytes]:
        messages = Messages(receiving(*parts), **options)
        found = []
        while (message := await messages.next()) is not None:
            found.append(message)
        return found

    return asyncio.run(read())


@pytest.mark.parametrize("size", [0, 1, 4, 5, 1_000, 200_000])
@pytest.mark.parametrize("piece", [1, 3, 16_384])
def test_a_message_arrives_in_any_pieces(size: int, piece: int) -> None:
    message = random.Random(size).randbytes(size)
    body = frame(message)
    if size / piece > 10_000:
        piece = 1_000
    assert only(*[body[at : at + piece] for at in range(0, len(body), piece)]) == message


def test_several_messages_come_one_by_one() -> None:
    body = frame(b"one") + frame(b"") + frame(b"three")
    assert all_of(body) == [b"one", b"", b"three"]
    assert all_of(*[body[at : at + 1] for at in range(len(body))]) == [b"one", b"", b"three"]
    assert all_of() == []


@pytest.mark.parametrize(("encoding", "packed"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
@pytest.mark.parametrize("size", [0, 10, 300_000])
def test_a_compressed_message_is_inflated(encoding: str, packed, size: int) -> None:
    message = b"freshet " * size
    assert only(frame(packed(message), is_deflated=True), encoding=encoding) == message
    assert only(frame(message), encoding=encoding) == message


@pytest.mark.parametrize(
    ("body", "encoding", "kind", "words"),
    [
        (b"", "identity", InvalidRequest, "no message"),
        (b"\0\0\0", "identity", InvalidRequest, "ends 3 bytes into the 5"),
        (frame(b"whole")[:-1], "identity", InvalidRequest, "4 of the 5 bytes announced"),
        (b"\0\xff\xff\xff\xff" + b"x" * 100, "identity", PayloadTooLarge, "4294967295 bytes is larger"),
        (b"\2\0\0\0\0", "identity", InvalidRequest, "must be 0 or 1, got 2"),
        (frame(b"a") + frame(b"b"), "identity", InvalidRequest, "more than one message"),
        (frame(b"a") + b"\0", "identity", InvalidRequest, "more than one message"),
        (frame(b"x", is_deflated=True), "identity", InvalidRequest, "no 'grpc-encoding' says how"),
        (frame(b"x", is_deflated=True), "snappy", Unimplemented, "'snappy' are not understood"),
        (frame(b"no gzip", is_deflated=True), "gzip", InvalidRequest, "not what gzip makes"),
        (frame(gzip.compress(b"x" * 99, mtime=0)[:-9], is_deflated=True), "gzip", InvalidRequest, "cut off"),
        (
            frame(gzip.compress(b"x" * 2_000_000, mtime=0), is_deflated=True),
            "gzip",
            PayloadTooLarge,
            "larger than the limit",
        ),
    ],
)
def test_a_broken_body_is_the_clients_mistake(body: bytes, encoding: str, kind: type[FreshetError], words: str) -> None:
    """Each with its reason; what inflates beyond the limit is not inflated further."""
    with pytest.raises(kind, match=words):
        only(body, encoding=encoding, bytes_max=1_000_000)


def test_a_client_that_goes_away_is_no_mistake() -> None:
    with pytest.raises(Gone):
        only(frame(b"whole")[:-1], gone=True)


def test_answers_are_compressed_where_it_pays() -> None:
    """Text is; vectors, and what fits into a few packets, are not."""
    text = b"the same words again and again " * 2_000
    smaller = deflated(text)
    assert smaller is not None
    assert gzip.decompress(smaller) == text
    assert len(smaller) < len(text) / 2
    assert deflated(text[:1_000]) is None
    assert deflated(random.Random(1).randbytes(100_000)) is None
