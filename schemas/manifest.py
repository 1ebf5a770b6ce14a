"""What a partition's state consists of: manifests, segment tables, changes. The only speller of manifest.proto.

Invariants of a manifest, asserted by `check` before it is written and after it is read:

1. `version` >= 1, `parent_version` < `version`, `epoch` >= 1.
2. `recent` is ordered by offset without overlap, ends at or before `next_offset`, and has at most
   `limits.RECENT_DELTAS_MAX` entries.
3. Segment numbers are distinct and below `next_segment_id`.
4. Every reference has a 32-byte digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from google.protobuf.message import DecodeError

from schemas.errors import CorruptData, UnsupportedFormat
from schemas.limits import RECENT_DELTAS_MAX
from schemas.pb import manifest_pb2 as pb

__all__ = [
    "FLAT",
    "FORMAT",
    "GRAPH",
    "Checkpoint",
    "DeltaRef",
    "Manifest",
    "ObjectRef",
    "SegmentEntry",
    "SegmentTable",
    "check",
    "decode_checkpoint",
    "decode_manifest",
    "decode_table",
    "encode_checkpoint",
    "encode_manifest",
    "encode_table",
]

FORMAT = 1
FLAT = int(pb.SEGMENT_KIND_FLAT)
GRAPH = int(pb.SEGMENT_KIND_GRAPH)
_DIGEST_BYTES = 32
# Tag and length of the field `self_digest`, the last one of a message.
_SEAL = b"\x82\x02\x20"


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An immutable object: its name in the store, its size and its SHA-256."""

    name: str
    size_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class DeltaRef:
    """One publish that is not rolled up yet; `segment_id` is 0 where it added no rows."""

    segment_id: int
    object: ObjectRef
    rows: int
    begin_offset: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """A rolled-up segment and the objects that hold its parts, its kills and its patches."""

    segment_id: int
    kind: int
    records: ObjectRef
    vectors: ObjectRef | None
    graph: ObjectRef | None
    rows: int
    changes: tuple[ObjectRef, ...] = ()
    offset_min: int = 0
    offset_max: int = 0
    namespace: str = ""
    dead_rows: int = 0
    graph_m: int = 0
    graph_ef_construction: int = 0
    graph_ef_search: int = 0
    graph_seed: int = 0
    graph_elements: int = 0
    graph_recall: float = 0.0


@dataclass(frozen=True, slots=True)
class SegmentTable:
    """All segments older than the manifest's recent ones."""

    segments: tuple[SegmentEntry, ...] = ()
    namespaces: tuple[ObjectRef, ...] = ()
    dead_letters: tuple[ObjectRef, ...] = ()
    outcomes: ObjectRef | None = None
    keys: tuple[ObjectRef, ...] = ()

    def objects(self) -> list[ObjectRef]:
        """Return every object that the table names."""
        named: list[ObjectRef] = []
        for entry in self.segments:
            named.append(entry.records)
            named.extend(ref for ref in (entry.vectors, entry.graph) if ref is not None)
            named.extend(entry.changes)
        named.extend(self.namespaces)
        named.extend(self.dead_letters)
        named.extend(self.keys)
        if self.outcomes is not None:
            named.append(self.outcomes)
        return named


