"""What a caller asks for, from headers of any transport or from the body: one meaning, and clear refusals."""

from __future__ import annotations

import pytest

from query_api.asked import wanted_of, write_context
from query_api.freshness import EVENTUAL, Level, Wanted
from schemas.errors import InvalidRequest
from schemas.positions import PositionToken

TOKEN = "L" * 22 + ":0=7"


@pytest.mark.parametrize(
    ("body", "headers", "wanted"),
    [
        ({"level": "eventual"}, {"x-freshet-consistency": b"eventual"}, Wanted()),
        ({"level": "strong"}, {"x-freshet-consistency": b"strong"}, Wanted(level=Level.STRONG)),
        (
            {"level": "bounded", "maxStalenessMs": 0},
            {"x-freshet-consistency": b"bounded", "x-freshet-max-staleness-ms": b"0"},
            Wanted(level=Level.BOUNDED, max_staleness_ms=0),
        ),
        (
            {"level": "strong", "atLeast": TOKEN, "waitMs": 9},
            {"x-freshet-consistency": b"strong", "x-freshet-at-least": TOKEN.encode(), "x-freshet-wait-ms": b"9"},
            Wanted(PositionToken.parse(TOKEN), wait_ms=9, level=Level.STRONG),
        ),
        ({"atLeast": 7}, {"x-freshet-at-least-lsn": b"7"}, Wanted(lsn=7)),
    ],
)
def test_body_and_headers_ask_for_the_same(body, headers, wanted):
    """Whichever a client can send."""
    assert wanted_of({}, body) == wanted
    assert wanted_of({name.encode(): value for name, value in headers.items()}) == wanted


def test_a_wait_in_a_header_goes_with_a_level_in_the_body():
    """The body's own wait wins."""
    wait = {b"x-freshet-wait-ms": b"5"}
    assert wanted_of(wait, {"level": "strong"}).wait_ms == 5
    assert wanted_of(wait, {"level": "strong", "waitMs": 6}).wait_ms == 6
    assert wanted_of({}) is EVENTUAL


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"level": "linear"}, "'consistency.level' must be one of eventual, bounded, strong"),
        ({"level": 1}, "'consistency.level' must be one of"),
        ({"level": ["strong"]}, "'consistency.level' must be one of"),
        ({"level": "bounded"}, "'bounded' needs a staleness"),
        ({"maxStalenessMs": 5}, "got 'eventual' with one"),
        ({"level": "strong", "maxStalenessMs": 5}, "got 'strong' with one"),
        ({"level": "bounded", "maxStalenessMs": -1}, "Staleness must be 0 to"),
        ({"level": "bounded", "maxStalenessMs": 10**9}, "Staleness must be 0 to"),
        ({"level": "bounded", "maxStalenessMs": 1.5}, "must be an integer of milliseconds"),
        ({"level": "bounded", "maxStalenessMs": True}, "must be an integer of milliseconds"),
        ({"level": "strong", "atMost": 1}, "'consistency' knows level, maxStalenessMs, atLeast, waitMs"),
        ("strong", "'consistency' must be an object"),
    ],
)
def test_a_body_that_is_unclear_is_refused(body, said):
    """With what it should have been."""
    with pytest.raises(InvalidRequest) as refused:
        wanted_of({}, body)
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"x-freshet-consistency": b"Strong"}, "x-freshet-consistency must be one of"),
        ({"x-freshet-consistency": b"\xff"}, "x-freshet-consistency must be one of"),
        ({"x-freshet-consistency": b"bounded"}, "needs a staleness"),
        ({"x-freshet-max-staleness-ms": b"5"}, "got 'eventual' with one"),
        ({"x-freshet-consistency": b"bounded", "x-freshet-max-staleness-ms": b"soon"}, "must be a whole number"),
        ({"x-freshet-consistency": b"bounded", "x-freshet-max-staleness-ms": b"-1"}, "must be a whole number"),
    ],
)
def test_headers_that_are_unclear_are_refused(headers, said):
    """With what they should have been."""
    with pytest.raises(InvalidRequest) as refused:
        wanted_of({name.encode(): value for name, value in headers.items()})
    assert said in refused.value.message


@pytest.mark.parametrize(
    "name", ["x-freshet-at-least", "x-freshet-at-least-lsn", "x-freshet-consistency", "x-freshet-max-staleness-ms"]
)
def test_body_and_headers_may_not_both_say_how_fresh(name):
    """They could contradict each other."""
    with pytest.raises(InvalidRequest, match=f"not both: got the header {name}"):
        wanted_of({name.encode(): b"1"}, {"level": "strong"})


def test_a_write_brings_its_key_wait_and_trace():
    """What cannot be obeyed is refused."""
    context = write_context({b"freshet-idempotency-key": b"k-1", b"x-freshet-wait-visible-ms": b"5"})
    assert (context.idempotency_key, context.visible_ms, context.headers) == (b"k-1", 5, ())
    assert write_context({b"freshet-idempotency-key": b"x" * 64}).idempotency_key == b"x" * 64
    assert write_context({}).idempotency_key is None
    for key in (b"", b"x" * 65, b"a b", b"a\x7f", b"\xc3\xa9"):
        with pytest.raises(InvalidRequest, match="freshet-idempotency-key must be 1 to 64 printable ASCII"):
            write_context({b"freshet-idempotency-key": key})
