import threading
from dataclasses import dataclass

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.filtering import SliceColumns, holds, matches
from schemas.filters import parse_filter
from schemas.metadata import canonical_metadata, merge_metadata, metadata_document

FIELDS = st.sampled_from(["a", "b", "c"])
# Few values, so that they meet; -0.0, 1 and 1.0, and numbers that only float64 tells apart.
STRINGS = st.sampled_from(["", "1", "true", "x", "é"])
NUMBERS = st.sampled_from([0, -0.0, 1, 1.0, 1.5, -3, 2**53, 2**53 + 2, 1e300, 5e-324])
SCALARS = STRINGS | NUMBERS | st.booleans()
DOCUMENTS = st.dictionaries(FIELDS, SCALARS | st.lists(STRINGS, max_size=3), max_size=3)
CONDITIONS = st.one_of(
    SCALARS,
    st.dictionaries(st.sampled_from(["$eq", "$ne"]), SCALARS, min_size=1),
    st.dictionaries(st.sampled_from(["$in", "$nin"]), st.lists(SCALARS, max_size=3), min_size=1),
    st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), NUMBERS, min_size=1),
    st.dictionaries(st.just("$exists"), st.booleans(), min_size=1),
)
FILTERS = st.recursive(
    st.dictionaries(FIELDS, CONDITIONS, min_size=1, max_size=2),
    lambda inner: st.dictionaries(
        st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3), min_size=1
    ),
    max_leaves=5,
).map(parse_filter)


@dataclass(frozen=True)
class Set:
    """A document that is set on some rows."""

    rows: np.ndarray
    document: dict

    def apply(self, leaf, found):
        if leaf.field in self.document:
            found[self.rows] = holds(leaf, self.document[leaf.field])


@st.composite
def slices(draw):
    documents = [canonical_metadata(document) for document in draw(st.lists(DOCUMENTS, max_size=12))]
    rows = st.lists(st.integers(0, len(documents) - 1), unique=True) if documents else st.just([])
    dtypes = st.sampled_from([np.int64, np.uint32])
    patches = [Set(np.array(draw(rows), dtype=draw(dtypes)), draw(DOCUMENTS)) for _ in range(draw(st.integers(0, 4)))]
    return documents, patches


@settings(deadline=None, max_examples=500)
@given(slices(), st.lists(FILTERS, min_size=1, max_size=3))
def test_mask_agrees_with_matching_one_document_at_a_time(rows_and_patches, filters):
    """The columns say of every row what its document, with the patches merged in order, says."""
    documents, patches = rows_and_patches
    merged = list(documents)
    for patch in patches:
        for row in patch.rows:
            merged[row] = merge_metadata(merged[row], canonical_metadata(patch.document))
    columns = SliceColumns(documents)
    for where in filters:
        expected = [matches(where, metadata_document(document)) for document in documents]
        assert columns.mask(where).tolist() == expected
        expected = [matches(where, metadata_document(document)) for document in merged]
        assert columns.mask(where, patches).tolist() == expected


LIST = {"tags": ["x", "y"], "none": []}
SCALAR = {"s": "1", "n": 1, "f": 1.5, "t": True, "o": False}


