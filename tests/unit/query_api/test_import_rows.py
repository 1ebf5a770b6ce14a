"""From Parquet to upserts: every type that is taken, every one that is refused, and where reading begins."""

from __future__ import annotations

import io
import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from query_api.imports.rows import ParquetRows
from schemas.errors import InvalidRequest
from schemas.indexes import IndexSpec, Metric
from schemas.operations import Upsert
from schemas.records import dense_bytes, make_sparse

SPEC = IndexSpec("demo", "x" * 22, 1, 3, Metric.DOTPRODUCT)
VALUES = [[1.5, 2.0, -3.25], [4.0, 5.5, 6.0], [7.0, 8.0, 9.0]]


def opened(tmp_path, table, spec=SPEC, **options):
    path = tmp_path / "rows.parquet"
    parquet.write_table(table, path, **options)
    return ParquetRows(io.BytesIO(path.read_bytes()), "rows.parquet", spec)


def read(rows, start=0):
    batches = list(rows.batches(start))
    events = [(row, event) for batch in batches for row, event in zip(batch.rows, batch.events, strict=True)]
    for batch, following in itertools.pairwise(batches):
        assert batch.end == following.begin
    return events, [bad for batch in batches for bad in batch.bad]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32()),
        pa.list_(pa.float64()),
        pa.list_(pa.float16()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float32(), 3),
        pa.list_(pa.float64(), 3),
    ],
    ids=str,
)
def test_vectors_of_every_float_type_and_list_type_are_the_same(tmp_path, kind):
    """Lists, large and fixed-size ones, of single, double and half floats; null rows among them, at any beginning."""
    values = [np.array(row, kind.value_type.to_pandas_dtype()) for row in VALUES]
    column = pa.array([values[0], None, values[1], values[2]], kind)
    table = pa.table({"id": ["a", "b", "c", "d"], "values": column})
    for start in range(4):
        events, bad = read(opened(tmp_path, table, row_group_size=2), start)
        wanted = {"a": VALUES[0], "b": None, "c": VALUES[1], "d": VALUES[2]}
        assert [(event.id, event.values) for _, event in events] == [
            (name, dense_bytes(vector)) for name, vector in list(wanted.items())[start:]
        ]
        assert [row for row, _ in events] == list(range(start, 4))
        assert bad == []


@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_text_of_every_string_type_is_the_same(tmp_path, text):
    """Ids and metadata as plain, large and dictionary strings."""
    table = pa.table(
        {
            "id": pa.array(["a", "b", "c"]).cast(text),
            "values": pa.array(VALUES),
            "metadata": pa.array(['{"n": 1, "gone": null}', None, ""]).cast(text),
        }
    )
    events, bad = read(opened(tmp_path, table))
    assert [(event.id, event.metadata) for _, event in events] == [("a", b'{"n":1}'), ("b", b""), ("c", b"")]
    assert bad == []


def test_sparse_values_are_sorted_and_may_be_null_or_empty(tmp_path):
    """A struct of indices and values, of any integer and float types."""
    for indices, values in ((pa.uint32(), pa.float32()), (pa.int64(), pa.float64()), (pa.uint16(), pa.float16())):
        kind = pa.struct([("indices", pa.list_(indices)), ("values", pa.list_(values))])
        rows = [
            {"indices": [7, 2], "values": [np.float16(1), np.float16(0.5)]},
            None,
            {"indices": [], "values": []},
            {"indices": [1, 1], "values": [np.float16(1), np.float16(2)]},
            {"indices": [1], "values": [np.float16(1), np.float16(2)]},
            {"indices": [3], "values": [np.float16(4)]},
        ]
        table = pa.table(
            {"id": list("abcdef"), "values": pa.array([VALUES[0]] * 6), "sparse_values": pa.array(rows, kind)}
        )
        events, bad = read(opened(tmp_path, table))
        assert [(event.id, event.sparse) for _, event in events] == [
            ("a", make_sparse([2, 7], [0.5, 1])),
            ("b", None),
            ("c", None),
            ("f", make_sparse([3], [4])),
        ]
        assert [row for row, _ in bad] == [3, 4]
        assert "distinct" in bad[0][1]
        assert "as many values as indices" in bad[1][1]
        later, _ = read(opened(tmp_path, table), 5)
        assert later == [events[-1]]


def test_rows_that_make_no_record_are_told_with_the_reason(tmp_path):
    """Their number counts from 0 in the file, whatever the batches and row groups."""
    count = 2_500
    ids = [f"r{n}" for n in range(count)]
    values = [VALUES[0]] * count
    metadata = [json.dumps({"n": n}) for n in range(count)]
    ids[0] = None
    values[999] = [1.0, None, 3.0]
    metadata[1_000] = "{"
    metadata[2_400] = '{"a": {"b": 1}}'
    table = pa.table({"id": ids, "values": pa.array(values, pa.list_(pa.float32())), "metadata": metadata})
    events, bad = read(opened(tmp_path, table, row_group_size=700))
    assert [row for row, _ in bad] == [0, 999, 1_000, 2_400]
    assert bad[0][1] == "has no id"
    assert bad[1][1] == "has a null among its values"
    assert "not valid JSON" in bad[2][1]
    assert "for field 'a'" in bad[3][1]
    assert len(events) == count - 4
    assert events[0] == (1, Upsert("r1", dense_bytes(VALUES[0]), None, b'{"n":1}'))
    later, later_bad = read(opened(tmp_path, table, row_group_size=700), 1_001)
    assert later == [each for each in events if each[0] >= 1_001]
    assert later_bad == bad[3:]


