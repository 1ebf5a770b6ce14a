"""The pipeline of one partition without tasks, threads or a clock: a test turns every wheel itself.

Everything but the log and the clock is the real thing: events are encoded and decoded, objects lie in a directory.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from indexer.gc import Janitor, RetentionOptions
from indexer.merge_policy import MergeOptions
from indexer.merger import MergeJob, MergeResult, run_merge
from indexer.merging import LANES, Merges
from indexer.partition import PartitionIndexer, PartitionOptions
from indexer.segments.container import Container
from indexer.segments.graph import GraphOptions
from indexer.snapshots.opener import SnapshotOpener
from indexer.snapshots.reader import ReaderOptions, SnapshotReader
from indexer.snapshots.snapshot import Snapshot
from indexer.snapshots.store import LocalStore, Store, partition_prefix, skip_name
from producer.log.protocol import StoredRecord
from producer.steps import Step, no_step
from schemas.changes import DeadLetter, decode_changes
from schemas.errors import CorruptData, UnsupportedFormat
from schemas.events import encode
from schemas.idempotency import KEY_HEADER, ORDINAL_HEADER
from schemas.indexes import IndexSpec
from schemas.limits import RECENT_DELTAS_MAX
from schemas.manifest import Manifest, ObjectRef, decode_manifest, decode_table
from schemas.operations import Event

__all__ = [
    "EXACT",
    "SMALL",
    "Book",
    "Clock",
    "Pipeline",
    "Said",
    "Worker",
    "dead_letters_of",
    "manifest_objects",
    "manifests_of",
]

# Thresholds at which a test sees every kind of merge within a few dozen rows.
SMALL = MergeOptions(rollup_deltas=3, graph_rows_min=32)
# More candidates than a test has rows: a walk finds what a scan does.
EXACT = GraphOptions(ef_search=200)


@dataclass(slots=True)
class Clock:
    """Milliseconds since 1970 as the test wants them; every look takes one."""

    now_ms: int = 1_000_000

    def __call__(self) -> int:
        self.now_ms += 1
        return self.now_ms


@dataclass(frozen=True, slots=True)
class Said:
    """What a record of the log means: `event` is None for one that cannot be folded.

    `ordinal` is the place of the event in the batch that carries the idempotency `key`.
    """

    record: StoredRecord
    namespace: str
    event: Event | None
    key: bytes | None = None
    ordinal: int = 0

    @property
    def offset(self) -> int:
        """Position of the record."""
        return self.record.offset


@dataclass(slots=True)
class Book:
    """The log of one partition; `end` is the offset after its last record, gaps included."""

    clock: Clock
    said: list[Said] = field(default_factory=list)
    end: int = 0

    def append(self, namespace: str, event: Event, *, gap: int = 0) -> int:
        """Append an event, after `gap` offsets that carry no record; return its offset."""
        record = StoredRecord(self.end + gap, self.clock(), namespace.encode(), encode(event))
        return self._add(Said(record, namespace, event))

    def append_batch(self, namespace: str, events: Sequence[Event], key: bytes) -> int:
        """Append events under an idempotency key; return the position after them."""
        for ordinal, event in enumerate(events):
            headers = ((KEY_HEADER, key), (ORDINAL_HEADER, str(ordinal).encode()))
            record = StoredRecord(self.end, self.clock(), namespace.encode(), encode(event), headers)
            self._add(Said(record, namespace, event, key, ordinal))
        return self.end

    def append_all(self, namespace: str, events: Sequence[Event]) -> int:
        """Append events one after another; return the position after them."""
        for event in events:
            self.append(namespace, event)
        return self.end

    def append_poison(
        self, key: bytes | None, value: bytes, headers: tuple[tuple[str, bytes], ...] = (), *, gap: int = 0
    ) -> int:
        """Append a record that cannot be folded."""
        return self._add(Said(StoredRecord(self.end + gap, self.clock(), key, value, headers), "", None))

    def skip_offsets(self, count: int) -> None:
        """Let the log's end rise without a record, as Kafka's markers do."""
        self.end += count

    def read(self, offset: int, records_max: int) -> tuple[list[StoredRecord], int]:
        """Return up to `records_max` records from `offset` on and where to read on."""
        found = [said.record for said in self.said if said.offset >= offset]
        if len(found) <= records_max:
            return found, max(self.end, offset)
        return found[:records_max], found[records_max - 1].offset + 1

    def cut(self, end: int) -> None:
        """Lose everything from `end` on, as a restored file or a broker without power would."""
        self.said = [said for said in self.said if said.offset < end]
        self.end = end

    def _add(self, said: Said) -> int:
        self.said.append(said)
        self.end = said.offset + 1
        return said.offset


class Worker:
    """One worker's state in memory. Dropping the object is what a crash does."""

    def __init__(self, pipeline: Pipeline, name: str, step: Step) -> None:
        """Become the partition's writer."""
        self.book = pipeline.book
        self.store = pipeline.store
        self.partition = PartitionIndexer(
            pipeline.store,
            pipeline.spec,
            pipeline.partition,
            pipeline.options,
            clock_ms=pipeline.clock,
            writer=name,
            step=step,
        )
        self.merges = Merges(self.partition)
        self.janitor = Janitor(self.partition, pipeline.retention)
        self.jobs: dict[str, MergeJob] = {}
        self._built: dict[str, MergeResult] = {}
        self.take_over()

    @property
    def snapshot(self) -> Snapshot:
        """What the worker last committed."""
        return self.partition.snapshot

    def take_over(self) -> None:
        """Take over again, as after damage; running merges are forgotten."""
        self.partition.take_over(self.book.end)
        self.merges.forget()
        self.jobs.clear()
        self._built.clear()

    def fold(self, records_max: int = 1_000_000) -> None:
        """Read on and fold; a record of a newer format is skipped, as an operator would, at the next call."""
        partition = self.partition
        if partition.is_pending:
            return
        records, next_offset = self.book.read(partition.folded_offset, records_max)
        try:
            partition.fold(records, next_offset)
        except UnsupportedFormat:
            self.store.create(skip_name(partition.spec.index_id, partition.partition, partition.folded_offset), b"")

    def publish(self, records_max: int = 1_000_000) -> bool:
        """Read up to `records_max` records and publish them; a roll-up comes first where a manifest is full."""
        if len(self.snapshot.manifest.recent) >= RECENT_DELTAS_MAX - 1:
            self.start("rollup")
            self.finish("rollup")
        self.fold(records_max)
        return self.partition.publish()

    def catch_up(self) -> None:
        """Publish until the whole log is shown."""
        while self.snapshot.next_offset < self.book.end:
            assert self.publish() or self.snapshot.next_offset < self.book.end

    def start(self, lane: str, *, is_quiet: bool = False) -> bool:
        """Freeze the next merge of `lane` where none is running; return whether one is running now."""
        job = self.merges.next_job(lane, is_quiet=is_quiet)
        if job is not None:
            self.jobs[lane] = job
        return lane in self.jobs

    def build(self, lane: str) -> None:
        """Carry out the frozen merge without committing it."""
        if lane not in self._built:
            try:
                self._built[lane] = run_merge(self.store, self.jobs[lane])
            except BaseException:
                self.abandon(lane)
                raise

    def finish(self, lane: str) -> bool:
        """Carry out and commit the frozen merge of `lane`, where there is one."""
        if lane not in self.jobs:
            return False
        self.build(lane)
        self.merges.commit(lane, self._built.pop(lane))
        del self.jobs[lane]
        return True

    def abandon(self, lane: str) -> None:
        """Give a frozen merge up."""
        self.merges.abandon(lane)
        self.jobs.pop(lane, None)
        self._built.pop(lane, None)

    def merge_all(self, rounds_max: int = 50, *, is_quiet: bool = False) -> int:
        """Merge until the policy wants nothing more; return how many merges that took."""
        done = 0
        for _ in range(rounds_max):
            before = done
            for lane in LANES:
                self.start(lane, is_quiet=is_quiet)
                done += self.finish(lane)
            if done == before:
                return done
        raise AssertionError(f"The merge policy still wants merges after {done}.")

    def collect(self) -> int:
        """Delete what nobody needs; what running merges wrote stays."""
        return self.janitor.collect(busy_seconds=1e9 if self.jobs else 0.0)

    def checkpoint(self) -> bool:
        """Make the newest manifest durable."""
        return self.janitor.checkpoint(self.snapshot.manifest)


