"""What goes in and out of a hot route: bytes, without a framework between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from query_api.asked import wanted_of, write_context
from query_api.freshness import Shown
from query_api.served import ServedIndex
from query_api.writes import Written

__all__ = [
    "POSITION_HEADER",
    "STALENESS_HEADER",
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

POSITION_HEADER = "x-freshet-position"
STALENESS_HEADER = "x-freshet-staleness-ms"


@dataclass(frozen=True, slots=True)
class Call:
    """A request to an index. Names of `headers` are lower case."""

    index: ServedIndex
    headers: dict[bytes, bytes]
    query: bytes
    body: bytes

    @property
    def api_version(self) -> str:
        """The API version that the client asks for, a date; `""` where it names none."""
        return self.headers.get(b"x-pinecone-api-version", b"").decode("latin-1")

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


def visible_fields(written: Written) -> dict[str, object]:
    """Return the body's fields for a write that was to wait until it is visible."""
    if written.is_visible is None:
        return {}
    return {"durable": True, "visible": written.is_visible, "lsn": written.lsn, "appliedLsn": written.applied}


def header_dict(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return ASGI headers by name; the last of several wins."""
    return dict(headers)
