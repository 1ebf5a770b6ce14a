"""Bytes of a client in, whole frames out; those of new requests stay where they are held back."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from compose.http2_frames import END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE, Frames, frame

DATA, RST_STREAM, PING, GOAWAY, CONTINUATION = 0, 3, 6, 7, 9
FRAMES = st.lists(
    st.builds(
        frame,
        st.sampled_from([DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE, 77]),
        st.integers(0, 5),
        st.integers(0, 9),
        st.binary(max_size=40),
    ),
    max_size=12,
)


def cut(data, places):
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(bounds)]


@given(FRAMES, st.lists(st.integers(0, 10_000), max_size=6), st.binary(max_size=8))
def test_whole_frames_come_out_however_the_bytes_are_cut(frames, places, begun):
    """In order, each once; what is not whole stays."""
    found = Frames()
    whole = PREFACE + b"".join(frames)
    assert b"".join(found.take(part) for part in cut(whole + begun, places)) == whole


@given(FRAMES, FRAMES, st.lists(st.integers(0, 10_000), max_size=6))
def test_frames_of_new_requests_are_held_and_all_others_pass(before, after, places):
    """Held frames keep their order, and nothing is lost."""
    found = Frames()
    found.take(PREFACE + b"".join(before))
    last = found.last_stream
    found.hold()
    passed = b"".join(found.take(part) for part in cut(b"".join(after), places))
    held = [each for each in after if int.from_bytes(each[5:9], "big") > last]
    assert passed == b"".join(each for each in after if each not in held)
    assert found.held_bytes == sum(map(len, held))
    assert found.release() == held
    assert (found.held_bytes, found.is_holding) == (0, False)


def test_a_request_is_open_from_its_head_to_its_end():
    """By a head, by data, by trailers or by being broken off, whoever does that."""
    found = Frames()
    found.take(PREFACE)
    for stream, end in ((1, DATA), (3, HEADERS), (5, RST_STREAM)):
        found.take(frame(HEADERS, END_HEADERS, stream, b""))
        assert not found.is_between_requests
        found.take(frame(DATA, 0, stream, b"x"))
        assert not found.is_between_requests
        found.take(frame(end, END_HEADERS | END_STREAM, stream, b""))
        assert found.is_between_requests
    # With the bit that means nothing.
    found.take(frame(HEADERS, END_STREAM, 2**31 + 7, b""))
    assert not found.is_between_requests, "its head goes on"
    found.take(frame(CONTINUATION, END_HEADERS, 7, b""))
    assert found.is_between_requests
    assert found.last_stream == 7
    found.take(frame(HEADERS, END_HEADERS, 9, b""))
    found.forget(9)
    assert found.is_between_requests


def test_a_goodbye_does_not_overtake_what_is_held():
    """The client closes after it; what it began before is to be served."""
    found = Frames()
    found.take(PREFACE)
    found.hold()
    sent = [frame(HEADERS, END_HEADERS, 1, b""), frame(GOAWAY, 0, 0, bytes(8))]
    assert found.take(b"".join(sent)) == b""
    assert found.release() == sent


def test_settings_are_taken_when_they_are_confirmed():
    """Not by settings of the client's own."""
    found = Frames()
    found.take(PREFACE + frame(SETTINGS, 0, 0, b""))
    assert not found.are_settings_taken
    found.take(frame(SETTINGS, 1, 0, b""))
    assert found.are_settings_taken


def test_what_is_larger_than_a_frame_may_be_goes_on_to_the_parser():
    """It is refused there; it is not kept here until it is whole, and what was held comes before it."""
    found = Frames()
    found.take(PREFACE + frame(HEADERS, END_HEADERS, 1, b""))
    found.hold()
    held = frame(HEADERS, END_HEADERS, 3, b"")
    assert found.take(held) == b""
    large = frame(DATA, 0, 1, bytes(16_385))
    assert found.take(large[:100]) == held + large[:100]
    assert found.take(large[100:]) == large[100:]
    assert not found.is_between_requests
