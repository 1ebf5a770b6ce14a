"""What a backup holds of a partition stays, whatever is published, merged, collected and deleted beside it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import threading
import time
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from indexer.backups import clear_all_but_pinned
from indexer.gc import RetentionOptions
from indexer.housekeeping import HousekeepingOptions
from indexer.indexer import Indexer, IndexerOptions
from indexer.merge_policy import MergeOptions
from indexer.metrics import IndexerMetrics
from indexer.partition import PartitionOptions
from indexer.snapshots.named import NamedObjects
from indexer.snapshots.pinned import let_go, object_refs, open_pinned, pinned_manifests
from indexer.snapshots.store import LocalStore, pin_name
from indexer.worker import WorkerOptions
from producer.backups import BackupCommands
from producer.catalog import Catalog
from producer.log.protocol import LogRecord
from schemas.backups import BackupStatus
from schemas.errors import CorruptData, NotReady
from schemas.events import encode
from schemas.indexes import IndexSpec, Metric
from schemas.operations import Delete, DeleteNamespace
from tests.support.appender import clock_ms
from tests.support.builders import spec_of, update, upserts
from tests.support.driver import Pipeline
from tests.unit.producer.log_fixtures import sqlite_logs

BACKUP, OTHER = "ab" * 16, "cd" * 16


def content(snapshot):
    """Return all that a snapshot holds: records by namespace."""
    return {
        name: snapshot.fetch(name, snapshot.list_ids(name, prefix="", after=None, limit=10_000))
        for name in snapshot.namespaces.existing
    }


@pytest.fixture
def pipeline(tmp_path):
    return Pipeline(tmp_path, spec_of())


def filled(pipeline, rows=120):
    worker = pipeline.worker()
    pipeline.book.append_all("a", upserts([f"r{n}" for n in range(rows)]))
    worker.catch_up()
    worker.merge_all()
    pipeline.book.append_all("a", [update("r1", {"late": True}), Delete("r2")])
    pipeline.book.append_all("b", upserts(["x"]))
    worker.catch_up()
    return worker


def churn(pipeline, worker, rounds=6):
    """Replace everything several times, and collect each time."""
    for round_number in range(rounds):
        pipeline.book.append_all("a", upserts([f"r{n}" for n in range(120)], first=round_number + 1))
        pipeline.book.append("b", DeleteNamespace(keep=False))
        worker.catch_up()
        worker.merge_all()
        worker.checkpoint()
        worker.collect()


def test_pinned_snapshot_outlives_merges_and_collections(pipeline):
    """It opens as it was, digests verified; its objects go only when it is let go."""
    worker = filled(pipeline)
    before = content(worker.snapshot)
    pin = worker.janitor.pin(BACKUP)
    assert (pin.records, pin.namespaces, pin.version) == (120, 2, worker.snapshot.version)
    held = {ref.name for ref in object_refs(pipeline.store, worker.snapshot.manifest)}
    assert pin.size_bytes == sum(pipeline.store.size_bytes(name) for name in held)
    churn(pipeline, worker)
    assert all(map(pipeline.store.exists, held))
    assert not held <= {ref.name for ref in object_refs(pipeline.store, worker.snapshot.manifest)}
    assert content(open_pinned(pipeline.store, pipeline.spec, BACKUP, pin)) == before
    # Of the manifests the one that was pinned went as any other: the pin is a copy.
    assert let_go(pipeline.store, pipeline.spec, 0, BACKUP) == 1
    worker.collect()
    named = {ref.name for ref in object_refs(pipeline.store, worker.snapshot.manifest)}
    assert not any(map(pipeline.store.exists, held - named))
    with pytest.raises(CorruptData, match="a file is gone"):
        open_pinned(pipeline.store, pipeline.spec, BACKUP, pin)


def test_what_a_try_before_a_crash_held_is_let_go_but_not_what_counts(pipeline):
    """A backup holds one version of a partition in the end."""
    worker = filled(pipeline)
    first = worker.janitor.pin(BACKUP)
    worker.janitor.pin(OTHER)
    churn(pipeline, worker, rounds=1)
    second = worker.janitor.pin(BACKUP)
    assert first.version < second.version
    assert let_go(pipeline.store, pipeline.spec, 0, BACKUP, but_version=second.version) == 1
    names = sorted(pinned_manifests(pipeline.store, pipeline.spec, 0))
    assert names == sorted(
        [
            pin_name(pipeline.spec.index_id, 0, BACKUP, second.version),
            pin_name(pipeline.spec.index_id, 0, OTHER, first.version),
        ]
    )


def test_worker_that_was_overtaken_pins_nothing(pipeline):
    """Another may have collected what it knows: its pin counts for nothing, and it learns that."""
    worker = filled(pipeline)
    rival = pipeline.worker()
    churn(pipeline, rival)
    assert worker.janitor.pin(BACKUP) is None


def test_worker_that_is_overtaken_while_it_pins_pins_nothing(pipeline):
    """The other took over and collected between the look at the objects and the pin."""
    rivals = []

    def overtake(name):
        if name == "backup.before_pin" and not rivals:
            rivals.append(pipeline.worker())
            churn(pipeline, rivals[0])

    worker = pipeline.worker(overtake)
    pipeline.book.append_all("a", upserts([f"r{n}" for n in range(120)]))
    worker.catch_up()
    worker.merge_all()
    assert worker.janitor.pin(BACKUP) is None
    # What it left names objects that are gone; that hinders nobody, and the next owner pins anew.
    churn(pipeline, rivals[0])
    pin = rivals[0].janitor.pin(BACKUP)
    assert content(open_pinned(pipeline.store, pipeline.spec, BACKUP, pin)) == content(rivals[0].snapshot)


def test_collection_does_not_run_between_the_checkpoint_and_the_pin(pipeline):
    """Housekeeping and backups are two threads: one waits for the other."""
    begun, order = threading.Event(), []

    def note(name):
        if name == "backup.before_pin":
            begun.set()
            time.sleep(0.2)
        if name == "backup.after_pin":
            order.append("pinned")

    worker = pipeline.worker(note)
    pipeline.book.append_all("a", upserts([f"r{n}" for n in range(120)]))
    worker.catch_up()
    snapshot, pins = worker.snapshot, []
    thread = threading.Thread(target=lambda: pins.append(worker.janitor.pin(BACKUP)))
    thread.start()
    assert begun.wait(10)
    # The state moves on meanwhile, so that what is being pinned would be garbage.
    worker.merge_all()
    pipeline.book.append_all("a", upserts([f"r{n}" for n in range(120)], first=5))
    worker.catch_up()
    worker.merge_all()
    worker.checkpoint()
    order.append("checkpoint")
    worker.collect()
    thread.join(10)
    assert order == ["pinned", "checkpoint"]
    assert content(open_pinned(pipeline.store, pipeline.spec, BACKUP, pins[0])) == content(snapshot)


def test_pin_that_cannot_be_read_stops_the_collection(pipeline):
    """What it holds is not known, so nothing is garbage; the reason is told, and the partition goes on."""
    worker = filled(pipeline)
    pin = worker.janitor.pin(BACKUP)
    path = pipeline.root / pin_name(pipeline.spec.index_id, 0, BACKUP, pin.version)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    pipeline.book.append_all("a", upserts([f"r{n}" for n in range(120)], first=3))
    worker.catch_up()
    worker.merge_all()
    worker.checkpoint()
    assert worker.collect() == 0
    assert "digest" in worker.janitor.damage
    with pytest.raises(CorruptData):
        open_pinned(pipeline.store, pipeline.spec, BACKUP, pin)
    let_go(pipeline.store, pipeline.spec, 0, BACKUP)
    assert worker.collect() > 0
    assert not worker.janitor.damage


def test_pin_whose_table_is_damaged_stops_the_collection(pipeline):
    """Which segments it holds is not known either; once the table is back, all of them are still there."""
    worker = filled(pipeline)
    pin = worker.janitor.pin(BACKUP)
    table = worker.snapshot.manifest.table
    assert table is not None
    path = pipeline.root / table.name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    with pytest.raises(CorruptData):
        NamedObjects(pipeline.store).by_pins(pipeline.spec, 0)
    path.unlink()
    with pytest.raises(CorruptData, match="is gone"):
        NamedObjects(pipeline.store).by_pins(pipeline.spec, 0)
    path.write_bytes(whole)
    held = NamedObjects(pipeline.store).by_pins(pipeline.spec, 0)
    assert all(pipeline.store.exists(name) for name in held)
    open_pinned(pipeline.store, pipeline.spec, BACKUP, pin)


def test_a_foreign_manifest_is_not_taken_for_the_pinned_one(pipeline):
    """The catalog knows the digest."""
    worker = filled(pipeline)
    pin = worker.janitor.pin(BACKUP)
    with pytest.raises(CorruptData, match="not the manifest that was pinned"):
        open_pinned(pipeline.store, pipeline.spec, BACKUP, replace(pin, manifest_digest=bytes(32)))


def test_damaged_pinned_object_is_told(pipeline):
    """Every object is verified when a backup is opened."""
    worker = filled(pipeline)
    pin = worker.janitor.pin(BACKUP)
    largest = max(object_refs(pipeline.store, worker.snapshot.manifest), key=lambda ref: ref.size_bytes)
    path = pipeline.root / largest.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptData, match="does not match its digest"):
        open_pinned(pipeline.store, pipeline.spec, BACKUP, pin)


def test_of_a_deleted_index_only_what_backups_hold_is_left(pipeline):
    """Each of two backups opens; the rest is gone."""
    worker = filled(pipeline)
    pins = {BACKUP: worker.janitor.pin(BACKUP)}
    expected = {BACKUP: content(worker.snapshot)}
    churn(pipeline, worker, rounds=2)
    pins[OTHER] = worker.janitor.pin(OTHER)
    expected[OTHER] = content(worker.snapshot)
    churn(pipeline, worker, rounds=2)
    clear_all_but_pinned(pipeline.store, pipeline.spec)
    clear_all_but_pinned(pipeline.store, pipeline.spec)
    for backup, pin in pins.items():
        assert content(open_pinned(pipeline.store, pipeline.spec, backup, pin)) == expected[backup]
    pinned = pinned_manifests(pipeline.store, pipeline.spec, 0)
    held = {ref.name for manifest in pinned.values() for ref in object_refs(pipeline.store, manifest)}
    assert set(pipeline.files()) == held | set(pinned)


EAGER = IndexerOptions(
    partition=PartitionOptions(merge=MergeOptions(rollup_deltas=3, graph_rows_min=32)),
    worker=WorkerOptions(read_wait_seconds=0.2),
    housekeeping=HousekeepingOptions(checkpoint_seconds=0.02, collect_seconds=0.02),
    # A grace that covers what an object takes from its writing to its manifest.
    retention=RetentionOptions(manifests_kept=2, grace_seconds=0.3),
)


@contextlib.asynccontextmanager
async def running(path):
    """Start a catalog and an indexer that checkpoints and collects without a rest."""
    async with sqlite_logs(path, synchronous="NORMAL", reserve_bytes=0) as logs:
        catalog = Catalog(logs)
        await catalog.start()
        store = LocalStore(path / "snapshots", now=time.time)
        metrics = IndexerMetrics(CollectorRegistry())
        indexer = Indexer(logs, catalog, store, EAGER, clock_ms=clock_ms, metrics=metrics)
        await indexer.start()
        try:
            yield logs, catalog, store
        finally:
            await indexer.close()
            await catalog.close()


async def until(condition):
    async with asyncio.timeout(300):
        while not condition():  # noqa: ASYNC110 # it is others' state that is waited for
            await asyncio.sleep(0.01)


async def write_on(log, stop, seed):
    rng = random.Random(seed)
    while not stop.is_set():
        keys = [f"r{rng.randrange(200)}" for _ in range(20)]
        records = [LogRecord(b"a", encode(event)) for event in upserts(keys, first=rng.randrange(200))]
        await log.append(0, records)
        await asyncio.sleep(0.002)


def whole(store, catalog, backup_id):
    """Return how many records a backup holds, every object of it verified."""
    backup = catalog.backups.backup(backup_id)
    return sum(sum(open_pinned(store, backup.source, backup_id, pin).counts().values()) for pin in backup.pins.values())


def holding(store, spec):
    """Return the backups that hold anything."""
    names = [name for number in range(spec.partitions) for name in pinned_manifests(store, spec, number)]
    return {name.rpartition("/")[2].partition(".")[0] for name in names}


@pytest.mark.asyncio
@pytest.mark.timeout(1_200)
async def test_backups_stay_whole_under_load_and_beside_collections(tmp_path):
    """A dozen backups of an index that is written, merged and collected without a rest; some are deleted meanwhile."""
    spec = IndexSpec("films", secrets.token_urlsafe(16), 2, 4, Metric.COSINE)
    async with running(tmp_path) as (logs, catalog, store):
        await catalog.create(spec, ())
        log, commands, stop = await logs.open(spec.name, spec.log_id, 2), BackupCommands(catalog), asyncio.Event()
        writing = asyncio.create_task(write_on(log, stop, 1))
        made = []
        for number in range(12):
            ends = await log.ends()
            backup = await commands.create(spec, ends, name=f"backup {number}", description="")
            made.append(backup.backup_id)
            await until(lambda: catalog.backups.backup(made[-1]).status is BackupStatus.READY)
            ready = catalog.backups.backup(made[-1])
            assert all(ready.pins[place].next_offset >= end for place, end in enumerate(ends))
            if number % 4 == 3:
                await commands.delete(made.pop(0))
            for backup_id in made:
                assert whole(store, catalog, backup_id) == catalog.backups.backup(backup_id).records
        stop.set()
        await writing
        await until(lambda: holding(store, spec) == set(made))
        await catalog.delete("films")
        await until(lambda: not store.list(f"{spec.index_id}/0/manifests"))
        for backup_id in made:
            assert whole(store, catalog, backup_id) == catalog.backups.backup(backup_id).records
        for backup_id in made:
            await commands.delete(backup_id)
        await until(lambda: not store.list(spec.index_id))


@pytest.mark.asyncio
async def test_index_is_not_deleted_while_a_backup_of_it_is_being_made(tmp_path):
    """Its partitions would be gone before they are held."""
    spec = IndexSpec("films", secrets.token_urlsafe(16), 2, 4, Metric.COSINE)
    async with running(tmp_path) as (_, catalog, _):
        await catalog.create(spec, ())
        backup = await BackupCommands(catalog).create(spec, [0, 1], name="", description="")
        with pytest.raises(NotReady, match="still being made"):
            await catalog.delete("films")
        await until(lambda: set(catalog.backups.backup(backup.backup_id).pins) == {0})
        # Its second partition has not come to the position that was asked for.
        assert catalog.backups.backup(backup.backup_id).status is BackupStatus.INITIALIZING
        await BackupCommands(catalog).delete(backup.backup_id)
        await catalog.delete("films")
