"""The catalog while its log fails, is slow, or has lost its tail."""

import asyncio
import contextlib
import sqlite3
from dataclasses import replace

import pytest

from producer.catalog import CatalogOptions
from schemas.errors import LogUnavailable, OutcomeUnknown
from tests.unit.producer.catalogs import spec, started
from tests.unit.producer.log_fixtures import sqlite_logs

PORTS = (5081, 5082)


class FaultyControl:
    """The real control log, with faults to be injected after a read, and before or after an append."""

    def __init__(self, log):
        self._log = log
        self.read_faults = 0
        self.before_append = None
        self.after_append = None

    async def ends(self):
        return await self._log.ends()

    async def read(self, *arguments, **options):
        # After the read, so that one that is under way when the fault begins fails too.
        batch = await self._log.read(*arguments, **options)
        if self.read_faults:
            self.read_faults -= 1
            raise LogUnavailable("injected")
        return batch

    async def append(self, partition, records):
        if self.before_append is not None:
            raise self.before_append
        appended = await self._log.append(partition, records)
        if self.after_append is not None:
            raise self.after_append
        return appended


class FaultyLogs:
    def __init__(self, logs):
        self.control = FaultyControl(logs.control)


QUICK = CatalogOptions(read_wait_seconds=0.05, retry_seconds_min=0.001, retry_seconds_max=0.01)


@pytest.mark.asyncio
async def test_log_that_does_not_answer_for_a_while_is_followed_again(tmp_path):
    """The follower backs off and goes on; what was created meanwhile is not missed."""
    async with sqlite_logs(tmp_path) as logs:
        faulty = FaultyLogs(logs)
        async with started(faulty, options=QUICK) as catalog, started(logs) as other:
            faulty.control.read_faults = 5
            await other.create(spec(), PORTS)
            await asyncio.wait_for(catalog.changed(0), 10)
            assert faulty.control.read_faults == 0
            assert catalog.get("movies") == other.get("movies")


@pytest.mark.asyncio
async def test_create_whose_append_was_refused_makes_nothing(tmp_path):
    """The log's own answer comes through: refused means that the index will not appear."""
    async with sqlite_logs(tmp_path) as logs:
        faulty = FaultyLogs(logs)
        faulty.control.before_append = LogUnavailable("injected", outcome="refused")
        async with started(faulty, options=QUICK) as catalog:
            with pytest.raises(LogUnavailable) as caught:
                await catalog.create(spec(), PORTS)
            assert caught.value.outcome == "refused"
            faulty.control.before_append = None
            assert (await catalog.create(spec(), PORTS)).port == 5081


@pytest.mark.asyncio
async def test_create_whose_append_is_unknown_says_so_and_may_appear(tmp_path):
    """An answer that was lost is reported as unknown, is not retried, and the fold tells the truth later."""
    async with sqlite_logs(tmp_path) as logs:
        faulty = FaultyLogs(logs)
        faulty.control.after_append = LogUnavailable("injected", outcome="unknown")
        async with started(faulty, options=QUICK) as catalog:
            with pytest.raises(LogUnavailable) as caught:
                await catalog.create(spec(), PORTS)
            assert caught.value.outcome == "unknown"
            await catalog.refresh()
            assert catalog.get("movies").port == 5081
            assert await logs.control.ends() == [1]


@pytest.mark.asyncio
async def test_create_that_the_fold_does_not_reach_in_time_is_durable_and_unknown(tmp_path):
    """Durable but not folded yet is an error of its own, never a success or a failure that was guessed."""
    async with sqlite_logs(tmp_path) as logs:
        faulty = FaultyLogs(logs)
        options = replace(QUICK, outcome_wait_seconds=0.2)

        def stop_reading(name):
            if name == "catalog.before_append":
                faulty.control.read_faults = 10**9

        async with started(faulty, options=options, step=stop_reading) as catalog:
            with pytest.raises(OutcomeUnknown, match="durable if it was appended"):
                await catalog.create(spec(), PORTS)
            faulty.control.read_faults = 0
            await asyncio.wait_for(catalog.changed(0), 10)
            assert catalog.get("movies").port == 5081


@pytest.mark.asyncio
async def test_client_that_goes_away_does_not_stop_its_create(tmp_path):
    """A cancelled create is carried out once it was handed to the log."""
    reached = asyncio.Event()
    async with sqlite_logs(tmp_path) as logs:
        step = {"catalog.before_append": reached.set}
        async with started(logs, step=lambda name: step.get(name, lambda: None)()) as catalog:
            version = catalog.version
            task = asyncio.create_task(catalog.create(spec(), PORTS))
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(catalog.changed(version), 10)
            assert catalog.get("movies").port == 5081


@pytest.mark.asyncio
async def test_control_log_that_lost_its_tail_is_folded_again(tmp_path):
    """A catalog that has passed more than the log still holds starts over, so that later events are not missed."""
    async with sqlite_logs(tmp_path) as logs, started(logs, options=CatalogOptions(read_wait_seconds=0.2)) as catalog:
        await catalog.create(spec("kept"), PORTS)
        await catalog.create(spec("lost"), PORTS)
        version = catalog.version
        with contextlib.closing(sqlite3.connect(tmp_path / "log.db", timeout=10)) as connection, connection:
            (slot,) = connection.execute(
                "SELECT slot FROM partitions WHERE log_id = ?", (logs.control.log_id,)
            ).fetchone()
            connection.execute(f"DELETE FROM events_{slot} WHERE final = 1")
            connection.execute("UPDATE partitions SET next_offset = 1 WHERE slot = ?", (slot,))
        await asyncio.wait_for(catalog.changed(version), 10)
        assert [index.name for index in catalog.list()] == ["kept"]
        await catalog.create(spec("later"), PORTS)
        assert [index.name for index in catalog.list()] == ["kept", "later"]
