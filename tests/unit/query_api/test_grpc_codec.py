"""Answers put together by hand are what protobuf would have written, and requests are read in every form it allows."""

from __future__ import annotations

import struct

import numpy as np
import orjson
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from query_api.grpc import codec
from query_api.grpc import vector_service_pb2 as pb
from query_api.grpc.wire import sized, struct_of_json, varint
from query_api.packs import packs_of
from query_api.questions import Match, QueryResult
from query_api.reads import IdPage
from schemas.errors import InvalidRequest
from schemas.events import encode
from schemas.metadata import canonical_metadata
from schemas.operations import Upsert
from schemas.records import Record, make_sparse

_VALUES = st.one_of(
    st.text(max_size=20),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.text(max_size=5), max_size=4),
)
_METADATA = st.dictionaries(st.text(max_size=10).filter(lambda name: not name.startswith("$")), _VALUES, max_size=6)
_FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=9)
_SPARSE = st.dictionaries(st.integers(0, 2**32 - 1), st.floats(width=32, allow_nan=False), max_size=5)
_RECORDS = st.builds(
    lambda name, values, sparse, metadata: Record(
        name,
        np.array(values, np.float32) if values else None,
        make_sparse(np.array(list(sparse), np.uint32), np.array(list(sparse.values()), np.float32)),
        canonical_metadata(metadata),
    ),
    st.text(min_size=1, max_size=200),
    _FLOATS,
    _SPARSE,
    _METADATA,
)


@given(_METADATA)
def test_metadata_is_written_as_a_struct(metadata) -> None:
    """Nothing is lost or changed on the way to a Struct."""
    made = Struct.FromString(struct_of_json(canonical_metadata(metadata) or b"{}"))
    expected = Struct()
    expected.update(metadata)
    assert made == expected


def same(message: pb.Vector | pb.ScoredVector, record: Record) -> None:
    assert np.array(message.values, np.float32).tobytes() == (b"" if record.values is None else record.values.tobytes())
    if record.sparse is None:
        assert not message.HasField("sparse_values")
    else:
        assert list(message.sparse_values.indices) == record.sparse.indices.tolist()
        assert np.array(message.sparse_values.values, np.float32).tobytes() == record.sparse.values.tobytes()
    assert message.HasField("metadata") == bool(record.metadata)
    if record.metadata:
        assert MessageToDict(message.metadata) == orjson.loads(record.metadata)


@given(st.lists(_RECORDS, max_size=4, unique_by=lambda record: record.id), st.text(max_size=9))
def test_records_are_written_as_answers(records, namespace) -> None:
    """A fetch and a query carry every part, and only the parts that are there."""
    by_id = {record.id: record for record in records}
    fetched = pb.FetchResponse.FromString(codec.encode_fetch(by_id, namespace, asked=21))
    assert (fetched.namespace, fetched.usage.read_units, set(fetched.vectors)) == (namespace, 3, set(by_id))
    for name, vector in fetched.vectors.items():
        assert vector.id == name
        same(vector, by_id[name])
    matches = [Match(record.id, place - 0.3, record) for place, record in enumerate(records)]
    bare = [Match("bare", 0.0, None)]
    found = pb.QueryResponse.FromString(codec.encode_query(QueryResult([*matches, *bare]), namespace))
    assert (found.namespace, found.usage.read_units, len(found.matches)) == (namespace, 1, len(records) + 1)
    for place, match in enumerate(found.matches[:-1]):
        assert (match.id, match.score) == (records[place].id, np.float32(place - 0.3))
        same(match, records[place])
    assert found.matches[-1] == pb.ScoredVector(id="bare")


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**32 - 1, 2**63])
def test_numbers_are_written_seven_bits_a_byte(number: int) -> None:
    assert codec.encode_upserted(number)[1:] == varint(number)
    assert pb.NamespaceDescription.FromString(b"\x10" + varint(number)).record_count == number


