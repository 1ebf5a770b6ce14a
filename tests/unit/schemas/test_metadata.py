import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import InvalidRequest
from schemas.limits import METADATA_BYTES_MAX
from schemas.metadata import (
    canonical_metadata,
    canonical_metadata_json,
    check_metadata,
    merge_metadata,
    metadata_document,
)

SCALARS = st.one_of(st.text(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.integers())
FIELDS = st.text().filter(lambda name: not name.startswith("$"))
DOCUMENTS = st.dictionaries(FIELDS, SCALARS | st.lists(st.text()) | st.none(), max_size=6)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None)
@given(DOCUMENTS)
def test_flat_object_keeps_its_keys_in_order_and_its_values(document):
    """Metadata is kept as given: key order, types and values; keys whose value is null are dropped."""
    try:
        metadata = canonical_metadata(document)
    except InvalidRequest:
        assert any(type(value) is int and abs(value) > 10**308 for value in document.values())
        return
    kept = {field: value for field, value in document.items() if value is not None}
    assert list(metadata_document(metadata)) == list(kept)
    for field, value in metadata_document(metadata).items():
        assert value == (float(kept[field]) if type(kept[field]) is int else kept[field])
        assert isinstance(value, bool) == isinstance(kept[field], bool)
    check_metadata(metadata)
    assert canonical_metadata_json(metadata) == metadata


@settings(deadline=None)
@given(ANYTHING)
def test_any_value_is_either_canonical_or_refused(value):
    """Nothing that is not flat metadata passes, and nothing but InvalidRequest is raised."""
    try:
        metadata = canonical_metadata(value)
    except InvalidRequest:
        return
    assert canonical_metadata_json(metadata) == metadata


@settings(deadline=None)
@given(st.binary() | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_either_metadata_or_refused(text):
    """JSON text from outside gives canonical metadata or InvalidRequest."""
    try:
        metadata = canonical_metadata_json(text)
    except InvalidRequest:
        return
    assert canonical_metadata_json(metadata) == metadata


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (b'{"a": 5, "b": 5.0, "c": -0.0}', b'{"a":5,"b":5.0,"c":-0.0}'),
        (b'{"a": 9007199254740992}', b'{"a":9007199254740992}'),
        (b'{"a": 9007199254740993}', b'{"a":9007199254740992.0}'),
        (b'{"a": 18446744073709551616}', b'{"a":1.8446744073709552e+19}'),
        (b'{"a": null, "b": true}', b'{"b":true}'),
        (b'{"a": null}', b""),
        (b"{}", b""),
        (b"null", b""),
        (b"", b""),
        (b'{"t": [], "u": ["x", "x"]}', b'{"t":[],"u":["x","x"]}'),
        (b'{"\\u00e9": "\\u2028"}', '{"é":"\u2028"}'.encode()),
        (b'{"a": 1, "a": 2}', b'{"a":2}'),
    ],
)
def test_canonical_form_is_pinned(text, canonical):
    """Integers stay as written where a float64 carries them exactly, else become the nearest float64."""
    assert canonical_metadata_json(text) == canonical


@pytest.mark.parametrize("value", [{"a": 1}, [1], ["x", 1], [None], [["x"]], [True]])
def test_nested_or_mixed_value_is_refused_with_field_and_json(value):
    """Only strings, numbers, booleans and lists of strings are metadata values."""
    with pytest.raises(InvalidRequest) as caught:
        canonical_metadata({"f": value})
    assert str(caught.value) == (
        "Metadata value must be a string, number, boolean or list of strings, "
        f"got '{orjson.dumps(value).decode()}' for field 'f'"
    )


def test_dollar_field_is_refused():
    """A field must not begin with a dollar sign, also where its value is null."""
    for value in (1, None):
        with pytest.raises(InvalidRequest, match=r"^Metadata field '\$f' cannot start with '\$'$"):
            canonical_metadata({"$f": value})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), 10**400, -(10**400)])
def test_number_that_is_no_finite_float64_is_refused(number):
    """Numbers are float64."""
    with pytest.raises(InvalidRequest, match="for field 'f' is not a finite float64"):
        canonical_metadata({"f": number})


def test_unpaired_surrogate_is_refused():
    """Text that UTF-8 cannot carry is the caller's mistake."""
    with pytest.raises(InvalidRequest, match="cannot be written as JSON"):
        canonical_metadata({"f": "\ud800"})


def test_deep_json_is_refused_without_exhausting_the_stack():
    """Deep nesting gives an ordinary error."""
    for depth in (100, 300, 1_000, 100_000):
        with pytest.raises(InvalidRequest):
            canonical_metadata_json(b'{"a":' * depth + b"1" + b"}" * depth)


def test_metadata_limit_is_40_kb_to_the_byte():
    """At 40,960 bytes of canonical JSON it passes; one more and it is refused."""
    at_limit = canonical_metadata({"f": "x" * (METADATA_BYTES_MAX - 8)})
    assert len(at_limit) == METADATA_BYTES_MAX
    check_metadata(at_limit)
    with pytest.raises(InvalidRequest, match=r"40961 bytes, which exceeds the limit of 40960 bytes per vector"):
        check_metadata(canonical_metadata({"f": "x" * (METADATA_BYTES_MAX - 7)}))


@pytest.mark.parametrize("metadata", [b"{}", b'{"a": 1}', b'{"a":null}', b'{"a":{}}', b"[]", b"{", b"\xff"])
def test_bytes_that_are_not_canonical_do_not_pass_the_check(metadata):
    """What enters the log is canonical, so that reading it back changes nothing."""
    with pytest.raises(InvalidRequest):
        check_metadata(metadata)


@settings(deadline=None)
@given(DOCUMENTS, DOCUMENTS)
def test_merge_replaces_and_adds_keys_and_removes_none(base, patch):
    """set_metadata merges key by key."""
    try:
        base_bytes, patch_bytes = canonical_metadata(base), canonical_metadata(patch)
    except InvalidRequest:
        return
    merged = merge_metadata(base_bytes, patch_bytes)
    assert metadata_document(merged) == metadata_document(base_bytes) | metadata_document(patch_bytes)
    assert canonical_metadata_json(merged) == merged
