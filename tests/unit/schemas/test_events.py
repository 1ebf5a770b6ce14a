import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import CorruptData, InvalidRequest, UnsupportedFormat
from schemas.events import decode, encode, namespace_of, validate
from schemas.indexes import VectorType
from schemas.operations import CreateNamespace, Delete, DeleteNamespace, DeleteWhere, Update, UpdateWhere, Upsert
from schemas.pb import event_pb2 as pb
from schemas.records import Sparse, dense_bytes, make_sparse
from tests.unit.schemas.event_strategies import DIMENSION, EVENTS

JSON = {"content-type": b"application/json"}
DENSE = {"dimension": DIMENSION, "vector_type": VectorType.DENSE}
SPARSE = {"dimension": 0, "vector_type": VectorType.SPARSE}
ONES = dense_bytes([1, 1, 1])
ONE_SPARSE = make_sparse([1], [1])


@settings(deadline=None, max_examples=300)
@given(EVENTS)
def test_event_that_fits_survives_its_bytes(event):
    """decode(encode(event)) equals event for every event that passes validation."""
    validate(event, **DENSE)
    assert decode(encode(event), {}) == event


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=200), st.sampled_from([{}, JSON]))
def test_any_bytes_are_an_event_or_a_dead_letter(value, headers):
    """Decode raises nothing but CorruptData and UnsupportedFormat, and what it returns survives its own bytes."""
    check_decode(value, headers)


def check_decode(value, headers):
    try:
        event = decode(value, headers)
    except (CorruptData, UnsupportedFormat):
        return
    assert decode(encode(event), {}) == event


@settings(deadline=None, max_examples=500)
@given(EVENTS, st.data())
def test_damaged_event_is_an_event_or_a_dead_letter(event, data):
    """Bytes that were cut, changed or lengthened behave like any other bytes."""
    value = bytearray(encode(event))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(value)))
        value[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    check_decode(bytes(value), {})


MESSAGES = st.builds(
    lambda upsert, update, where: [pb.Event(upsert=upsert), pb.Event(update=update), pb.Event(update_where=where)],
    st.builds(
        pb.Upsert,
        id=st.text(max_size=5),
        values=st.binary(max_size=9),
        sparse=st.builds(
            pb.Sparse,
            indices=st.lists(st.integers(0, 3), max_size=3),
            values=st.lists(st.floats(width=32), max_size=3).map(lambda values: np.array(values, "<f4").tobytes()),
        ),
        metadata=st.binary(max_size=9)
        | st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ).map(lambda value: json.dumps(value).encode()),
    ),
    st.builds(pb.Update, id=st.text(max_size=5), values=st.binary(max_size=9), set_metadata=st.just(b'{"a":null}')),
    st.builds(pb.UpdateWhere, filter=st.binary() | st.just(b'{"a": 1}'), set_metadata=st.just(b'{"a": 1}')),
)


@settings(deadline=None, max_examples=300)
@given(MESSAGES)
def test_foreign_message_with_odd_parts_is_an_event_or_a_dead_letter(messages):
    """Well-formed protobuf with ill-formed parts is no more trusted than other bytes."""
    for message in messages:
        check_decode(message.SerializeToString(), {})


