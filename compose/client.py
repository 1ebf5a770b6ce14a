"""The command line's own client of the REST API: small, synchronous, with errors that say what to do."""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Any, Self

import httpx2
import orjson

from schemas.errors import FreshetError, Unavailable

__all__ = ["Client", "error_message", "key_headers"]

_SECONDS = 75.0


class Client:
    """Calls a server at `url`, with an API key where one is given; a context manager."""

    def __init__(self, url: str, trust: ssl.SSLContext | None = None, *, key: str = "") -> None:
        """Trust the server by `trust`, or by what this machine trusts."""
        self._url = url.rstrip("/")
        # A proxy of the environment has no business between this machine and itself.
        self._http = httpx2.Client(
            base_url=self._url,
            timeout=_SECONDS,
            trust_env=False,
            verify=trust or ssl.create_default_context(),
            headers=key_headers(key),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def call(self, method: str, path: str, body: object = None, *, headers: dict[str, str] | None = None) -> Any:
        """Return the JSON of the answer. Raises `Unavailable`; `FreshetError` with the message of an error."""
        sent = None if body is None else orjson.dumps(body)
        all_headers = {"content-type": "application/json", **(headers or {})}
        try:
            response = self._http.request(method, path, content=sent, headers=all_headers)
        except httpx2.TransportError as error:
            raise Unavailable(
                f"No answer from {self._url} ({type(error).__name__}: {error}). Is `freshet up` running there? "
                "Another address: --url, or FRESHET_PORT."
            ) from error
        if response.is_error:
            raise FreshetError(f"{response.status_code}: {error_message(response.content)}{_remedy(response)}")
        return orjson.loads(response.content) if response.content else {}

    def index(self, name: str, method: str, path: str, body: object = None) -> Any:
        """Call a route of an index by its path-addressed door."""
        return self.call(method, f"/i/{name}{path}", body)


def key_headers(key: str) -> dict[str, str]:
    """Return the header that carries an API key; none where there is no key."""
    return {"api-key": key} if key else {}


def _remedy(response: httpx2.Response) -> str:
    return " Set FRESHET_API_KEY or FRESHET_API_KEY_FILE." if response.status_code == httpx2.codes.UNAUTHORIZED else ""


def error_message(body: bytes) -> str:
    """Return what an error body says, of whichever plane."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:500].decode(errors="replace")
    if not isinstance(parsed, dict):
        return str(parsed)
    inner = parsed.get("error", parsed)
    return str(inner.get("message", inner)) if isinstance(inner, dict) else str(inner)
