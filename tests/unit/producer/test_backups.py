"""Backups and restore jobs in the catalog: what the order of the control log makes of them."""

import asyncio
import secrets
from dataclasses import replace

import pytest

from producer.backups import BackupCommands
from producer.catalog_fold import CatalogFold
from schemas.backup_events import (
    AdvanceRestoreEvent,
    CreateBackupEvent,
    DeleteBackupEvent,
    FinishRestoreEvent,
    PinBackupEvent,
    RestoreBackupEvent,
)
from schemas.backups import Backup, BackupStatus, Cursor, Pin, RestoreStatus
from schemas.catalog_events import CreateIndexEvent, DeleteIndexEvent
from schemas.errors import AlreadyExists, InvalidRequest, NotFound, NotReady
from tests.unit.producer.catalogs import PORTS, spec, started, two_catalogs
from tests.unit.producer.log_fixtures import sqlite_logs

BACKUP, JOB = "ab" * 16, "cd" * 16


def pin(partition, version=7):
    return Pin(partition, version, bytes(32), 5, 3, 1, 100)


def folded(*events, partitions=2):
    """Return a fold of an index "movies" with `partitions` after `events`, each of which must come to something."""
    fold = CatalogFold()
    source = spec(partitions=partitions)
    made = fold.apply(CreateIndexEvent(source, PORTS), time_ms=1)
    for event in events:
        outcome = fold.apply(event(made) if callable(event) else event, time_ms=2)
        assert not isinstance(outcome, Exception), outcome
    return fold


def asked(source):
    return CreateBackupEvent(BACKUP, source.name, source.log_id, "nightly", "", (5, 5))


def restored(name="again", **change):
    return RestoreBackupEvent(JOB, BACKUP, CreateIndexEvent(spec(name, partitions=2, **change), PORTS))


READY = (asked, PinBackupEvent(BACKUP, pin(0)), PinBackupEvent(BACKUP, pin(1)))


def test_backup_is_ready_when_every_partition_is_pinned():
    """Not a moment earlier; the first pin of a partition stays, whoever pins it again."""
    fold = folded(asked)
    assert fold.backups.backup(BACKUP).status is BackupStatus.INITIALIZING
    fold.apply(PinBackupEvent(BACKUP, pin(1)))
    fold.apply(PinBackupEvent(BACKUP, pin(1, version=9)))
    assert fold.backups.backup(BACKUP).status is BackupStatus.INITIALIZING
    made = fold.apply(PinBackupEvent(BACKUP, pin(0)))
    assert made.status is BackupStatus.READY
    assert made.pins[1].version == 7
    assert made.records == 6
    assert (made.created_ms, made.source.port) == (2, 5081)


@pytest.mark.parametrize(
    ("before", "event", "error"),
    [
        ((asked,), DeleteIndexEvent("movies"), NotReady),
        ((asked,), PinBackupEvent(BACKUP, pin(2)), InvalidRequest),
        ((asked,), restored(), NotReady),
        ((), restored(), NotFound),
        ((), PinBackupEvent(BACKUP, pin(0)), NotFound),
        ((), DeleteBackupEvent(BACKUP), NotFound),
        ((), CreateBackupEvent(BACKUP, "movies", "x" * 22, "", "", (5, 5)), NotFound),
        ((), CreateBackupEvent(BACKUP, "actors", "x" * 22, "", "", (5, 5)), NotFound),
        ((), lambda made: replace(asked(made), next_offsets=(5,)), InvalidRequest),
        ((asked,), asked, AlreadyExists),
        (READY, restored("movies"), AlreadyExists),
        ((*READY, restored()), DeleteBackupEvent(BACKUP), NotReady),
        (
            (*READY, restored(log_id="y" * 22)),
            CreateBackupEvent("ef" * 16, "again", "y" * 22, "", "", (0, 0)),
            NotReady,
        ),
        ((), AdvanceRestoreEvent(JOB, Cursor()), NotFound),
        ((), FinishRestoreEvent(JOB), NotFound),
    ],
)
def test_what_comes_out_of_order_is_refused_by_the_fold(before, event, error):
    """And changes nothing, in any process."""
    fold = folded(*before)
    known = fold.backups.backups(), fold.backups.jobs(), dict(fold.indexes)
    outcome = fold.apply(event(fold.indexes["movies"]) if callable(event) else event)
    assert isinstance(outcome, error)
    assert known == (fold.backups.backups(), fold.backups.jobs(), dict(fold.indexes))


