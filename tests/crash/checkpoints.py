"""Whether what a durable checkpoint names lies in the snapshot store."""

from __future__ import annotations

import hashlib
from pathlib import Path

from indexer.segments.container import Container
from schemas.errors import CorruptData
from schemas.manifest import decode_checkpoint, decode_manifest, decode_table
from tests.crash.history import Violation

__all__ = ["check_checkpoints"]


def check_checkpoints(data_dir: Path) -> int:
    """Check that all which the last two durable checkpoints of each partition name is there, byte for byte.

    Returns how many partitions have one. Raises `Violation`.
    """
    found = sorted(data_dir.glob("snapshots/*/*/checkpoint-*"))
    newest = {path.parent: path for path in found}
    for path in newest.values():
        try:
            marker = decode_checkpoint(path.read_bytes())
            for version in (marker.version, marker.previous_version):
                if version:
                    _check_manifest(data_dir / "snapshots", path.parent / "manifests" / f"{version:020d}")
        except (FileNotFoundError, CorruptData) as error:
            raise Violation(f"what {path} names is not there: {error}") from error
    return len(newest)


def _check_manifest(root: Path, path: Path) -> None:
    manifest = decode_manifest(path.read_bytes())
    refs = [delta.object for delta in manifest.recent]
    if manifest.table is not None:
        table = Container(memoryview((root / manifest.table.name).read_bytes()))
        refs += [manifest.table, *decode_table(bytes(table.blob("table"))).objects()]
    for ref in refs:
        if hashlib.sha256((root / ref.name).read_bytes()).digest() != ref.sha256:
            raise Violation(f"{path} names {ref.name}, whose bytes are not those that were written")
