"""Page tokens: opaque to clients, the prefix and the last name to us, so no page is counted and none is missed."""

from __future__ import annotations

import base64
import binascii

import orjson

from schemas.errors import InvalidRequest

__all__ = ["page_token", "read_page_token"]


def page_token(prefix: str, after: str) -> str:
    """Return the token of the page that begins after a name."""
    return base64.urlsafe_b64encode(orjson.dumps({"prefix": prefix, "skip_past": after})).decode()


def read_page_token(token: str, prefix: str | None) -> tuple[str, str]:
    """Return the prefix and the name to begin after.

    Raises `InvalidRequest` for anything that `page_token` did not make, and where `prefix` is another one.
    """
    try:
        fields = orjson.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
        found, after = fields["prefix"], fields["skip_past"]
    except (binascii.Error, orjson.JSONDecodeError, UnicodeEncodeError, KeyError, TypeError) as error:
        raise InvalidRequest(f"Invalid pagination token {token[:80]!r}") from error
    if not isinstance(found, str) or not isinstance(after, str):
        raise InvalidRequest(f"Invalid pagination token {token[:80]!r}")
    if prefix is not None and prefix != found:
        raise InvalidRequest(f"Invalid pagination token: it continues a listing of prefix {found[:80]!r}")
    return found, after