@dataclass(frozen=True, slots=True)
class Manifest:
    """The one commit point of a partition; see manifest.proto for every field."""

    index_id: str
    log_id: str
    partition: int
    version: int
    epoch: int
    next_offset: int
    lineage: int = 0
    parent_version: int = 0
    parent_digest: bytes = b""
    applied_time_ms: int = 0
    next_segment_id: int = 1
    recent: tuple[DeltaRef, ...] = ()
    table: ObjectRef | None = None
    created_ms: int = 0
    dead_letters: int = 0
    writer: str = ""
    highest_offset: int = 0
    self_digest: bytes = field(default=b"", compare=False)

    def advance(self, **changes: object) -> Manifest:
        """Return the next manifest after this one: version + 1 with this one as parent, and `changes`."""
        after = replace(
            self,
            version=self.version + 1,
            parent_version=self.version,
            parent_digest=self.self_digest,
            self_digest=b"",
            **changes,  # type: ignore[arg-type] # the field names are checked by replace itself
        )
        return replace(after, highest_offset=max(after.highest_offset, after.next_offset))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The newest manifest whose objects are all durable, and the one before it."""

    version: int
    next_offset: int
    manifest_digest: bytes
    previous_version: int


def check(manifest: Manifest) -> None:
    """Assert the invariants of this module; raises `CorruptData` naming the first that is broken."""

    def need(truth: bool, what: str) -> None:  # noqa: FBT001 # an assertion with a message
        if not truth:
            raise CorruptData(f"Manifest {manifest.index_id}/{manifest.partition} v{manifest.version}: {what}.")

    need(manifest.version >= 1 and manifest.epoch >= 1, "version or epoch below 1")
    need(0 <= manifest.parent_version < manifest.version, "parent version is not older")
    need(len(manifest.recent) <= RECENT_DELTAS_MAX, f"more than {RECENT_DELTAS_MAX} recent deltas")
    at = 0
    for delta in manifest.recent:
        need(at <= delta.begin_offset <= delta.next_offset, "recent deltas overlap or are out of order")
        at = delta.next_offset
    need(at <= manifest.next_offset, "a recent delta lies beyond next_offset")
    ids = [delta.segment_id for delta in manifest.recent if delta.segment_id]
    need(len(set(ids)) == len(ids), "a segment number occurs twice")
    need(all(0 < number < manifest.next_segment_id for number in ids), "a segment number is out of range")
    refs = [delta.object for delta in manifest.recent] + ([manifest.table] if manifest.table else [])
    need(all(len(ref.sha256) == _DIGEST_BYTES for ref in refs), "a reference has no digest")


def encode_manifest(manifest: Manifest) -> tuple[Manifest, bytes]:
    """Return the manifest with its self digest, and its bytes. Raises `CorruptData` where an invariant is broken."""
    check(manifest)
    message = pb.Manifest(
        format=FORMAT,
        index_id=manifest.index_id,
        log_id=manifest.log_id,
        lineage=manifest.lineage,
        partition=manifest.partition,
        version=manifest.version,
        epoch=manifest.epoch,
        parent_version=manifest.parent_version,
        parent_digest=manifest.parent_digest,
        next_offset=manifest.next_offset,
        applied_time_ms=manifest.applied_time_ms,
        next_segment_id=manifest.next_segment_id,
        table=_ref(manifest.table),
        created_ms=manifest.created_ms,
        dead_letters=manifest.dead_letters,
        writer=manifest.writer,
        highest_offset=manifest.highest_offset,
    )
    for delta in manifest.recent:
        message.recent.add(
            segment_id=delta.segment_id,
            object=_ref(delta.object),
            rows=delta.rows,
            begin_offset=delta.begin_offset,
            next_offset=delta.next_offset,
        )
    data = _seal(message)
    return replace(manifest, self_digest=data[-_DIGEST_BYTES:]), data


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest.

    Raises `CorruptData` where its digest or an invariant does not hold; `UnsupportedFormat` where it is newer than we.
    """
    message = pb.Manifest()
    _check_seal(data, "manifest")
    _parse(message, data, "manifest")
    manifest = Manifest(
        index_id=message.index_id,
        log_id=message.log_id,
        lineage=message.lineage,
        partition=message.partition,
        version=message.version,
        epoch=message.epoch,
        parent_version=message.parent_version,
        parent_digest=message.parent_digest,
        next_offset=message.next_offset,
        applied_time_ms=message.applied_time_ms,
        next_segment_id=message.next_segment_id,
        recent=tuple(
            DeltaRef(d.segment_id, _unref(d.object), d.rows, d.begin_offset, d.next_offset) for d in message.recent
        ),
        table=_unref_optional(message.table),
        created_ms=message.created_ms,
        dead_letters=message.dead_letters,
        writer=message.writer,
        highest_offset=message.highest_offset,
        self_digest=message.self_digest,
    )
    check(manifest)
    return manifest