def test_a_page_is_written_with_and_without_a_token() -> None:
    page = pb.ListResponse.FromString(codec.encode_id_page(IdPage(["a", "b"], "b"), "n", "token"))
    assert [one.id for one in page.vectors] == ["a", "b"]
    assert (page.namespace, page.pagination.next, page.usage.read_units) == ("n", "token", 1)
    assert not pb.ListResponse.FromString(codec.encode_id_page(IdPage([], None), "", None)).HasField("pagination")


def test_lists_of_numbers_are_read_in_every_form() -> None:
    """Packed, one by one, and in pieces: all are legal, and mean the same list."""
    numbers = [1.5, -2.25, 3.0, 1e-3]
    packed = struct.pack("<4f", *numbers)
    single = b"".join(b"\x15" + struct.pack("<f", number) for number in numbers)
    pieces = sized(b"\x12", packed[:4]) + b"\x15" + packed[4:8] + sized(b"\x12", packed[8:])
    for values in (sized(b"\x12", packed), single, pieces):
        message = sized(b"\x0a", sized(b"\x0a", b"name") + values) + sized(b"\x12", b"space")
        namespace, (event,) = codec.decode_upsert(message)
        assert (namespace, event.id, event.values) == ("space", "name", packed)


def test_unknown_fields_are_ignored() -> None:
    unknown = sized(b"\xfa\x3f", b"later") + b"\xf8\x3f\x07"
    namespace, ids = codec.decode_fetch(pb.FetchRequest(ids=["a"], namespace="n").SerializeToString() + unknown)
    assert (namespace, ids) == ("n", ["a"])


@pytest.mark.parametrize(
    "decode",
    [
        codec.decode_upsert,
        codec.decode_query,
        codec.decode_fetch,
        codec.decode_update,
        codec.decode_delete,
        codec.decode_list,
        codec.decode_list_namespaces,
        codec.decode_stats,
        codec.decode_namespace,
        codec.decode_new_namespace,
    ],
)
@pytest.mark.parametrize("message", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe", b"\x0b", b"\x0a" + b"\xff" * 11])
def test_broken_protobuf_is_the_clients_mistake(decode, message: bytes) -> None:
    """Cut off, of impossible lengths, with strings that are no UTF-8."""
    if decode is codec.decode_stats and message == b"\x0a\x02\xff\xfe":
        message = b"\x0a\x05"
    with pytest.raises(InvalidRequest, match="the message is no"):
        decode(message)


def test_a_struct_that_nests_without_end_is_the_clients_mistake() -> None:
    value = b""
    for _ in range(400):
        value = sized(b"\x2a", sized(b"\x0a", sized(b"\x0a", b"a") + sized(b"\x12", value)))
    message = sized(b"\x1a", sized(b"\x0a", sized(b"\x0a", b"a") + sized(b"\x12", value)))
    with pytest.raises(InvalidRequest, match="the message is no QueryRequest"):
        codec.decode_query(message)


def test_packs_hold_every_event_in_order_and_are_never_too_large() -> None:
    """A pack is as large as the log takes, whatever the events consist of."""
    rng = np.random.default_rng(5)
    sparse = make_sparse(np.arange(300, dtype=np.uint32) * 14_000_000, np.ones(300, np.float32))
    events = [
        Upsert(
            "i" * int(rng.integers(1, 513)),
            rng.random(int(rng.integers(1, 3_000)), np.float32).tobytes(),
            sparse if rng.random() < 0.3 else None,
            canonical_metadata({"m": "x" * int(rng.integers(0, 30_000))}),
        )
        for _ in range(200)
    ]
    packs = list(packs_of(events, bytes_max=100_000))
    assert [event for pack in packs for event in pack] == events
    assert len(packs) > 10
    for pack in packs:
        assert sum(len(encode(event)) + 512 + 200 for event in pack) <= 100_000
    assert list(packs_of(events[:3])) == [events[:3]]
