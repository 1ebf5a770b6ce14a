"""Records that could not be folded: read them, and let an operator skip one of a newer format."""

from __future__ import annotations

from indexer.segments.container import Container
from indexer.snapshots.reader import SnapshotReader
from indexer.snapshots.store import Store, skip_name
from schemas.changes import DeadLetter, decode_changes
from schemas.errors import AlreadyExists, CorruptData
from schemas.indexes import IndexSpec

__all__ = ["read_dead_letters", "skip_record"]


def read_dead_letters(store: Store, spec: IndexSpec, partition: int) -> list[DeadLetter]:
    """Return the dead letters of a partition as of its newest snapshot, oldest first.

    Raises `CorruptData`, `StoreUnavailable`.
    """
    reader = SnapshotReader(store, spec, partition)
    reader.refresh()
    snapshot = reader.current
    refs = [*snapshot.table.dead_letters, *(delta.object for delta in snapshot.manifest.recent)]
    letters: list[DeadLetter] = []
    for ref in refs:
        container = Container(store.open(ref, verify=True), name=ref.name)
        letters.extend(decode_changes(bytes(container.blob("changes"))).dead_letters)
    if len(letters) != snapshot.dead_letters:
        raise CorruptData(f"{len(letters)} dead letters were found, {snapshot.dead_letters} are counted.")
    return letters


def skip_record(store: Store, spec: IndexSpec, partition: int, offset: int) -> None:
    """Let the partition pass over the record at `offset` although its format is newer: it becomes a dead letter.

    Doing so again changes nothing. Raises `StoreUnavailable`.
    """
    try:
        store.create(skip_name(spec.index_id, partition, offset), b"skip")
    except AlreadyExists:
        return
