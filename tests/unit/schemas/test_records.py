import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import InvalidRequest
from schemas.records import Record, Sparse, check_id, check_namespace, dense_bytes, dense_values, make_sparse


def test_dense_vector_is_little_endian_float32():
    """Vectors are 4 bytes a dimension, least significant byte first; integers are numbers too."""
    assert dense_bytes([1, -2.5]) == bytes.fromhex("0000803f 000020c0")
    assert dense_values(dense_bytes([1, -2.5])).tolist() == [1.0, -2.5]
    assert dense_bytes(np.array([1, 2], dtype=">f8")) == dense_bytes([1, 2])
    assert dense_bytes(None) == dense_bytes([]) == dense_bytes(np.array([], dtype=np.float32)) == b""


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False)))
def test_float32_values_pass_bit_for_bit(values):
    """A value that float32 carries is not changed."""
    assert dense_values(dense_bytes(values)).tolist() == values


@pytest.mark.parametrize("values", [[1e39], [-1e39, 1.0], [10**400], np.array([1e39])])
def test_number_beyond_float32_becomes_infinite(values):
    """What float32 cannot carry is left to the check for finite values."""
    assert np.isinf(dense_values(dense_bytes(values))).any()


@pytest.mark.parametrize(
    "values", ["abc", 5, {"0": 1}, [True], ["1"], [None], [[1.0]], [1.0, "x"], np.zeros((2, 2)), np.array(["a"])]
)
def test_anything_but_a_list_of_numbers_is_refused(values):
    """Types are strict: neither strings nor booleans are numbers."""
    with pytest.raises(InvalidRequest, match="Vector values must be"):
        dense_bytes(values)


def test_sparse_vector_is_sorted_by_index():
    """Indices ascend whatever order they came in, and values go with them."""
    sparse = make_sparse([7, 4294967295, 0], [0.5, 2, -1])
    assert sparse is not None
    assert sparse.indices.tolist() == [0, 7, 4294967295]
    assert sparse.values.tolist() == [-1.0, 0.5, 2.0]
    assert sparse.indices.dtype == np.uint32
    assert sparse.values.dtype == np.float32
    assert make_sparse(np.array([7, 4294967295, 0]), np.array([0.5, 2, -1])) == sparse


def test_empty_sparse_vector_is_none():
    """No values at all are no sparse vector."""
    assert make_sparse([], []) is None


@pytest.mark.parametrize(
    ("indices", "values", "reason"),
    [
        ([1, 2], [1.0], "as many values as indices, got 2 indices and 1 values"),
        ([1, 3, 1], [1.0, 2.0, 3.0], "must be distinct, got 1 more than once"),
        ([-1], [1.0], "between 0 and 4294967295, got '-1'"),
        ([2**32], [1.0], "between 0 and 4294967295, got '4294967296'"),
        ([1.5], [1.0], "must be integers"),
        ([True], [1.0], "must be integers"),
        (["1"], [1.0], "must be integers"),
        ([1], ["1"], "Sparse vector values must be numbers"),
        ("12", [1.0], "must be a list of integers"),
        (np.array([1.5]), [1.0], "flat list of integers"),
        (np.array([-1]), [1.0], "between 0 and 4294967295"),
    ],
)
def test_malformed_sparse_vector_is_refused_with_the_reason(indices, values, reason):
    """Equal lengths, distinct unsigned 32-bit indices, numbers."""
    with pytest.raises(InvalidRequest, match=reason):
        make_sparse(indices, values)


@pytest.mark.parametrize("name", ["a", "x" * 512, " ", "a\nb", "\x7f"])
def test_ascii_id_of_1_to_512_characters_passes(name):
    """An id is 1 to 512 ASCII characters."""
    check_id(name)


@pytest.mark.parametrize("name", ["", "x" * 513, "é", "a\0b", "\ud800"])
def test_other_id_is_refused(name):
    """Empty, too long, not ASCII, or with NUL: refused."""
    with pytest.raises(InvalidRequest, match=r"^Vector ID"):
        check_id(name)


def test_namespace_is_up_to_512_ascii_characters():
    """The empty name is the default namespace; 512 pass, 513 do not."""
    check_namespace("")
    check_namespace("x" * 512)
    for name in ("x" * 513, "é", "a\0b"):
        with pytest.raises(InvalidRequest, match=r"^Namespace"):
            check_namespace(name)


def test_records_and_sparse_vectors_compare_by_content():
    """Equality is that of the bytes; a hash goes with it."""
    one, other = make_sparse([1, 2], [1, 2]), make_sparse([2, 1], [2, 1])
    assert one == other
    assert hash(one) == hash(other)
    assert one != make_sparse([1, 2], [1, 3])
    assert one != make_sparse([1, 3], [1, 2])
    values = np.array([1, 2], dtype=np.float32)
    record = Record("a", values, one, b"")
    assert record == Record("a", values.copy(), other, b"")
    assert hash(record) == hash(Record("a", values.copy(), other, b""))
    assert record != Record("a", values, None, b"")
    assert record != Record("a", None, one, b"")
    assert isinstance(one, Sparse)
