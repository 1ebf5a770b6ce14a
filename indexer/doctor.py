"""Examine one partition without touching it: manifests against each other and the log, objects, checkpoints, recall.

What would be repaired is not guessed: the worker's own take-over and the collection's own survey run on a store that
only notes what they do. It may run beside a working indexer, which deletes and writes meanwhile: what seems to be
missing counts only if it is missing again at a second look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from indexer.checkup import Level, PartitionCheckup, SegmentCheckup
from indexer.gc import Janitor, RetentionOptions, Survey
from indexer.partition import PartitionIndexer, PartitionOptions
from indexer.recall_sample import SampleOptions, sample_recall
from indexer.segments.container import Container
from indexer.segments.engines import choose_engine
from indexer.segments.view import SegmentView
from indexer.snapshots.dry_store import DryStore
from indexer.snapshots.opener import SnapshotOpener
from indexer.snapshots.store import Store, manifest_name, manifest_version, partition_prefix
from producer.log.protocol import Log
from schemas.errors import CommitConflict, CorruptData, Unavailable
from schemas.indexes import IndexSpec
from schemas.manifest import Checkpoint, Manifest, ObjectRef, SegmentEntry, decode_checkpoint, decode_manifest
from schemas.manifest import decode_table as decode_segment_table

__all__ = ["DoctorOptions", "examine", "megabytes"]

_LOOKS_MAX = 6
_LOOK_AGAIN_SECONDS = 0.25
_MISSING = "missing"
_WRITER = "doctor"


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """What the partition's worker obeys, and how recall is sampled.

    Recall counts as too low when it is more than `recall_slack` below the index's target: a sample has its own error.
    """

    partition: PartitionOptions = field(default_factory=PartitionOptions)
    retention: RetentionOptions = field(default_factory=RetentionOptions)
    sample: SampleOptions = field(default_factory=SampleOptions)
    recall_slack: float = 0.03


async def examine(
    log: Log, store: Store, spec: IndexSpec, partition: int, options: DoctorOptions, *, clock_ms: Callable[[], int]
) -> PartitionCheckup:
    """Return what is to be said of a partition; nothing is written.

    Raises `LogUnavailable`, `StoreUnavailable`, `NotFound` where the index is deleted meanwhile, `UnsupportedFormat`,
    and `Unavailable` where the partition changes faster than it can be looked at.
    """
    dry = DryStore(store)
    missing: set[str] | None = None
    for _ in range(_LOOKS_MAX):
        dry.set_aside.clear()
        look = _Look(dry, spec, partition, options, clock_ms)
        # In this order: a manifest may only be called beyond the log's end if the end was read after it.
        seen_version = await asyncio.to_thread(look.probe.highest_version)
        end = (await log.ends())[partition]
        try:
            checkup = await asyncio.to_thread(look.run, seen_version, end)
        except (FileNotFoundError, CommitConflict):
            # Collected, or published, between listing and reading: list again.
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            continue
        now_missing = {finding.name for finding in checkup.findings if finding.kind == _MISSING}
        if not now_missing or now_missing == missing:
            await _check_log(log, checkup)
            return checkup
        missing = now_missing
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
    raise Unavailable(f"{spec.name}/{partition} changes faster than it can be examined; try again.")


async def _check_log(log: Log, checkup: PartitionCheckup) -> None:
    """Check that the log still holds what is to be folded next."""
    if checkup.log_end is None or checkup.next_offset >= checkup.log_end:
        return
    try:
        await log.read(checkup.partition, checkup.next_offset, bytes_max=1, wait_seconds=0)
    except CorruptData as error:
        checkup.add(Level.DAMAGE, "log", f"The log cannot be folded from {checkup.next_offset} on: {error.message}")


def megabytes(size_bytes: int) -> str:
    """Return a size as people read it."""
    return f"{size_bytes:,} bytes" if size_bytes < 1_000_000 else f"{size_bytes / 1e6:,.1f} MB"


class _Look:
    """One look at a partition; synchronous, run in a thread."""

    def __init__(
        self, store: DryStore, spec: IndexSpec, partition: int, options: DoctorOptions, clock_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._spec = spec
        self._partition = partition
        self._options = options
        self._prefix = partition_prefix(spec.index_id, partition)
        self.probe = PartitionIndexer(store, spec, partition, options.partition, clock_ms=clock_ms, writer=_WRITER)
        self._janitor = Janitor(self.probe, options.retention)
        self._checkup = PartitionCheckup(spec.name, partition, spec.recall_target)
        self._readable: dict[int, Manifest] = {}
        # Versions between a manifest and its parent: whoever wrote it went past them for good.
        self._passed: set[int] = set()

    def run(self, seen_version: int, log_end: int) -> PartitionCheckup:
        """Examine. `seen_version` is the highest that was there before `log_end` was read."""
        checkup = self._checkup
        checkup.log_end = log_end
        markers = self._markers()
        self._check_manifests(seen_version, log_end)
        self._check_markers(markers)
        survey = self._janitor.survey()
        self._check_objects(survey)
        self._tell_orphans(survey)
        self._foresee_take_over(seen_version, log_end)
        self._examine_segments()
        return checkup

    def _check_manifests(self, seen_version: int, log_end: int) -> None:
        checkup = self._checkup
        versions = [manifest_version(name) for name in self._store.list(f"{self._prefix}/manifests")]
        checkup.manifests = len(versions)
        damaged, emptied = self._read_manifests(versions)
        for version in sorted(self._readable, reverse=True):
            if version not in self._passed:
                self._passed.update(range(self._readable[version].parent_version + 1, version))
        for version, reason in damaged.items():
            # One that was passed over, or that is old, only keeps its name taken.
            is_scar = version in self._passed or version not in versions[-self._options.retention.manifests_kept :]
            level = Level.NOTE if is_scar else Level.DAMAGE
            told = " It is not needed any more, and is kept so that its name stays taken." if is_scar else ""
            checkup.add(level, "manifest", f"Manifest {version}: {reason}{told}", name=self._manifest_name(version))
        if emptied:
            checkup.add(Level.NOTE, "manifest", f"{emptied} manifests were set aside when the log had lost events.")
        for version, manifest in self._chain():
            self._check_manifest(version, manifest)
            if version <= seen_version and manifest.next_offset > log_end:
                checkup.add(
                    Level.DAMAGE,
                    "log",
                    f"Manifest {version} shows offset {manifest.next_offset}, but the log ends at {log_end}: "
                    "the log has lost events.",
                    name=self._manifest_name(version),
                )

    def _read_manifests(self, versions: list[int]) -> tuple[dict[int, str], int]:
        """Read all manifests; return why which are damaged, and how many were emptied for good by a take-over."""
        damaged: dict[int, str] = {}
        emptied = 0
        for version in versions:
            data = b""
            try:
                data = self._store.read(self._manifest_name(version))
                self._readable[version] = decode_manifest(data)
            except FileNotFoundError:
                continue  # collected since it was listed
            except CorruptData as error:
                if data:
                    damaged[version] = error.message
                emptied += not data
        return damaged, emptied

    def _chain(self) -> Iterator[tuple[int, Manifest]]:
        """Yield the readable manifests that nobody went past, oldest first."""
        for version in sorted(self._readable):
            if version not in self._passed:
                yield version, self._readable[version]

    def _check_manifest(self, version: int, manifest: Manifest) -> None:
        """Check a manifest against its place and its parent."""
        parent = self._readable.get(manifest.parent_version)
        wrong = [] if manifest.version == version else [f"its name says another version than {manifest.version}"]
        if (manifest.index_id, manifest.partition) != (self._spec.index_id, self._partition):
            wrong.append(f"it belongs to {manifest.index_id}/{manifest.partition}")
        if manifest.log_id != self._spec.log_id:
            wrong.append(f"it was folded from log {manifest.log_id}, not {self._spec.log_id}")
        if parent is not None:
            if manifest.parent_digest != parent.self_digest:
                wrong.append(f"its parent {parent.version} is another manifest than the one it was made from")
            if manifest.epoch < parent.epoch:
                wrong.append(f"its epoch {manifest.epoch} is below its parent's, {parent.epoch}")
            if manifest.lineage < parent.lineage:
                wrong.append(f"its lineage {manifest.lineage} is below its parent's, {parent.lineage}")
            if manifest.lineage == parent.lineage and manifest.next_offset < parent.next_offset:
                wrong.append(f"it shows offset {manifest.next_offset}, less than its parent, {parent.next_offset}")
        name = self._manifest_name(version)
        for what in wrong:
            self._checkup.add(Level.DAMAGE, "manifest", f"Manifest {version}: {what}.", name=name)

    def _markers(self) -> dict[str, bytes]:
        """Return the checkpoint markers by name, oldest epoch first; before the manifests are listed."""
        names = [name for name in self._store.list(self._prefix) if name.startswith(f"{self._prefix}/checkpoint-")]
        found = {}
        for name in names:
            try:
                found[name] = self._store.read(name)
            except FileNotFoundError:
                continue  # a newer epoch has its own
        return found

    def _check_markers(self, markers: dict[str, bytes]) -> None:
        newest: Checkpoint | None = None
        for name, data in markers.items():
            try:
                newest = decode_checkpoint(data)
            except CorruptData as error:
                self._checkup.add(Level.DAMAGE, "checkpoint", error.message, name=name)
                continue
            self._check_marker(newest, name)
        if newest is not None:
            self._checkup.checkpoint_version = newest.version
        elif self._readable and not markers:
            self._checkup.add(Level.NOTE, "checkpoint", "Nothing is durable yet: there is no checkpoint.")

    def _check_marker(self, marker: Checkpoint, name: str) -> None:
        manifest = self._readable.get(marker.version)
        told = f"The checkpoint names manifest {marker.version}, which"
        if manifest is None:
            is_there = self._store.exists(self._manifest_name(marker.version))
            kind = "checkpoint" if is_there else _MISSING
            what = "cannot be read" if is_there else "is gone"
            self._checkup.add(Level.DAMAGE, kind, f"{told} {what}.", name=name)
        elif (manifest.self_digest, manifest.next_offset) != (marker.manifest_digest, marker.next_offset):
            self._checkup.add(Level.DAMAGE, "checkpoint", f"{told} is not the one that was made durable.", name=name)

    def _check_objects(self, survey: Survey) -> None:
        """Check size and digest of every object that the retained manifests name."""
        checkup = self._checkup
        checkup.retained = len(survey.retained)
        named: dict[ObjectRef, list[int]] = {}
        for version, manifest in self._chain():
            if version in survey.retained:
                for ref in self._refs(manifest):
                    named.setdefault(ref, []).append(version)
        checkup.objects = len(named)
        checkup.objects_bytes = sum(ref.size_bytes for ref in named)
        for ref, versions in named.items():
            span = str(versions[0]) if len(versions) == 1 else f"{versions[0]} to {versions[-1]}"
            try:
                self._store.open(ref, verify=True)
            except FileNotFoundError:
                checkup.add(
                    Level.DAMAGE, _MISSING, f"Object {ref.name}, named by manifest {span}, is gone.", name=ref.name
                )
            except CorruptData as error:
                checkup.add(Level.DAMAGE, "object", f"{error.message} Manifest {span} names it.", name=ref.name)

    def _refs(self, manifest: Manifest) -> Iterator[ObjectRef]:
        """Yield what a manifest names; of a table that cannot be read only the table itself."""
        for delta in manifest.recent:
            yield delta.object
        if manifest.table is not None:
            yield manifest.table
            try:
                container = Container(self._store.open(manifest.table, verify=True), name=manifest.table.name)
                yield from decode_segment_table(bytes(container.blob("table"))).objects()
            except (FileNotFoundError, CorruptData):
                return  # the table is found damaged or missing itself

    def _tell_orphans(self, survey: Survey) -> None:
        checkup = self._checkup
        if survey.damage:
            checkup.add(Level.DAMAGE, "pin", f"Nothing will be collected: {survey.damage} Delete that backup.")
        objects = [name for name in survey.garbage if name.startswith(f"{self._prefix}/objects/")]
        sizes = {name: self._store.size_bytes(name) or 0 for name in objects}
        gone = len(survey.garbage) - len(objects)
        checkup.orphans = len(objects)
        checkup.orphans_bytes = sum(sizes.values())
        for name in objects:
            checkup.add(
                Level.NOTE, "orphan", f"No retained manifest names {name} ({megabytes(sizes[name])}).", name=name
            )
        if survey.garbage:
            checkup.repairs.append(
                f"The collection will delete {len(objects)} objects, {megabytes(checkup.orphans_bytes)}, and {gone} "
                "old manifests and unfinished files, unless they belong to a merge that is running."
            )

    def _foresee_take_over(self, seen_version: int, log_end: int) -> None:
        """Let the worker take over on the store that only notes, and say what that would do."""
        checkup, probe = self._checkup, self.probe
        if not self._store.list(f"{self._prefix}/manifests"):
            if log_end:
                checkup.repairs.append(f"There is no snapshot yet: the worker will fold from 0 to {log_end}.")
            return
        probe.take_over(log_end, seen_version=seen_version)
        after = probe.snapshot.manifest
        checkup.version, checkup.next_offset = after.parent_version, after.next_offset
        newest = max(self._readable.values(), key=lambda manifest: manifest.version, default=None)
        checkup.epoch = 0 if newest is None else newest.epoch
        checkup.lineage = 0 if newest is None else newest.lineage
        for name in self._store.set_aside:
            what = f"manifest {manifest_version(name)}" if "/manifests/" in name else name
            checkup.repairs.append(f"The worker will set aside {what} when it next takes over.")
        if probe.fallbacks:
            from_what = f"manifest {checkup.version}" if checkup.version else "nothing"
            checkup.repairs.append(
                f"The worker will go on from {from_what} and fold again from offset {after.next_offset} "
                f"to the log's end, {log_end}."
            )
        if after.lineage > checkup.lineage:
            checkup.repairs.append(
                f"The worker will raise the lineage to {after.lineage}: positions that were given out before will get "
                "an error instead of a wrong answer."
            )

    def _examine_segments(self) -> None:
        """Sample the recall of every graph, and tell sizes and dead rows."""
        checkup, options = self._checkup, self._options
        graph = options.partition.graph if options.sample.queries else None
        opener = SnapshotOpener(self._store, self._spec, self._partition, graph)
        manifest = self.probe.snapshot.manifest
        snapshot = opener.open(opener.empty(), manifest) if manifest.version else opener.empty()
        checkup.live_rows = snapshot.live_rows
        checkup.tail_rows = sum(view.live_rows for view in snapshot.views if not view.in_graph)
        for view in snapshot.views:
            segment = self._segment(view)
            checkup.segments.append(segment)
            if segment.recall is not None and segment.recall < self._spec.recall_target - options.recall_slack:
                checkup.add(
                    Level.WARNING,
                    "recall",
                    f"Graph {segment.segment_id} of namespace {segment.namespace!r} finds {segment.recall:.3f} of the "
                    f"nearest rows; the index asks for {self._spec.recall_target:.3f}.",
                )
            is_rolled_up = isinstance(view.source, SegmentEntry)
            if is_rolled_up and segment.dead_share > options.partition.merge.dead_share_max:
                checkup.repairs.append(
                    f"A merge will rewrite segment {segment.segment_id}: {segment.dead_share:.0%} of it is dead."
                )

    def _segment(self, view: SegmentView) -> SegmentCheckup:
        source, segment_id = view.source, view.segment_id
        rows, dead_rows = view.reader.rows, len(view.dead)
        if not isinstance(source, SegmentEntry):
            return SegmentCheckup(segment_id, "", rows, dead_rows, source.object.size_bytes)
        recall, queries = None, 0
        part = view.reader.slice_of(source.namespace) if view.reader.graph is not None else None
        if part is not None:
            engine = choose_engine(self._options.partition.graph.engine)
            recall, queries = sample_recall(view, part, self._spec.metric, self._options.sample, engine=engine)
        return SegmentCheckup(
            segment_id=segment_id,
            namespace=source.namespace,
            rows=rows,
            dead_rows=dead_rows,
            size_bytes=sum(ref.size_bytes for ref in (source.records, source.vectors, source.graph) if ref is not None),
            has_graph=view.in_graph,
            ef_search=source.graph_ef_search,
            recall_stored=source.graph_recall,
            recall=recall,
            queries=queries,
        )

    def _manifest_name(self, version: int) -> str:
        return manifest_name(self._spec.index_id, self._partition, version)
