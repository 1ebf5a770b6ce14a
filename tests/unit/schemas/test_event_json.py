import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import CorruptData, UnsupportedFormat
from schemas.events import decode, encode
from schemas.operations import CreateNamespace, Delete, DeleteNamespace, DeleteWhere, Update, UpdateWhere, Upsert
from schemas.records import dense_bytes, make_sparse

JSON = {"content-type": b"application/json"}


def from_json(value):
    return decode(value if isinstance(value, bytes) else json.dumps(value).encode(), JSON)


@pytest.mark.parametrize(
    ("value", "event"),
    [
        (
            {
                "upsert": {
                    "id": "a",
                    "values": [1, 0.5],
                    "sparseValues": {"indices": [3, 1], "values": [1, 2]},
                    "metadata": {"genre": "drama", "dropped": None},
                }
            },
            Upsert("a", dense_bytes([1, 0.5]), make_sparse([1, 3], [2, 1]), b'{"genre":"drama"}'),
        ),
        (
            {"upsert": {"id": "a", "values": None, "sparseValues": None, "metadata": None}},
            Upsert("a", b"", None, b""),
        ),
        (
            {"update": {"id": "a", "values": [1], "setMetadata": {"x": True}}},
            Update("a", dense_bytes([1]), None, b'{"x":true}'),
        ),
        ({"update": {"id": "a", "values": [], "setMetadata": {}}}, Update("a", None, None, None)),
        (
            {"updateWhere": {"filter": {"x": {"$gt": 1}}, "setMetadata": {"x": 0}}},
            UpdateWhere(b'{"x":{"$gt":1.0}}', b'{"x":0}'),
        ),
        ({"delete": {"id": "a"}}, Delete("a")),
        ({"deleteWhere": {"filter": {"x": "y"}}}, DeleteWhere(b'{"x":{"$eq":"y"}}')),
        ({"deleteNamespace": {"keep": True}}, DeleteNamespace(keep=True)),
        ({"deleteNamespace": {"keep": False}}, DeleteNamespace(keep=False)),
        ({"createNamespace": {}}, CreateNamespace(b"")),
        (
            {"createNamespace": {"schema": {"fields": {"x": {"filterable": True}}}}},
            CreateNamespace(b'{"fields":{"x":{"filterable":true}}}'),
        ),
    ],
)
def test_every_operation_has_its_json_form(value, event):
    """Pinecone's field names under the operation's name; the event equals that of the protobuf form."""
    assert from_json(value) == event
    assert decode(encode(event), {}) == event


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "object with one member"),
        (b"{}", "object with one member"),
        (b'"delete"', "object with one member"),
        ({"delete": {"id": "a"}, "upsert": {"id": "a"}}, "object with one member"),
        ({"truncate": {}}, "Unknown operation 'truncate'"),
        ({"delete": "a"}, "'delete' must be a JSON object, got '\"a\"'"),
        ({"delete": {}}, "'id' must be a string, got 'null'"),
        ({"delete": {"id": 1}}, "'id' must be a string, got '1'"),
        ({"delete": {"id": "a", "namespace": "n"}}, "Unknown member 'namespace' of 'delete'"),
        ({"upsert": {"id": "a", "values": ["1"]}}, "Vector values must be numbers"),
        ({"upsert": {"id": "a", "values": "x"}}, "Vector values must be a list of numbers"),
        (b'{"upsert": {"id": "a", "values": [1e999]}}', "not valid JSON"),
        (b'{"upsert": {"id": "a", "values": [NaN]}}', "not valid JSON"),
        ({"upsert": {"id": "a", "sparse_values": {}}}, "Unknown member 'sparse_values'"),
        ({"upsert": {"id": "a", "sparseValues": [1]}}, "'sparseValues' must be an object"),
        ({"upsert": {"id": "a", "sparseValues": {"indices": [1]}}}, "'sparseValues' must be an object"),
        ({"upsert": {"id": "a", "sparseValues": {"indices": [1, 1], "values": [1, 1]}}}, "distinct"),
        ({"upsert": {"id": "a", "metadata": {"x": {}}}}, "Metadata value must be"),
        ({"upsert": {"id": "a", "metadata": []}}, "Metadata must be a JSON object"),
        ({"updateWhere": {"filter": {}, "setMetadata": {"x": 1}}}, "Filter must not be empty"),
        ({"deleteWhere": {}}, "Filter must be a JSON object, got 'null'"),
        ({"deleteNamespace": {}}, "'keep' must be a boolean"),
        ({"deleteNamespace": {"keep": 1}}, "'keep' must be a boolean"),
        ({"createNamespace": {"schema": {"fields": {"x": {"filterable": False}}}}}, "filterable"),
        ({"createNamespace": {"schema": {"fields": {"x": {"filterable": 1}}}}}, "filterable"),
        ({"createNamespace": {"schema": {"fields": {"$x": {"filterable": True}}}}}, "cannot start with"),
        ({"createNamespace": {"schema": {"field": {}}}}, "Namespace schema must be an object"),
    ],
)
def test_bad_json_event_is_a_dead_letter_with_the_reason(value, reason):
    """Misspelt members, wrong types and numbers that JSON does not know are CorruptData."""
    with pytest.raises(CorruptData, match=reason):
        from_json(value)


@pytest.mark.parametrize("depth", [100, 300, 600, 1_000, 100_000])
@pytest.mark.parametrize(
    "frame", [b"%s", b'{"upsert":{"id":"a","metadata":{"x":%s}}}', b'{"deleteWhere":{"filter":%s}}', b'{"delete":%s}']
)
def test_deep_json_is_a_dead_letter(frame, depth):
    """Depth does not exhaust the stack, wherever it is."""
    for opening, closing in ((b"[", b"]"), (b'{"$and":[', b"]}"), (b'{"a":', b"}")):
        with pytest.raises(CorruptData):
            from_json(frame % (opening * depth + b"1" + closing * depth))


MEMBERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "values", "sparseValues", "indices", "metadata", "setMetadata", "filter", "keep", "schema"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
OPERATIONS = st.sampled_from(
    ["upsert", "update", "updateWhere", "delete", "deleteWhere", "deleteNamespace", "createNamespace"]
)


@settings(deadline=None, max_examples=500)
@given(OPERATIONS, MEMBERS)
def test_any_json_is_an_event_or_a_dead_letter(operation, members):
    """Decode raises nothing but its two errors, and what it returns survives its own bytes."""
    try:
        event = from_json({operation: members})
    except (CorruptData, UnsupportedFormat):
        return
    assert decode(encode(event), {}) == event
