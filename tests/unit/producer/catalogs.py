"""Catalogs over real logs, as several processes have them."""

import contextlib
import secrets
from dataclasses import replace

from producer.catalog import Catalog, CatalogOptions
from schemas.indexes import IndexSpec, Metric
from tests.unit.producer.log_fixtures import sqlite_logs

PORTS = (5081, 5082)


def spec(name="movies", **change):
    made = IndexSpec(name, secrets.token_urlsafe(16), 4, 3, Metric.COSINE, settings=b'{"tags":{"a":"b"}}')
    return replace(made, **change)


@contextlib.asynccontextmanager
async def started(logs, **parts):
    catalog = Catalog(logs, **{"options": CatalogOptions(outcome_wait_seconds=30), **parts})
    await catalog.start()
    try:
        yield catalog
    finally:
        await catalog.close()


@contextlib.asynccontextmanager
async def two_catalogs(path):
    """Two catalogs over one control log, each through logs of its own as two processes have."""
    async with (
        sqlite_logs(path) as logs,
        sqlite_logs(path) as other_logs,
        started(logs) as catalog,
        started(other_logs) as other,
    ):
        yield catalog, other
