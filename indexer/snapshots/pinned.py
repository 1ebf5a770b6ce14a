"""What backups hold of a partition: a pin is a copy of a manifest; the objects that it names are never collected."""

from __future__ import annotations

import contextlib

from indexer.segments.container import Container
from indexer.snapshots.opener import SnapshotOpener
from indexer.snapshots.snapshot import Snapshot
from indexer.snapshots.store import Store, pin_name, pins_prefix
from schemas.backups import Pin
from schemas.errors import AlreadyExists, CorruptData
from schemas.indexes import IndexSpec
from schemas.manifest import Manifest, ObjectRef, decode_manifest, decode_table, encode_manifest

__all__ = ["hold", "let_go", "object_refs", "open_pinned", "pinned_manifests"]


def hold(store: Store, spec: IndexSpec, partition: int, backup_id: str, manifest: Manifest) -> None:
    """Write a pin and make it durable. Raises `StoreUnavailable`."""
    name = pin_name(spec.index_id, partition, backup_id, manifest.version)
    # There already where an earlier try got so far: a version is never the name of two manifests.
    with contextlib.suppress(AlreadyExists):
        store.create(name, encode_manifest(manifest)[1])
    store.sync([name])


def let_go(store: Store, spec: IndexSpec, partition: int, backup_id: str, *, but_version: int = 0) -> int:
    """Delete what a backup holds of a partition, but for one version; return how many pins that were."""
    prefix = pins_prefix(spec.index_id, partition)
    kept = pin_name(spec.index_id, partition, backup_id, but_version)
    names = [name for name in store.list(prefix) if name.startswith(f"{prefix}/{backup_id}.") and name != kept]
    store.delete(names)
    return len(names)


def pinned_manifests(store: Store, spec: IndexSpec, partition: int) -> dict[str, Manifest]:
    """Return all pins by name. Raises `CorruptData` where one cannot be read: what it holds is not known then."""
    found = {}
    for name in store.list(pins_prefix(spec.index_id, partition)):
        # Let go since it was listed.
        with contextlib.suppress(FileNotFoundError):
            found[name] = decode_manifest(store.read(name))
    return found


def object_refs(store: Store, manifest: Manifest) -> list[ObjectRef]:
    """Return all objects that a manifest names, its table's included. Raises `CorruptData`, `FileNotFoundError`."""
    refs = [delta.object for delta in manifest.recent]
    if manifest.table is not None:
        container = Container(store.open(manifest.table, verify=True), name=manifest.table.name)
        refs += [manifest.table, *decode_table(bytes(container.blob("table"))).objects()]
    return list({ref.name: ref for ref in refs}.values())


def open_pinned(store: Store, source: IndexSpec, backup_id: str, pin: Pin) -> Snapshot:
    """Return what a backup holds of a partition; every object is verified.

    Raises `CorruptData` where anything is missing or damaged, `StoreUnavailable`.
    """
    name = pin_name(source.index_id, pin.partition, backup_id, pin.version)
    opener = SnapshotOpener(store, source, pin.partition, None)
    try:
        manifest = decode_manifest(store.read(name))
        if manifest.self_digest != pin.manifest_digest:
            raise CorruptData(f"Pin {name} is not the manifest that was pinned.", name=name)
        return opener.open(opener.empty(), manifest)
    except FileNotFoundError as error:
        raise CorruptData(f"Of backup {backup_id} a file is gone: {error.filename}.") from error
