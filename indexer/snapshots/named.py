"""Which objects manifests name: what stays of a partition. Tables and pins never change, so each is read once."""

from __future__ import annotations

from collections.abc import Collection

from indexer.segments.container import Container
from indexer.snapshots.pinned import pinned_manifests
from indexer.snapshots.store import Store
from schemas.errors import CorruptData
from schemas.indexes import IndexSpec
from schemas.manifest import Manifest, ObjectRef, decode_table

__all__ = ["NamedObjects"]


class NamedObjects:
    """Names of objects, by who names them; for one caller at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tables: dict[str, frozenset[str]] = {}
        self._pins: dict[str, frozenset[str]] = {}

    def by(self, manifest: Manifest) -> set[str]:
        """Return the objects that a manifest names. Raises `CorruptData`, `FileNotFoundError` for its table."""
        names = {delta.object.name for delta in manifest.recent}
        if manifest.table is not None:
            names.add(manifest.table.name)
            names |= self._by_table(manifest.table)
        return names

    def at_least_by(self, manifest: Manifest) -> frozenset[str]:
        """Return what of it is known where its table is damaged or gone: nothing can be opened by it any more then."""
        try:
            return frozenset(self.by(manifest))
        except (FileNotFoundError, CorruptData):
            return frozenset(delta.object.name for delta in manifest.recent)

    def by_pins(self, spec: IndexSpec, partition: int) -> set[str]:
        """Return the objects of a partition that backups hold.

        Raises `CorruptData` where a pin, or the table that it names, cannot be read: what it holds is not known then.
        """
        found = {}
        for name, manifest in pinned_manifests(self._store, spec, partition).items():
            held = self._pins.get(name) or self._held_by(name, manifest)
            if held is not None:
                found[name] = held
        self._pins = found
        return {held for names in found.values() for held in names}

    def _held_by(self, name: str, manifest: Manifest) -> frozenset[str] | None:
        try:
            return frozenset(self.by(manifest))
        except FileNotFoundError as error:
            if not self._store.exists(name):
                # Let go since it was listed.
                return None
            raise CorruptData(f"The table of pin {name} is gone.", name=name) from error

    def forget_all_but(self, needed: Collection[str]) -> None:
        """Forget the tables that are not `needed` any more."""
        self._tables = {name: refs for name, refs in self._tables.items() if name in needed}

    def _by_table(self, ref: ObjectRef) -> frozenset[str]:
        known = self._tables.get(ref.name)
        if known is None:
            container = Container(self._store.open(ref, verify=True), name=ref.name)
            known = frozenset(item.name for item in decode_table(bytes(container.blob("table"))).objects())
            self._tables[ref.name] = known
        return known