def test_batches_are_small_enough_for_one_append(tmp_path):
    """Large metadata and many sparse numbers part a batch; no row is lost or doubled by it."""
    count = 600
    text = json.dumps({"text": "x" * 30_000})
    table = pa.table(
        {"id": [f"r{n}" for n in range(count)], "values": pa.array([VALUES[0]] * count), "metadata": [text] * count}
    )
    rows = opened(tmp_path, table)
    batches = list(rows.batches(0))
    assert len(batches) > 3
    assert all(sum(len(event.metadata) for event in batch.events) <= 4 * 1024 * 1024 for batch in batches)
    assert [row for batch in batches for row in batch.rows] == list(range(count))
    assert (batches[0].begin, batches[-1].end) == (0, count)


def test_bad_rows_of_a_parted_batch_are_told_once(tmp_path):
    """Each belongs to the part that it lies in."""
    count = 400
    metadata = [json.dumps({"text": "x" * 30_000})] * count
    bad_rows = [0, 100, 139, 140, 399]
    for row in bad_rows:
        metadata[row] = "no"
    table = pa.table(
        {"id": [f"r{n}" for n in range(count)], "values": pa.array([VALUES[0]] * count), "metadata": metadata}
    )
    events, bad = read(opened(tmp_path, table))
    assert [row for row, _ in bad] == bad_rows
    assert sorted(row for row, _ in events) == [row for row in range(count) if row not in bad_rows]


def test_batches_end_at_the_same_rows_wherever_reading_begins(tmp_path):
    """What was appended before a crash must be cut alike after it, or its keys of idempotency would not meet it."""
    count = 5_000
    table = pa.table({"id": [f"r{n}" for n in range(count)], "values": pa.array([VALUES[0]] * count)})
    ends = [batch.end for batch in opened(tmp_path, table, row_group_size=1_700).batches(0)]
    assert len(ends) > 3
    assert ends[-1] == count
    for start in [0, *ends[:-1], 1_699, 1_701, 3_500]:
        again = [batch.end for batch in opened(tmp_path, table, row_group_size=1_700).batches(start)]
        assert again == [end for end in ends if end > start]


FINE = {"id": ["a"], "values": pa.array([[1.0, 2.0, 3.0]])}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"values": FINE["values"]}, "no column 'id'"),
        ({"id": ["a"]}, "neither a column 'values' nor 'sparse_values'"),
        ({**FINE, "id": [1]}, "column 'id' must be STRING, it is int64"),
        ({**FINE, "values": pa.array([[1, 2, 3]])}, "column 'values' must be LIST<FLOAT>, it is list"),
        ({**FINE, "values": ["[1, 2, 3]"]}, "column 'values' must be LIST<FLOAT>, it is string"),
        ({**FINE, "values": pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))}, "have 2 dimensions, the index has 3"),
        ({**FINE, "metadata": pa.array([{"n": 1}])}, "column 'metadata' must be STRING that holds JSON"),
        ({**FINE, "sparse_values": pa.array([[1.0]])}, "column 'sparse_values' must be STRUCT"),
        ({**FINE, "sparse_values": pa.array([{"indices": [1]}])}, "column 'sparse_values' must be STRUCT"),
    ],
)
def test_columns_that_do_not_fit_are_refused_with_their_name(tmp_path, columns, message):
    """Said before a row is read."""
    with pytest.raises(InvalidRequest) as raised:
        opened(tmp_path, pa.table(columns))
    assert message in str(raised.value)


def test_other_columns_are_ignored_and_named(tmp_path):
    """What an import does not know it does not read."""
    rows = opened(tmp_path, pa.table({**FINE, "text": ["x"], "sparseValues": ["y"]}))
    assert rows.ignored == ("text", "sparseValues")
    assert [event.id for _, event in read(rows)[0]] == ["a"]


def test_damage_inside_a_file_is_told_as_the_files(tmp_path):
    """Bytes that are no page raise the error of the file, with the row where it was noticed."""
    path = tmp_path / "rows.parquet"
    count = 5_000
    table = pa.table({"id": [f"r{n}" for n in range(count)], "values": pa.array([VALUES[0]] * count)})
    parquet.write_table(table, path, row_group_size=1_000, compression="snappy", use_dictionary=False)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3_000] = b"\xff" * 3_000
    path.write_bytes(data)
    rows = ParquetRows(io.BytesIO(path.read_bytes()), "rows.parquet", SPEC)
    with pytest.raises(InvalidRequest, match=r"File rows\.parquet is damaged near row \d+"):
        list(rows.batches(0))
