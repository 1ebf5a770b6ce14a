"""Events of the control log that tell of backups and restore jobs; their bytes are part of `schemas.catalog_events`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.backups import Cursor, Pin
from schemas.errors import CorruptData, InvalidRequest
from schemas.limits import BACKUP_DESCRIPTION_BYTES_MAX, BACKUP_NAME_BYTES_MAX
from schemas.pb import event_pb2 as pb

if TYPE_CHECKING:
    from schemas.catalog_events import CreateIndexEvent

__all__ = [
    "AdvanceRestoreEvent",
    "BackupEvent",
    "CreateBackupEvent",
    "DeleteBackupEvent",
    "FinishRestoreEvent",
    "PinBackupEvent",
    "RestoreBackupEvent",
    "check_backup_name",
    "decode_backup_event",
    "encode_backup_event",
]

_ID = re.compile(r"[0-9a-f]{32}")
_DIGEST_BYTES = 32
_BREAKS = {ord("\n"): None, ord("\t"): None}


@dataclass(frozen=True, slots=True)
class CreateBackupEvent:
    """A backup of the living index `index` with that log is to be, each partition at or above its next offset."""

    backup_id: str
    index: str
    log_id: str
    name: str
    description: str
    next_offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PinBackupEvent:
    """One partition of a backup is held, durably."""

    backup_id: str
    pin: Pin


@dataclass(frozen=True, slots=True)
class DeleteBackupEvent:
    """A backup is to go."""

    backup_id: str


@dataclass(frozen=True, slots=True)
class RestoreBackupEvent:
    """An index is to be made from a backup."""

    job_id: str
    backup_id: str
    create: CreateIndexEvent


@dataclass(frozen=True, slots=True)
class AdvanceRestoreEvent:
    """A restore job has come so far."""

    job_id: str
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class FinishRestoreEvent:
    """A restore job has ended; `reason` is empty where every record is there and visible."""

    job_id: str
    reason: str = ""


BackupEvent = (
    CreateBackupEvent
    | PinBackupEvent
    | DeleteBackupEvent
    | RestoreBackupEvent
    | AdvanceRestoreEvent
    | FinishRestoreEvent
)


def check_backup_name(name: str, description: str) -> None:
    """Raise `InvalidRequest` where a backup cannot be called or described like that."""
    for what, text, most in (
        ("name", name, BACKUP_NAME_BYTES_MAX),
        ("description", description, BACKUP_DESCRIPTION_BYTES_MAX),
    ):
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > most:
            raise InvalidRequest(f"The {what} of a backup is {size} bytes; the limit is {most}", limit=most)
        # A description may have several lines.
        line = text.translate(_BREAKS) if what == "description" else text
        if not line.isprintable():
            raise InvalidRequest(f"The {what} of a backup must be printable text, got {text[:80]!r}")


def encode_backup_event(event: BackupEvent, message: pb.CatalogEvent, create: pb.CreateIndex | None) -> None:
    """Write `event` into `message`; `create` is the index of a restore."""
    match event:
        case CreateBackupEvent():
            message.create_backup.CopyFrom(
                pb.CreateBackup(
                    backup_id=event.backup_id,
                    index=event.index,
                    log_id=event.log_id,
                    name=event.name,
                    description=event.description,
                    next_offsets=event.next_offsets,
                )
            )
        case PinBackupEvent(backup_id, pin):
            message.pin_backup.CopyFrom(
                pb.PinBackup(
                    backup_id=backup_id,
                    partition=pin.partition,
                    version=pin.version,
                    manifest_digest=pin.manifest_digest,
                    next_offset=pin.next_offset,
                    records=pin.records,
                    namespaces=pin.namespaces,
                    size_bytes=pin.size_bytes,
                )
            )
        case DeleteBackupEvent(backup_id):
            message.delete_backup.backup_id = backup_id
        case RestoreBackupEvent(job_id, backup_id, _):
            message.restore_backup.CopyFrom(pb.RestoreBackup(job_id=job_id, backup_id=backup_id, create=create))
        case AdvanceRestoreEvent(job_id, cursor):
            message.advance_restore.CopyFrom(
                pb.AdvanceRestore(
                    job_id=job_id,
                    partition=cursor.partition,
                    namespace=cursor.namespace,
                    after=cursor.after,
                    records=cursor.records,
                )
            )
        case FinishRestoreEvent(job_id, reason):
            message.finish_restore.CopyFrom(pb.FinishRestore(job_id=job_id, reason=reason))


def decode_backup_event(message: pb.CatalogEvent, create: CreateIndexEvent | None) -> BackupEvent | None:
    """Return the event that `message` holds, None where it tells of no backup; `create` is the index of a restore.

    Raises `CorruptData`, `InvalidRequest`.
    """
    match message.WhichOneof("operation"):
        case "create_backup":
            made = message.create_backup
            check_backup_name(made.name, made.description)
            offsets = tuple(made.next_offsets)
            return CreateBackupEvent(_id(made.backup_id), made.index, made.log_id, made.name, made.description, offsets)
        case "pin_backup":
            return PinBackupEvent(_id(message.pin_backup.backup_id), _pin(message.pin_backup))
        case "delete_backup":
            return DeleteBackupEvent(_id(message.delete_backup.backup_id))
        case "restore_backup" if create is not None:
            restore = message.restore_backup
            return RestoreBackupEvent(_id(restore.job_id), _id(restore.backup_id), create)
        case "advance_restore":
            moved = message.advance_restore
            cursor = Cursor(moved.partition, moved.namespace, moved.after, moved.records)
            return AdvanceRestoreEvent(_id(moved.job_id), cursor)
        case "finish_restore":
            return FinishRestoreEvent(_id(message.finish_restore.job_id), message.finish_restore.reason)
    return None


def _pin(message: pb.PinBackup) -> Pin:
    if len(message.manifest_digest) != _DIGEST_BYTES or not message.version:
        raise CorruptData("The catalog event pins no manifest.")
    return Pin(
        message.partition,
        message.version,
        message.manifest_digest,
        message.next_offset,
        message.records,
        message.namespaces,
        message.size_bytes,
    )


def _id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise CorruptData(f"The catalog event has an id that is not 32 of 0-9 and a-f: {text[:80]!r}.")
    return text