def test_foreign_message_becomes_canonical():
    """Sparse indices are sorted, nulls dropped, filters and empty parts brought into their one form."""
    upsert = pb.Event(
        upsert=pb.Upsert(
            id="a",
            sparse=pb.Sparse(indices=[5, 2], values=np.array([1, 2], "<f4").tobytes()),
            metadata=b'{ "a": 1, "b": null }',
        )
    )
    assert decode(upsert.SerializeToString(), {}) == Upsert("a", b"", make_sparse([2, 5], [2, 1]), b'{"a":1}')
    update = pb.Event(update=pb.Update(id="a", values=b"", sparse=pb.Sparse(), set_metadata=b"{}"))
    assert decode(update.SerializeToString(), {}) == Update("a", None, None, None)
    where = pb.Event(delete_where=pb.DeleteWhere(filter=b'{ "a": 1 }'))
    assert decode(where.SerializeToString(), {}) == DeleteWhere(b'{"a":{"$eq":1.0}}')


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (pb.Event(), "no operation"),
        (pb.Event(upsert=pb.Upsert(id="a", values=b"123")), "3 bytes long, which is not a multiple of 4"),
        (pb.Event(update=pb.Update(id="a", values=b"12345")), "5 bytes long"),
        (pb.Event(upsert=pb.Upsert(id="a", sparse=pb.Sparse(indices=[1], values=b"12345"))), "5 bytes long"),
        (pb.Event(upsert=pb.Upsert(id="a", sparse=pb.Sparse(indices=[1, 2], values=b"1234"))), "as many values"),
        (pb.Event(upsert=pb.Upsert(id="a", sparse=pb.Sparse(indices=[1, 1], values=b"12345678"))), "distinct"),
        (pb.Event(upsert=pb.Upsert(id="a", metadata=b"{")), "Metadata is not valid JSON"),
        (pb.Event(upsert=pb.Upsert(id="a", metadata=b"[1]")), "Metadata must be a JSON object"),
        (pb.Event(upsert=pb.Upsert(id="a", metadata=b'{"a":{}}')), "for field 'a'"),
        (pb.Event(upsert=pb.Upsert(id="a", metadata=b'{"a":1e999}')), "not valid JSON"),
        (pb.Event(update_where=pb.UpdateWhere(filter=b"{}", set_metadata=b'{"a":1}')), "Filter must not be empty"),
        (pb.Event(delete_where=pb.DeleteWhere(filter=b"")), "Filter is not valid JSON"),
        (pb.Event(delete_where=pb.DeleteWhere(filter=b'{"$not":1}')), r"\$not"),
        (pb.Event(create_namespace=pb.CreateNamespace(schema=b"[]")), "Namespace schema must be an object"),
    ],
)
def test_message_that_says_no_event_is_a_dead_letter_with_the_reason(message, reason):
    """Unknown operations, torn vectors and bad JSON are CorruptData that says what was wrong."""
    with pytest.raises(CorruptData, match=reason):
        decode(message.SerializeToString(), {})


def test_bytes_that_are_no_protobuf_are_a_dead_letter():
    """A value that is no protobuf message is CorruptData."""
    with pytest.raises(CorruptData, match="not a protobuf event"):
        decode(b"\xff\xff\xff", {})


def test_unknown_fields_of_a_known_operation_are_ignored():
    """A later minor writer may add fields without a new format number."""
    value = encode(Delete("a")) + bytes([0xFA, 0x01, 1, 65])
    assert decode(value, {}) == Delete("a")


@pytest.mark.parametrize("text", [b"1"])
def test_format_one_is_ours(text):
    """A missing number is 1."""
    assert decode(encode(Delete("a")), {"freshet-format": text}) == decode(encode(Delete("a")), {}) == Delete("a")


@pytest.mark.parametrize(
    "text", [b"", b"0", b"01", b"+1", b"1.0", b" 1", b"one", b"\xff", b"-1", b"9" * 10, "²".encode()]
)
def test_malformed_format_number_is_a_dead_letter(text):
    """One producer's broken header must not stop a partition."""
    with pytest.raises(CorruptData, match="not a format number"):
        decode(encode(Delete("a")), {"freshet-format": text})


@pytest.mark.parametrize("text", [b"2", b"10", b"999999999"])
def test_format_number_above_ours_stops(text):
    """A newer version wrote it: skipping it silently could lose what it says. This is so whatever the bytes are."""
    for value in (encode(Delete("a")), b"\xff"):
        with pytest.raises(UnsupportedFormat, match="upgrade, or skip"):
            decode(value, {"freshet-format": text})


@pytest.mark.parametrize(
    "content_type",
    [b"application/json", b"application/json; charset=utf-8", b"Application/JSON ;x=y", b" application/json"],
)
def test_content_type_json_selects_the_json_form(content_type):
    """Case and parameters of the content type do not matter."""
    assert decode(b'{"delete":{"id":"a"}}', {"content-type": content_type}) == Delete("a")


@pytest.mark.parametrize("content_type", [b"application/protobuf", b"application/x-protobuf", b""])
def test_content_type_protobuf_selects_protobuf(content_type):
    """Protobuf may be named, and is the default."""
    assert decode(encode(Delete("a")), {"content-type": content_type}) == Delete("a")


def test_unknown_content_type_is_a_dead_letter():
    """Guessing the form of bytes would be worse."""
    with pytest.raises(CorruptData, match="Unknown content type b'text/csv'"):
        decode(encode(Delete("a")), {"content-type": b"text/csv"})


@pytest.mark.parametrize(
    ("key", "namespace"),
    [(b"", "__default__"), (b"__default__", "__default__"), (b"a b", "a b"), (b"x" * 512, "x" * 512)],
)
def test_key_is_the_namespace(key, namespace):
    """The key is the namespace in UTF-8; an empty one is the default namespace."""
    assert namespace_of(key) == namespace


