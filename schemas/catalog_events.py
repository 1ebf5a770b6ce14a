"""Events of the control log, whose fold is the catalog: of indexes, API keys, backups, and imports.

The record's key is the index name, `keys/<id>`, or the id of a backup or of a restore job. `decode_catalog` of any
bytes returns an event or raises `CorruptData` or `UnsupportedFormat`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import orjson
from google.protobuf.message import DecodeError

from schemas.backup_events import BackupEvent, RestoreBackupEvent, decode_backup_event, encode_backup_event
from schemas.errors import CorruptData, InvalidRequest
from schemas.events import check_format
from schemas.import_events import ImportEvent, from_message, to_message
from schemas.indexes import IndexSpec, Metric, VectorType, check_index_name
from schemas.key_events import CreateKeyEvent, RevokeKeyEvent, read_created_key, read_revoked_key, write_key_event
from schemas.limits import (
    DIMENSION_MAX,
    INDEX_BOUND_MAX,
    RECALL_TARGET_MAX,
    RECALL_TARGET_MIN,
    TAGS_MAX,
    WAIT_MS_MAX,
)
from schemas.pb import event_pb2 as pb

__all__ = [
    "CatalogEvent",
    "ConfigureIndexEvent",
    "CreateIndexEvent",
    "CreateKeyEvent",
    "DeleteIndexEvent",
    "RevokeKeyEvent",
    "check_bounds",
    "check_index_name",
    "check_recall_target",
    "check_spec",
    "check_write_wait",
    "configured",
    "decode_catalog",
    "encode_catalog",
    "is_protected",
]

_LOG_ID = re.compile(r"[A-Za-z0-9_-]{22}")
_PARTITIONS_MAX = 10_000
_PORT_MAX = 65_535
# What the absence of a recall target means, whatever the default of a new index will be.
_RECALL_TARGET_ABSENT = 0.95


@dataclass(frozen=True, slots=True)
class CreateIndexEvent:
    """An index is to be: the fold assigns one of `ports` (best first), so the port of `spec` is 0 here."""

    spec: IndexSpec
    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DeleteIndexEvent:
    """The living index of that name is to go."""

    name: str


@dataclass(frozen=True, slots=True)
class ConfigureIndexEvent:
    """The living index of that name is to change; None, and tags that are not named, mean that it stays as it is.

    `tags` are merged over those that it has; an empty value takes the tag away. `max_records` and `max_bytes` are the
    bounds above which upserts are refused, 0 for none.
    """

    name: str
    recall_target: float | None = None
    deletion_protection: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    write_wait_ms: int | None = None
    max_records: int | None = None
    max_bytes: int | None = None


KeyEvent = CreateKeyEvent | RevokeKeyEvent
CatalogEvent = CreateIndexEvent | DeleteIndexEvent | ConfigureIndexEvent | KeyEvent | BackupEvent | ImportEvent


def encode_catalog(event: CatalogEvent) -> bytes:
    """Return the protobuf form of `event`."""
    message = pb.CatalogEvent()
    if isinstance(event, CreateKeyEvent | RevokeKeyEvent):
        write_key_event(message, event)
    elif isinstance(event, DeleteIndexEvent):
        message.delete_index.name = event.name
    elif isinstance(event, ConfigureIndexEvent):
        message.configure_index.CopyFrom(
            pb.ConfigureIndex(
                name=event.name,
                recall_target=event.recall_target,
                deletion_protection=event.deletion_protection,
                tags=dict(event.tags),
                write_wait_ms=event.write_wait_ms,
                max_records=event.max_records,
                max_bytes=event.max_bytes,
            )
        )
    elif isinstance(event, CreateIndexEvent):
        message.create_index.CopyFrom(_create_message(event))
    elif isinstance(event, ImportEvent):
        to_message(event, message)
    else:
        create = _create_message(event.create) if isinstance(event, RestoreBackupEvent) else None
        encode_backup_event(event, message, create)
    value: bytes = message.SerializeToString(deterministic=True)
    return value


def decode_catalog(value: bytes, headers: Mapping[str, bytes]) -> CatalogEvent:
    """Return the event in a control record's value. Raises `CorruptData`, `UnsupportedFormat`."""
    check_format(headers)
    try:
        message = pb.CatalogEvent.FromString(value)
        match message.WhichOneof("operation"):
            case "create_index":
                return _create(message.create_index)
            case "delete_index":
                check_index_name(message.delete_index.name)
                return DeleteIndexEvent(message.delete_index.name)
            case "configure_index":
                return _configure(message.configure_index)
            case "start_import" | "report_import" | "cancel_import":
                return from_message(message)
            case "create_key":
                return read_created_key(message.create_key)
            case "revoke_key":
                return read_revoked_key(message.revoke_key)
            case operation:
                create = _create(message.restore_backup.create) if operation == "restore_backup" else None
                event = decode_backup_event(message, create)
                if event is not None:
                    return event
                raise CorruptData(f"The record holds no catalog operation that is known ({operation}).")
    except DecodeError as error:
        raise CorruptData(f"The record is not a protobuf catalog event: {error}") from error
    except InvalidRequest as error:
        raise CorruptData(error.message) from error