def test_backup_outlives_its_index():
    """The index is gone, its backup knows when, and can still be restored."""
    fold = folded(*READY)
    source = fold.indexes["movies"]
    fold.apply(DeleteIndexEvent("movies"), time_ms=77)
    assert [backup.source_deleted_ms for backup in fold.backups.of_index(source.index_id)] == [77]
    job = fold.apply(restored())
    assert fold.indexes["again"] == job.target
    assert fold.backups.partial(job.target.index_id) == job
    assert fold.backups.partial(source.index_id) is None


def test_restored_index_is_partial_until_its_job_is_completed():
    """Progress follows the records written and is 100 only at the end; what comes after the end changes nothing."""
    fold = folded(*READY, restored())
    target = fold.indexes["again"]
    assert fold.backups.job(JOB).percent_complete == 0
    moved = fold.apply(AdvanceRestoreEvent(JOB, Cursor(0, "n", "a", 3)))
    assert moved.percent_complete == 50
    assert fold.apply(AdvanceRestoreEvent(JOB, Cursor(1, "n", "z", 6))).percent_complete == 99
    done = fold.apply(FinishRestoreEvent(JOB), time_ms=9)
    assert (done.status, done.percent_complete, done.completed_ms) == (RestoreStatus.COMPLETED, 100, 9)
    assert fold.backups.partial(target.index_id) is None
    fold.apply(FinishRestoreEvent(JOB, "too late"))
    fold.apply(AdvanceRestoreEvent(JOB, Cursor()))
    assert fold.backups.job(JOB) == done
    assert fold.apply(DeleteBackupEvent(BACKUP)) == fold.backups.removed()[0]


def test_failed_restore_leaves_an_index_that_is_never_whole():
    """Until somebody deletes it; its backup can be deleted then, too."""
    fold = folded(*READY, restored(), FinishRestoreEvent(JOB, "An object is gone."))
    target = fold.indexes["again"]
    assert fold.backups.partial(target.index_id).reason == "An object is gone."
    fold.apply(DeleteIndexEvent("again"))
    assert fold.backups.partial(target.index_id) is None
    assert fold.backups.job(JOB).status is RestoreStatus.FAILED


def test_deleting_an_index_that_is_being_restored_cancels_the_job():
    """The backup is free again."""
    fold = folded(*READY, restored(), DeleteIndexEvent("again"))
    assert fold.backups.job(JOB).status is RestoreStatus.CANCELLED
    assert isinstance(fold.apply(DeleteBackupEvent(BACKUP)), Backup)


@pytest.mark.asyncio
async def test_commands_are_seen_by_every_process_and_after_a_restart(tmp_path):
    """One asks, another pins, a third process folds the same."""
    async with two_catalogs(tmp_path) as (catalog, other):
        source = await catalog.create(spec(), PORTS)
        made = await BackupCommands(catalog).create(source, [1, 2, 3, 4], name="nightly", description="a\nb")
        await other.refresh()
        assert other.backups.backup(made.backup_id) == made
        pinning = BackupCommands(other)
        await asyncio.gather(*(pinning.pinned(made.backup_id, pin(number)) for number in range(4)))
        await catalog.refresh()
        assert catalog.backups.ready(made.backup_id) == other.backups.backup(made.backup_id)
        target = replace(source, name="again", log_id=secrets.token_urlsafe(16), port=0)
        job = await BackupCommands(catalog).restore(made.backup_id, target, PORTS)
        assert (job.target.port, job.status) == (5082, RestoreStatus.PENDING)
        with pytest.raises(AlreadyExists):
            await BackupCommands(other).restore(made.backup_id, target, PORTS)
        with pytest.raises(NotReady, match="delete the backup when the job has ended"):
            await BackupCommands(other).delete(made.backup_id)
        await BackupCommands(other).advance(job.job_id, Cursor(2, "n", "a", 4))
        await BackupCommands(other).finish(job.job_id)
        await catalog.refresh()
        expected = catalog.backups.backups(), catalog.backups.jobs()
    async with sqlite_logs(tmp_path) as logs, started(logs) as catalog:
        assert (catalog.backups.backups(), catalog.backups.jobs()) == expected
        await BackupCommands(catalog).delete(made.backup_id)
        with pytest.raises(NotFound, match=f"Resource {made.backup_id} not found"):
            catalog.backups.backup(made.backup_id)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("name", "description"), [("x" * 257, ""), ("", "x" * 1_025), ("a\nb", ""), ("\0", ""), ("", "\ud800")]
)
async def test_names_that_no_backup_can_have_are_refused_before_the_log(tmp_path, name, description):
    """With the reason; nothing is appended."""
    async with sqlite_logs(tmp_path) as logs, started(logs) as catalog:
        source = await catalog.create(spec(), PORTS)
        with pytest.raises(InvalidRequest, match="of a backup"):
            await BackupCommands(catalog).create(source, [0] * 4, name=name, description=description)
        assert await logs.control.ends() == [1]