@pytest.mark.parametrize(
    ("document", "where", "expected"),
    [
        (SCALAR, {"n": 1}, True),
        (SCALAR, {"n": 1.0}, True),
        (SCALAR, {"n": True}, False),
        (SCALAR, {"n": "1"}, False),
        (SCALAR, {"t": 1}, False),
        (SCALAR, {"t": True}, True),
        (SCALAR, {"o": 0}, False),
        (SCALAR, {"o": False}, True),
        (SCALAR, {"s": 1}, False),
        (SCALAR, {"s": "1"}, True),
        (SCALAR, {"n": {"$ne": True}}, True),
        (SCALAR, {"n": {"$ne": 1}}, False),
        (SCALAR, {"n": {"$in": [True, "1"]}}, False),
        (SCALAR, {"n": {"$in": [True, 1]}}, True),
        (SCALAR, {"n": {"$in": []}}, False),
        (SCALAR, {"n": {"$nin": []}}, True),
        (SCALAR, {"n": {"$nin": ["1", True]}}, True),
        (SCALAR, {"f": {"$gt": 1.5}}, False),
        (SCALAR, {"f": {"$gte": 1.5}}, True),
        (SCALAR, {"f": {"$lt": 1.5}}, False),
        (SCALAR, {"f": {"$lte": 1.5}}, True),
        (SCALAR, {"s": {"$gte": 0}}, False),
        (SCALAR, {"t": {"$gte": 0}}, False),
        (SCALAR, {"missing": 1}, False),
        (SCALAR, {"missing": {"$gt": -1}}, False),
        (SCALAR, {"missing": {"$ne": 1}}, False),
        (SCALAR, {"missing": {"$nin": [1]}}, False),
        (SCALAR, {"missing": {"$nin": []}}, False),
        (SCALAR, {"missing": {"$exists": False}}, True),
        (SCALAR, {"missing": {"$exists": True}}, False),
        (SCALAR, {"n": {"$exists": True}}, True),
        (SCALAR, {"n": {"$exists": False}}, False),
        (LIST, {"tags": "x"}, True),
        (LIST, {"tags": {"$in": ["z", "y"]}}, True),
        (LIST, {"$and": [{"tags": "x"}, {"tags": "y"}]}, True),
        (LIST, {"$and": [{"tags": "x"}, {"tags": "z"}]}, False),
        (LIST, {"tags": {"$ne": "x"}}, False),
        (LIST, {"tags": {"$ne": "z"}}, True),
        (LIST, {"tags": {"$nin": ["z", "y"]}}, False),
        (LIST, {"tags": {"$gt": 0}}, False),
        (LIST, {"none": {"$exists": True}}, True),
        (LIST, {"none": "x"}, False),
        (LIST, {"none": {"$ne": "x"}}, True),
        (SCALAR, {"n": 1, "s": "1"}, True),
        (SCALAR, {"n": 1, "s": "2"}, False),
        (SCALAR, {"$or": [{"n": 2}, {"s": "1"}]}, True),
        (SCALAR, {"f": {"$gt": 1, "$lt": 2}}, True),
        ({}, {"f": {"$exists": False}}, True),
    ],
)
def test_semantics_of_every_operator(document, where, expected):
    """Types are strict, lists match by element, and a missing field matches nothing but $exists: false."""
    tree = parse_filter(where)
    assert matches(tree, document) is expected
    assert SliceColumns([canonical_metadata(document)]).mask(tree).tolist() == [expected]


def test_last_patch_of_a_field_decides():
    """Patches are merged in offset order; a patch that does not name the field changes nothing."""
    columns = SliceColumns([b'{"a":1}', b'{"a":1}', b""])
    where = parse_filter({"a": {"$gte": 2}})
    patches = [
        Set(np.array([0, 1, 2]), {"a": 5}),
        Set(np.array([1]), {"b": 0}),
        Set(np.array([2]), {"a": "5"}),
    ]
    assert columns.mask(where, patches).tolist() == [True, True, False]
    assert columns.mask(where).tolist() == [False, False, False]
    absent = parse_filter({"b": {"$exists": False}})
    assert columns.mask(absent, patches).tolist() == [True, False, True]


def test_mask_is_the_callers_to_change():
    """A mask is new each time, so writing to it does not change later answers."""
    columns = SliceColumns([b'{"a":1}', b""])
    where = parse_filter({"a": {"$exists": True}})
    columns.mask(where)[:] = True
    assert columns.mask(where).tolist() == [True, False]


def test_no_rows_give_an_empty_mask():
    """A slice without rows matches nothing."""
    assert SliceColumns([]).mask(parse_filter({"a": {"$exists": False}})).shape == (0,)


def test_slice_of_many_rows_is_read_in_pieces_without_a_seam():
    """Rows keep their numbers across the pieces in which the documents are parsed."""
    documents = [orjson.dumps({"n": row, "s": f"s{row % 7}"}) if row % 3 else b"" for row in range(10_000)]
    columns = SliceColumns(documents)
    rows = np.arange(10_000)
    assert np.array_equal(columns.mask(parse_filter({"n": {"$gte": 4_000}})), (rows >= 4_000) & (rows % 3 > 0))
    assert np.array_equal(columns.mask(parse_filter({"s": "s3"})), (rows % 7 == 3) & (rows % 3 > 0))


def test_columns_may_be_built_by_several_threads():
    """Threads that ask for different fields at once all get right answers."""
    documents = [orjson.dumps({f"f{n}": row % 5 for n in range(6)}) for row in range(2_000)]
    columns = SliceColumns(documents)
    counts = {}

    def count(field):
        counts[field] = int(columns.mask(parse_filter({"$and": [{field: 3}, {"f0": {"$exists": True}}]})).sum())

    threads = [threading.Thread(target=count, args=(f"f{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {f"f{n}": 400 for n in range(6)}
