"""The table of filters over every kind of segment, evaluated by reads and by the fold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.merge_policy import MergeOptions
from indexer.segments.search import SearchQuery
from indexer.snapshots.snapshot import Snapshot
from query_api.matching import record_page
from schemas.changes import Outcome
from schemas.filters import parse_filter
from schemas.manifest import FLAT, GRAPH, SegmentEntry
from schemas.metadata import metadata_document
from schemas.operations import Event
from tests.contract.filter_cases import CASES, RECORDS
from tests.support.builders import delete_where, dense, spec_of, update, update_where, upsert
from tests.support.driver import Pipeline, Worker

_NEVER = 10**9
_FLATS = MergeOptions(rollup_deltas=1, graph_rows_min=_NEVER)
_GRAPHS = MergeOptions(rollup_deltas=1, graph_rows_min=16)
# All but the first set the metadata before the filter is asked.
_KINDS = ("memtable", "delta", "flat", "graph", "patched delta", "patched flat", "patched graph")


def upserts(*, bare: bool) -> list[Event]:
    """The records of the table, without their metadata where `bare`."""
    return [upsert(name, n, None if bare else metadata) for n, (name, metadata) in enumerate(RECORDS.items())]


@pytest.fixture(params=_KINDS)
def fill(request, tmp_path: Path) -> Callable[[list[str]], tuple[Pipeline, Worker]]:
    """Write the records of the table to namespaces, so that they lie in segments of the kind; the memtable in none."""
    kind: str = request.param

    def filled(names: list[str]) -> tuple[Pipeline, Worker]:
        pipeline = Pipeline(tmp_path, spec_of(), merge=_GRAPHS if kind.endswith("graph") else _FLATS)
        worker = pipeline.worker()
        is_patched = kind.startswith("patched")
        for name in names:
            pipeline.book.append_all(name, upserts(bare=is_patched))
        if kind == "memtable":
            return pipeline, worker
        worker.publish()
        if not kind.endswith("delta"):
            worker.merge_all(is_quiet=True)
        if is_patched:
            for name in names:
                documents = [(key, metadata) for key, metadata in RECORDS.items() if metadata]
                pipeline.book.append_all(name, [update(key, metadata) for key, metadata in documents])
            worker.publish()
        wanted = {"flat": FLAT, "graph": GRAPH}.get(kind.rsplit(maxsplit=1)[-1])
        for view, _ in worker.snapshot.slices(names[0]):
            found = view.source.kind if isinstance(view.source, SegmentEntry) else None
            assert found == wanted
        return pipeline, worker

    return filled


def matching_ids(snapshot: Snapshot, name: str, where: object) -> list[str]:
    """The matching ids by every door of a snapshot, which must agree."""
    tree = parse_filter(where)
    assert tree is not None
    page = record_page(snapshot, name, tree, after=None, limit=1_000, bytes_max=_NEVER)
    hits = snapshot.search(name, SearchQuery(dense(0), 100, tree))
    assert sorted(hit.id for hit in hits) == list(page.records)
    assert snapshot.count_matching(name, tree) == len(page.records)
    return list(page.records)


def test_reads_find_what_matches(fill):
    """Search, pages and counts over the kind of segment give the records that the table names."""
    pipeline, worker = fill(["films"])
    worker.publish()
    snapshot = pipeline.fresh_snapshot()
    for where, matching in CASES:
        assert matching_ids(snapshot, "films", where) == sorted(matching), where


def test_fold_updates_what_matches(fill):
    """Of each case exactly the records of the table get its mark, and the outcome counts them."""
    pipeline, worker = fill(["films"])
    offsets = [pipeline.book.append("films", update_where(where, {f"hit{n}": n})) for n, (where, _) in enumerate(CASES)]
    worker.publish()
    snapshot = pipeline.fresh_snapshot()
    kept = {name: metadata_document(record.metadata) for name, record in snapshot.fetch("films", list(RECORDS)).items()}
    for n, (where, matching) in enumerate(CASES):
        assert {name for name, document in kept.items() if document.get(f"hit{n}") == n} == set(matching), where
        outcome = snapshot.outcomes.get(offsets[n])
        assert isinstance(outcome, Outcome)
        assert outcome.matched_records == len(matching), where


def test_fold_deletes_what_matches(fill):
    """Each case is asked of a namespace of its own, which keeps the records that the table does not name."""
    names = [f"ns-{n}" for n in range(len(CASES))]
    pipeline, worker = fill(names)
    for name, (where, _) in zip(names, CASES, strict=True):
        pipeline.book.append(name, delete_where(where))
    worker.publish()
    snapshot = pipeline.fresh_snapshot()
    for name, (where, matching) in zip(names, CASES, strict=True):
        left = snapshot.list_ids(name, prefix="", after=None, limit=100)
        assert left == sorted(RECORDS.keys() - set(matching)), where
