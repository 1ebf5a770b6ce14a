"""A follower swaps to newer snapshots only, and wakes exactly who waits for what arrived."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest
from prometheus_client import CollectorRegistry

from indexer.snapshots.reader import SnapshotReader
from indexer.snapshots.store import LocalStore
from producer.pokes import PokeReceiver, PokeSender, manifest_topic
from query_api.follower import FollowerOptions, PartitionFollower
from query_api.metrics import ApiMetrics
from schemas.errors import CorruptData, SnapshotBehind
from schemas.indexes import IndexSpec, Metric

SPEC = IndexSpec("i", "x" * 22, 1, 4, Metric.COSINE)


@dataclass
class Planted:
    """Stands for a reader whose next look is planned: an offset, a lineage, or an error."""

    empty: object
    plan: list[Callable[[object], object] | Exception] = field(default_factory=list)
    looks: int = 0

    @property
    def current(self):
        return self.empty

    def may_be_behind(self):
        return True

    def refresh(self):
        self.looks += 1
        if not self.plan:
            return None
        step = self.plan.pop(0)
        if isinstance(step, Exception):
            raise step
        self.empty = step(self.empty)
        return self.empty


def at(offset, *, lineage=0):
    def advance(old):
        manifest = replace(old.manifest, version=old.version + 1, next_offset=offset, lineage=lineage)
        return replace(old, manifest=manifest)

    return advance


@pytest.fixture
def follow(tmp_path):
    """Run a test's coroutine with a follower that is poked by hand."""

    def run(test, *plan, **options):
        async def main():
            reader = Planted(SnapshotReader(LocalStore(tmp_path / "store"), SPEC, 0).current, list(plan))
            pokes, sender = PokeReceiver(tmp_path, "t"), PokeSender(tmp_path, "t")
            await pokes.start()
            with ThreadPoolExecutor(1) as threads:
                follower = PartitionFollower(
                    SPEC,
                    0,
                    open_reader=lambda _spec, _partition: reader,
                    threads=threads,
                    metrics=ApiMetrics(CollectorRegistry()),
                    options=FollowerOptions(**{"poll_seconds_min": 60.0, "poll_seconds_max": 60.0, **options}),
                )
                follower.start(pokes)
                try:
                    await test(follower, reader, lambda: sender.poke(manifest_topic(SPEC.index_id, 0)))
                finally:
                    await follower.close(pokes)
                    await pokes.close()
                    sender.close()

        asyncio.run(main())

    return run


def soon(seconds=20.0):
    return asyncio.get_running_loop().time() + seconds


def test_a_poke_brings_the_snapshot_and_wakes_only_those_it_satisfies(follow):
    """The poll is a minute away: only the poke can have done it."""

    async def test(follower, reader, poke):
        assert await follower.opened(until=soon())
        assert follower.snapshot.next_offset == 0
        waits = {offset: asyncio.create_task(follower.reach(offset, until=soon())) for offset in (7, 3, 5)}
        await asyncio.sleep(0.05)
        reader.plan = [at(5)]
        poke()
        done, _ = await asyncio.wait([waits[3], waits[5]], timeout=20)
        assert len(done) == 2
        assert not waits[7].done()
        reader.plan = [at(9)]
        poke()
        assert (await waits[7]).next_offset == 9

    follow(test)


def test_a_lost_poke_costs_one_poll(follow):
    """Nobody says anything, and the snapshot comes."""

    async def test(follower, reader, _poke):
        await follower.opened(until=soon())
        reader.plan = [at(5)]
        assert (await follower.reach(5, until=soon())).next_offset == 5

    follow(test, poll_seconds_min=0.01, poll_seconds_max=0.02)


def test_somebody_who_waits_makes_an_idle_follower_look_at_once(follow):
    """The pause has grown to a minute when the wait begins."""

    async def test(follower, reader, _poke):
        await follower.opened(until=soon())
        await asyncio.sleep(0.1)
        reader.plan = [at(5)]
        assert (await follower.reach(5, until=soon())).next_offset == 5

    follow(test, poll_seconds_min=0.01, poll_seconds_max=60.0)


def test_damage_and_older_state_keep_the_snapshot(follow):
    """The old one stays, the reason is known, and the next good one is taken."""

    async def test(follower, reader, poke):
        await follower.opened(until=soon())
        reader.plan = [at(5)]
        poke()
        await follower.reach(5, until=soon())
        for error in (CorruptData("damaged"), SnapshotBehind("older"), OSError("gone")):
            looks = reader.looks
            reader.plan = [error]
            poke()
            async with asyncio.timeout(20):
                while reader.looks == looks or str(error) not in (follower.problem or ""):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            assert follower.snapshot.next_offset == 5
        reader.plan = [at(6)]
        poke()
        assert (await follower.reach(6, until=soon())).next_offset == 6
        assert follower.problem is None

    follow(test)


def test_a_store_that_cannot_be_read_yet_is_not_an_empty_one(follow):
    """Nothing is shown until a look has succeeded."""

    async def test(follower, reader, poke):
        async with asyncio.timeout(20):
            while follower.problem is None:
                assert not await follower.opened(until=soon(0.01))
        assert "damaged" in follower.problem
        assert not follower.is_open
        reader.plan = [at(3)]
        poke()
        assert await follower.opened(until=soon())
        assert follower.snapshot.next_offset == 3

    follow(test, CorruptData("damaged"))


def test_a_wait_ends_at_its_time_with_what_there_is(follow):
    """The caller compares."""

    async def test(follower, _reader, _poke):
        await follower.opened(until=soon())
        assert (await follower.reach(5, until=soon(0.02))).next_offset == 0

    follow(test)


def test_a_change_of_lineage_wakes_everybody(follow):
    """Offsets mean something else from then on."""

    async def test(follower, reader, poke):
        await follower.opened(until=soon())
        reader.plan = [at(5)]
        poke()
        await follower.reach(5, until=soon())
        wait = asyncio.create_task(follower.reach(100, until=soon()))
        await asyncio.sleep(0.02)
        reader.plan = [at(2, lineage=1)]
        poke()
        assert (await wait).lineage == 1

    follow(test)
