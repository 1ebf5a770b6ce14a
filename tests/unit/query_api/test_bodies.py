"""Bodies whose vectors native code takes out are the same events, questions and errors as those it leaves alone."""

from __future__ import annotations

import json
import math
import random
import struct

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query_api.rest.bodies import BODIES_FILE, Lifter
from query_api.rest.decode import decode_query, decode_upsert
from schemas.errors import InvalidRequest

LIFTER = Lifter(BODIES_FILE)
DIMENSION = 3

NUMBER_TEXTS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.builds(
        "{}{}.{}e{}".format, st.sampled_from(["", "-"]), st.integers(0, 9), st.integers(0), st.integers(-400, 400)
    ),
    st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(
        ["-0", "-0.0", "0e5", "1e-46", "5e-324", "3.4028235677973366e38", "1e400", "NaN", "01", "1.", "+1"]
    ),
)
LISTS = st.lists(NUMBER_TEXTS, min_size=DIMENSION - 1, max_size=DIMENSION + 1).map(lambda n: f"[{', '.join(n)}]")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
).map(json.dumps)
GOOD = st.lists(st.floats(-1, 1), min_size=DIMENSION, max_size=DIMENSION).map(json.dumps)
NAMES = st.sampled_from(['"values"', '"val\\u0075es"', '"vector"', '"vectors"', '"id"', '"metadata"', '"sparseValues"'])


def object_of(fields):
    return "{" + " , ".join(f"{name}: {value}" for name, value in fields) + "}"


VECTORS = st.lists(
    st.one_of(
        st.tuples(st.just('"id"'), st.sampled_from(['"a"', '"b"', "1"])),
        st.tuples(st.just('"values"'), GOOD),
        st.tuples(NAMES, st.one_of(GOOD, LISTS, JSON)),
    ),
    max_size=4,
).map(object_of)
UPSERTS = st.lists(
    st.one_of(
        st.tuples(st.just('"vectors"'), st.lists(VECTORS | JSON, max_size=3).map(lambda v: f"[{','.join(v)}]")),
        st.tuples(st.just('"namespace"'), st.sampled_from(['"n"', "1"])),
        st.tuples(NAMES, JSON | LISTS),
    ),
    min_size=1,
    max_size=3,
).map(object_of)
QUERIES = st.lists(
    st.one_of(
        st.tuples(st.just('"topK"'), st.just("3")),
        st.tuples(st.just('"vector"'), st.one_of(GOOD, LISTS, JSON)),
        st.tuples(st.sampled_from(['"id"', '"filter"', '"includeValues"', '"v\\u0065ctor"']), JSON),
    ),
    min_size=1,
    max_size=4,
).map(object_of)


def outcome(decode, body: bytes, lifter: Lifter | None) -> object:
    """What a decoder gives, in a form that can be compared bit by bit, or what it says is wrong."""
    try:
        return repr(decode(body, dimension=DIMENSION, lifter=lifter))
    except InvalidRequest as error:
        return error.message, error.facts


def both_ways_agree(decode, body: bytes) -> None:
    with np.printoptions(floatmode="unique", threshold=10_000):
        assert outcome(decode, body, LIFTER) == outcome(decode, body, None)


@settings(max_examples=400, deadline=None)
@given(UPSERTS)
def test_an_upsert_is_the_same_events_or_the_same_error_both_ways(text):
    """Whatever stands in the body, and wherever."""
    both_ways_agree(decode_upsert, text.encode())


@settings(max_examples=400, deadline=None)
@given(QUERIES)
def test_a_query_is_the_same_question_or_the_same_error_both_ways(text):
    """Whatever stands in the body, and wherever."""
    both_ways_agree(decode_query, text.encode())


