"""What the indexer does for backups: hold the state of each partition, and let go of it when a backup is deleted.

The catalog says which backups are wanted, and which partitions of them are held: nothing is remembered here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from indexer.housekeeping import Housekeeping
from indexer.snapshots.named import NamedObjects
from indexer.snapshots.pinned import let_go
from indexer.snapshots.store import Store, partition_prefix
from producer.backups import BackupCommands
from producer.catalog import Catalog
from producer.steps import Step, no_step
from schemas.backups import Backup, BackupStatus
from schemas.errors import FreshetError
from schemas.indexes import IndexSpec

__all__ = ["BackupKeeper", "clear_all_but_pinned"]

_log = structlog.get_logger(__name__)
_LOOK_AGAIN_SECONDS = 0.1
_RETRY_SECONDS = 1.0


class BackupKeeper:
    """Follows the catalog's backups in a task; `housekeepings` returns those of the partitions of an index."""

    def __init__(
        self,
        catalog: Catalog,
        store: Store,
        housekeepings: Callable[[str], Sequence[Housekeeping]],
        *,
        step: Step = no_step,
    ) -> None:
        self._catalog = catalog
        self._commands = BackupCommands(catalog)
        self._store = store
        self._housekeepings = housekeepings
        self._step = step
        self._let_go: set[str] = set()

    async def run(self) -> None:
        """Work until cancelled; what goes wrong is said and tried again."""
        while True:
            version = self._catalog.version
            pause = 0.0
            for backup in self._catalog.backups.removed():
                if not await self._guarded(backup, self._forget(backup)):
                    pause = _RETRY_SECONDS
            for backup in self._catalog.backups.backups():
                if backup.status is BackupStatus.INITIALIZING:
                    is_well = await self._guarded(backup, self._hold(backup))
                    pause = max(pause, _LOOK_AGAIN_SECONDS if is_well else _RETRY_SECONDS)
            if pause:
                await asyncio.sleep(pause)
            else:
                await self._catalog.changed(version)

    async def _guarded(self, backup: Backup, work: Awaitable[None]) -> bool:
        """Do `work`; say whether it went well. A backup that cannot be made must not keep others from it."""
        try:
            await work
        except (FreshetError, OSError) as error:
            _log.warning("backup_waits", backup=backup.backup_id, index=backup.source.name, reason=str(error))
            return False
        except Exception:  # noqa: BLE001 # the barrier between backups: logged whole, then tried again
            _log.exception("backup_failed", backup=backup.backup_id, index=backup.source.name)
            return False
        return True

    async def _hold(self, backup: Backup) -> None:
        for number, housekeeping in enumerate(self._housekeepings(backup.source.index_id)):
            if number in backup.pins:
                continue
            pin = await housekeeping.pin(backup.backup_id, backup.next_offsets[number])
            if pin is not None:
                made = await self._commands.pinned(backup.backup_id, pin)
                self._step("backup.after_event")
                # What a try before a crash held.
                await housekeeping.let_go(backup.backup_id, but_version=made.pins[number].version)
                _log.info("partition_pinned", backup=backup.backup_id, partition=number, version=pin.version)
                if made.status is BackupStatus.READY:
                    _log.info("backup_ready", backup=backup.backup_id, index=backup.source.name, records=made.records)

    async def _forget(self, backup: Backup) -> None:
        """Let go of what a deleted backup held, where its index lives; what is left of others is cleared as a whole."""
        if backup.backup_id in self._let_go:
            return
        self._step("backup.before_letting_go")
        living = self._housekeepings(backup.source.index_id)
        for number in range(backup.source.partitions):
            if number < len(living):
                await living[number].let_go(backup.backup_id)
            else:
                await asyncio.to_thread(let_go, self._store, backup.source, number, backup.backup_id)
        self._let_go.add(backup.backup_id)


def clear_all_but_pinned(store: Store, spec: IndexSpec) -> None:
    """Delete everything of a deleted index but what backups hold. Raises `CorruptData` where a pin cannot be read."""
    for number in range(spec.partitions):
        needed = NamedObjects(store).by_pins(spec, number)
        prefix = partition_prefix(spec.index_id, number)
        store.delete([name for name in store.list(f"{prefix}/objects") if name not in needed])
        store.delete(store.list(f"{prefix}/objects", is_finished=False))
        for folder in ("manifests", "skip"):
            store.delete_prefix(f"{prefix}/{folder}")
        store.delete([name for name in store.list(prefix) if name.startswith(f"{prefix}/checkpoint-")])
