"""Ends of a log: looked up no more often than needed, and never guessed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from producer.log.protocol import LogRecord
from producer.log.sqlite import SqliteLogOptions, SqliteLogs
from query_api.ends import EndsOptions, LogEnds
from schemas.errors import LogUnavailable

RECORD = LogRecord(b"n", b"value")


@dataclass
class Clock:
    """Says what it is told."""

    now_ms: int = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class Watched:
    """A log that counts look-ups, holds them up, or does not answer; everything else is the real one's."""

    log: object
    looks: int = 0
    fails: bool = False
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __getattr__(self, name):
        return getattr(self.log, name)

    async def ends(self):
        self.looks += 1
        await self.gate.wait()
        if self.fails:
            raise LogUnavailable("planted")
        return await self.log.ends()

    async def read(self, *args, **kwargs):
        if self.fails:
            raise LogUnavailable("planted")
        return await self.log.read(*args, **kwargs)


@pytest.fixture
def parts(tmp_path):
    """Run a test's coroutine over a real log of two partitions."""

    def run(test, **options):
        async def main():
            clock = Clock()
            logs = SqliteLogs(
                tmp_path / "log.sqlite", SqliteLogOptions(synchronous="NORMAL", reserve_bytes=0), clock_ms=clock
            )
            await logs.start()
            watched = Watched(await logs.open("i", "x" * 22, 2))
            watched.gate.set()
            ends = LogEnds(
                watched,
                clock_ms=clock,
                options=EndsOptions(**{"patience_seconds": 20, **options}),
                before_look=lambda: lambda _ends: None,
            )
            try:
                await test(ends, watched, clock)
            finally:
                await ends.close()
                await logs.close()

        asyncio.run(main())

    return run


def test_all_who_came_before_a_look_up_began_share_it(parts):
    """One runs, the next serves everybody who came meanwhile, and each sees what was appended before it asked."""

    async def test(ends, log, _clock):
        log.gate.clear()
        first = [asyncio.create_task(ends.read()) for _ in range(3)]
        await asyncio.sleep(0.01)
        await log.append(0, [RECORD])
        later = [asyncio.create_task(ends.read()) for _ in range(50)]
        await asyncio.sleep(0.01)
        log.gate.set()
        await asyncio.gather(*first)
        assert [list(found) for found in await asyncio.gather(*later)] == [[1, 0]] * 50
        assert log.looks <= 3

    parts(test)


def test_nobody_shares_a_look_up_that_began_before_they_came(parts):
    """At whichever moment of the look-ups of others they come: what was appended before is below the ends they get."""

    async def test(ends, log, _clock):
        async def read_after_append(number):
            await asyncio.sleep(0.0003 * number)
            appended = await log.append(0, [RECORD])
            found = await ends.read()
            assert found[0] >= appended.next_offset

        async def ends_slowly():
            await asyncio.sleep(0.002)
            return await real()

        real = log.log.ends
        log.log.ends = ends_slowly
        await asyncio.gather(*(read_after_append(number) for number in range(300)))
        assert log.looks < 300

    parts(test)


@pytest.mark.parametrize("is_sole_writer", [True, False])
def test_a_bound_is_proven_by_a_look_up_that_is_young_enough_or_by_an_append_time(parts, is_sole_writer):
    """Not by what a process believes of its own appends: others may write."""

    async def test(ends, log, clock):
        assert await ends.is_within(0, 0, max_staleness_ms=60_000)
        looks = log.looks
        assert await ends.is_within(0, 0, max_staleness_ms=60_000)
        assert log.looks == looks
        await log.append(0, [RECORD])
        clock.now_ms += 500
        assert await ends.is_within(0, 0, max_staleness_ms=60_000)
        assert log.looks == looks
        assert not await ends.is_within(0, 0, max_staleness_ms=0)
        assert log.looks == looks + 1
        assert not await ends.is_within(0, 0, max_staleness_ms=499)
        assert await ends.is_within(0, 0, max_staleness_ms=500)
        assert await ends.is_within(0, 1, max_staleness_ms=0)
        assert await ends.is_within(1, 0, max_staleness_ms=0)
        clock.now_ms -= 2_000
        # The stamp lies in the future of this clock: how old the event is, nobody knows.
        assert await ends.is_within(0, 0, max_staleness_ms=60_000) is False
        log.fails = True
        assert await ends.is_within(0, 0, max_staleness_ms=0) is None

    parts(test, is_sole_writer=is_sole_writer)


def test_an_append_of_our_own_is_known_at_once(parts):
    """Also where a look-up that began before it comes back after it."""

    async def test(ends, log, _clock):
        log.gate.clear()
        looking = asyncio.create_task(ends.read())
        await asyncio.sleep(0.01)
        ends.appended(1, begin_offset=4, next_offset=9, time_ms=1)
        log.gate.set()
        assert list(await looking) == [0, 9]
        assert list(ends.known) == [0, 9]

    parts(test)


def test_staleness_is_the_age_of_the_oldest_event_not_shown(parts):
    """From our own appends where they are remembered, else from the log's own stamps; 0 at the end."""

    async def test(ends, log, clock):
        assert await ends.staleness_ms(0, 0) == 0
        for at in (1_000_000, 1_000_400, 1_000_900):
            clock.now_ms = at
            appended = await log.append(0, [RECORD, RECORD])
            ends.appended(0, begin_offset=appended.begin_offset, next_offset=appended.next_offset, time_ms=at)
        clock.now_ms = 1_001_000
        assert await ends.staleness_ms(0, 0) == 1_000
        assert await ends.staleness_ms(0, 1) == 1_000
        assert await ends.staleness_ms(0, 2) == 600
        assert await ends.staleness_ms(0, 5) == 100
        assert await ends.staleness_ms(0, 6) == 0
        # The ring has forgotten what it passed: the log says it.
        assert await ends.staleness_ms(0, 0) == 1_000
        assert await ends.staleness_ms(1, 0) == 0

    parts(test, is_sole_writer=True)


def test_events_of_others_count_as_soon_as_the_ends_are_looked_up(parts):
    """Where others write to the log, what is known is good for a moment only."""

    async def test(ends, log, clock):
        assert await ends.staleness_ms(0, 0) == 0
        await log.append(0, [RECORD])
        clock.now_ms += 5_000
        await asyncio.sleep(0.03)
        assert await ends.staleness_ms(0, 0) == 5_000
        ends.appended(0, begin_offset=1, next_offset=2, time_ms=clock.now_ms)
        assert await ends.staleness_ms(0, 0) == 5_000

    parts(test, resolution_seconds=0.02)


def test_staleness_is_unknown_while_the_log_does_not_answer(parts):
    """Never a guess, and no read waits for longer than the patience; then it is known again."""

    async def test(ends, log, _clock):
        log.fails = True
        assert await ends.staleness_ms(0, 0) is None
        looks = log.looks
        assert [await ends.staleness_ms(0, 0) for _ in range(20)] == [None] * 20
        assert log.looks == looks
        log.fails = False
        await asyncio.sleep(0.6)
        assert await ends.staleness_ms(0, 0) == 0
        log.gate.clear()
        ends.forget()
        assert await ends.staleness_ms(0, 0) is None
        log.gate.set()

    parts(test, patience_seconds=0.5)
