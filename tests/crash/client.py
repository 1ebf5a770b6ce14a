"""A plain client: one connection, no retries, and it knows which of its requests may have been carried out."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

__all__ = ["Client", "Reply", "Unreachable"]


class Unreachable(Exception):
    """No answer came. `was_sent` says whether the server may have got the request."""

    def __init__(self, reason: object, *, was_sent: bool) -> None:
        super().__init__(str(reason))
        self.was_sent = was_sent


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def token(self) -> str | None:
        """The position that the answer shows or made."""
        return self.headers.get("x-freshet-position")


class Client:
    """Requests to one server, one at a time."""

    def __init__(self, port: int, *, timeout_seconds: float = 30.0) -> None:
        self._port = port
        self._timeout_seconds = timeout_seconds
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None) -> Reply:
        """Send a request and return the answer, whatever its status. Raises `Unreachable`."""
        data = b"" if body is None else json.dumps(body).encode()
        sent_headers = {"content-type": "application/json", "x-pinecone-api-version": "2025-10", **(headers or {})}
        was_sent = False
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._timeout_seconds)
                self._connection.connect()
            was_sent = True
            self._connection.request(method, path, data, sent_headers)
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(repr(error), was_sent=was_sent) from error
        lowered = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, lowered, _parsed(text))


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text) if text else {}
    except ValueError:
        return {"text": text.decode("utf-8", "replace")}
