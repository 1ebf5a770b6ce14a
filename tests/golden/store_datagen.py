"""Makes a golden snapshot store: `python -m tests.golden.store_datagen`. A store that exists is never written again.

It holds every kind of object: deltas, flat and graph segments, kills, patches, namespaces, outcomes, dead letters, a
segment table, manifests and a checkpoint; beside it lies what it must show.
"""

import itertools
import json
from pathlib import Path

import numpy as np

from indexer.gc import Janitor, RetentionOptions
from indexer.merge_policy import MergeOptions
from indexer.merger import run_merge
from indexer.merging import Merges
from indexer.partition import PartitionIndexer, PartitionOptions
from indexer.snapshots.reader import SnapshotReader
from indexer.snapshots.store import LocalStore
from producer.log.protocol import StoredRecord
from schemas.events import encode
from schemas.indexes import IndexSpec, Metric
from schemas.operations import CreateNamespace, Delete, DeleteNamespace, DeleteWhere, Update, UpdateWhere, Upsert
from schemas.records import dense_bytes, make_sparse

STORE_FOLDER = Path(__file__).parent / "v1" / "store"
EXPECTED_FILE = Path(__file__).parent / "v1" / "store.json"
SPEC = IndexSpec("golden", "Abcdefghij_0123456789-", 1, 4, Metric.COSINE)


def upsert(name, number, metadata, sparse=None):
    return Upsert(name, dense_bytes([1, number, number * number % 7, 0.1]), sparse, json.dumps(metadata).encode())


def batches():
    """Return (namespace, event) in batches, one publish each; None is a record that cannot be folded."""
    yield [("large", upsert(f"row-{n}", n, {"n": n, "even": n % 2 == 0})) for n in range(24)]
    yield [("large", upsert(f"row-{n}", n, {"n": n, "even": n % 2 == 0})) for n in range(24, 48)]
    yield [("small", upsert(f"s-{n}", n, {"tags": ["a", str(n)]}, make_sparse([n, 9], [1, 0.5]))) for n in range(5)]
    yield [("large", Update("row-3", None, None, b'{"n":300}')), ("large", Delete("row-4")), ("small", None)]
    yield [("large", UpdateWhere(b'{"even":true}', b'{"seen":true}')), ("gone", upsert("g", 1, {}))]
    yield [("gone", DeleteNamespace(keep=False)), ("empty", CreateNamespace(b""))]
    yield [("large", upsert("row-5", 50, {"n": 5})), ("large", DeleteWhere(b'{"n":{"$gte":46.0}}'))]
    yield [("large", UpdateWhere(b'{"n":7.0}', b'{"n":700}')), ("small", Delete("s-1"))]
    yield [("large", Update("row-6", None, None, b'{"tag":"later"}')), ("small", upsert("s-5", 5, {"tags": ["b"]}))]


def make(folder):
    """Write the store."""
    store = LocalStore(folder)
    options = PartitionOptions(merge=MergeOptions(rollup_deltas=3, graph_rows_min=32))
    clock = itertools.count(1_000_000)
    partition = PartitionIndexer(store, SPEC, 0, options, clock_ms=lambda: next(clock), writer="golden")
    partition.take_over(0)
    merges, janitor = Merges(partition), Janitor(partition, RetentionOptions(1, 0))
    offset = 0
    for batch in batches():
        records = [
            StoredRecord(offset + at, 1_000 + offset + at, name.encode(), b"\xff" if event is None else encode(event))
            for at, (name, event) in enumerate(batch)
        ]
        offset += len(records)
        partition.fold(records, offset)
        partition.publish()
        for lane in ("rollup", "graph"):
            job = merges.next_job(lane)
            if job is not None:
                merges.commit(lane, run_merge(store, job))
    janitor.checkpoint(partition.snapshot.manifest)
    janitor.collect()
    (folder / ".clock").unlink(missing_ok=True)


def shown(folder):
    """Return what the store shows, as JSON values."""
    reader = SnapshotReader(LocalStore(folder), SPEC, 0)
    snapshot = reader.refresh()
    assert snapshot is not None
    return {
        "next_offset": snapshot.next_offset,
        "dead_letters": snapshot.dead_letters,
        "in_graphs": snapshot.live_rows - snapshot.tail_rows,
        "outcomes": {str(key): [item.code, item.matched_records] for key, item in snapshot.outcomes.items()},
        "namespaces": {name: records(snapshot, name) for name in sorted(snapshot.counts())},
    }


def records(snapshot, name):
    ids = snapshot.list_ids(name, prefix="", after=None, limit=1_000)
    found = snapshot.fetch(name, ids)
    return {
        key: {
            "values": np.asarray(found[key].values, np.float64).round(6).tolist(),
            "sparse": None if found[key].sparse is None else found[key].sparse.indices.tolist(),
            "metadata": json.loads(found[key].metadata or b"{}"),
        }
        for key in ids
    }


def main():
    """Write what is missing."""
    if not STORE_FOLDER.exists():
        make(STORE_FOLDER)
        EXPECTED_FILE.write_text(json.dumps(shown(STORE_FOLDER), indent=1, sort_keys=True) + "\n")
        print("wrote", STORE_FOLDER)


if __name__ == "__main__":
    main()
