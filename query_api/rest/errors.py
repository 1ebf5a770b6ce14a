"""One table from the error tree to HTTP: status, and the body that each plane of the API uses."""

from __future__ import annotations

import math
import re

import orjson

from query_api.rest.exchange import POSITION_HEADER, Answer
from schemas.errors import (
    AlreadyExists,
    Code,
    DeadlineExceeded,
    Forbidden,
    FreshetError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    NotReady,
    OutcomeUnknown,
    PayloadTooLarge,
    PositionNotReached,
    TailFull,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    UnprocessableBody,
)

__all__ = ["STATUS", "error_answer", "speaks_control", "status_of"]

# Routes of an index that answer in the control plane's words all the same.
_CONTROL_WORDS = re.compile(r"/records/.*|/namespaces/.*/documents/(upsert|search|fetch|list|delete|update)")

# The first class of an error's line of descent that stands here decides; anything else is our own mistake: 500.
STATUS: dict[type[FreshetError], int] = {
    InvalidRequest: 400,
    PayloadTooLarge: 413,
    UnprocessableBody: 422,
    NotFound: 404,
    MethodNotAllowed: 405,
    AlreadyExists: 409,
    PositionNotReached: 412,
    NotReady: 412,
    Unauthenticated: 401,
    Forbidden: 403,
    TailFull: 429,
    TooManyRequests: 429,
    Unavailable: 503,
    OutcomeUnknown: 504,
    DeadlineExceeded: 504,
    Unimplemented: 501,
}
# Where the control plane's word differs from the code's name.
_CONTROL_CODES = {403: "FORBIDDEN", 413: "PAYLOAD_TOO_LARGE", 422: "UNPROCESSABLE_ENTITY"}


def status_of(error: FreshetError) -> int:
    """Return the HTTP status of an error."""
    for kind in type(error).__mro__:
        status = STATUS.get(kind)
        if status is not None:
            return status
    return 500


def speaks_control(path: str) -> bool:
    """Say whether a route of an index answers with the error body of the control plane: records and documents do."""
    return _CONTROL_WORDS.fullmatch(path) is not None


def error_answer(error: FreshetError, *, is_control: bool) -> Answer:
    """Return the response for `error` in the body of its plane.

    Data plane: `{code, message, details}` with gRPC numbers; control plane: `{status, error: {code, message}}`.
    """
    status = status_of(error)
    headers: dict[str, str] = {}
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_seconds)))
    if isinstance(error, MethodNotAllowed) and error.facts.get("allow"):
        headers["allow"] = str(error.facts["allow"])
    if isinstance(error, OutcomeUnknown) and error.facts.get("position"):
        headers[POSITION_HEADER] = str(error.facts["position"])
    if isinstance(error, Unauthenticated):
        # RFC 9110, 11.6.1: a 401 names a way that is understood.
        headers["www-authenticate"] = 'Bearer realm="freshet"'
    code = error.code if status != 500 else Code.INTERNAL
    body: dict[str, object]
    if is_control:
        inner: dict[str, object] = {"code": _CONTROL_CODES.get(status, code.name), "message": error.message}
        if error.facts:
            inner["details"] = error.facts
        body = {"status": status, "error": inner}
    else:
        details = [{"reason": type(error).__name__, **error.facts}] if error.facts else []
        body = {"code": int(code), "message": error.message, "details": details}
    return Answer(status, orjson.dumps(body, default=str), headers)
