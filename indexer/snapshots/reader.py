"""Follow the manifests of a partition: find the newest that can be opened, never go back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from indexer.segments.graph import GraphOptions
from indexer.snapshots.opener import SnapshotOpener
from indexer.snapshots.snapshot import Snapshot
from indexer.snapshots.store import Store, manifest_name, manifest_version, partition_prefix
from schemas.errors import CorruptData, SnapshotBehind
from schemas.indexes import IndexSpec
from schemas.manifest import Manifest, decode_manifest

__all__ = ["ReaderOptions", "SnapshotReader"]


@dataclass(frozen=True, slots=True)
class ReaderOptions:
    """How a follower reads: after `list_every` refreshes that found nothing it lists, else it tries the next name."""

    list_every: int = 20
    graph: GraphOptions = field(default_factory=GraphOptions)


class SnapshotReader:
    """The newest snapshot of one partition. Synchronous, for one caller at a time; `current` may be read by anybody."""

    def __init__(self, store: Store, spec: IndexSpec, partition: int, options: ReaderOptions | None = None) -> None:
        """Begin with the empty snapshot, version 0."""
        self._store = store
        self._spec = spec
        self._partition = partition
        self._options = options or ReaderOptions()
        self._opener = SnapshotOpener(store, spec, partition, self._options.graph)
        self._idle = self._options.list_every
        self.current: Snapshot = self._opener.empty()

    def may_be_behind(self) -> bool:
        """Say whether `refresh` may find something, at the cost of one look-up; now and then yes without looking."""
        version = self.current.version
        if not version or self._idle >= self._options.list_every:
            return True
        if self._store.exists(manifest_name(self._spec.index_id, self._partition, version + 1)):
            return True
        self._idle += 1
        return False

    def refresh(self) -> Snapshot | None:
        """Open the newest manifest above the current one; return the snapshot, or None where there is none newer.

        Manifests below a position already shown are passed over. A damaged object is set aside, so that the worker
        finds it missing and folds the log again; then `CorruptData` is raised and the current snapshot stays.
        Raises `SnapshotBehind` where only older state than already shown could be opened.
        """
        damage: CorruptData | None = None
        # Manifests share most of their objects: none is verified twice on the way.
        verified: set[str] = set()
        for manifest in self._newer():
            current = self.current
            if manifest.lineage == current.lineage and manifest.next_offset < current.next_offset:
                raise damage or SnapshotBehind(
                    f"The newest snapshot shows offset {manifest.next_offset}, "
                    f"but {current.next_offset} was already shown: waiting until it has caught up.",
                    retry_after_seconds=1,
                )
            try:
                self.current = self._opener.open(current, manifest, trusted=verified)
            except FileNotFoundError:
                # Collected or set aside between listing and opening: try the one before, and list again next time.
                self._idle = self._options.list_every
                continue
            except CorruptData as error:
                damage = error
                name = error.facts.get("name")
                if isinstance(name, str) and self._store.exists(name):
                    self._store.quarantine(name)
                continue
            self._idle = 0
            return self.current
        if damage is not None:
            raise damage
        return None

    def _newer(self) -> Iterator[Manifest]:
        """Yield the readable manifests above the current one, newest first."""
        for version in reversed(self._versions()):
            name = manifest_name(self._spec.index_id, self._partition, version)
            try:
                yield decode_manifest(self._store.read(name))
            except FileNotFoundError:
                continue
            except CorruptData:
                self._store.quarantine(name)

    def _versions(self) -> list[int]:
        spec, partition = self._spec, self._partition
        version = self.current.version
        if version and self._idle < self._options.list_every:
            # Names are consecutive while nobody is far behind: one look-up per new manifest.
            found = []
            while self._store.exists(manifest_name(spec.index_id, partition, version + 1)):
                version += 1
                found.append(version)
            # Unless one of them opens, list next time: what lies beyond a gap may be the way on.
            self._idle = self._options.list_every if found else self._idle + 1
            return found
        self._idle = 0
        names = self._store.list(f"{partition_prefix(spec.index_id, partition)}/manifests")
        return [number for number in map(manifest_version, names) if number > version]
