"""Page tokens: opaque to clients, the prefix and the last name to us, so no page is counted and none is missed."""

from __future__ import annotations

import base64
import binascii
import hashlib

import orjson

from schemas.errors import InvalidRequest
from schemas.filters import Filter, filter_to_json

__all__ = ["filter_page_token", "page_token", "read_filter_page_token", "read_page_token"]

_DIGEST_BYTES = 16


def page_token(prefix: str, after: str) -> str:
    """Return the token of the page that begins after a name."""
    return _token("prefix", prefix, after)


def read_page_token(token: str, prefix: str | None) -> tuple[str, str]:
    """Return the prefix and the name to begin after.

    Raises `InvalidRequest` for anything that `page_token` did not make, and where `prefix` is another one.
    """
    found, after = _read(token, "prefix")
    if prefix is not None and prefix != found:
        raise InvalidRequest(f"Invalid pagination token: it continues a listing of prefix {found[:80]!r}")
    return found, after


def filter_page_token(where: Filter, after: str) -> str:
    """Return the token of the page of matching records that begins after an id."""
    return _token("filter", _digest(where), after)


def read_filter_page_token(token: str, where: Filter) -> str:
    """Return the id to begin after. Raises `InvalidRequest` for a foreign token, and where it is of another filter."""
    found, after = _read(token, "filter")
    if found != _digest(where):
        raise InvalidRequest("Invalid pagination token: it continues the pages of another filter")
    return after


def _digest(where: Filter) -> str:
    return hashlib.blake2b(filter_to_json(where), digest_size=_DIGEST_BYTES).hexdigest()


def _token(kind: str, value: str, after: str) -> str:
    return base64.urlsafe_b64encode(orjson.dumps({kind: value, "skip_past": after})).decode()


def _read(token: str, kind: str) -> tuple[str, str]:
    """Return what a token of that kind continues, and after which name."""
    try:
        fields = orjson.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
        found, after = fields[kind], fields["skip_past"]
    except (binascii.Error, orjson.JSONDecodeError, UnicodeEncodeError, KeyError, TypeError) as error:
        raise InvalidRequest(f"Invalid pagination token {token[:80]!r}") from error
    if not isinstance(found, str) or not isinstance(after, str):
        raise InvalidRequest(f"Invalid pagination token {token[:80]!r}")
    return found, after
