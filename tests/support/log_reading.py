"""What a log holds, read to its end, and what an appender that was killed has left in it."""

from __future__ import annotations

import asyncio
import secrets

from producer.log.protocol import Log, StoredRecord
from tests.support.appender import Appender, assert_whole

__all__ = ["PLENTY", "WAIT_SECONDS", "killed_at_step", "new_log_id", "read_all"]

PLENTY = 64 * 1024 * 1024
# Long enough for the slowest machine; every test ends long before.
WAIT_SECONDS = 30.0


def new_log_id() -> str:
    """Return a new log's identity."""
    return secrets.token_urlsafe(16)


async def read_all(log: Log, partition: int, offset: int = 0, *, bytes_max: int = PLENTY) -> list[StoredRecord]:
    """Read from `offset` to the end as of now."""
    end = (await log.ends())[partition]
    records: list[StoredRecord] = []
    while offset < end:
        found = await log.read(partition, offset, bytes_max=bytes_max, wait_seconds=WAIT_SECONDS)
        assert found.next_offset > offset, "a read below the end did not move on"
        records += found.records
        offset = found.next_offset
    return records


async def killed_at_step(spec: str, log: Log, step: str) -> tuple[dict[int, int], list[StoredRecord]]:
    """Let an appender of batches of five die at a step of its fifth; return what was acknowledged and what is there.

    Every batch is there whole or not at all.
    """
    appender = await Appender.start(spec, log.log_id, 2, 1, step, 1_000, 5, step)
    said = await appender.acknowledged()
    await appender.kill()
    assert 0 < len(said) < 10, "it was to die at its fifth append"
    # What a dead process had on its way may still arrive for a moment.
    await asyncio.sleep(0.2)
    records = await read_all(log, 1)
    assert_whole(records, {(step, number): begin for number, begin in said.items()})
    return said, records
