"""Commands on backups and restore jobs: each is an event of the control log, and what the fold makes of it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from producer.catalog import Catalog
from producer.catalog_fold import Outcome, already_exists
from schemas.backup_events import (
    AdvanceRestoreEvent,
    CreateBackupEvent,
    DeleteBackupEvent,
    FinishRestoreEvent,
    PinBackupEvent,
    RestoreBackupEvent,
    check_backup_name,
)
from schemas.backups import Backup, Cursor, Pin, RestoreJob
from schemas.catalog_events import CreateIndexEvent, check_spec
from schemas.errors import NotFound
from schemas.indexes import IndexSpec

__all__ = ["BackupCommands"]


class BackupCommands:
    """Changes the backups of a catalog. Every method raises `LogUnavailable`, `OutcomeUnknown` as the catalog does."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def create(self, spec: IndexSpec, next_offsets: Sequence[int], *, name: str, description: str) -> Backup:
        """Ask for a backup of a living index that shows at least what lies below `next_offsets`.

        Raises `InvalidRequest`, `NotFound`, `NotReady` where the index itself is still being restored.
        """
        check_backup_name(name, description)
        self._catalog.backups.check_whole(spec)
        backup_id = secrets.token_hex(16)
        event = CreateBackupEvent(backup_id, spec.name, spec.log_id, name, description, tuple(next_offsets))
        return _backup(await self._catalog.decide(backup_id, event))

    async def pinned(self, backup_id: str, pin: Pin) -> Backup:
        """Say that a partition is held. Raises `NotFound` where the backup was deleted meanwhile."""
        return _backup(await self._catalog.decide(backup_id, PinBackupEvent(backup_id, pin)))

    async def delete(self, backup_id: str) -> None:
        """Delete a backup. Raises `NotFound`; `NotReady` while a restore job reads it."""
        await self._catalog.refresh()
        self._catalog.backups.backup(backup_id)
        await self._catalog.decide(backup_id, DeleteBackupEvent(backup_id))

    async def restore(self, backup_id: str, target: IndexSpec, ports: Sequence[int]) -> RestoreJob:
        """Make `target` from a backup. Raises `NotFound`, `NotReady`, `AlreadyExists`, `InvalidRequest`."""
        check_spec(target)
        await self._catalog.refresh()
        self._catalog.backups.ready(backup_id)
        if self._lives(target.name):
            raise already_exists(target.name)
        job_id = secrets.token_hex(16)
        event = RestoreBackupEvent(job_id, backup_id, CreateIndexEvent(target, tuple(ports)))
        return _job(await self._catalog.decide(job_id, event))

    async def advance(self, job_id: str, cursor: Cursor) -> RestoreJob:
        """Say how far a job has come. Raises `NotFound`."""
        return _job(await self._catalog.decide(job_id, AdvanceRestoreEvent(job_id, cursor)))

    async def finish(self, job_id: str, *, reason: str = "") -> RestoreJob:
        """Say that a job has ended, well where `reason` is empty. Raises `NotFound`."""
        return _job(await self._catalog.decide(job_id, FinishRestoreEvent(job_id, reason)))

    def _lives(self, name: str) -> bool:
        try:
            self._catalog.get(name)
        except NotFound:
            return False
        return True


def _backup(outcome: Outcome) -> Backup:
    assert isinstance(outcome, Backup), "an event of a backup comes to a backup"
    return outcome


def _job(outcome: Outcome) -> RestoreJob:
    assert isinstance(outcome, RestoreJob), "an event of a job comes to a job"
    return outcome
