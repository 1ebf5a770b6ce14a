"""Merges lay out columns of filterable fields only; filters in the log name others all the same, and are right."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from indexer.merge_policy import MergeOptions
from schemas.namespaces import canonical_schema
from schemas.operations import CreateNamespace, DeleteNamespace, Upsert
from tests.model.checks import Query, assert_shows
from tests.model.oracle import Oracle
from tests.support.builders import delete_where, dense, spec_of, update_where, upsert
from tests.support.driver import Pipeline, Worker

_IDS = [f"id-{number:02d}" for number in range(40)]
_GENRE = CreateNamespace(canonical_schema({"fields": {"genre": {"filterable": True}}}))
_SETTINGS = orjson.dumps({"schema": {"fields": {"year": {"type": "integer", "filterable": True}}}})


def rows(begin: int, end: int) -> list[Upsert]:
    return [
        upsert(_IDS[at], at, {"genre": f"g{at % 3}", "year": at, "plot": f"once upon a time {at}"})
        for at in range(begin, end)
    ]


def columns_of(worker: Worker) -> list[tuple[list[str], list[str], list[str]]]:
    """Return namespaces, fields with columns and fields without, per segment of the table."""
    found = []
    for view in worker.snapshot.views:
        columns = view.reader._filter_columns
        if columns is not None:
            names = [[name.decode() for name in names] for names in (view.reader.names, columns._names)]
            found.append((*names, sorted(name.decode() for name in columns._left_out)))
    return found


def check(pipeline: Pipeline, worker: Worker, names: list[str]) -> None:
    state = Oracle(pipeline.book).at(pipeline.book.end)
    for snapshot in (worker.snapshot, pipeline.fresh_snapshot()):
        for where in ({"genre": "g1"}, {"year": {"$gte": 20}}, {"plot": "once upon a time 7"}, {"seen": True}):
            assert_shows(snapshot, state, names=names, ids=_IDS, query=Query(dense(5), 40, where))


def fill(pipeline: Pipeline, worker: Worker, name: str) -> None:
    for begin in range(0, 40, 10):
        pipeline.book.append_all(name, rows(begin, begin + 10))
        worker.publish()


@pytest.mark.parametrize("graph_rows_min", [16, 1_000], ids=["in a graph", "flat"])
def test_schema_limits_columns_where_no_neighbour_needs_more(tmp_path, graph_rows_min):
    """A namespace with all fields filterable has their columns; updates and deletes of any filter are carried out."""
    pipeline = Pipeline(tmp_path, spec_of(), merge=MergeOptions(rollup_deltas=1, graph_rows_min=graph_rows_min))
    worker = pipeline.worker()
    pipeline.book.append("films", _GENRE)
    for name in ("films", "books"):
        fill(pipeline, worker, name)
    worker.merge_all()
    every = ["genre", "plot", "year"]
    if graph_rows_min == 16:
        assert sorted(columns_of(worker)) == [(["books"], every, []), (["films"], ["genre"], ["plot", "year"])]
    else:
        assert columns_of(worker) == [(["books", "films"], every, [])]
    check(pipeline, worker, ["films", "books"])
    for name in ("films", "books"):
        pipeline.book.append(name, update_where({"year": {"$lt": 9}}, {"seen": True}))
        pipeline.book.append(name, delete_where({"plot": "once upon a time 7"}))
    worker.publish()
    check(pipeline, worker, ["films", "books"])
    worker.merge_all()
    check(pipeline, worker, ["films", "books"])


def test_schema_of_the_index_holds_for_namespaces_without_one(tmp_path):
    """And a namespace that is made anew has the columns of its new schema."""
    spec = replace(spec_of(), settings=_SETTINGS)
    pipeline = Pipeline(tmp_path, spec, merge=MergeOptions(rollup_deltas=1, graph_rows_min=16))
    worker = pipeline.worker()
    pipeline.book.append("films", _GENRE)
    for name in ("films", "books"):
        fill(pipeline, worker, name)
    worker.merge_all()
    without = (["books"], ["year"], ["genre", "plot"])
    assert sorted(columns_of(worker)) == [without, (["films"], ["genre"], ["plot", "year"])]
    pipeline.book.append("films", DeleteNamespace(keep=False))
    fill(pipeline, worker, "films")
    worker.merge_all()
    assert sorted(columns_of(worker)) == [without, (["films"], ["year"], ["genre", "plot"])]
    check(pipeline, worker, ["films", "books"])