def encode_table(table: SegmentTable) -> bytes:
    """Return the bytes of a segment table."""
    message = pb.SegmentTable(format=FORMAT, outcomes=_ref(table.outcomes))
    for entry in table.segments:
        message.segments.add(
            segment_id=entry.segment_id,
            kind=entry.kind,
            records=_ref(entry.records),
            vectors=_ref(entry.vectors),
            graph=_ref(entry.graph),
            rows=entry.rows,
            changes=_refs(entry.changes),
            offset_min=entry.offset_min,
            offset_max=entry.offset_max,
            namespace=entry.namespace,
            dead_rows=entry.dead_rows,
            graph_m=entry.graph_m,
            graph_ef_construction=entry.graph_ef_construction,
            graph_ef_search=entry.graph_ef_search,
            graph_seed=entry.graph_seed,
            graph_elements=entry.graph_elements,
            graph_recall=entry.graph_recall,
        )
    message.namespaces.extend(_refs(table.namespaces))
    message.dead_letters.extend(_refs(table.dead_letters))
    message.idempotency.extend(_refs(table.keys))
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def decode_table(data: bytes) -> SegmentTable:
    """Read a segment table. Raises `CorruptData`, `UnsupportedFormat`."""
    message = pb.SegmentTable()
    _parse(message, data, "segment table")
    return SegmentTable(
        segments=tuple(_entry(entry) for entry in message.segments),
        namespaces=tuple(_unref(ref) for ref in message.namespaces),
        dead_letters=tuple(_unref(ref) for ref in message.dead_letters),
        outcomes=_unref_optional(message.outcomes),
        keys=tuple(_unref(ref) for ref in message.idempotency),
    )


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of a checkpoint marker."""
    return _seal(
        pb.Checkpoint(
            format=FORMAT,
            version=checkpoint.version,
            next_offset=checkpoint.next_offset,
            manifest_digest=checkpoint.manifest_digest,
            previous_version=checkpoint.previous_version,
        )
    )


def decode_checkpoint(data: bytes) -> Checkpoint:
    """Read a checkpoint marker. Raises `CorruptData`, `UnsupportedFormat`."""
    message = pb.Checkpoint()
    _check_seal(data, "checkpoint")
    _parse(message, data, "checkpoint")
    return Checkpoint(message.version, message.next_offset, message.manifest_digest, message.previous_version)


def _seal(message: pb.Manifest | pb.Checkpoint) -> bytes:
    """Return the bytes of `message`, which end with the digest of all that stands before it: so in every format."""
    body: bytes = message.SerializeToString(deterministic=True)
    return body + _SEAL + hashlib.sha256(body).digest()


def _check_seal(data: bytes, what: str) -> None:
    """Tell damage before anything is parsed: a format number that was turned round is no newer version."""
    end = len(data) - _DIGEST_BYTES
    body = data[: max(0, end - len(_SEAL))]
    if data[len(body) : max(0, end)] != _SEAL or hashlib.sha256(body).digest() != data[end:]:
        raise CorruptData(f"The {what} does not match its own digest.")


def _parse(message: pb.Manifest | pb.SegmentTable | pb.Checkpoint, data: bytes, what: str) -> None:
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise CorruptData(f"The {what} cannot be parsed: {error}.") from error
    if message.format > FORMAT:
        raise UnsupportedFormat(
            f"The {what} has format {message.format}, this version reads up to {FORMAT}: upgrade to read it."
        )
    if message.format < 1:
        raise CorruptData(f"The {what} carries no format number.")


def _entry(entry: pb.SegmentEntry) -> SegmentEntry:
    return SegmentEntry(
        segment_id=entry.segment_id,
        kind=int(entry.kind),
        records=_unref(entry.records),
        vectors=_unref_optional(entry.vectors),
        graph=_unref_optional(entry.graph),
        rows=entry.rows,
        changes=tuple(_unref(ref) for ref in entry.changes),
        offset_min=entry.offset_min,
        offset_max=entry.offset_max,
        namespace=entry.namespace,
        dead_rows=entry.dead_rows,
        graph_m=entry.graph_m,
        graph_ef_construction=entry.graph_ef_construction,
        graph_ef_search=entry.graph_ef_search,
        graph_seed=entry.graph_seed,
        graph_elements=entry.graph_elements,
        graph_recall=entry.graph_recall,
    )


def _ref(ref: ObjectRef | None) -> pb.ObjectRef | None:
    if ref is None:
        return None
    return pb.ObjectRef(name=ref.name, size_bytes=ref.size_bytes, sha256=ref.sha256)


def _refs(refs: Sequence[ObjectRef]) -> list[pb.ObjectRef]:
    return [pb.ObjectRef(name=ref.name, size_bytes=ref.size_bytes, sha256=ref.sha256) for ref in refs]


def _unref(ref: pb.ObjectRef) -> ObjectRef:
    return ObjectRef(ref.name, ref.size_bytes, ref.sha256)


def _unref_optional(ref: pb.ObjectRef) -> ObjectRef | None:
    return _unref(ref) if ref.name else None