def check_spec(spec: IndexSpec) -> None:
    """Raise `InvalidRequest` where an index cannot be like that."""
    check_index_name(spec.name)
    if not _LOG_ID.fullmatch(spec.log_id):
        raise InvalidRequest(f"Log id must be 22 of A-Z, a-z, 0-9, '-' and '_', got {spec.log_id[:80]!r}")
    if not 1 <= spec.partitions <= _PARTITIONS_MAX:
        raise InvalidRequest(f"Partitions must be 1 to {_PARTITIONS_MAX}, got {spec.partitions}")
    if spec.vector_type is VectorType.SPARSE:
        if spec.metric is not Metric.DOTPRODUCT:
            raise InvalidRequest("Sparse vector indexes must use the metric dotproduct")
        if spec.dimension:
            raise InvalidRequest("dimension should not be specified for sparse indexes")
    elif not 1 <= spec.dimension <= DIMENSION_MAX:
        raise InvalidRequest(f"Dimension must be 1 to {DIMENSION_MAX}, got {spec.dimension}", limit=DIMENSION_MAX)
    check_recall_target(spec.recall_target)
    check_write_wait(spec.write_wait_ms)
    try:
        settings = orjson.loads(spec.settings)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"Index settings are not valid JSON: {error}") from error
    if not isinstance(settings, dict):
        raise InvalidRequest("Index settings must be a JSON object")


def check_recall_target(target: float) -> None:
    """Raise `InvalidRequest` unless an index can ask for that share of the true nearest rows."""
    # Written so that NaN fails.
    if not RECALL_TARGET_MIN <= target <= RECALL_TARGET_MAX:
        raise InvalidRequest(
            f"recall_target must be a number from {RECALL_TARGET_MIN} to {RECALL_TARGET_MAX}, got {target:g}: the "
            "share of the true nearest records that a query is to find",
            limit=RECALL_TARGET_MAX,
        )


def check_write_wait(wait_ms: int | None) -> None:
    """Raise `InvalidRequest` unless an index can hold its writes for that long until they are visible."""
    if wait_ms is not None and not 0 <= wait_ms <= WAIT_MS_MAX:
        raise InvalidRequest(f"write_wait_ms must be 0 to {WAIT_MS_MAX} milliseconds, got {wait_ms}", limit=WAIT_MS_MAX)


def check_bounds(max_records: int | None, max_bytes: int | None) -> None:
    """Raise `InvalidRequest` unless an index can be bounded so; 0 is no bound."""
    for name, bound in (("max_records", max_records), ("max_bytes", max_bytes)):
        if bound is not None and not 0 <= bound <= INDEX_BOUND_MAX:
            raise InvalidRequest(
                f"{name} must be 0 (no bound) to {INDEX_BOUND_MAX}, got {bound}", limit=INDEX_BOUND_MAX
            )


