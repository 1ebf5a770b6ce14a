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
    """Check that all which durable checkpoints name is there, byte for byte; return how many there are."""
    found = sorted(data_dir.glob("snapshots/*/*/checkpoint-*"))
    newest = {path.parent: path for path in found}
    for path in newest.values():
        try:
            marker = decode_checkpoint(path.read_bytes())
            manifest = decode_manifest((path.parent / "manifests" / f"{marker.version:020d}").read_bytes())
            refs = [delta.object for delta in manifest.recent]
            if manifest.table is not None:
                table = Container(memoryview((path.parents[2] / manifest.table.name).read_bytes()))
                refs += [manifest.table, *decode_table(bytes(table.blob("table"))).objects()]
            for ref in refs:
                if hashlib.sha256((path.parents[2] / ref.name).read_bytes()).digest() != ref.sha256:
                    raise Violation(f"{path} names {ref.name}, whose bytes are not those that were written")
        except (FileNotFoundError, CorruptData) as error:
            raise Violation(f"what {path} names is not there: {error}") from error
    return len(newest)
