"""Backups and restore jobs, as the catalog knows them.

A backup holds one manifest per partition of an index, with all objects that it names. A restore job writes the records
of a backup to the log of a new index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from schemas.indexes import IndexSpec

__all__ = ["Backup", "BackupStatus", "Cursor", "Pin", "RestoreJob", "RestoreStatus"]


class BackupStatus(StrEnum):
    """Whether a backup can be restored."""

    INITIALIZING = "Initializing"
    READY = "Ready"


class RestoreStatus(StrEnum):
    """What became of a restore job."""

    PENDING = "Pending"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


@dataclass(frozen=True, slots=True)
class Pin:
    """The manifest that a backup holds of one partition, and what is in it: live records, namespaces, bytes."""

    partition: int
    version: int
    manifest_digest: bytes
    next_offset: int
    records: int
    namespaces: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup of an index as it was; times are milliseconds since 1970.

    `next_offsets` are the ends of the log's partitions when it was asked for; `pins` by partition.
    `source_deleted_ms` is 0 while the index lives.
    """

    backup_id: str
    source: IndexSpec
    name: str
    description: str
    next_offsets: tuple[int, ...]
    created_ms: int
    pins: Mapping[int, Pin] = field(default_factory=dict)
    source_deleted_ms: int = 0

    @property
    def status(self) -> BackupStatus:
        """Ready as soon as every partition is pinned."""
        return BackupStatus.READY if len(self.pins) == self.source.partitions else BackupStatus.INITIALIZING

    @property
    def records(self) -> int:
        """Live records of all partitions."""
        return sum(pin.records for pin in self.pins.values())


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a restore job has come: past the id `after` of a namespace of a partition, with so many records."""

    partition: int = 0
    namespace: str = ""
    after: str = ""
    records: int = 0


@dataclass(frozen=True, slots=True)
class RestoreJob:
    """The making of `target` from a backup; `reason` says why it failed. Times are milliseconds since 1970."""

    job_id: str
    backup: Backup
    target: IndexSpec
    created_ms: int
    status: RestoreStatus = RestoreStatus.PENDING
    cursor: Cursor = field(default_factory=Cursor)
    completed_ms: int = 0
    reason: str = ""

    @property
    def percent_complete(self) -> float:
        """Share of the records that are written, 0 to 100; 100 only when all of it is done."""
        if self.status is RestoreStatus.COMPLETED:
            return 100.0
        return min(99.0, 100.0 * self.cursor.records / max(1, self.backup.records))
