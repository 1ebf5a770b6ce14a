"""The checker of the crash tests tells what may be from what may not: each broken promise is found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.crash.client import Reply
from tests.crash.history import Answered, Row, Step, Track, Violation
from tests.crash.workload import answered
from tests.crash.writes import state_of


def put(name: str, stamp: int) -> Step:
    """Return the change that an upsert makes."""
    return lambda state: state.__setitem__(name, Row(stamp, 0, 0))


def remove(name: str) -> Step:
    """Return the change that a delete makes."""

    def step(state: dict[str, Row]) -> None:
        state.pop(name, None)

    return step


def write(track: Track, steps: Sequence[Step], result: Answered = Answered.ACKNOWLEDGED) -> int:
    """Make a write; return the floor of reads after it."""
    track.begin(steps)
    track.end(result, f"log:0={track.acknowledged + 1}")
    return track.seen().floor


def shown(**stamps: int) -> dict[str, Row]:
    """Return a state as a read finds it."""
    return {name: Row(stamp, 0, 0) for name, stamp in stamps.items()}


@pytest.fixture
def track() -> Track:
    """Return the history: a=1 and b=1, then a=2, then b deleted, all acknowledged."""
    track = Track(0, "n")
    write(track, [put("a", 1), put("b", 1)])
    write(track, [put("a", 2)])
    write(track, [remove("b")])
    return track


@pytest.mark.parametrize(
    ("found", "broken"),
    [
        (shown(a=2), None),
        (shown(), "an acknowledged write is lost"),
        (shown(a=1), "an acknowledged update is lost"),
        (shown(a=2, b=1), "what was deleted is back"),
        (shown(a=3), "what was never written is there"),
    ],
)
def test_the_state_after_a_restart_is_the_acknowledged_one(
    track: Track, found: dict[str, Row], broken: str | None
) -> None:
    """Anything but what was acknowledged last is a violation."""
    if broken is None:
        track.settle(found, "test")
    else:
        with pytest.raises(Violation):
            track.settle(found, "test")


def test_a_write_without_an_answer_may_be_there_or_not_but_whole(track: Track) -> None:
    """Both outcomes are accepted, half of one is not."""
    write(track, [put("c", 4), put("d", 4)], Answered.UNKNOWN)
    track.settle(shown(a=2), "test")
    track.settle(shown(a=2, c=4, d=4), "test")
    with pytest.raises(Violation):
        track.settle(shown(a=2, c=4), "test")


def test_a_write_without_an_answer_is_decided_once(track: Track) -> None:
    """After an acknowledged write and a read of it, the other outcome is a violation."""
    write(track, [put("c", 4)], Answered.UNKNOWN)
    write(track, [put("e", 5)])
    track.settle(shown(a=2, e=5), "test")
    with pytest.raises(Violation):
        track.settle(shown(a=2, c=4, e=5), "test")


def test_a_refused_write_is_never_there(track: Track) -> None:
    """A refusal is a promise."""
    write(track, [put("c", 4)], Answered.REFUSED)
    with pytest.raises(Violation):
        track.settle(shown(a=2, c=4), "test")
    with pytest.raises(Violation):
        track.check(shown(a=2, c=4), 0, "test")


def test_a_read_shows_one_state_that_is_new_enough(track: Track) -> None:
    """Every state that there was is accepted, but none older than demanded, and no mixture."""
    floor = track.seen().floor
    assert track.check(shown(a=2), floor, "test") >= floor
    first = track.check(shown(a=1, b=1), 0, "test")
    assert track.check(shown(a=2, b=1), first, "test") > first
    for found in (shown(a=1, b=1), shown(a=2, b=1), shown()):
        with pytest.raises(Violation, match="older"):
            track.check(found, floor, "test")
    for found in (shown(b=1), shown(a=1, b=2)):
        with pytest.raises(Violation, match="no state"):
            track.check(found, 0, "test")


def test_a_reader_never_goes_back(track: Track) -> None:
    """What one read has shown is the floor of the next, also for a state that comes twice."""
    write(track, [put("b", 1)])
    low = track.check(shown(a=2, b=1), 0, "test")
    low = track.check(shown(a=2), low, "test")
    low = track.check(shown(a=2, b=1), low, "test")
    with pytest.raises(Violation, match="older"):
        track.check(shown(a=2), low, "test")


def record(name: str, stamp: int, values: list[int] | None = None) -> dict[str, Any]:
    """Return a record of an answer."""
    metadata = {"owner": 0, "tag": 0, "stamp": stamp, "mark": 0}
    return {"id": name, "values": values or [stamp, 0, 1, 1], "metadata": metadata}


def test_a_record_of_two_writes_and_a_double_one_are_found() -> None:
    """Vector and metadata come from one write, and a record stands once in an answer."""
    assert state_of([record("w0-1", 7)]) == {"w0-1": Row(7, 0, 0)}
    with pytest.raises(Violation, match="not of one write"):
        state_of([record("w0-1", 7, [6, 0, 1, 1])])
    with pytest.raises(Violation, match="twice"):
        state_of([record("w0-1", 7), record("w0-1", 7)])


def test_answers_are_read_as_promised() -> None:
    """A 503 says whether the write may still appear; an answer that no write should get is a violation."""
    assert answered(Reply(200, {}, {})) is Answered.ACKNOWLEDGED
    assert answered(Reply(504, {}, {})) is Answered.ACKNOWLEDGED
    assert answered(Reply(429, {}, {})) is Answered.REFUSED
    assert answered(Reply(503, {}, {"details": [{"outcome": "refused"}]})) is Answered.REFUSED
    assert answered(Reply(503, {}, {"details": [{"outcome": "unknown"}]})) is Answered.UNKNOWN
    for status in (400, 409, 500):
        with pytest.raises(Violation):
            answered(Reply(status, {}, {}))
