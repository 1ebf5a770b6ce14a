"""What goes in and out of a hot route: bytes, without a framework between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from query_api.freshness import EVENTUAL, Shown, Wanted
from query_api.served import ServedIndex
from query_api.writes import WriteContext, Written
from schemas.errors import InvalidRequest
from schemas.positions import PositionToken

__all__ = [
    "AT_LEAST_HEADER",
    "AT_LEAST_LSN_HEADER",
    "POSITION_HEADER",
    "STALENESS_HEADER",
    "WAIT_HEADER",
    "WAIT_VISIBLE_HEADER",
    "Answer",
    "Call",
    "Receive",
    "Scope",
    "Send",
    "read_headers",
    "wanted_of",
    "write_context",
    "write_headers",
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

AT_LEAST_HEADER = "x-freshet-at-least"
AT_LEAST_LSN_HEADER = "x-freshet-at-least-lsn"
WAIT_HEADER = "x-freshet-wait-ms"
WAIT_VISIBLE_HEADER = "x-freshet-wait-visible-ms"
POSITION_HEADER = "x-freshet-position"
STALENESS_HEADER = "x-freshet-staleness-ms"
# A trace context has 55 characters (https://www.w3.org/TR/trace-context); a longer one of a later version is kept too.
_TRACEPARENT_BYTES_MAX = 128


@dataclass(frozen=True, slots=True)
class Call:
    """A request to an index. Names of `headers` are lower case."""

    index: ServedIndex
    headers: dict[bytes, bytes]
    query: bytes
    body: bytes

    def parameters(self) -> list[tuple[str, str]]:
        """Return the query parameters in order."""
        text = self.query.decode("latin-1")
        if "%" in text or "+" in text:
            return parse_qsl(text, keep_blank_values=True)
        # Nothing to unquote: a fetch of many ids is taken apart ten times as fast.
        parts = [part.partition("=") for part in text.split("&") if part]
        return [(name, value) for name, _, value in parts]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: JSON bytes and headers beside the content type."""

    status: int
    body: bytes
    headers: dict[str, str]


def read_headers(shown: Shown) -> dict[str, str]:
    """Return the headers of a read; those of one namespace only where one was read."""
    headers = {
        POSITION_HEADER: str(shown.position),
        STALENESS_HEADER: "unknown" if shown.staleness_ms is None else str(shown.staleness_ms),
    }
    if shown.lsn is not None:
        headers["x-pinecone-max-indexed-lsn"] = headers["x-pinecone-lsn-reconciled"] = str(shown.lsn)
    return headers


def write_headers(written: Written) -> dict[str, str]:
    """Return the headers of a write."""
    lsn = str(written.lsn)
    return {
        "x-pinecone-request-lsn": lsn,
        "x-pinecone-lsn-committed": lsn,
        POSITION_HEADER: str(written.position),
    }


def wanted_of(headers: dict[bytes, bytes], consistency: object = None) -> Wanted:
    """Return what a read asks for, in its headers or in the field `consistency` of its body.

    Raises `InvalidRequest` for a malformed one, and where both say something.
    """
    token = headers.get(AT_LEAST_HEADER.encode())
    lsn = headers.get(AT_LEAST_LSN_HEADER.encode())
    wait = headers.get(WAIT_HEADER.encode())
    if consistency is None:
        if token is None and lsn is None and wait is None:
            return EVENTUAL
        return Wanted(
            token=None if token is None else PositionToken.parse(token.decode("latin-1")),
            lsn=None if lsn is None else _number(AT_LEAST_LSN_HEADER, lsn),
            wait_ms=None if wait is None else _number(WAIT_HEADER, wait),
        )
    if token is not None or lsn is not None:
        raise InvalidRequest(f"Say what to wait for either in 'consistency' or in a header {AT_LEAST_HEADER}, not both")
    if not isinstance(consistency, dict):
        raise InvalidRequest('\'consistency\' must be an object {"atLeast": <lsn or token>, "waitMs": <ms>}')
    unknown = consistency.keys() - {"atLeast", "waitMs"}
    if unknown:
        raise InvalidRequest(f"'consistency' knows atLeast and waitMs, got '{min(map(str, unknown))}'")
    wait_ms = consistency.get("waitMs")
    if wait_ms is not None and type(wait_ms) is not int:
        raise InvalidRequest("'consistency.waitMs' must be an integer of milliseconds")
    if wait_ms is None and wait is not None:
        wait_ms = _number(WAIT_HEADER, wait)
    at_least = consistency.get("atLeast")
    if isinstance(at_least, str):
        return Wanted(token=PositionToken.parse(at_least), wait_ms=wait_ms)
    if at_least is not None and type(at_least) is not int:
        raise InvalidRequest("'consistency.atLeast' must be an LSN (an integer) or a position token (a string)")
    return Wanted(lsn=at_least, wait_ms=wait_ms)


def write_context(headers: dict[bytes, bytes]) -> WriteContext:
    """Return what came with a write. Raises `InvalidRequest`."""
    wait = headers.get(WAIT_VISIBLE_HEADER.encode())
    trace = headers.get(b"traceparent")
    kept: tuple[tuple[str, bytes], ...] = ()
    if trace and len(trace) <= _TRACEPARENT_BYTES_MAX:
        kept = (("traceparent", trace),)
    return WriteContext(kept, None if wait is None else _number(WAIT_VISIBLE_HEADER, wait))


def visible_fields(written: Written) -> dict[str, object]:
    """Return the body's fields for a write that was to wait until it is visible."""
    if written.is_visible is None:
        return {}
    return {"durable": True, "visible": written.is_visible, "lsn": written.lsn, "appliedLsn": written.applied}


def header_dict(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return ASGI headers by name; the last of several wins."""
    return dict(headers)


def _number(name: str, text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise InvalidRequest(f"Header {name} must be a whole number, got {text[:40].decode('latin-1')!r}")
    return int(text)
