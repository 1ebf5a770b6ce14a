"""Real embedded logs for the tests of this folder, with a clock that ticks by itself."""

import contextlib
import itertools

from producer.log.sqlite import SqliteLogs
from producer.log.sqlite_file import SqliteLogOptions


@contextlib.asynccontextmanager
async def sqlite_logs(path, **settings):
    """Open the embedded log in `path`, and close it at the end; who finds it busy is patient."""
    ticks = itertools.count(1_700_000_000_000)
    logs = SqliteLogs(
        path / "log.db", SqliteLogOptions(**{"busy_seconds": 30.0, **settings}), clock_ms=lambda: next(ticks)
    )
    await logs.start()
    try:
        yield logs
    finally:
        await logs.close()


async def all_records(log, partition):
    """Return every record of a partition."""
    (end,) = [(await log.ends())[partition]]
    records, offset = [], 0
    while offset < end:
        batch = await log.read(partition, offset, bytes_max=1 << 20, wait_seconds=0)
        records.extend(batch.records)
        offset = batch.next_offset
    return records
