"""From log records to events that fit the index; what does not fit becomes a dead letter. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from indexer.memtable import Folded
from producer.log.protocol import StoredRecord
from schemas.changes import DeadLetter
from schemas.errors import CorruptData, InvalidRequest, UnsupportedFormat
from schemas.events import decode, namespace_of, validate
from schemas.indexes import IndexSpec
from schemas.partitions import partition_of

__all__ = ["Decoded", "decode_records"]


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
    for record in records:
        try:
            namespace = namespace_of(record.key)
            home = partition_of(namespace, spec.partitions)
            if home != partition:
                raise CorruptData(f"Namespace '{namespace}' belongs to partition {home}, not {partition}.")
            event = decode(record.value, dict(record.headers))
            validate(event, dimension=spec.dimension, vector_type=spec.vector_type)
        except UnsupportedFormat as error:
            if not is_skipped(record.offset):
                result.unsupported, result.unsupported_offset = error, record.offset
                return result
            result.dead_letters.append(_dead_letter(record, f"Skipped by the operator: {error.message}"))
        except (CorruptData, InvalidRequest) as error:
            result.dead_letters.append(_dead_letter(record, error.message))
        else:
            result.events.append(Folded(record.offset, record.time_ms, namespace, event))
        result.time_ms = record.time_ms
    return result


def _dead_letter(record: StoredRecord, reason: str) -> DeadLetter:
    return DeadLetter(record.offset, record.time_ms, reason, record.key, record.value, record.headers)
