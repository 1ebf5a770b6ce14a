"""Checkpoints and garbage collection of one partition.

A checkpoint makes a manifest and all it names durable, and then says so in a marker; it comes before every deletion
that relies on a snapshot. Collection removes only what no retained manifest names and what is older than the grace
period; it lists objects before manifests, and looks who is writing before it deletes.

What backups hold is pinned under the same lock as collection, and by the partition's owner: a worker that pins looks
after that whether it was overtaken, and one that takes over looks at the pins before it collects.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass

from indexer.partition import PartitionIndexer
from indexer.snapshots.named import NamedObjects
from indexer.snapshots.pinned import hold, object_refs
from indexer.snapshots.store import checkpoint_name, manifest_name, manifest_version, partition_prefix
from schemas.backups import Pin
from schemas.errors import CommitConflict, CorruptData
from schemas.manifest import (
    Checkpoint,
    Manifest,
    decode_checkpoint,
    decode_manifest,
    encode_checkpoint,
)

__all__ = ["Janitor", "RetentionOptions", "Survey"]


@dataclass(frozen=True, slots=True)
class RetentionOptions:
    """What is kept: the `manifests_kept` newest manifests, and everything younger than `grace_seconds`.

    Unfinished files are left to their writers for `unfinished_seconds` after the last byte.
    """

    manifests_kept: int = 8
    grace_seconds: float = 60.0
    unfinished_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class Survey:
    """What lies in a partition's folder, as of one look.

    `retained` are the versions whose objects stay, `needed` the names of those objects, and of those that backups hold;
    `garbage` are the names, of objects, manifests and unfinished files, that a collection would delete now.
    `damage` says why nothing may be called garbage: what a backup holds is not known.
    """

    versions: tuple[int, ...]
    retained: frozenset[int]
    needed: frozenset[str]
    garbage: tuple[str, ...]
    damage: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    """What collection remembers of a manifest, so that each is read once."""

    epoch: int
    objects: frozenset[str]


class Janitor:
    """Checkpoints and collects for one partition; its caller is the partition's only one."""

    def __init__(self, partition: PartitionIndexer, options: RetentionOptions) -> None:
        """Work on `partition`."""
        self._partition = partition
        self._options = options
        self._synced: set[str] = set()
        self._known: dict[int, _Known] = {}
        self._named = NamedObjects(partition.store)
        # Why the last collection took nothing away, where a pin cannot be read.
        self.damage = ""
        # Pins are written from the thread of a backup, the rest is housekeeping's.
        self._lock = threading.Lock()

    def checkpoint(self, manifest: Manifest) -> bool:
        """Make `manifest` and all it names durable, then the marker; return whether there was anything to do.

        May run in a thread beside publishes: it reads nothing but its argument and the store.
        Raises `CorruptData` where an object is missing: the partition must take over again and fold the log.
        """
        with self._lock:
            return self._checkpoint(manifest)

    def pin(self, backup_id: str, offset: int = 0) -> Pin | None:
        """Hold the newest snapshot for a backup, durably; None where it does not show every event below `offset` yet.

        None also where another worker has taken over. Raises `CorruptData` where an object is missing,
        `StoreUnavailable`.
        """
        partition = self._partition
        with self._lock:
            # Taken under the lock: no checkpoint of a newer one can come between.
            snapshot = partition.snapshot
            manifest = snapshot.manifest
            if not manifest.version or manifest.next_offset < offset or not self._is_owner(manifest):
                return None
            self._checkpoint(manifest)
            marker = self.marker()
            if marker is None or marker.version != manifest.version:
                return None
            refs = object_refs(partition.store, manifest)
            partition.step("backup.before_pin")
            hold(partition.store, partition.spec, partition.partition, backup_id, manifest)
            partition.step("backup.after_pin")
            if not self._is_owner(manifest):
                # Whoever took over may have collected without knowing of this pin.
                return None
            self.audit(manifest)
        counts = snapshot.counts()
        return Pin(
            partition.partition,
            manifest.version,
            manifest.self_digest,
            manifest.next_offset,
            records=sum(counts.values()),
            namespaces=len(counts),
            size_bytes=sum(ref.size_bytes for ref in refs),
        )

    def _is_owner(self, manifest: Manifest) -> bool:
        newest = self._partition.newest_manifest()
        return newest is not None and (newest.epoch, newest.writer) == (manifest.epoch, manifest.writer)

    def _checkpoint(self, manifest: Manifest) -> bool:
        partition = self._partition
        if not manifest.version:
            return False
        previous = self.marker()
        if previous is not None and previous.version >= manifest.version:
            # As durable already, or a worker that took over since has gone further: the marker never goes back.
            return False
        names = self._named.by(manifest)
        own_name = manifest_name(partition.spec.index_id, partition.partition, manifest.version)
        try:
            partition.step("checkpoint.before_objects")
            partition.store.sync(sorted(names - self._synced))
            partition.step("checkpoint.before_manifest")
            partition.store.sync([own_name])
        except FileNotFoundError as error:
            raise CorruptData(f"An object of manifest {manifest.version} is gone: {error.filename}.") from error
        self._synced = set(names)
        marker = Checkpoint(
            manifest.version,
            manifest.next_offset,
            manifest.self_digest,
            previous.version if previous is not None else 0,
        )
        partition.step("checkpoint.before_marker")
        name = checkpoint_name(partition.spec.index_id, partition.partition, manifest.epoch)
        partition.store.replace(name, encode_checkpoint(marker))
        partition.step("checkpoint.after_marker")
        partition.store.delete([older for older in self._marker_names() if older < name])
        return True

    def marker(self) -> Checkpoint | None:
        """Return the last durable checkpoint, or None where there is none or it is damaged."""
        for name in reversed(self._marker_names()):
            # One of an older epoch is better than none.
            with contextlib.suppress(FileNotFoundError, CorruptData):
                return decode_checkpoint(self._partition.store.read(name))
        return None

    def _marker_names(self) -> list[str]:
        """Return the names of all markers, the newest epoch last; more than one only around a take-over."""
        prefix = partition_prefix(self._partition.spec.index_id, self._partition.partition)
        return [name for name in self._partition.store.list(prefix) if name.startswith(f"{prefix}/checkpoint-")]

    def audit(self, manifest: Manifest) -> None:
        """Check that every object which `manifest` names is there. Raises `CorruptData` naming the first missing."""
        for name in sorted(self._named.by(manifest)):
            if not self._partition.store.exists(name):
                raise CorruptData(f"Object {name} is gone.", name=name)

    def collections_needed(self, every_seconds: float) -> int:
        """Return how many collections, run `every_seconds`, remove all that is garbage now."""
        return int(self._options.grace_seconds / max(every_seconds, 0.001)) + 2

    def collect(self, *, busy_seconds: float = 0.0) -> int:
        """Delete what nobody needs; return how many objects and manifests went.

        `busy_seconds` is the age of the oldest running merge: what it wrote is not named yet and must stay.
        Raises `CommitConflict` where another worker has taken over, `CorruptData` where the newest manifest cannot be
        read: it deletes nothing then.
        """
        with self._lock:
            return self._collect(busy_seconds)

    def _collect(self, busy_seconds: float) -> int:
        partition = self._partition
        epoch, writer = partition.snapshot.epoch, partition.snapshot.manifest.writer
        survey = self.survey(busy_seconds=busy_seconds)
        newest = partition.newest_manifest()
        if newest is None:
            raise CorruptData("The newest manifest cannot be read: nothing was collected.")
        if (newest.epoch, newest.writer) != (epoch, writer):
            raise CommitConflict("Another worker has taken over: nothing was collected.")
        self.damage = survey.damage
        partition.store.delete(survey.garbage)
        self._named.forget_all_but(survey.needed)
        return len(survey.garbage)

    def survey(self, *, busy_seconds: float = 0.0) -> Survey:
        """Return what is there and what nobody needs, without deleting anything; `busy_seconds` as of `collect`."""
        partition = self._partition
        prefix = partition_prefix(partition.spec.index_id, partition.partition)
        objects = partition.store.list(f"{prefix}/objects")
        names = partition.store.list(f"{prefix}/manifests")
        versions = [manifest_version(name) for name in names]
        retained = self._retained(versions)
        self._known = {version: known for version, known in self._known.items() if version in set(versions)}
        needed = {name for version in retained for name in self._known[version].objects}
        try:
            needed |= self._named.by_pins(partition.spec, partition.partition)
        except CorruptData as error:
            return Survey(tuple(versions), frozenset(retained), frozenset(needed), (), error.message)
        age_min = self._options.grace_seconds + busy_seconds
        garbage = [name for name in objects if name not in needed and self._older(name, age_min)]
        garbage += self._old_manifests(names, versions, retained)
        for folder in (prefix, f"{prefix}/objects", f"{prefix}/manifests"):
            unfinished = partition.store.list(folder, is_finished=False)
            garbage += [name for name in unfinished if self._older(name, self._options.unfinished_seconds)]
        return Survey(tuple(versions), frozenset(retained), frozenset(needed), tuple(garbage))

    def _retained(self, versions: list[int]) -> set[int]:
        """Return the versions whose objects stay: the newest, the young, and the last two checkpoints."""
        marker = self.marker()
        kept = set(versions[-self._options.manifests_kept :])
        if marker is not None:
            kept |= {marker.version, marker.previous_version}
        else:
            # Nothing is durable yet: after a power loss any of them may be the newest that is whole.
            kept |= set(versions)
        retained = set()
        for version in versions:
            known = self._remember(version)
            name = manifest_name(self._partition.spec.index_id, self._partition.partition, version)
            if known is not None and (version in kept or not self._older(name, self._options.grace_seconds)):
                retained.add(version)
        return retained

    def _old_manifests(self, names: list[str], versions: list[int], retained: set[int]) -> list[str]:
        """Return the names of manifests to delete.

        The first of every epoch stays, so that a worker which was paused since then collides; so does one that cannot
        be read, since it may be the first.
        """
        epochs: dict[int, int] = {}
        for version in versions:
            if version in self._known:
                epochs.setdefault(self._known[version].epoch, version)
        kept = retained | set(epochs.values())
        return [
            name
            for name, version in zip(names, versions, strict=True)
            if version in self._known and version not in kept and self._older(name, self._options.grace_seconds)
        ]

    def _remember(self, version: int) -> _Known | None:
        known = self._known.get(version)
        if known is None:
            name = manifest_name(self._partition.spec.index_id, self._partition.partition, version)
            try:
                manifest = decode_manifest(self._partition.store.read(name))
            except (FileNotFoundError, CorruptData):
                return None
            known = _Known(manifest.epoch, self._named.at_least_by(manifest))
            self._known[version] = known
        return known

    def _older(self, name: str, seconds: float) -> bool:
        age = self._partition.store.age_seconds(name)
        return age is not None and age >= seconds
