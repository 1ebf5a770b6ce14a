"""A graph that takes the place of an older one which it does not extend."""

from __future__ import annotations

import pytest

from indexer import graphs
from indexer.merge_policy import MergeOptions
from indexer.segments.graph import GraphOptions
from schemas.operations import Delete
from tests.model.checks import Query, assert_shows
from tests.model.oracle import Oracle
from tests.support.builders import dense, spec_of, upserts
from tests.support.driver import Pipeline
from tests.support.engines import ENGINES

_IDS = [f"id-{number:03d}" for number in range(120)]


@pytest.fixture
def anew(monkeypatch) -> None:
    """Have no graph extended, as where an extension misses the recall target."""
    attempts = graphs._attempts
    monkeypatch.setattr(graphs, "_attempts", lambda job: list(attempts(job))[-2:])


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("engine", ENGINES)
def test_graph_that_is_built_anew_keeps_nothing_of_what_died_in_the_old_one(tmp_path, engine):
    """Its elements are its rows, and so many vectors are written: whoever opens it finds them to fit."""
    merge = MergeOptions(rollup_deltas=1, graph_rows_min=32)
    pipeline = Pipeline(tmp_path, spec_of(), merge=merge, graph=GraphOptions(ef_search=200, engine=engine))
    worker = pipeline.worker()
    pipeline.book.append_all("films", upserts(_IDS[:60]))
    worker.publish()
    worker.merge_all()
    dead = _IDS[:60:7]
    pipeline.book.append_all("films", [*map(Delete, dead), *upserts(_IDS[60:], 60)])
    worker.publish()
    worker.merge_all()
    (entry,) = [entry for entry in worker.snapshot.table.segments if entry.graph is not None]
    assert entry.graph_elements == entry.rows == len(_IDS) - len(dead)
    follower = pipeline.follower()
    follower.refresh()
    assert follower.current.version == worker.snapshot.version
    state = Oracle(pipeline.book).at(pipeline.book.end)
    assert_shows(follower.current, state, names=["films"], ids=_IDS, query=Query(dense(3), 20, None))