def configured(spec: IndexSpec, event: ConfigureIndexEvent) -> IndexSpec:
    """Return the index after `event`. Raises `InvalidRequest` where it would have too many tags."""
    settings = orjson.loads(spec.settings)
    if event.tags:
        known = settings.get("tags")
        # A foreign create may have put anything there.
        tags = {**(known if isinstance(known, dict) else {}), **event.tags}
        settings["tags"] = {key: value for key, value in tags.items() if value}
        if len(settings["tags"]) > TAGS_MAX:
            raise InvalidRequest(
                f"An index can have {TAGS_MAX} tags; with those that it has there would be {len(settings['tags'])}",
                limit=TAGS_MAX,
            )
    if event.deletion_protection is not None:
        settings["deletion_protection"] = event.deletion_protection
    for name, bound in (("max_records", event.max_records), ("max_bytes", event.max_bytes)):
        if bound is not None:
            settings[name] = bound
    target = spec.recall_target if event.recall_target is None else event.recall_target
    wait_ms = spec.write_wait_ms if event.write_wait_ms is None else event.write_wait_ms
    return replace(spec, settings=orjson.dumps(settings), recall_target=target, write_wait_ms=wait_ms)


def is_protected(spec: IndexSpec) -> bool:
    """Say whether the index must not be deleted."""
    return bool(orjson.loads(spec.settings).get("deletion_protection") == "enabled")


def _configure(message: pb.ConfigureIndex) -> ConfigureIndexEvent:
    check_index_name(message.name)
    target = message.recall_target if message.HasField("recall_target") else None
    if target is not None:
        check_recall_target(target)
    protection = message.deletion_protection if message.HasField("deletion_protection") else None
    if protection not in (None, "enabled", "disabled"):
        raise CorruptData(f"The catalog event has an unknown deletion protection: {protection[:80]!r}")
    wait_ms = message.write_wait_ms if message.HasField("write_wait_ms") else None
    check_write_wait(wait_ms)
    records = message.max_records if message.HasField("max_records") else None
    size = message.max_bytes if message.HasField("max_bytes") else None
    check_bounds(records, size)
    return ConfigureIndexEvent(message.name, target, protection, dict(message.tags), wait_ms, records, size)


def _create_message(event: CreateIndexEvent) -> pb.CreateIndex:
    spec = event.spec
    written = pb.IndexSpec(
        name=spec.name,
        log_id=spec.log_id,
        partitions=spec.partitions,
        dimension=spec.dimension,
        metric=spec.metric.value,
        vector_type=spec.vector_type.value,
        settings=spec.settings,
        recall_target=0.0 if spec.recall_target == _RECALL_TARGET_ABSENT else spec.recall_target,
        write_wait_ms=spec.write_wait_ms,
    )
    return pb.CreateIndex(spec=written, ports=event.ports)


def _create(message: pb.CreateIndex) -> CreateIndexEvent:
    written = message.spec
    try:
        metric, vector_type = Metric(written.metric), VectorType(written.vector_type)
    except ValueError as error:
        raise CorruptData(f"The catalog event is of another version: {error}") from error
    spec = IndexSpec(
        name=written.name,
        log_id=written.log_id,
        partitions=written.partitions,
        dimension=written.dimension,
        metric=metric,
        vector_type=vector_type,
        settings=written.settings,
        recall_target=written.recall_target or _RECALL_TARGET_ABSENT,
        write_wait_ms=written.write_wait_ms if written.HasField("write_wait_ms") else None,
    )
    check_spec(spec)
    ports = tuple(message.ports)
    if any(not 1 <= port <= _PORT_MAX for port in ports):
        raise CorruptData(f"The catalog event offers a port outside 1 to {_PORT_MAX}.")
    return CreateIndexEvent(spec, ports)
