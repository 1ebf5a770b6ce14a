"""An index that is configured while its workers run: they go on with what it asks for now."""

from __future__ import annotations

import asyncio
import contextlib
import secrets

import pytest
from prometheus_client import CollectorRegistry

from indexer.indexer import Indexer, IndexerOptions
from indexer.metrics import IndexerMetrics
from indexer.snapshots.store import LocalStore
from producer.catalog import Catalog
from producer.log.protocol import LogRecord
from schemas.catalog_events import ConfigureIndexEvent
from schemas.events import encode
from schemas.indexes import IndexSpec, Metric
from tests.support.appender import clock_ms
from tests.support.builders import upserts
from tests.unit.producer.log_fixtures import sqlite_logs


@contextlib.asynccontextmanager
async def running(path):
    """Start a catalog and an indexer, which shut down in the end."""
    async with sqlite_logs(path) as logs:
        catalog = Catalog(logs)
        await catalog.start()
        metrics = IndexerMetrics(CollectorRegistry())
        store = LocalStore(path / "snapshots")
        indexer = Indexer(logs, catalog, store, IndexerOptions(), clock_ms=clock_ms, metrics=metrics)
        await indexer.start()
        try:
            yield logs, catalog, indexer
        finally:
            await indexer.close()
            await catalog.close()


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 # it is others' state that is waited for
            await asyncio.sleep(0.01)


def targets(indexer, index_id):
    return [worker._partition.spec.recall_target for worker in indexer._workers.get(index_id, [])]


@pytest.mark.asyncio
async def test_workers_obey_a_new_recall_target_without_being_started_again(tmp_path):
    """The same workers, the same epoch: only what the next merge obeys is another; folding goes on."""
    spec = IndexSpec("films", secrets.token_urlsafe(16), 2, 4, Metric.COSINE, recall_target=0.9)
    async with running(tmp_path) as (logs, catalog, indexer):
        await catalog.create(spec, ())
        await until(lambda: [status.epoch for status in indexer.status()] == [1, 1])
        assert targets(indexer, spec.index_id) == [0.9, 0.9]
        workers = list(indexer._workers[spec.index_id])
        await catalog.configure(ConfigureIndexEvent("films", 0.99))
        await until(lambda: targets(indexer, spec.index_id) == [0.99, 0.99])
        assert indexer._workers[spec.index_id] == workers
        log = await logs.open(spec.name, spec.log_id, spec.partitions)
        await log.append(0, [LogRecord(b"ns-1", encode(event)) for event in upserts(["a", "b"])])
        await until(lambda: indexer.status()[0].next_offset == 2)
        assert [status.epoch for status in indexer.status()] == [1, 1]
    async with running(tmp_path) as (_, _, indexer):
        await until(lambda: targets(indexer, spec.index_id) == [0.99, 0.99])
