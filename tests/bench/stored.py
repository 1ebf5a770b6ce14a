"""What lies in a snapshot store, read from its manifests: how much is in graphs, which objects are named."""

from __future__ import annotations

import contextlib
import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from indexer.segments.container import Container
from indexer.snapshots.store import LocalStore
from schemas.errors import CorruptData
from schemas.manifest import GRAPH, Manifest, ObjectRef, SegmentTable, decode_manifest, decode_table

__all__ = ["Stored", "count_files", "digest_seconds", "look"]


@dataclass(slots=True)
class Stored:
    """The newest manifests of all partitions of all indexes, or of one."""

    next_offsets: dict[str, int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    # Rows as written, dead ones included: in graphs, and in everything else.
    graph_rows: int = 0
    tail_rows: int = 0
    graph_names: set[str] = field(default_factory=set)
    objects: dict[str, int] = field(default_factory=dict)


def look(data_dir: Path, index_id: str = "*") -> Stored:
    """Return the newest state in a store; a manifest that is replaced meanwhile is looked at again."""
    root = data_dir / "snapshots"
    store = LocalStore(root, now=time.time)
    found = Stored()
    for folder in sorted(root.glob(f"{index_id}/*/manifests")):
        name = str(folder.parent.relative_to(root))
        for _ in range(20):
            manifests = sorted(folder.iterdir())
            if not manifests:
                break
            # Collected while it was read: there is a newer one.
            with contextlib.suppress(FileNotFoundError, CorruptData):
                manifest = decode_manifest(manifests[-1].read_bytes())
                _add(found, name, manifest, _table(store, manifest))
                break
            time.sleep(0.01)
    return found


def digest_seconds(data_dir: Path, stored: Stored) -> float:
    """Read and digest every object that is named, as a start does at least; return the seconds."""
    root = data_dir / "snapshots"
    began = time.perf_counter()
    for name in stored.objects:
        with (root / name).open("rb") as file:
            hashlib.file_digest(file, "sha256")
    return time.perf_counter() - began


def count_files(data_dir: Path) -> tuple[int, int]:
    """Return how many files lie in the snapshot store, and their bytes."""
    count = total = 0
    for path in (data_dir / "snapshots").rglob("*"):
        # Collected meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                count, total = count + 1, total + path.stat().st_size
    return count, total


def _table(store: LocalStore, manifest: Manifest) -> SegmentTable:
    if manifest.table is None:
        return SegmentTable()
    return decode_table(bytes(Container(store.open(manifest.table, verify=True)).blob("table")))


def _add(found: Stored, name: str, manifest: Manifest, table: SegmentTable) -> None:
    found.next_offsets[name] = manifest.next_offset
    found.versions[name] = manifest.version
    found.tail_rows += sum(delta.rows for delta in manifest.recent)
    for entry in table.segments:
        if entry.kind == GRAPH:
            found.graph_rows += entry.rows
            found.graph_names.update([entry.graph.name] if entry.graph is not None else [])
        else:
            found.tail_rows += entry.rows
    refs: list[ObjectRef] = [*(delta.object for delta in manifest.recent), *table.objects()]
    refs += [manifest.table] if manifest.table is not None else []
    found.objects.update({ref.name: ref.size_bytes for ref in refs})
