"""Columns that a merge wrote: what they say, how large they are, and that damage is met when they are opened."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.filtering import matches
from indexer.segments import column_writer
from indexer.segments import columns as columns_module
from indexer.segments.column_writer import lay_out_columns
from indexer.segments.columns import SegmentColumns
from indexer.segments.container import Container, pack
from indexer.segments.reader import SegmentReader
from indexer.segments.rows import Rows, lay_out
from schemas.errors import CorruptData
from schemas.filters import parse_filter
from schemas.metadata import canonical_metadata, merge_metadata, metadata_document
from tests.unit.indexer.test_filtering import DOCUMENTS, FILTERS, slices


def opened(documents, *, changed=None):
    sections = lay_out_columns(documents) | (changed or {})
    container = Container(memoryview(b"".join(pack(sections, rows=len(documents)))))
    return SegmentColumns(container, len(documents), documents.__getitem__)


def agreed(columns, documents, where, start=0, end=None):
    """Return the rows that match by the columns, after comparing them to the documents one at a time."""
    end = len(documents) if end is None else end
    tree = parse_filter(where) if isinstance(where, dict) else where
    expected = [matches(tree, metadata_document(document)) for document in documents[start:end]]
    assert columns.mask(tree, start, end).tolist() == expected
    return [start + at for at, found in enumerate(expected) if found]


@settings(deadline=None, max_examples=300)
@given(slices(), st.lists(FILTERS, min_size=1, max_size=3))
def test_mask_agrees_with_matching_one_document_at_a_time(rows_and_patches, filters):
    """Persisted columns say of every row what its document, with the patches merged in order, says."""
    documents, patches = rows_and_patches
    if not documents:
        return
    merged = list(documents)
    for patch in patches:
        for row in patch.rows:
            merged[row] = merge_metadata(merged[row], canonical_metadata(patch.document))
    columns = opened(documents)
    for where in filters:
        agreed(columns, documents, where)
        expected = [matches(where, metadata_document(document)) for document in merged]
        assert columns.mask(where, 0, len(documents), patches).tolist() == expected


@settings(deadline=None, max_examples=100)
@given(
    st.lists(DOCUMENTS, min_size=1, max_size=5),
    st.integers(1, 300),
    st.lists(FILTERS, min_size=1, max_size=2),
    st.data(),
)
def test_part_of_the_rows_is_answered_like_the_whole(pool, rows, filters, data):
    """Lists and bitmaps alike are clipped to the rows of a namespace, wherever it begins."""
    documents = [canonical_metadata(pool[(row * row + row // 7) % len(pool)]) for row in range(rows)]
    columns = opened(documents)
    start = data.draw(st.integers(0, rows))
    end = data.draw(st.integers(start, rows))
    for where in filters:
        agreed(columns, documents, where, start, end)


def test_rare_and_common_values_of_many_rows_are_found():
    """Short postings are lists, long ones bitmaps; numbers of every row, strings of each."""
    documents = [
        orjson.dumps({"id": f"text of row {row}", "common": "ab"[row % 2], "rare": f"r{row % 700}", "n": row * 0.5})
        for row in range(20_000)
    ]
    columns = opened(documents)
    assert agreed(columns, documents, {"id": "text of row 12345"}) == [12345]
    assert agreed(columns, documents, {"id": "text of row 20000"}) == []
    assert len(agreed(columns, documents, {"common": "b"})) == 10_000
    assert len(agreed(columns, documents, {"rare": {"$in": ["r5", "r6", "none"]}}, 100, 19_000)) == 54
    assert len(agreed(columns, documents, {"n": {"$gte": 10, "$lt": 20}}, 30, 10_000)) == 10


def test_columns_of_texts_and_numbers_stay_small():
    """Strings are not stored again: a text of any length costs what its hash and its row cost."""
    documents = [
        orjson.dumps({"text": f"{row} " * 50, "kind": f"k{row % 5}", "n": row % 9, "yes": row % 3 == 0})
        for row in range(5_000)
    ]
    size = sum(len(part) if isinstance(part, bytes) else part.nbytes for part in lay_out_columns(documents).values())
    assert size < 40 * len(documents)


def test_value_of_more_than_64_kb_is_found():
    """Only its hash is kept, so its length does not matter."""
    long = "x" * 70_000
    documents = [orjson.dumps({"t": long}), orjson.dumps({"t": long + "y"}), orjson.dumps({"t": [long, "z"]})]
    columns = opened(documents)
    assert agreed(columns, documents, {"t": long}) == [0, 2]
    assert agreed(columns, documents, {"t": long + "y"}) == [1]


def test_rows_without_metadata_have_columns_without_fields():
    """A missing field matches nothing but its absence."""
    documents = [b"", b""]
    columns = opened(documents)
    assert agreed(columns, documents, {"a": {"$exists": False}}) == [0, 1]
    assert agreed(columns, documents, {"a": {"$ne": 1}}) == []


def test_thousands_of_fields_have_a_column_each():
    """Fields are looked up by their names in place, whatever their number and whatever bytes they have."""
    documents = [orjson.dumps({f"f{row * 7 + at}é": at for at in range(7)} | {"all": [str(row)]}) for row in range(700)]
    columns = opened(documents)
    assert agreed(columns, documents, {"f4899é": 6}) == [699]
    assert agreed(columns, documents, {"f0é": {"$exists": True}}) == [0]
    assert agreed(columns, documents, {"f5000é": {"$exists": True}}) == []
    assert agreed(columns, documents, {"all": "350"}) == [350]


def digests_that_collide(strings, salt):
    """Return digests of which, below salt 2, those of strings of the same length begin alike."""
    found = [[len(text) if salt < 2 else hash(text) % 2**64, hash(text) % 2**63] for text in strings]
    return np.array(found, np.uint64).reshape(-1, 2)


def test_strings_of_one_hash_are_told_apart(monkeypatch):
    """Two strings of a field never share a hash: the builder tries salts until they do not."""
    monkeypatch.setattr(column_writer, "digests_of", digests_that_collide)
    monkeypatch.setattr(columns_module, "digests_of", digests_that_collide)
    documents = [orjson.dumps({"a": text}) for text in ("one", "two", "six", "one")]
    assert lay_out_columns(documents)["filter_head"].tolist() == [2]
    columns = opened(documents)
    assert agreed(columns, documents, {"a": "one"}) == [0, 3]
    assert agreed(columns, documents, {"a": "six"}) == [2]


def test_string_that_only_shares_a_hash_with_a_stored_one_matches_nothing(monkeypatch):
    """The document of a row that has the stored string decides."""
    monkeypatch.setattr(column_writer, "digests_of", digests_that_collide)
    monkeypatch.setattr(columns_module, "digests_of", digests_that_collide)
    documents = [orjson.dumps({"a": "one", "b": ["four", "eleven"]}), orjson.dumps({"a": "one"})]
    columns = opened(documents)
    assert agreed(columns, documents, {"a": {"$in": ["two", "six"]}}) == []
    assert agreed(columns, documents, {"b": "five"}) == []
    assert agreed(columns, documents, {"b": {"$in": ["eleven", "five", "four"]}}) == [0]


def test_fields_that_are_not_filterable_have_no_columns_and_are_named():
    """So that nobody takes a field without a column for one that no row has."""
    documents = [orjson.dumps({"g": f"g{row % 3}", "n": row, "long": "x" * row}) for row in range(12)]
    sections = lay_out_columns(documents, frozenset({"g", "never"}))
    container = Container(memoryview(b"".join(pack(sections, rows=12))))
    columns = SegmentColumns(container, 12, documents.__getitem__)
    for where, is_known in (
        ({"g": "g1"}, True),
        ({"never": 1}, True),
        ({"n": {"$gt": 2}}, False),
        ({"g": "g1", "$or": [{"long": "x"}, {"g": "g2"}]}, False),
        ({"long": {"$exists": False}}, False),
    ):
        assert columns.knows(parse_filter(where)) is is_known
    assert agreed(columns, documents, {"g": {"$in": ["g1", "g2"]}}) == [row for row in range(12) if row % 3]
    assert (sections["filter_field_data"], sections["filter_left_out_data"]) == (b"g", b"longn")
    assert not len(sections["filter_numbers"])
    plain = lay_out_columns(documents)
    assert plain["filter_left_out_data"] == b""
    for ends, data in (([0, 9, 5], b"longn"), ([0, 4, 5], b"long"), ([], b"longn"), ([0, 1, 5], b"nlong")):
        damage = {"filter_left_out_ends": np.array(ends, np.uint64), "filter_left_out_data": data}
        with pytest.raises(CorruptData):
            opened(documents, changed={**sections, **damage})
    for missing in ("filter_left_out_ends", "filter_left_out_data"):
        left = {name: section for name, section in sections.items() if name != missing}
        with pytest.raises(CorruptData):
            SegmentColumns(Container(memoryview(b"".join(pack(left, rows=12)))), 12, documents.__getitem__)


_SOUND = [orjson.dumps({"s": f"s{row % 3}", "u": f"unique {row}", "n": row, "b": row % 2 == 0}) for row in range(100)]
_SECTIONS = lay_out_columns(_SOUND)


def swapped(array, at):
    changed = array.copy()
    changed[[at, at + 1]] = changed[[at + 1, at]]
    return changed


def with_value(array, at, value):
    changed = array.copy()
    changed[at] = value
    return changed


@pytest.mark.parametrize(
    "changed",
    [
        {"filter_head": np.empty(0, np.uint32)},
        {"filter_head": b"abc"},
        {"filter_field_data": b"abc"},
        {"filter_field_data": b"bbnu"},
        {"filter_field_ends": np.array([0, 1, 2], np.uint64)},
        {"filter_field_ends": with_value(_SECTIONS["filter_field_ends"], 2, 2**63)},
        {"filter_field_strings": with_value(_SECTIONS["filter_field_strings"], 1, 2**31)},
        {"filter_field_numbers": with_value(_SECTIONS["filter_field_numbers"], -1, 99)},
        {"filter_hashes": swapped(_SECTIONS["filter_hashes"], 5)},
        {"filter_hashes": _SECTIONS["filter_hashes"][:-1]},
        {"filter_starts": _SECTIONS["filter_starts"][:-1]},
        {"filter_starts": with_value(_SECTIONS["filter_starts"], 4, 2**31)},
        {"filter_starts": swapped(_SECTIONS["filter_starts"], 12)},
        {"filter_postings": _SECTIONS["filter_postings"][:-1]},
        {"filter_postings": with_value(_SECTIONS["filter_postings"], -1, 100)},
        {"filter_postings": with_value(_SECTIONS["filter_postings"], 3, 2**31)},
        {"filter_numbers": with_value(_SECTIONS["filter_numbers"], 3, np.nan)},
        {"filter_numbers": swapped(_SECTIONS["filter_numbers"], 3)},
        {"filter_number_rows": with_value(_SECTIONS["filter_number_rows"], 3, 100)},
        {"filter_number_rows": _SECTIONS["filter_number_rows"][:-1]},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_sections_that_do_not_fit_are_damage(changed):
    """What does not fit is refused when it is opened: never a wrong answer, never a crash later."""
    opened(_SOUND)
    with pytest.raises(CorruptData):
        opened(_SOUND, changed=changed)


@pytest.mark.parametrize("name", sorted(name for name, section in _SECTIONS.items() if len(section)))
def test_section_with_any_byte_changed_is_refused_or_still_answers(name):
    """Whatever is damaged, opening or every question ends in an answer or in `CorruptData`."""
    content = _SECTIONS[name]
    data = bytearray(content if isinstance(content, bytes) else content.tobytes())
    filters = [{"s": "s1"}, {"u": "unique 5"}, {"n": {"$gt": 3}}, {"b": {"$ne": True}}, {"s": {"$exists": True}}]
    source = np.random.default_rng(1)
    answered, refused = 0, 0
    for _ in range(40):
        at, bit = int(source.integers(len(data))), 1 << int(source.integers(8))
        data[at] ^= bit
        try:
            columns = opened(_SOUND, changed={name: bytes(data)})
            for where in filters:
                assert columns.mask(parse_filter(where), 10, 90).shape == (80,)
            answered += 1
        except CorruptData:
            refused += 1
        data[at] ^= bit
    assert answered + refused == 40


def test_namespaces_of_every_size_in_one_segment_are_filtered_alike(monkeypatch):
    """One that is far smaller than its segment by its documents, any other by the columns of the segment."""
    sizes = {"a": 1, "b": 900, "c": 2, "d": 4}
    names = [name for name, size in sizes.items() for _ in range(size)]
    documents = [orjson.dumps({"n": row % 7, "s": f"s{row % 5}", "of": name}) for row, name in enumerate(names)]
    count = len(names)
    records, vectors, order = lay_out(
        Rows(
            names=list(sizes),
            namespace=np.array(["abcd".index(name) for name in names], np.int64),
            ids=[b"%d" % row for row in range(count)],
            metadata=documents,
            offsets=np.arange(count),
            times=np.arange(count),
            sparse=[None] * count,
            vectors=np.ones((count, 2), np.float32),
        )
    )
    ordered = [documents[row] for row in order.tolist()]
    sections = records | vectors | lay_out_columns(ordered)
    container = Container(memoryview(b"".join(pack(sections, rows=count, dimension=2))))
    reader = SegmentReader(1, container, container)
    asked = []
    by_columns = SegmentColumns.mask
    monkeypatch.setattr(SegmentColumns, "mask", lambda *args: asked.append(args[2:4]) or by_columns(*args))
    for name in sizes:
        part = reader.slice_of(name)
        for where in (
            {"n": {"$gte": 3}},
            {"s": "s2"},
            {"of": {"$ne": name}},
            {"n": {"$lt": 3}, "s": {"$in": ["s1", "s4"]}},
        ):
            tree = parse_filter(where)
            expected = [matches(tree, metadata_document(document)) for document in ordered[part.start : part.end]]
            assert reader.mask(part, tree).tolist() == expected
    assert set(asked) == {(1, 901), (903, 907)}
