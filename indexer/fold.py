"""From log records to events that fit the index; what does not fit becomes a dead letter. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from indexer.memtable import Folded
from producer.log.protocol import StoredRecord
from schemas.changes import DeadLetter
from schemas.errors import CorruptData, InvalidRequest, UnsupportedFormat
from schemas.events import Event, decode, namespace_of, sound_vectors, validate
from schemas.idempotency import KEY_HEADER, Mark, mark_of
from schemas.indexes import IndexSpec
from schemas.partitions import partition_of

__all__ = ["Decoded", "decode_records"]

_Found = tuple[StoredRecord, str, Event, Mark | None]


@dataclass(slots=True)
class Decoded:
    """What a batch of records says; `unsupported` is set where it stopped at a newer format."""

    events: list[Folded] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    # Append time of the newest record taken, milliseconds since 1970.
    time_ms: int = 0
    unsupported: UnsupportedFormat | None = None
    unsupported_offset: int = 0


def decode_records(
    records: Sequence[StoredRecord], spec: IndexSpec, partition: int, is_skipped: Callable[[int], bool]
) -> Decoded:
    """Decode `records` of one partition up to the first of a newer format that is not skipped by the operator."""
    result = Decoded()
    # Namespaces by key: there are few in a batch.
    namespaces: dict[bytes | None, str] = {}
    found: list[_Found] = []
    for record in records:
        try:
            namespace = namespaces.get(record.key)
            if namespace is None:
                namespace = namespaces[record.key] = _namespace(record.key, spec, partition)
            headers = dict(record.headers)
            mark = mark_of(headers, namespace) if KEY_HEADER in headers else None
            found.append((record, namespace, decode(record.value, headers), mark))
        except UnsupportedFormat as error:
            if not is_skipped(record.offset):
                result.unsupported, result.unsupported_offset = error, record.offset
                break
            result.dead_letters.append(_dead_letter(record, f"Skipped by the operator: {error.message}"))
        except CorruptData as error:
            result.dead_letters.append(_dead_letter(record, error.message))
        result.time_ms = record.time_ms
    _validate(found, spec, result)
    return result


def _namespace(key: bytes | None, spec: IndexSpec, partition: int) -> str:
    namespace = namespace_of(key)
    home = partition_of(namespace, spec.partitions)
    if home != partition:
        raise CorruptData(f"Namespace '{namespace}' belongs to partition {home}, not {partition}.")
    return namespace


def _validate(found: Sequence[_Found], spec: IndexSpec, result: Decoded) -> None:
    """Add what fits the index to the events, the rest to the dead letters, which stay in the order of offsets."""
    dimension, vector_type = spec.dimension, spec.vector_type
    sound = sound_vectors([event for _, _, event, _ in found], dimension=dimension, vector_type=vector_type)
    refused = []
    for (record, namespace, event, mark), is_sound in zip(found, sound, strict=True):
        try:
            validate(event, dimension=dimension, vector_type=vector_type, is_vector_sound=is_sound, is_decoded=True)
        except InvalidRequest as error:
            refused.append(_dead_letter(record, error.message))
        else:
            result.events.append(Folded(record.offset, record.time_ms, namespace, event, mark))
    if refused:
        result.dead_letters = sorted((*result.dead_letters, *refused), key=lambda letter: letter.offset)


def _dead_letter(record: StoredRecord, reason: str) -> DeadLetter:
    return DeadLetter(record.offset, record.time_ms, reason, record.key, record.value, record.headers)
