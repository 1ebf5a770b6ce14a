"""What a caller asks for beside its request: freshness, waiting, an idempotency key. The same over every transport.

It comes in headers, here a mapping from lower-case names to bytes (HTTP headers, gRPC metadata), or in the field
`consistency` of a JSON body.
"""

from __future__ import annotations

from collections.abc import Mapping

from query_api.freshness import EVENTUAL, Level, Wanted
from query_api.writes import WriteContext
from schemas.errors import InvalidRequest
from schemas.idempotency import KEY_HEADER, check_key
from schemas.metadata import shown
from schemas.positions import PositionToken

__all__ = [
    "AT_LEAST_HEADER",
    "AT_LEAST_LSN_HEADER",
    "CONSISTENCY_HEADER",
    "IDEMPOTENCY_KEY_HEADER",
    "MAX_STALENESS_HEADER",
    "WAIT_HEADER",
    "WAIT_VISIBLE_HEADER",
    "wanted_of",
    "write_context",
]

AT_LEAST_HEADER = "x-freshet-at-least"
AT_LEAST_LSN_HEADER = "x-freshet-at-least-lsn"
CONSISTENCY_HEADER = "x-freshet-consistency"
MAX_STALENESS_HEADER = "x-freshet-max-staleness-ms"
WAIT_HEADER = "x-freshet-wait-ms"
WAIT_VISIBLE_HEADER = "x-freshet-wait-visible-ms"
# The name that it has in the log, too.
IDEMPOTENCY_KEY_HEADER = KEY_HEADER

_AT_LEAST, _AT_LEAST_LSN = AT_LEAST_HEADER.encode(), AT_LEAST_LSN_HEADER.encode()
_CONSISTENCY, _MAX_STALENESS = CONSISTENCY_HEADER.encode(), MAX_STALENESS_HEADER.encode()
_WAIT, _WAIT_VISIBLE = WAIT_HEADER.encode(), WAIT_VISIBLE_HEADER.encode()
_KEY = IDEMPOTENCY_KEY_HEADER.encode()
_WANTED = (_AT_LEAST, _AT_LEAST_LSN, _CONSISTENCY, _MAX_STALENESS)
_FIELDS = ("level", "maxStalenessMs", "atLeast", "waitMs")
_LEVELS = tuple(level.value for level in Level)
# A trace context has 55 characters (https://www.w3.org/TR/trace-context); a longer one of a later version is kept too.
_TRACEPARENT_BYTES_MAX = 128


def wanted_of(headers: Mapping[bytes, bytes], consistency: object = None) -> Wanted:
    """Return what a read asks for, in its headers or in the field `consistency` of its body.

    Raises `InvalidRequest` for a malformed one, for levels that contradict each other, and where both say something.
    """
    wait = headers.get(_WAIT)
    wait_ms = None if wait is None else _number(WAIT_HEADER, wait)
    if consistency is not None:
        both = [name for name in _WANTED if name in headers]
        if both:
            raise InvalidRequest(
                "Say how fresh the answer must be either in 'consistency' or in headers, not both: got the header "
                f"{both[0].decode()} too"
            )
        return _of_body(consistency, wait_ms)
    token, lsn = headers.get(_AT_LEAST), headers.get(_AT_LEAST_LSN)
    level, staleness = headers.get(_CONSISTENCY), headers.get(_MAX_STALENESS)
    if token is None and lsn is None and wait is None and level is None and staleness is None:
        return EVENTUAL
    return Wanted(
        token=None if token is None else PositionToken.parse(token.decode("latin-1")),
        lsn=None if lsn is None else _number(AT_LEAST_LSN_HEADER, lsn),
        wait_ms=wait_ms,
        level=Level.EVENTUAL if level is None else _level(CONSISTENCY_HEADER, level.decode("latin-1")),
        max_staleness_ms=None if staleness is None else _number(MAX_STALENESS_HEADER, staleness),
    )


def write_context(headers: Mapping[bytes, bytes]) -> WriteContext:
    """Return what came with a write. Raises `InvalidRequest`."""
    wait = headers.get(_WAIT_VISIBLE)
    trace = headers.get(b"traceparent")
    key = headers.get(_KEY)
    kept: tuple[tuple[str, bytes], ...] = ()
    if trace and len(trace) <= _TRACEPARENT_BYTES_MAX:
        kept = (("traceparent", trace),)
    if key is not None:
        check_key(key)
    return WriteContext(kept, None if wait is None else _number(WAIT_VISIBLE_HEADER, wait), key)


def _of_body(consistency: object, wait_ms: int | None) -> Wanted:
    if not isinstance(consistency, dict):
        raise InvalidRequest(
            '\'consistency\' must be an object such as {"level": "strong"} or '
            '{"atLeast": <lsn or token>, "waitMs": <ms>}, ' + f"got '{shown(consistency)}'"
        )
    unknown = consistency.keys() - set(_FIELDS)
    if unknown:
        raise InvalidRequest(f"'consistency' knows {', '.join(_FIELDS)}, got '{min(map(str, unknown))[:80]}'")
    level = consistency.get("level")
    own_wait_ms = _milliseconds(consistency, "waitMs")
    at_least = consistency.get("atLeast")
    if at_least is not None and type(at_least) not in (int, str):
        raise InvalidRequest("'consistency.atLeast' must be an LSN (an integer) or a position token (a string)")
    return Wanted(
        token=PositionToken.parse(at_least) if isinstance(at_least, str) else None,
        lsn=None if isinstance(at_least, str) else at_least,
        wait_ms=wait_ms if own_wait_ms is None else own_wait_ms,
        level=Level.EVENTUAL if level is None else _level("'consistency.level'", level),
        max_staleness_ms=_milliseconds(consistency, "maxStalenessMs"),
    )


def _level(what: str, value: object) -> Level:
    if value not in _LEVELS:
        raise InvalidRequest(f"{what} must be one of {', '.join(_LEVELS)}, got '{shown(value)}'")
    return Level(str(value))


def _milliseconds(consistency: dict[str, object], field: str) -> int | None:
    value = consistency.get(field)
    if value is not None and type(value) is not int:
        raise InvalidRequest(f"'consistency.{field}' must be an integer of milliseconds, got '{shown(value)}'")
    return value


def _number(name: str, text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise InvalidRequest(f"Header {name} must be a whole number, got {text[:40].decode('latin-1')!r}")
    return int(text)
