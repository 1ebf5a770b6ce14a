"""Backups and restore jobs as a fold of the control log: part of the catalog, so every process sees the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from schemas.backup_events import (
    AdvanceRestoreEvent,
    BackupEvent,
    CreateBackupEvent,
    DeleteBackupEvent,
    FinishRestoreEvent,
    PinBackupEvent,
    RestoreBackupEvent,
)
from schemas.backups import Backup, BackupStatus, RestoreJob, RestoreStatus
from schemas.errors import AlreadyExists, InvalidRequest, NotFound, NotReady
from schemas.indexes import IndexSpec

__all__ = ["BackupFold", "not_found"]


class BackupFold:
    """Which backups there are and what became of restore jobs; those that come later see what earlier ones did."""

    def __init__(self) -> None:
        self._backups: dict[str, Backup] = {}
        self._jobs: dict[str, RestoreJob] = {}
        # The job of an index that is not whole: its restore is under way, or failed.
        self._partial: dict[str, str] = {}
        self._removed: list[Backup] = []

    def backup(self, backup_id: str) -> Backup:
        """Return a backup. Raises `NotFound`."""
        found = self._backups.get(backup_id)
        if found is None:
            raise not_found(backup_id)
        return found

    def backups(self) -> Sequence[Backup]:
        """Return all backups, oldest first."""
        return tuple(self._backups.values())

    def removed(self) -> Sequence[Backup]:
        """Return the backups that were deleted: what they held is to be let go."""
        return tuple(self._removed)

    def of_index(self, index_id: str) -> Sequence[Backup]:
        """Return the backups of one index, deleted or not, oldest first."""
        return [backup for backup in self._backups.values() if backup.source.index_id == index_id]

    def job(self, job_id: str) -> RestoreJob:
        """Return a restore job. Raises `NotFound`."""
        found = self._jobs.get(job_id)
        if found is None:
            raise not_found(job_id)
        return found

    def jobs(self) -> Sequence[RestoreJob]:
        """Return all restore jobs, oldest first."""
        return tuple(self._jobs.values())

    def partial(self, index_id: str) -> RestoreJob | None:
        """Return the job of an index that does not hold all of its backup: one under way, or a failed one."""
        job_id = self._partial.get(index_id)
        return None if job_id is None else self._jobs[job_id]

    def ready(self, backup_id: str) -> Backup:
        """Return a backup that can be restored. Raises `NotFound`, `NotReady`."""
        found = self.backup(backup_id)
        if found.status is not BackupStatus.READY:
            raise NotReady(
                f"Backup {backup_id} is still being made: try again when its status is Ready.",
                retry_after_seconds=1,
            )
        return found

    def create(self, event: CreateBackupEvent, source: IndexSpec, time_ms: int) -> Backup:
        """Take in that a backup was asked for. Raises `AlreadyExists`, `InvalidRequest`, `NotReady`."""
        if event.backup_id in self._backups:
            raise AlreadyExists(f"Resource {event.backup_id} already exists")
        if len(event.next_offsets) != source.partitions:
            raise InvalidRequest(f"A backup of {source.name} needs {source.partitions} positions")
        self.check_whole(source)
        made = Backup(event.backup_id, source, event.name, event.description, event.next_offsets, time_ms)
        self._backups[made.backup_id] = made
        return made

    def check_whole(self, source: IndexSpec) -> None:
        """Raise `NotReady` where the index does not hold all of the backup that it is made from."""
        job = self.partial(source.index_id)
        if job is not None:
            raise NotReady(f"Index {source.name} is not whole: restore job {job.job_id} is {job.status.value}.")

    def restore(self, event: RestoreBackupEvent, target: IndexSpec, time_ms: int) -> RestoreJob:
        """Take in that `target` is made from a backup that is ready."""
        job = RestoreJob(event.job_id, self._backups[event.backup_id], target, time_ms)
        self._jobs[job.job_id] = job
        self._partial[target.index_id] = job.job_id
        return job

    def apply(self, event: BackupEvent, time_ms: int) -> Backup | RestoreJob:
        """Take in what becomes of a backup or a job. Raises `NotFound`, `NotReady`, `InvalidRequest`."""
        match event:
            case PinBackupEvent():
                return self._pin(event)
            case DeleteBackupEvent(backup_id):
                return self._delete(backup_id)
            case AdvanceRestoreEvent(job_id, cursor):
                job = self.job(job_id)
                if job.status is RestoreStatus.PENDING:
                    self._jobs[job_id] = job = replace(job, cursor=cursor)
                return job
            case FinishRestoreEvent(job_id, reason):
                job = self.job(job_id)
                if job.status is RestoreStatus.PENDING:
                    self._jobs[job_id] = job = _finished(job, reason, time_ms)
                    if not reason:
                        del self._partial[job.target.index_id]
                return job
        raise InvalidRequest(f"{type(event).__name__} makes something: it is not applied here.")

    def source_deleted(self, spec: IndexSpec, time_ms: int) -> None:
        """Take in that an index is deleted. Raises `NotReady` while a backup of it is being made."""
        backups = self.of_index(spec.index_id)
        for backup in backups:
            if backup.status is BackupStatus.INITIALIZING:
                raise NotReady(
                    f"Backup {backup.backup_id} of index {spec.name} is still being made: delete the index when it is "
                    "Ready, or delete the backup first.",
                    retry_after_seconds=1,
                )
        for backup in backups:
            self._backups[backup.backup_id] = replace(backup, source_deleted_ms=time_ms)
        job_id = self._partial.pop(spec.index_id, None)
        if job_id is not None and self._jobs[job_id].status is RestoreStatus.PENDING:
            self._jobs[job_id] = replace(self._jobs[job_id], status=RestoreStatus.CANCELLED, completed_ms=time_ms)

    def _pin(self, event: PinBackupEvent) -> Backup:
        backup, pin = self.backup(event.backup_id), event.pin
        if pin.partition >= backup.source.partitions:
            raise InvalidRequest(f"Index {backup.source.name} has no partition {pin.partition}")
        if pin.partition not in backup.pins:
            backup = replace(backup, pins={**backup.pins, pin.partition: pin})
            self._backups[backup.backup_id] = backup
        return backup

    def _delete(self, backup_id: str) -> Backup:
        removed = self.backup(backup_id)
        for job in self._jobs.values():
            if job.backup.backup_id == backup_id and job.status is RestoreStatus.PENDING:
                raise NotReady(
                    f"Restore job {job.job_id} reads backup {backup_id}: delete the backup when the job has ended."
                )
        del self._backups[backup_id]
        self._removed.append(removed)
        return removed


def _finished(job: RestoreJob, reason: str, time_ms: int) -> RestoreJob:
    status = RestoreStatus.FAILED if reason else RestoreStatus.COMPLETED
    return replace(job, status=status, completed_ms=time_ms, reason=reason)


def not_found(name: str) -> NotFound:
    """Return the error for an index, a backup or a job that there is not."""
    return NotFound(f"Resource {name} not found", name=name)