class Pipeline:
    """A partition: its log, its store, and workers and followers as they come and go."""

    def __init__(
        self,
        root: Path,
        spec: IndexSpec,
        *,
        merge: MergeOptions = SMALL,
        graph: GraphOptions | None = None,
        retention: RetentionOptions | None = None,
        store: Store | None = None,
    ) -> None:
        """Begin with an empty log and what lies in the store below `root`."""
        self.root = root
        self.spec = spec
        self.partition = 0
        self.options = PartitionOptions(merge=merge, graph=graph or EXACT)
        self.retention = retention or RetentionOptions(manifests_kept=2, grace_seconds=0)
        self.store: Store = store or LocalStore(root, now=time.time)
        self.clock = Clock()
        self.book = Book(self.clock)
        self._workers = 0

    @property
    def prefix(self) -> str:
        """Where the partition's names begin."""
        return partition_prefix(self.spec.index_id, self.partition)

    def worker(self, step: Step = no_step) -> Worker:
        """Start a worker, which takes over."""
        self._workers += 1
        return Worker(self, f"worker-{self._workers}", step)

    def follower(self, *, list_every: int = 0, store: Store | None = None) -> SnapshotReader:
        """Start a follower, which has seen nothing yet."""
        return SnapshotReader(
            store or self.store, self.spec, self.partition, ReaderOptions(list_every, self.options.graph)
        )

    def files(self) -> dict[str, bytes]:
        """Return every file of the partition, hidden ones included, by its name below the root."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in sorted((self.root / self.prefix).rglob("*"))
            if path.is_file()
        }

    def fresh_snapshot(self) -> Snapshot:
        """Return what the newest manifest shows to somebody who has seen nothing."""
        opener = SnapshotOpener(self.store, self.spec, self.partition, self.options.graph)
        return opener.open(opener.empty(), list(manifests_of(self))[-1])


def manifests_of(pipeline: Pipeline) -> Iterator[Manifest]:
    """Yield the manifests of a partition that can be read, oldest first."""
    for name in pipeline.store.list(f"{pipeline.prefix}/manifests"):
        with contextlib.suppress(CorruptData):  # a damaged one keeps its name
            yield decode_manifest(pipeline.store.read(name))


def manifest_objects(store: Store, manifest: Manifest) -> dict[str, list[ObjectRef]]:
    """Return all objects that a manifest names, by what they are."""
    found: dict[str, list[ObjectRef]] = {"delta": [delta.object for delta in manifest.recent]}
    if manifest.table is not None:
        table = decode_table(bytes(Container(store.open(manifest.table, verify=True)).blob("table")))
        found["table"] = [manifest.table]
        found["records"] = [entry.records for entry in table.segments]
        found["vectors"] = [entry.vectors for entry in table.segments if entry.vectors is not None]
        found["graph"] = [entry.graph for entry in table.segments if entry.graph is not None]
        changes = [ref for entry in table.segments for ref in entry.changes]
        changes += [*table.namespaces, *table.dead_letters, *table.keys, *([table.outcomes] if table.outcomes else [])]
        found["changes"] = list({ref.name: ref for ref in changes}.values())
    return {kind: refs for kind, refs in found.items() if refs}


def dead_letters_of(store: Store, snapshot: Snapshot) -> list[DeadLetter]:
    """Return the dead letters that a snapshot carries, oldest first."""
    refs = [*snapshot.table.dead_letters, *(delta.object for delta in snapshot.manifest.recent)]
    letters = [
        letter
        for ref in refs
        for letter in decode_changes(bytes(Container(store.open(ref, verify=True)).blob("changes"))).dead_letters
    ]
    return sorted(letters, key=lambda letter: letter.offset)
