"""The fold of the events about imports: whose reports count, what ends an import, what is forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest

from producer.catalog import CatalogFold
from producer.imports import ImportJob
from schemas.catalog_events import CreateIndexEvent, DeleteIndexEvent
from schemas.errors import AlreadyExists, CommitConflict, NotFound
from schemas.import_events import (
    CancelImportEvent,
    ImportEnd,
    ImportMark,
    ImportProgress,
    ReportImportEvent,
    StartImportEvent,
)
from schemas.indexes import IndexSpec, Metric

SPEC = IndexSpec("demo", "x" * 22, 2, 4, Metric.COSINE)
START = StartImportEvent(SPEC.index_id, "one", "file:///x", "abort", "", 5, "")
FAR = ImportProgress(is_writing=True, mark=ImportMark(2, 7), imported=9)
DONE = ImportEnd("Completed", "", 9)


@pytest.fixture
def fold():
    made = CatalogFold()
    made.apply(CreateIndexEvent(SPEC, ()))
    return made


def report(runner, term, progress=FAR, **more):
    return ReportImportEvent(SPEC.index_id, "one", runner, term, progress, **more)


def test_import_is_pending_until_its_files_are_known_and_ends_once(fold):
    """Pending, in progress, completed; what comes after the end changes nothing."""
    assert fold.apply(START).status == "Pending"
    assert fold.apply(report("a", 1)).status == "Pending"
    assert fold.apply(report("a", 1, fingerprints=b"12345678")).status == "InProgress"
    assert fold.apply(report("a", 1)).fingerprints == b"12345678"
    done = fold.apply(report("a", 1, end=DONE))
    assert (done.status, done.progress, done.fingerprints) == ("Completed", FAR, b"")
    assert isinstance(fold.apply(report("a", 1)), CommitConflict)
    assert isinstance(fold.apply(report("b", 2)), CommitConflict)
    assert fold.apply(CancelImportEvent(SPEC.index_id, "one", 11)) == done


def test_reports_of_an_earlier_term_change_nothing(fold):
    """Of two that take an import over in the same term the first one has it."""
    fold.apply(START)
    fold.apply(report("a", 1))
    fold.apply(report("a", 1))
    taken = fold.apply(report("b", 2, ImportProgress()))
    assert (taken.runner, taken.term, taken.progress) == ("b", 2, FAR)
    for late in (report("a", 1), report("c", 2), report("c", 4), report("a", 1, end=DONE)):
        assert isinstance(fold.apply(late), CommitConflict)
    assert fold.imports.get(*taken.key) == taken


def test_cancelled_import_has_no_runner_any_more(fold):
    """The order of the log decides between a cancel and a report."""
    fold.apply(replace(START, runner="a"))
    assert fold.apply(report("a", 0)).progress == FAR
    assert fold.apply(CancelImportEvent(SPEC.index_id, "one", 11)).end == ImportEnd("Cancelled", "", 11)
    assert isinstance(fold.apply(report("a", 0)), CommitConflict)
    assert fold.imports.unfinished() == []


def test_import_of_a_missing_index_and_a_second_one_of_an_id_are_refused(fold):
    """An import belongs to one life of an index."""
    other = replace(SPEC, log_id="y" * 22)
    assert isinstance(fold.apply(replace(START, index_id=other.index_id)), NotFound)
    assert isinstance(fold.apply(report("a", 1)), NotFound)
    fold.apply(START)
    assert isinstance(fold.apply(START), AlreadyExists)
    fold.apply(DeleteIndexEvent("demo"))
    assert fold.imports.get(SPEC.index_id, "one") is None
    assert isinstance(fold.apply(report("a", 1)), NotFound)
    fold.apply(CreateIndexEvent(other, ()))
    assert isinstance(fold.apply(START), NotFound)


def test_oldest_ended_imports_are_forgotten(fold):
    """A thousand of an index are kept, those that run whatever their number."""
    for number in range(1_001):
        made = fold.apply(replace(START, id=str(number)))
        assert isinstance(made, ImportJob)
        if number != 0:
            fold.apply(CancelImportEvent(SPEC.index_id, str(number), 1))
    fold.apply(replace(START, id="last"))
    kept = [job.start.id for job in fold.imports.of_index(SPEC.index_id)]
    assert kept == ["last", *(str(number) for number in range(1_000, 2, -1)), "0"]


def test_mark_of_another_import_says_nothing():
    """Anybody may write any header to a log."""
    name, value = ImportMark(3, 70).header("one")
    assert (name, ImportMark.parse(value, "one")) == ("freshet-import", ImportMark(3, 70))
    assert ImportMark.parse(value, "on") is None
    for wrong in (b"", b"one", b"one 3", b"one 3 -1", b"one 3 70 9", b"one x 70", b"\xff 3 70"):
        assert ImportMark.parse(wrong, "one") is None
