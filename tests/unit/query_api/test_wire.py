"""Bytes in and out of the hot routes, page tokens, and the address of a request."""

from __future__ import annotations

import json
import math
import struct
from urllib.parse import parse_qsl

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.snapshots.snapshot import Snapshot
from query_api.questions import Match, QueryResult
from query_api.rest.decode import decode_query, decode_upsert
from query_api.rest.encode import encode_fetch, encode_query
from query_api.rest.errors import STATUS, error_answer, status_of
from query_api.rest.exchange import Call
from query_api.rest.pages import filter_page_token, page_token, read_filter_page_token, read_page_token
from schemas import errors
from schemas.errors import InvalidRequest
from schemas.filters import parse_filter
from schemas.records import Record, dense_bytes, make_sparse

FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(st.one_of(FLOAT32, st.floats(allow_nan=False, allow_infinity=False), st.integers()), max_size=8))
def test_packed_vectors_equal_those_of_the_slow_way(values):
    """Whatever the numbers, a struct and numpy agree on every bit, or both say infinity."""
    body = json.dumps({"vectors": [{"id": "a", "values": values}], "namespace": "n"}).encode()
    try:
        parsed = orjson.loads(body)["vectors"][0]["values"]
    except orjson.JSONDecodeError:
        with pytest.raises(InvalidRequest):
            decode_upsert(body, dimension=len(values))
        return
    namespace, (event,) = decode_upsert(body, dimension=len(values))
    assert namespace == "n"
    assert event.values == dense_bytes(parsed)


@given(st.lists(FLOAT32, min_size=1, max_size=8))
def test_float32_is_printed_as_its_shortest_decimal(values):
    """The decimals read back to the same float32, and no shorter ones would."""
    record = Record("a", np.array(values, np.float32), None, b"")
    text = orjson.loads(encode_fetch({"a": record}, "", asked=1))["vectors"]["a"]["values"]
    assert struct.pack(f"{len(values)}f", *text) == struct.pack(f"{len(values)}f", *values)
    for shown, value in zip(text, values, strict=True):
        assert len(np.format_float_scientific(np.float32(value), trim="-")) >= len(
            np.format_float_scientific(shown, trim="-")
        )


def test_known_decimals_are_printed_as_people_wrote_them():
    """0.4 and not 0.4000000059604645."""
    values = np.array([0.4, 0.1, 1e-8, 3.0, -0.0, 16777216], np.float32)
    sparse = make_sparse([3, 1], [0.2, 0.7])
    body = encode_query(
        QueryResult([Match("a", np.float32(0.3).item(), Record("a", values, sparse, b'{"x":0.1}'))]), "ns"
    )
    assert body == (
        b'{"matches":[{"id":"a","score":0.3,"values":[0.4,0.1,1e-8,3.0,-0.0,16777216.0],'
        b'"sparseValues":{"indices":[1,3],"values":[0.7,0.2]},"metadata":{"x":0.1}}],'
        b'"namespace":"ns","usage":{"readUnits":1}}'
    )


@pytest.mark.parametrize("flags", [{}, {"includeValues": True}, {"includeValues": False, "includeMetadata": True}])
def test_a_boolean_in_a_query_vector_is_seen_among_flags(flags):
    """The look at types is left out only where every boolean of the body is a flag."""
    _, question, _ = decode_query(orjson.dumps({"topK": 1, "vector": [1, 0.5], **flags}), dimension=2)
    assert question.vector.tolist() == [1, 0.5]
    with pytest.raises(InvalidRequest, match="numbers"):
        decode_query(orjson.dumps({"topK": 1, "vector": [True, 0.5], **flags}), dimension=2)


def test_numbers_at_the_edge_of_float32_round_as_numpy_does():
    """The largest float32 is taken; what rounds beyond it becomes infinite, which admission refuses."""
    largest = float(np.finfo(np.float32).max)
    for value in (largest, largest * (1 + 2**-26), largest * 1.1, 1e-46):
        _, (event,) = decode_upsert(orjson.dumps({"vectors": [{"id": "a", "values": [value]}]}), dimension=1)
        with np.errstate(over="ignore"):
            assert np.frombuffer(event.values, "<f4")[0] == np.float32(value)
    assert math.isinf(struct.unpack("<f", dense_bytes([1e300]))[0])


@given(st.text(st.sampled_from("ab=&;%2+ \xe9"), max_size=12))
def test_query_parameters_are_those_of_the_standard_library(text):
    """Also where they are taken apart the short way."""
    query = text.encode("latin-1")
    assert Call(None, {}, query, b"").parameters() == parse_qsl(text, keep_blank_values=True)


@given(st.text(), st.text())
def test_page_tokens_say_what_they_were_made_of(prefix, after):
    """And nothing else is one."""
    token = page_token(prefix, after)
    assert read_page_token(token, None) == read_page_token(token, prefix) == (prefix, after)
    with pytest.raises(InvalidRequest):
        read_page_token(token, prefix + "x")
    with pytest.raises(InvalidRequest):
        read_page_token(token[:-3] + "!!!", None)


@given(st.text())
def test_token_of_matching_records_belongs_to_its_filter(after):
    """However the filter is spelled; and it is none of a listing."""
    where, again = parse_filter({"a": 1}), parse_filter({"$and": [{"a": {"$eq": 1.0}}]})
    token = filter_page_token(where, after)
    assert read_filter_page_token(token, where) == read_filter_page_token(token, again) == after
    for read in (lambda: read_filter_page_token(token, parse_filter({"a": 2})), lambda: read_page_token(token, None)):
        with pytest.raises(InvalidRequest, match="Invalid pagination token"):
            read()


def test_every_error_has_a_status():
    """A client's mistake is never a 5xx, and what cannot be helped by the client always is."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.FreshetError)]
    for kind in kinds:
        status = status_of(kind("because"))
        assert (status < 500) == any(issubclass(kind, known) and STATUS[known] < 500 for known in STATUS)
        for is_control in (True, False):
            answer = error_answer(kind("because"), is_control=is_control)
            assert answer.status == status
            assert b"because" in answer.body


def test_snapshot_keeps_what_reads_ask_of_it():
    """The names that the reads use are those of a snapshot."""
    for name in ("search", "fetch", "records", "list_ids", "counts", "count", "count_matching", "tail_rows_of"):
        assert callable(getattr(Snapshot, name))
