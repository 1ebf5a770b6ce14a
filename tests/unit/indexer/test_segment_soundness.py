"""A segment whose columns point outside is refused when it is opened, not when a row of it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from indexer.segments.container import Container, pack
from indexer.segments.engines import choose_engine, open_graph
from indexer.segments.graph import GraphOptions, encode_codes, sections_of
from indexer.segments.reader import SegmentReader
from indexer.segments.rows import Rows, hash_ids, lay_out
from indexer.segments.search import NativeSearch, SearchQuery
from indexer.segments.sparse import lay_out_postings
from indexer.segments.stock_search import StockSearch
from indexer.segments.view import SegmentView
from indexer.snapshots.opener import SnapshotOpener
from schemas.changes import Patch, SegmentChanges
from schemas.errors import CorruptData
from schemas.indexes import Metric
from schemas.manifest import GRAPH, ObjectRef, SegmentEntry
from tests.support.builders import spec_of, upserts, words
from tests.support.driver import Pipeline
from tests.support.engines import ENGINES, searched

_ROWS, _DIMENSION = 9, 4
_NAMES = ["a", "b", "c"]
_IDS = [b"id-%d" % number for number in range(_ROWS)]
_REF = ObjectRef("object", 0, b"")


@pytest.fixture
def sections() -> dict[str, np.ndarray]:
    return sections_of_rows()


def sections_of_rows() -> dict[str, np.ndarray]:
    """Return the sections of nine rows in three namespaces, some of them with sparse values, and their postings."""
    rows = Rows(
        names=_NAMES,
        namespace=np.arange(_ROWS) % 3,
        ids=_IDS,
        metadata=[b'{"n":%d}' % number for number in range(_ROWS)],
        offsets=np.arange(_ROWS),
        times=np.arange(_ROWS),
        sparse=[words(number) if number % 2 else None for number in range(_ROWS)],
        vectors=np.random.default_rng(1).standard_normal((_ROWS, _DIMENSION)).astype(np.float32),
    )
    records, vectors, _ = lay_out(rows)
    found = {}
    for name, data in (records | lay_out_postings(records) | vectors).items():
        found[name] = np.frombuffer(data, np.uint8).copy() if isinstance(data, bytes) else np.array(data)
    return found


def opened(sections: dict[str, np.ndarray], *, rows: int = _ROWS, dimension: int = _DIMENSION) -> SegmentReader:
    data = b"".join(pack(sections, rows=rows, dimension=dimension))
    container = Container(memoryview(data))
    return SegmentReader(1, container, container)


def swapped(column: np.ndarray, first: int, second: int) -> np.ndarray:
    column[[first, second]] = column[[second, first]]
    return column


def put(place: object, value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(column: np.ndarray) -> np.ndarray:
        column[place] = value
        return column

    return change


def test_sound_segment_is_opened(sections):
    """The checks let through what is written."""
    reader = opened(sections)
    assert [reader.names[number] for number in range(3)] == [b"a", b"b", b"c"]
    part = reader.slice_of("b")
    assert part is not None
    assert sorted(reader.id_bytes(row) for row in range(part.start, part.end)) == sorted(_IDS[1::3])


_SHORTER = [
    *("hash", "order", "offset", "time", "id_ends", "id_data", "metadata_ends", "metadata_data", "sparse_ends"),
    *("sparse_indices", "sparse_values", "namespace_starts", "namespace_offset_min", "namespace_offset_max"),
    *("namespace_ends", "namespace_data", "vectors", "norms"),
    *("posting_indices", "posting_starts", "posting_rows", "posting_values"),
]


@pytest.mark.parametrize("cut", [1, 2])
@pytest.mark.parametrize("name", _SHORTER)
def test_column_of_another_length_is_refused(sections, name, cut):
    """Every column has as many numbers as there are rows or namespaces, and every end lies where the data ends."""
    longer = dict(sections)
    longer[name] = np.concatenate([sections[name], sections[name][:cut]])
    with pytest.raises(CorruptData):
        opened(longer)
    sections[name] = sections[name][:-cut]
    with pytest.raises(CorruptData):
        opened(sections)


@pytest.mark.parametrize("name", ["hash", "order", "id_ends", "vectors", "norms", "namespace_starts"])
def test_column_with_a_part_of_a_number_is_refused(sections, name):
    """Bytes that are no whole numbers are damage, not a mistake of whoever reads."""
    sections[name] = sections[name].reshape(-1).view(np.uint8)[:-1]
    with pytest.raises(CorruptData):
        opened(sections)


@pytest.mark.parametrize("name", ["id_ends", "metadata_ends", "sparse_ends", "namespace_ends", "posting_starts"])
@pytest.mark.parametrize(
    "change", [put(1, 2**63), put(2, 0), put(0, 1), put(-1, 0)], ids=["far", "back", "first", "last"]
)
def test_ends_that_do_not_ascend_are_refused(sections, name, change):
    """Strings lie one after another, from the beginning of their data to its end."""
    sections[name] = change(sections[name])
    with pytest.raises(CorruptData):
        opened(sections)


@pytest.mark.parametrize(
    "change",
    [put(1, 2**32 - 1), put(1, 0), put(1, 6), put(2, 1), put(0, 1), put(-1, 8), put(-1, 10)],
    ids=["far", "empty", "next is empty", "back", "first", "short", "long"],
)
def test_slices_that_do_not_ascend_are_refused(sections, change):
    """Every namespace has rows, one namespace after another, and every row has a namespace."""
    sections["namespace_starts"] = change(sections["namespace_starts"])
    with pytest.raises(CorruptData):
        opened(sections)


@pytest.mark.parametrize(
    "change",
    [put(4, 9), put(4, 2**32 - 1), lambda order: put(4, order[3])(order), lambda order: swapped(order, 0, 8)],
    ids=["outside", "far outside", "twice", "of another namespace"],
)
def test_order_that_is_no_permutation_is_refused(sections, change):
    """A listing gives every row of its namespace once, and no other."""
    sections["order"] = change(sections["order"])
    with pytest.raises(CorruptData):
        opened(sections)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("posting_rows", put(3, _ROWS)),
        ("posting_rows", put(3, 2**32 - 1)),
        ("posting_indices", lambda column: swapped(column, 1, 2)),
        ("posting_indices", lambda column: put(2, column[1])(column)),
        ("posting_starts", lambda column: put(2, column[1])(column)),
        ("posting_values", put(3, np.nan)),
        ("posting_values", put(0, np.inf)),
        ("sparse_values", put(3, np.nan)),
    ],
    ids=["outside", "far", "order", "index twice", "empty", "no number", "infinite", "no number of a row"],
)
def test_postings_that_would_lead_outside_or_astray_are_refused(sections, name, change):
    """Rows lie inside, indices and rows ascend, each index has a row, and every value is a finite number."""
    sections[name] = change(sections[name])
    with pytest.raises(CorruptData):
        opened(sections)


def test_rows_of_a_posting_that_do_not_ascend_are_refused(sections):
    """A slice's part of a posting is found by a binary search."""
    starts = sections["posting_starts"].astype(int)
    longest = int(np.argmax(np.diff(starts)))
    assert starts[longest + 1] - starts[longest] > 1
    sections["posting_rows"] = swapped(sections["posting_rows"], starts[longest], starts[longest] + 1)
    with pytest.raises(CorruptData):
        opened(sections)


