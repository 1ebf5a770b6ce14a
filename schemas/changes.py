"""The small lists of an object: kills, patches, namespaces, outcomes, dead letters, keys; and an object's footer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from schemas.errors import CorruptData, UnsupportedFormat
from schemas.idempotency import entries_from_bytes
from schemas.manifest import FORMAT
from schemas.pb import manifest_pb2 as pb

__all__ = [
    "Changes",
    "DeadLetter",
    "Footer",
    "NamespaceRow",
    "Outcome",
    "Patch",
    "Section",
    "SegmentChanges",
    "decode_changes",
    "decode_footer",
    "encode_changes",
    "encode_footer",
    "merge_namespaces",
]

_NO_ROWS = np.empty(0, np.uint32)
_NO_OFFSETS = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Patch:
    """Rows of one segment that changed their metadata at `offset`; `rows` is a portable roaring bitmap."""

    offset: int
    rows: bytes
    set_metadata: bytes


@dataclass(frozen=True, slots=True)
class SegmentChanges:
    """What happened to rows of one segment: `killed_rows` uint32 [n] ascending, `killed_offsets` int64 [n]."""

    segment_id: int
    killed_rows: npt.NDArray[np.uint32] = field(default_factory=lambda: _NO_ROWS)
    killed_offsets: npt.NDArray[np.int64] = field(default_factory=lambda: _NO_OFFSETS)
    patches: tuple[Patch, ...] = ()


@dataclass(frozen=True, slots=True)
class NamespaceRow:
    """A namespace as of `offset`; rows of it with an offset below `floor` are dead."""

    name: str
    exists: bool
    floor: int
    offset: int
    schema: bytes = b""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an event that depends on the state at its offset; `code` is a gRPC status."""

    offset: int
    code: int
    matched_records: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be folded, with its original bytes."""

    offset: int
    time_ms: int
    reason: str
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """The small lists of one object; `keys` are entries of `schemas.idempotency`."""

    segments: tuple[SegmentChanges, ...] = ()
    namespaces: tuple[NamespaceRow, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    dead_letters: tuple[DeadLetter, ...] = ()
    keys: bytes = b""


@dataclass(frozen=True, slots=True)
class Section:
    """One named byte range of an object, with the CRC-32 of its bytes."""

    name: str
    offset: int
    size_bytes: int
    crc32: int


@dataclass(frozen=True, slots=True)
class Footer:
    """What an object says of itself."""

    sections: tuple[Section, ...]
    rows: int
    dimension: int


def encode_changes(changes: Changes) -> bytes:
    """Return the bytes of `changes`."""
    message = pb.Changes()
    for item in changes.segments:
        message.segments.add(
            segment_id=item.segment_id,
            killed_rows=np.ascontiguousarray(item.killed_rows, "<u4").tobytes(),
            killed_offsets=np.ascontiguousarray(item.killed_offsets, "<i8").tobytes(),
            patches=[pb.Patch(offset=p.offset, rows=p.rows, set_metadata=p.set_metadata) for p in item.patches],
        )
    for row in changes.namespaces:
        message.namespaces.add(name=row.name, exists=row.exists, floor=row.floor, offset=row.offset, schema=row.schema)
    for outcome in changes.outcomes:
        message.outcomes.add(
            offset=outcome.offset,
            code=outcome.code,
            matched_records=outcome.matched_records,
            time_ms=outcome.time_ms,
        )
    for letter in changes.dead_letters:
        message.dead_letters.add(
            offset=letter.offset,
            time_ms=letter.time_ms,
            reason=letter.reason,
            key=letter.key,
            value=letter.value,
            headers=[pb.Header(name=name, value=value) for name, value in letter.headers],
        )
    message.idempotency = changes.keys
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def decode_changes(data: bytes) -> Changes:
    """Read `Changes`. Raises `CorruptData`."""
    message = pb.Changes()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise CorruptData(f"The changes of an object cannot be parsed: {error}.") from error
    return Changes(
        segments=tuple(_segment_changes(item) for item in message.segments),
        namespaces=tuple(
            NamespaceRow(row.name, row.exists, row.floor, row.offset, row.schema) for row in message.namespaces
        ),
        outcomes=tuple(Outcome(o.offset, o.code, o.matched_records, o.time_ms) for o in message.outcomes),
        dead_letters=tuple(
            DeadLetter(
                letter.offset,
                letter.time_ms,
                letter.reason,
                letter.key if letter.HasField("key") else None,
                letter.value,
                tuple((header.name, header.value) for header in letter.headers),
            )
            for letter in message.dead_letters
        ),
        keys=_keys(message.idempotency),
    )


def encode_footer(footer: Footer) -> bytes:
    """Return the bytes of an object's footer."""
    data: bytes = pb.ObjectFooter(
        format=FORMAT,
        rows=footer.rows,
        dimension=footer.dimension,
        sections=[
            pb.Section(name=s.name, offset=s.offset, size_bytes=s.size_bytes, crc32=s.crc32) for s in footer.sections
        ],
    ).SerializeToString(deterministic=True)
    return data


def decode_footer(data: bytes) -> Footer:
    """Read an object's footer. Raises `CorruptData`, `UnsupportedFormat`."""
    message = pb.ObjectFooter()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise CorruptData(f"The footer of an object cannot be parsed: {error}.") from error
    if message.format > FORMAT:
        raise UnsupportedFormat(f"The object has format {message.format}, this version reads up to {FORMAT}.")
    return Footer(
        tuple(Section(s.name, s.offset, s.size_bytes, s.crc32) for s in message.sections),
        message.rows,
        message.dimension,
    )


def merge_namespaces(lists: Sequence[Sequence[NamespaceRow]], *, from_offset: int = 0) -> dict[str, NamespaceRow]:
    """Return the newest row of every namespace, of those that changed at `from_offset` or later."""
    newest: dict[str, NamespaceRow] = {}
    for rows in lists:
        for row in rows:
            if row.offset < from_offset:
                continue
            known = newest.get(row.name)
            if known is None or known.offset <= row.offset:
                newest[row.name] = row
    return newest


def _keys(data: bytes) -> bytes:
    entries_from_bytes(data)
    return data


def _segment_changes(item: pb.SegmentChanges) -> SegmentChanges:
    rows = np.frombuffer(item.killed_rows, "<u4")
    offsets = np.frombuffer(item.killed_offsets, "<i8")
    if len(rows) != len(offsets):
        raise CorruptData(f"Kills of segment {item.segment_id}: {len(rows)} rows with {len(offsets)} offsets.")
    return SegmentChanges(
        item.segment_id,
        rows,
        offsets,
        tuple(Patch(p.offset, p.rows, p.set_metadata) for p in item.patches),
    )
