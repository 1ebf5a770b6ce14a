"""From the error tree to gRPC: the same table as `query_api.rest.errors` has for HTTP, with the same messages.

Every error carries its code; what no row of that table speaks of is a mistake of ours: INTERNAL.
"""

from __future__ import annotations

import math

from query_api.rest.errors import STATUS, status_of
from query_api.rest.exchange import POSITION_HEADER
from schemas.errors import Code, FreshetError, OutcomeUnknown

__all__ = ["OK_TRAILERS", "code_of", "headers_of", "http_status_of", "trailers_of"]

Headers = list[tuple[bytes, bytes]]

OK_TRAILERS: Headers = [(b"grpc-status", b"0")]
# Clients take some 8 KB of metadata, and give up a call whose trailers are longer.
_MESSAGE_BYTES_MAX = 4_096
_PLAIN = frozenset(range(0x20, 0x7F)) - {ord("%")}


def code_of(error: FreshetError) -> Code:
    """Return the gRPC status code of an error."""
    return error.code if any(kind in STATUS for kind in type(error).__mro__) else Code.INTERNAL


def http_status_of(error: FreshetError) -> int:
    """Return what REST would have answered: requests of both doors are counted by it."""
    return status_of(error)


def headers_of(error: FreshetError) -> dict[str, str]:
    """Return the initial metadata of an error."""
    if isinstance(error, OutcomeUnknown) and error.facts.get("position"):
        return {POSITION_HEADER: str(error.facts["position"])}
    return {}


def trailers_of(error: FreshetError) -> Headers:
    """Return the trailers of an error: status, message, and when to try again where that makes sense."""
    trailers = [
        (b"grpc-status", str(int(code_of(error))).encode()),
        (b"grpc-message", _percent_encoded(error.message)),
    ]
    seconds = error.retry_after_seconds
    if seconds is not None:
        trailers.append((b"grpc-retry-pushback-ms", str(max(1, math.ceil(seconds * 1000))).encode()))
        trailers.append((b"retry-after", str(max(1, math.ceil(seconds))).encode()))
    return trailers


def _percent_encoded(message: str) -> bytes:
    """Return a message as `grpc-message` spells it, cut to what fits among a call's trailers."""
    text = message.encode(errors="replace")
    encoded = bytearray()
    for byte in text:
        piece = bytes((byte,)) if byte in _PLAIN else b"%%%02X" % byte
        if len(encoded) + len(piece) > _MESSAGE_BYTES_MAX:
            break
        encoded += piece
    return bytes(encoded)