@pytest.mark.parametrize("kept", ["posting_indices", "posting_rows", "sparse_ends", "sparse_values"])
def test_sparse_values_with_a_column_missing_are_refused(sections, kept):
    """One column of several alone, or without the others, is none."""
    for name in [name for name in sections if name.startswith(("posting_", "sparse_")) and name != kept]:
        del sections[name]
    with pytest.raises(CorruptData):
        opened(sections)


def test_hashes_that_do_not_ascend_are_refused(sections):
    """A binary search over them would miss a row that is there."""
    sections["hash"] = swapped(sections["hash"], 3, 5)
    with pytest.raises(CorruptData):
        opened(sections)


@pytest.mark.parametrize("dimension", [0, 1, 2, 3, 5, 8])
def test_vectors_of_another_dimension_are_refused(sections, dimension):
    """The matrix has a row of that many numbers for each norm."""
    with pytest.raises(CorruptData):
        opened(sections, dimension=dimension)


@pytest.mark.parametrize("missing", ["vectors", "norms"])
def test_dense_segment_without_vectors_is_refused(sections, missing):
    """A matrix that is not there would be read all the same."""
    del sections[missing]
    with pytest.raises(CorruptData):
        opened(sections)


def test_section_that_is_not_aligned_is_refused(sections):
    """Numbers are read in place: they lie where the machine can read them."""
    data = bytearray(b"".join(pack(sections, rows=_ROWS, dimension=_DIMENSION)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indexer.segments.container._ALIGNMENT", 1)
        shifted = b"".join(pack({"odd": b"1", **sections}, rows=_ROWS, dimension=_DIMENSION))
    Container(memoryview(data))
    with pytest.raises(CorruptData):
        Container(memoryview(shifted))


@given(st.data())
def test_whatever_is_opened_is_read_to_its_end(data):
    """Random numbers in random columns: refused, or every look-up, listing and record ends without an error."""
    sections = sections_of_rows()
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from([key for key in sections if not key.endswith("_data")]))
        column = sections[name].reshape(-1)
        values = st.sampled_from([0, 1, 2, 8, 9, 10, 2**31, 2**32 - 1])
        if len(column):
            column[data.draw(st.integers(0, len(column) - 1))] = np.array(data.draw(values)).astype(column.dtype)
    try:
        reader = opened(sections)
    except CorruptData:
        return
    view = SegmentView(reader, SegmentEntry(1, GRAPH, _REF, _REF, None, _ROWS), BitMap())
    for name in _NAMES:
        part = reader.slice_of(name)
        if part is None:
            continue
        assert len(list(view.ids(part, prefix=b"", after=None))) <= part.end - part.start
        assert (reader.find(part, _IDS, hash_ids(_IDS)) < part.end).all()
        for row in range(part.start, part.end):
            view.record(row)
        for query in (words(1), words(300)):
            for searcher in (NativeSearch(choose_engine("native")), StockSearch()):
                for vector in (None, np.ones(_DIMENSION, np.float32)):
                    asked = SearchQuery(vector, 5, None, query)
                    hits = searched(searcher, [(view, part)], asked, Metric.DOTPRODUCT).hits
                    assert ((hits["row"] >= part.start) & (hits["row"] < part.end)).all()


def view_of(sections: dict[str, np.ndarray]) -> SegmentView:
    return SegmentView(opened(sections), SegmentEntry(1, GRAPH, _REF, _REF, None, _ROWS), BitMap())


def test_changes_of_rows_that_are_not_there_are_refused(sections):
    """A kill or a patch behind the rows belongs to another segment."""
    view = view_of(sections)
    inside = SegmentChanges(
        1, np.array([8], np.uint32), np.array([5]), (Patch(5, BitMap([8]).serialize(), b'{"a":1}'),)
    )
    assert view.with_changes(inside).live_rows == _ROWS - 1
    for changes in (
        replace(inside, killed_rows=np.array([9], np.uint32)),
        replace(inside, patches=(Patch(5, BitMap([0, 9]).serialize(), b'{"a":1}'),)),
    ):
        with pytest.raises(CorruptData):
            view.with_changes(changes)


@pytest.mark.parametrize("dimension", [3, 5, 8])
def test_segment_of_another_dimension_than_its_index_is_refused(tmp_path, dimension):
    """Queries are as wide as the index says: a narrower row would be read beyond its end."""
    pipeline = Pipeline(tmp_path, spec_of(dimension=4))
    worker = pipeline.worker()
    pipeline.book.append_all("films", upserts(["a", "b"]))
    worker.publish()
    opener = SnapshotOpener(pipeline.store, spec_of(dimension=dimension), 0, None)
    with pytest.raises(CorruptData):
        opener.open(opener.empty(), worker.snapshot.manifest)


def graph_objects(elements: int, rows: int) -> tuple[Container, Container]:
    """Return a graph object and a vector object of `elements` elements, of which `rows` are rows."""
    vectors = np.random.default_rng(2).standard_normal((elements, _DIMENSION)).astype(np.float32)
    with choose_engine("native").builder(vectors, Metric.COSINE, GraphOptions(), rows=rows) as builder:
        builder.add(np.arange(elements, dtype=np.uint32))
        graph = sections_of(builder.links(), encode_codes(vectors[:rows]))
    matrix = {"vectors": vectors, "norms": np.einsum("ij,ij->i", vectors, vectors)}
    packed = [pack(part, rows=elements, dimension=_DIMENSION) for part in (graph, matrix)]
    first, second = (Container(memoryview(b"".join(part))) for part in packed)
    return first, second


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("others", [20, 22, 24])
def test_graph_of_more_or_fewer_elements_than_vectors_is_refused(engine, others):
    """Its links are sound, but lead behind the vectors: each element has its vector and its norm."""
    chosen = choose_engine(engine)
    graph, vectors = graph_objects(25, 20)
    open_graph(chosen, graph, vectors, rows=20, metric=Metric.COSINE, ef=10)
    _, fewer = graph_objects(others, 20)
    with pytest.raises(CorruptData):
        open_graph(chosen, graph, fewer, rows=20, metric=Metric.COSINE, ef=10)


def test_graph_over_several_namespaces_is_refused(sections):
    """A graph is of one namespace: its element i is row i of that."""
    data = b"".join(pack(sections, rows=_ROWS, dimension=_DIMENSION))
    container = Container(memoryview(data))
    graph, vectors = graph_objects(_ROWS, _ROWS)
    native = open_graph(choose_engine("native"), graph, vectors, rows=_ROWS, metric=Metric.COSINE, ef=10)
    with pytest.raises(CorruptData):
        SegmentReader(1, container, container, native)