@settings(max_examples=400, deadline=None)
@given(st.lists(NUMBER_TEXTS, min_size=DIMENSION, max_size=DIMENSION))
def test_every_number_is_rounded_alike(numbers):
    """To the nearest double, then to float32; what is no number or not finite is left to the parser."""
    body = f'{{"vectors":[{{"id":"a","values":[{",".join(numbers)}]}}]}}'.encode()
    lifted = LIFTER.upsert(body, DIMENSION)
    try:
        wanted = [float(number) for number in orjson.loads(b"[%s]" % ",".join(numbers).encode())]
        packed = struct.pack(f"<{DIMENSION}f", *wanted)
    except (orjson.JSONDecodeError, OverflowError):
        assert lifted is None
    else:
        assert lifted is not None
        assert lifted.rows.tobytes() == packed


def test_numbers_halfway_between_float32s_and_doubles_are_rounded_alike():
    """Where the first bits of a product do not decide, all of them are looked at."""
    rng = random.Random(5)
    for _ in range(3_000):
        (low,) = struct.unpack("f", struct.pack("I", rng.getrandbits(31)))
        if not math.isfinite(low):
            continue
        between = (low + float(np.nextafter(np.float32(low), np.float32(0)))) / 2
        beside = math.nextafter(between, rng.choice([-math.inf, math.inf]))
        exact = f"{between:.800g}"[:400]
        halves = f"{rng.randrange(2**53, 2**54)}.5"
        texts = [repr(between), repr(beside), exact, halves, f"{rng.getrandbits(64)}e{rng.randrange(-64, 20)}"]
        values = [value for value in texts if abs(float(value)) < 3e38]
        body = f'{{"vectors":[{{"values":[{",".join(values)}]}}]}}'.encode()
        lifted = LIFTER.upsert(body, len(values))
        assert lifted is not None
        assert lifted.rows.tobytes() == struct.pack(f"<{len(values)}f", *(float(value) for value in values)), values


def body_of_three() -> bytes:
    vectors = [
        {"id": f'a\\"{at}', "values": [0.25 * at, -1e-3, 7], "metadata": {"values": [1, 2], "k": "}]\\"}}
        for at in range(3)
    ]
    return json.dumps({"namespace": "n", "vectors": vectors}).encode()


def test_a_body_that_ends_early_is_never_read_beyond_its_end():
    """At every length, with numbers right behind the end that must not be seen."""
    whole = body_of_three()
    for length in range(len(whole)):
        cut = whole[:length]
        assert LIFTER.upsert(cut, DIMENSION) is None
        both_ways_agree(decode_upsert, cut)
    assert LIFTER.upsert(whole, DIMENSION) is not None


def test_a_body_with_changed_bytes_is_the_same_both_ways():
    """Any byte, anywhere."""
    whole = body_of_three()
    rng = random.Random(11)
    for _ in range(5_000):
        changed = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            changed[rng.randrange(len(changed))] = rng.choice(b'{}[]",:\\ 0123456789.eE+-\x00\xff\n')
        both_ways_agree(decode_upsert, bytes(changed))


@pytest.mark.parametrize("count", [1_000, 1_001])
def test_more_vectors_than_one_upsert_takes_are_refused_both_ways(count):
    """With the words of the slow way."""
    body = json.dumps({"vectors": [{"id": "a", "values": [1, 2, 3]}] * count}).encode()
    assert (LIFTER.upsert(body, DIMENSION) is None) == (count > 1_000)
    both_ways_agree(decode_upsert, body)


def test_a_vector_that_is_given_twice_is_the_last_one():
    """As the parser has it, at each level."""
    one, two = '{"id":"a","values":[1,2,3]}', '{"id":"b","values":[1,1,1],"values":[4,5,6]}'
    for body in (f'{{"vectors":[{one}],"vectors":[{two}]}}', f'{{"vectors":[{two},{one}]}}'):
        assert LIFTER.upsert(body.encode(), DIMENSION) is not None
        both_ways_agree(decode_upsert, body.encode())


def test_an_index_without_dense_vectors_has_nothing_taken_out():
    """Its dimension is zero."""
    body = b'{"vectors":[{"id":"a","sparseValues":{"indices":[1],"values":[2]}}],"topK":1}'
    assert LIFTER.upsert(body, 0) is None
    assert LIFTER.query(body, 0) is None