@pytest.mark.parametrize(
    ("key", "reason"),
    [(None, "no key"), (b"\xff", "not UTF-8"), (b"x" * 513, "513"), ("é".encode(), "ASCII"), (b"\0", "NUL")],
)
def test_key_that_is_no_namespace_is_a_dead_letter(key, reason):
    """Foreign keys obey the rules of namespaces too."""
    with pytest.raises(CorruptData, match=reason):
        namespace_of(key)


def not_finite(*values):
    return np.array(values, dtype="<f4").tobytes()


def many(count):
    return Sparse(np.arange(count, dtype=np.uint32), np.ones(count, dtype=np.float32))


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Upsert("a", dense_bytes([1, 2]), None, b""), "Vector dimension 2 does not match the dimension of the index 3"),
        (
            Upsert("a", dense_bytes([1] * 4), None, b""),
            "Vector dimension 4 does not match the dimension of the index 3",
        ),
        (Update("a", dense_bytes([1]), None, None), "Vector dimension 1 does not match the dimension of the index 3"),
        (Upsert("a", not_finite(1, 2, float("nan")), None, b""), "Vector values must be finite float32 numbers"),
        (Upsert("a", dense_bytes([1, 2, 1e39]), None, b""), "Vector values must be finite float32 numbers"),
        (Update("a", dense_bytes([1, 2, -1e39]), None, None), "Vector values must be finite float32 numbers"),
        (Upsert("a", dense_bytes([0, 0, 0]), None, b""), "Dense vectors must contain at least one non-zero value"),
        (Update("a", dense_bytes([0, -0.0, 0]), None, None), "Dense vectors must contain at least one non-zero value"),
        (Upsert("a", b"", None, b""), "Vector 'a' has no dense values, which this index requires"),
        (Upsert("a", b"", ONE_SPARSE, b""), "Vector 'a' has no dense values, which this index requires"),
        (Upsert("", ONES, None, b""), "Vector ID must not be empty"),
        (Upsert("é", ONES, None, b""), "Vector ID must be ASCII without NUL characters, got 'é'"),
        (Update("x" * 513, None, None, None), "Vector ID is 513 characters long, which exceeds the limit of 512"),
        (Delete("a\0"), "Vector ID must be ASCII without NUL characters, got 'a\\x00'"),
        (Upsert("a", ONES, None, b"{}"), "Metadata is not in its canonical form."),
        (Upsert("a", ONES, many(2049), b""), "Sparse vector has 2049 values; the limit is 2048"),
        (
            Upsert("a", ONES, make_sparse([1], [float("nan")]), b""),
            "Sparse vector values must be finite float32 numbers",
        ),
        (Update("a", None, make_sparse([1], [1e39]), None), "Sparse vector values must be finite float32 numbers"),
        (Update("a", b"", None, None), "A part of an update that is empty must be absent."),
        (Update("a", None, None, b""), "A part of an update that is empty must be absent."),
        (
            UpdateWhere(b'{"a":{"$eq":1.0}}', b""),
            "Update by metadata filter must set at least one metadata field",
        ),
        (UpdateWhere(b'{"a":1}', b'{"a":1}'), "Filter is not in its canonical form."),
        (DeleteWhere(b"{}"), "Filter must not be empty"),
        (CreateNamespace(b"{}"), "Namespace schema is not in its canonical form."),
    ],
)
def test_event_that_does_not_fit_a_dense_index_is_refused(event, message):
    """Each rule of the write surface has its sentence."""
    with pytest.raises(InvalidRequest) as caught:
        validate(event, **DENSE)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Upsert("a", ONES, ONE_SPARSE, b""), "Index configuration does not support dense values"),
        (Update("a", ONES, None, None), "Index configuration does not support dense values"),
        (Upsert("a", b"", None, b""), "Vector 'a' has no sparse values, which this index requires"),
    ],
)
def test_event_that_does_not_fit_a_sparse_index_is_refused(event, message):
    """A sparse index holds sparse values only, and every record has some."""
    with pytest.raises(InvalidRequest) as caught:
        validate(event, **SPARSE)
    assert str(caught.value) == message


def test_events_that_fit_pass():
    """Sparse values go into either kind of index; parts of an update may all be absent."""
    validate(Upsert("a", ONES, many(2048), b'{"a":1}'), **DENSE)
    validate(Upsert("a", b"", ONE_SPARSE, b""), **SPARSE)
    validate(Update("a", None, None, None), **SPARSE)
    validate(Update("a", None, ONE_SPARSE, None), **DENSE)
    validate(DeleteNamespace(keep=False), **DENSE)
    validate(Upsert("a", dense_bytes([1e-45, 0, 0]), None, b""), **DENSE)
