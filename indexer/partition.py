"""The state of one partition of one index, and everything that moves it: fold, publish, merge, checkpoint, collect.

Synchronous and without a clock of its own: `indexer.worker` gives it pace, tests drive it step by step.

A crash between any two steps leaves only garbage: objects that no manifest names. The manifest is the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from indexer.fold import decode_records
from indexer.memtable import Memtable
from indexer.merge_policy import MergeOptions
from indexer.segments.container import pack
from indexer.segments.graph import GraphOptions
from indexer.segments.rows import lay_out
from indexer.snapshots.opener import SnapshotOpener
from indexer.snapshots.snapshot import Snapshot
from indexer.snapshots.store import Store, manifest_name, manifest_version, new_object_name, partition_prefix, skip_name
from producer.log.protocol import StoredRecord
from producer.steps import Step, no_step
from schemas.changes import Changes, encode_changes
from schemas.errors import AlreadyExists, CommitConflict, CorruptData
from schemas.indexes import IndexSpec
from schemas.limits import RECENT_DELTAS_MAX
from schemas.manifest import DeltaRef, Manifest, ObjectRef, SegmentTable, decode_manifest, encode_manifest

__all__ = ["PartitionIndexer", "PartitionOptions"]


@dataclass(frozen=True, slots=True)
class PartitionOptions:
    """Thresholds of one partition; see also `indexer.gc.RetentionOptions`."""

    merge: MergeOptions = field(default_factory=MergeOptions)
    graph: GraphOptions = field(default_factory=GraphOptions)


@dataclass(slots=True)
class _Base:
    """Where a take-over goes on from.

    `lost` are the manifests that show more than the log holds; `highest_offset` is what anybody may have seen.
    """

    snapshot: Snapshot
    lineage: int = 0
    epoch: int = 0
    unreadable: int = 0
    highest_offset: int = 0
    lost: list[str] = field(default_factory=list)

    def add(self, manifest: Manifest) -> None:
        """Take in what a manifest says, whether it is sound or not; those of an older lineage show nothing any more."""
        if manifest.lineage > self.lineage:
            self.lineage, self.highest_offset = manifest.lineage, 0
        if manifest.lineage == self.lineage:
            self.highest_offset = max(self.highest_offset, manifest.highest_offset, manifest.next_offset)
        self.epoch = max(self.epoch, manifest.epoch)


class PartitionIndexer:
    """The one writer of a partition's manifests, as long as nobody takes over."""

    def __init__(
        self,
        store: Store,
        spec: IndexSpec,
        partition: int,
        options: PartitionOptions,
        *,
        clock_ms: Callable[[], int],
        writer: str,
        step: Step = no_step,
    ) -> None:
        """Begin without state; `take_over` comes first. `writer` is a random name of this worker."""
        self.store = store
        # Its worker puts a newer one here when the index was configured: the next merge obeys it.
        self.spec = spec
        self.partition = partition
        self.options = options
        self.clock_ms = clock_ms
        self.step = step
        self.opener = SnapshotOpener(store, spec, partition, None)
        self.snapshot: Snapshot = self.opener.empty()
        # Set at a take-over that passed over damaged or too long manifests.
        self.fallbacks = 0
        self._writer = writer
        self._restart_fold()

    @property
    def folded_offset(self) -> int:
        """First offset that is not in the memtable either: where to read on."""
        return self._folded_offset

    @property
    def is_pending(self) -> bool:
        """Say whether a publish would move the position."""
        return self._folded_offset > self.snapshot.next_offset

    @property
    def pending_dead_letters(self) -> int:
        """Dead letters that the next publish will commit."""
        return len(self._memtable.dead_letters)

    def highest_version(self) -> int:
        """Return the highest version that there is a manifest of, damaged ones included; 0 where there is none."""
        names = self.store.list(f"{partition_prefix(self.spec.index_id, self.partition)}/manifests")
        return manifest_version(names[-1]) if names else 0

    def take_over(self, log_end: int, *, seen_version: int | None = None) -> None:
        """Become the writer: commit the newest sound state again under the next version and epoch.

        Damaged manifests, and those that lie beyond `log_end` (the log has lost events), are passed over; in the latter
        case the lineage rises, and they are set aside for good. Raises `CommitConflict` where another worker did the
        same first, `UnsupportedFormat` where a newer version of this software wrote the state.

        `log_end` must have been read after the manifests up to `seen_version` (None = all) were there: a manifest that
        came later may show what was appended later, so one beyond the end is no loss then, but another worker at work.
        """
        prefix = f"{partition_prefix(self.spec.index_id, self.partition)}/manifests"
        versions = [manifest_version(name) for name in self.store.list(prefix)]
        highest = versions[-1] if versions else 0
        base = self._newest_sound(versions, log_end, highest if seen_version is None else seen_version)
        found = base.snapshot
        is_cut = base.highest_offset > log_end
        manifest = found.manifest
        manifest = Manifest(
            index_id=manifest.index_id,
            log_id=manifest.log_id,
            partition=manifest.partition,
            version=highest + 1,
            # Each manifest that cannot be read may have begun an epoch of its own.
            epoch=base.epoch + base.unreadable + 1,
            next_offset=manifest.next_offset,
            lineage=base.lineage + (1 if is_cut else 0),
            highest_offset=manifest.next_offset if is_cut else base.highest_offset,
            parent_version=found.version,
            parent_digest=manifest.self_digest,
            applied_time_ms=manifest.applied_time_ms,
            next_segment_id=manifest.next_segment_id,
            recent=manifest.recent,
            table=manifest.table,
            created_ms=self.clock_ms(),
            dead_letters=manifest.dead_letters,
            writer=self._writer,
        )
        self.step("takeover.before_manifest")
        committed = self._create(manifest)
        self.step("takeover.after_manifest")
        for name in base.lost:
            # They show events that the log has no more: once it has grown past them, nothing else would tell.
            self.store.quarantine(name)
            self.store.replace(name, b"")
        self.snapshot = replace(found, manifest=committed)
        self._restart_fold()

    def fold(self, records: Sequence[StoredRecord], next_offset: int) -> None:
        """Fold records that were read from `folded_offset` on; reading goes on from `next_offset`.

        Records that cannot be folded become dead letters. Raises `UnsupportedFormat` at a record of a newer format,
        after everything before it was folded.
        """
        decoded = decode_records(records, self.spec, self.partition, self._is_skipped)
        self._memtable.fold(decoded.events)
        self._memtable.dead_letters.extend(decoded.dead_letters)
        if decoded.events or decoded.dead_letters:
            self._applied_time_ms = decoded.time_ms
        if decoded.unsupported is not None:
            self._folded_offset = decoded.unsupported_offset
            raise decoded.unsupported
        self._folded_offset = next_offset

    def publish(self) -> bool:
        """Make everything folded visible, in one object and one manifest; return whether there was anything.

        Raises `CommitConflict` where another worker has taken over; `StoreUnavailable`, then it can be tried again.
        """
        if not self.is_pending:
            return False
        current = self.snapshot
        recent = current.manifest.recent
        trusted: list[str] = []
        segment_id = 0
        if self._memtable:
            if len(recent) >= RECENT_DELTAS_MAX:
                raise CorruptData("Too many recent deltas: a roll-up must commit before the next publish.")
            rows = self._memtable.rows()
            segment_id = current.manifest.next_segment_id if rows.ids else 0
            changes = self._memtable.changes()
            sections: dict[str, object] = {"changes": encode_changes(changes)}
            if rows.ids:
                records, vectors, _ = lay_out(rows)
                sections |= records | vectors
            name = new_object_name(self.spec.index_id, self.partition, "delta")
            self.step("publish.before_object")
            ref = self.store.put(name, pack(sections, rows=len(rows.ids), dimension=self.spec.dimension))  # type: ignore[arg-type] # sections are bytes or arrays
            trusted.append(name)
            recent = (
                *recent,
                DeltaRef(segment_id, ref, len(rows.ids), current.next_offset, self._folded_offset),
            )
        manifest = current.manifest.advance(
            next_offset=self._folded_offset,
            applied_time_ms=max(self._applied_time_ms, current.applied_time_ms),
            next_segment_id=current.manifest.next_segment_id + (1 if segment_id else 0),
            recent=recent,
            created_ms=self.clock_ms(),
            dead_letters=current.dead_letters + len(self._memtable.dead_letters),
            writer=self._writer,
        )
        self.step("publish.before_manifest")
        self.commit(manifest, trusted)
        self.step("publish.after_manifest")
        self._restart_fold()
        return True

    def commit(self, manifest: Manifest, trusted: Sequence[str], *, table: SegmentTable | None = None) -> None:
        """Create the next manifest and go on from it; `table` is what it names, where that is new.

        Raises `CommitConflict`.
        """
        self.snapshot = self.opener.open(self.snapshot, self._create(manifest), trusted=set(trusted), table=table)

    def rebase(self) -> None:
        """Go on folding on top of the newest snapshot; only between publishes, when nothing is pending."""
        if self.is_pending:
            raise CorruptData("A merge was committed while events were folded but not published.")
        self._restart_fold()

    def put_changes(self, changes: Changes) -> ObjectRef:
        """Write an object that holds only small lists."""
        name = new_object_name(self.spec.index_id, self.partition, "changes")
        return self.store.put(name, pack({"changes": encode_changes(changes)}))

    def is_overtaken(self) -> bool:
        """Say whether another worker has taken over from this one."""
        newest = self.newest_manifest()
        return newest is not None and self.snapshot.manifest.writer == self._writer != newest.writer

    def newest_manifest(self) -> Manifest | None:
        """Return the manifest with the highest name, or None where there is none or it cannot be read."""
        prefix = f"{partition_prefix(self.spec.index_id, self.partition)}/manifests"
        names = self.store.list(prefix)
        try:
            return decode_manifest(self.store.read(names[-1])) if names else None
        except (CorruptData, FileNotFoundError):
            return None

    def _restart_fold(self) -> None:
        self._memtable = Memtable(self.snapshot, self.spec.dimension)
        self._folded_offset = self.snapshot.next_offset
        self._applied_time_ms = 0

    def _create(self, manifest: Manifest) -> Manifest:
        signed, data = encode_manifest(manifest)
        name = manifest_name(self.spec.index_id, self.partition, manifest.version)
        try:
            self.store.create(name, data)
        except AlreadyExists as error:
            raise CommitConflict(
                f"Version {manifest.version} of {self.spec.index_id}/{self.partition} exists: another worker has it.",
                version=manifest.version,
            ) from error
        return signed

    def _newest_sound(self, versions: Sequence[int], log_end: int, seen_version: int) -> _Base:
        """Find the snapshot to go on from: from each manifest that is not sound back to its parent.

        What lies between a manifest and its parent was passed over by whoever wrote it, and stays so.
        """
        base = _Base(self.opener.empty())
        # Manifests share most of their objects: none is verified twice on the way.
        verified: set[str] = set()
        below = versions[-1] + 1 if versions else 0
        for version in reversed(versions):
            if version >= below:
                continue
            name = manifest_name(self.spec.index_id, self.partition, version)
            manifest = self._readable(name)
            if manifest is None:
                base.unreadable += 1
                self.fallbacks += 1
                continue
            base.add(manifest)
            below = manifest.parent_version + 1
            if base.highest_offset > log_end and version > seen_version:
                raise CommitConflict(f"Version {version} was published meanwhile: another worker has it.")
            if manifest.next_offset > log_end:
                base.lost.append(name)
                self.fallbacks += 1
                continue
            snapshot = self._sound(manifest, verified)
            if snapshot is not None:
                base.snapshot = snapshot
                return base
            self.fallbacks += 1
        return base

    def _readable(self, name: str) -> Manifest | None:
        """Return a manifest; None where it is damaged, then it is set aside."""
        try:
            return decode_manifest(self.store.read(name))
        except FileNotFoundError:
            return None
        except CorruptData:
            self.store.quarantine(name)
            return None

    def _sound(self, manifest: Manifest, verified: set[str]) -> Snapshot | None:
        """Return the snapshot of a manifest; None where an object is damaged or gone; a damaged one is set aside."""
        try:
            snapshot = self.opener.open(self.opener.empty(), manifest, trusted=verified)
            for ref in snapshot.table.dead_letters:
                # Nobody else reads them before they are merged, and then it is too late to fall back.
                self.opener.changes(ref)
        except FileNotFoundError:
            return None
        except CorruptData as error:
            name = error.facts.get("name")
            if isinstance(name, str):
                self.store.quarantine(name)
            return None
        return snapshot

    def _is_skipped(self, offset: int) -> bool:
        return self.store.exists(skip_name(self.spec.index_id, self.partition, offset))
