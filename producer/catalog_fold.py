"""What a sequence of catalog events leads to: the living indexes, their ports, backups, restore jobs, imports."""

from __future__ import annotations

from dataclasses import replace

import structlog

from producer.backup_fold import BackupFold, not_found
from producer.imports import ImportFold, ImportJob
from producer.keys import KEY_RECORDS, KeyRing
from producer.log.protocol import StoredRecord
from producer.metrics import ProducerMetrics
from schemas.backup_events import CreateBackupEvent, RestoreBackupEvent
from schemas.backups import Backup, RestoreJob
from schemas.catalog_events import (
    CatalogEvent,
    ConfigureIndexEvent,
    CreateIndexEvent,
    CreateKeyEvent,
    DeleteIndexEvent,
    RevokeKeyEvent,
    configured,
    decode_catalog,
    is_protected,
)
from schemas.errors import AlreadyExists, CorruptData, Forbidden, FreshetError, InvalidRequest, UnsupportedFormat
from schemas.import_events import CancelImportEvent, ReportImportEvent, StartImportEvent
from schemas.indexes import IndexSpec
from schemas.keys import ApiKey

__all__ = ["CatalogFold", "Outcome", "already_exists", "protected"]

_log = structlog.get_logger(__name__)

# What an event makes, changes or removes.
Outcome = IndexSpec | ApiKey | Backup | RestoreJob | ImportJob


class CatalogFold:
    """The state that a sequence of catalog events leads to. Deterministic: the same events, the same ports."""

    def __init__(self) -> None:
        self.backups = BackupFold()
        self.imports = ImportFold()
        self.keys = KeyRing()
        self.indexes: dict[str, IndexSpec] = {}
        self.by_port: dict[int, IndexSpec] = {}
        self.removed: list[IndexSpec] = []
        self._ports_used: set[int] = set()

    def apply(self, event: CatalogEvent, *, time_ms: int = 0) -> Outcome | FreshetError:
        """Apply `event`, appended at `time_ms`; return what it made, changed or removed, or its author's error."""
        try:
            match event:
                case CreateIndexEvent():
                    return self._create(event)
                case ConfigureIndexEvent():
                    return self._configure(event)
                case DeleteIndexEvent(name):
                    return self._delete(name, time_ms)
                case CreateKeyEvent() | RevokeKeyEvent():
                    return self.keys.apply(event)
                case StartImportEvent() | ReportImportEvent() | CancelImportEvent():
                    return self.imports.apply(event, self.indexes)
                case CreateBackupEvent():
                    source = self.get(event.index)
                    if source.log_id != event.log_id:
                        raise not_found(event.index)
                    return self.backups.create(event, source, time_ms)
                case RestoreBackupEvent():
                    self.backups.ready(event.backup_id)
                    return self.backups.restore(event, self._create(event.create), time_ms)
                case _:
                    return self.backups.apply(event, time_ms)
        except FreshetError as error:
            return error

    def get(self, name: str) -> IndexSpec:
        """Return the living index of that name. Raises `NotFound`."""
        spec = self.indexes.get(name)
        if spec is None:
            raise not_found(name)
        return spec

    def _delete(self, name: str, time_ms: int) -> IndexSpec:
        removed = self.get(name)
        if is_protected(removed):
            raise protected(name)
        self.backups.source_deleted(removed, time_ms)
        del self.indexes[name]
        self.by_port.pop(removed.port, None)
        self.removed.append(removed)
        self.imports.forget(removed.index_id)
        return removed

    def _create(self, event: CreateIndexEvent) -> IndexSpec:
        if event.spec.name in self.indexes:
            raise already_exists(event.spec.name)
        made = replace(event.spec, port=self._port(event))
        self.indexes[made.name] = made
        if made.port:
            self.by_port[made.port] = made
            self._ports_used.add(made.port)
        return made

    def _configure(self, event: ConfigureIndexEvent) -> IndexSpec:
        changed = configured(self.get(event.name), event)
        self.indexes[event.name] = changed
        if changed.port:
            self.by_port[changed.port] = changed
        return changed

    def apply_record(self, record: StoredRecord, metrics: ProducerMetrics | None) -> Outcome | FreshetError | None:
        """Apply a record of the control log as `apply` does; None where it can't be read, which is counted."""
        try:
            event = decode_catalog(record.value, dict(record.headers))
        except (CorruptData, UnsupportedFormat, InvalidRequest) as error:
            _log.error("control record skipped", offset=record.offset, reason=str(error))
            if metrics is not None:
                metrics.catalog_poison.inc()
            if (record.key or b"").startswith(KEY_RECORDS.encode()):
                self.keys.is_torn = True
            return None
        return self.apply(event, time_ms=record.time_ms)

    def _port(self, event: CreateIndexEvent) -> int:
        """Return the first port that no index ever had, since clients cache hosts; else the first free one; else 0."""
        fresh = (port for port in event.ports if port not in self._ports_used)
        free = (port for port in event.ports if port not in self.by_port)
        return next(fresh, None) or next(free, 0)


def protected(name: str) -> Forbidden:
    """Return the error for an index that must not be deleted."""
    return Forbidden("Deletion protection is enabled for this index. Disable it before deleting.", name=name)


def already_exists(name: str) -> AlreadyExists:
    """Return the error for an index name that is taken."""
    return AlreadyExists(f"Resource {name} already exists", name=name)
