"""What every log keeps to, as tests: a log's test module inherits the class and supplies the fixture `spec`."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from producer.log.protocol import Appended, Log, LogRecord, Logs, StoredRecord
from schemas.errors import ConfigError, LogUnavailable, PayloadTooLarge
from schemas.limits import APPEND_BYTES_MAX
from tests.support.appender import Appender, assert_whole, batch, make_logs
from tests.support.log_reading import PLENTY, WAIT_SECONDS, killed_at_step, new_log_id, read_all

__all__ = ["LogContract"]


def _one(value: bytes) -> list[LogRecord]:
    return [LogRecord(b"ns", value)]


async def _append_some(log: Log, partition: int, tag: str, *, batches: int, count: int) -> dict[tuple[str, int], int]:
    said = {}
    for number in range(batches):
        said[tag, number] = (await log.append(partition, batch(tag, number, count))).begin_offset
    return said


@pytest.mark.asyncio
class LogContract:
    """The specification."""

    @pytest_asyncio.fixture
    async def logs(self, spec: str) -> AsyncIterator[Logs]:
        logs = make_logs(spec)
        await logs.start()
        yield logs
        await logs.close()

    @pytest_asyncio.fixture
    async def others(self, spec: str) -> AsyncIterator[Logs]:
        """A second opening of the same place, as another process would have."""
        logs = make_logs(spec)
        await logs.start()
        yield logs
        await logs.close()

    @pytest_asyncio.fixture
    async def log(self, logs: Logs) -> AsyncIterator[Log]:
        log_id = new_log_id()
        yield await logs.open("contract", log_id, 2)
        await logs.drop("contract", log_id, 2)

    async def test_a_new_log_is_empty(self, log: Log) -> None:
        """Offsets start at 0 and a new log ends where it starts."""
        assert list(await log.ends()) == [0, 0]
        found = await log.read(0, 0, bytes_max=PLENTY, wait_seconds=0)
        assert (list(found.records), found.next_offset, found.end_offset) == ([], 0, 0)

    async def test_appended_records_are_read_back_where_append_said(self, log: Log) -> None:
        """Append names the first offset and the one after the last; reading from the first returns the records."""
        first = await log.append(1, batch("a", 0, 3))
        second = await log.append(1, batch("b", 0, 2))
        assert (first, second) == (Appended(0, 3), Appended(3, 5))
        assert (await log.ends())[1] == 5
        found = await log.read(1, first.next_offset, bytes_max=PLENTY, wait_seconds=0)
        assert [(r.offset, r.value) for r in found.records] == [(3, b"b/0/0/2"), (4, b"b/0/1/2")]
        assert (found.next_offset, found.end_offset) == (5, 5)

    async def test_partitions_have_offsets_of_their_own(self, log: Log) -> None:
        """What is appended to one partition is not in another."""
        await log.append(0, batch("a", 0, 3))
        assert await log.append(1, batch("b", 0, 1)) == Appended(0, 1)
        assert [r.value for r in await read_all(log, 1)] == [b"b/0/0/1"]

    @pytest.mark.parametrize(
        "record",
        [
            LogRecord(None, b"no key"),
            LogRecord(b"", b"empty key"),
            LogRecord(b"ns", b""),
            LogRecord("größe 空間".encode(), b"\x00\xff binary \n"),
            LogRecord(b"ns", b"v", (("content-type", b"application/json"), ("content-type", b"again"), ("x", b""))),
            LogRecord(b"ns", b"v", (("überschrift", b"\x00\x01"),)),
        ],
        ids=["null key", "empty key", "empty value", "unicode key", "repeated headers", "unicode header"],
    )
    async def test_every_byte_comes_back(self, log: Log, record: LogRecord) -> None:
        """Keys, values and headers come back as given: null, empty, binary, repeated."""
        await log.append(0, [LogRecord(b"before", b"1"), record, LogRecord(b"after", b"2")])
        found = (await read_all(log, 0))[1]
        assert (found.key, found.value, found.headers) == (record.key, record.value, record.headers)

    async def test_append_time_never_falls(self, log: Log) -> None:
        """The time of a record is when it was appended, and never falls within a partition."""
        for number in range(20):
            await log.append(0, batch("t", number, 2))
        times = [record.time_ms for record in await read_all(log, 0)]
        assert times == sorted(times)
        assert times[0] > 1_600_000_000_000

    async def test_concurrent_requests_never_mix(self, log: Log) -> None:
        """Records of one append lie at consecutive offsets in the order given, whoever else appends."""
        said: dict[int, dict[tuple[str, int], int]] = defaultdict(dict)

        async def write(writer: int) -> None:
            partition = writer % 2
            said[partition] |= await _append_some(log, partition, f"w{writer}", batches=12, count=1 + writer)

        await asyncio.gather(*(write(writer) for writer in range(12)))
        for partition in (0, 1):
            records = await read_all(log, partition)
            assert_whole(records, said[partition])
            assert len(records) == sum(12 * (1 + writer) for writer in range(12) if writer % 2 == partition)

    async def test_appends_of_one_caller_keep_their_order(self, log: Log) -> None:
        """Appends that were accepted one after another are in the log in that order, also when not awaited between."""
        tasks = [asyncio.create_task(log.append(0, batch("o", number, 1))) for number in range(200)]
        appended = await asyncio.gather(*tasks)
        assert [a.begin_offset for a in appended] == sorted(a.begin_offset for a in appended)

    async def test_a_read_starts_in_the_middle_of_a_request(self, log: Log) -> None:
        """Reading from any offset returns the record there first."""
        await log.append(0, batch("m", 0, 50))
        for offset in (0, 1, 25, 49):
            found = await log.read(0, offset, bytes_max=PLENTY, wait_seconds=0)
            assert found.records[0].offset == offset
            assert found.records[0].value == f"m/0/{offset}/50".encode()

    async def test_a_read_keeps_to_its_byte_budget(self, log: Log) -> None:
        """A read returns about as many bytes as asked, at least one record, and goes on where it stopped."""
        await log.append(0, [LogRecord(None, bytes([i]) * 1000) for i in range(100)])
        small = await log.read(0, 0, bytes_max=10_000, wait_seconds=0)
        assert 5 <= len(small.records) <= 15
        single = await log.read(0, 0, bytes_max=1, wait_seconds=0)
        assert len(single.records) == 1
        assert (single.next_offset, single.end_offset) == (1, 100)
        assert [r.value[0] for r in await read_all(log, 0, bytes_max=7_000)] == list(range(100))

    async def test_a_waiting_read_ends_when_this_process_appends(self, log: Log) -> None:
        """A read at the end waits and returns what is appended meanwhile."""
        await log.append(0, _one(b"1"))
        read = asyncio.create_task(log.read(0, 1, bytes_max=PLENTY, wait_seconds=WAIT_SECONDS))
        await asyncio.sleep(0.1)
        assert not read.done()
        await log.append(0, _one(b"2"))
        async with asyncio.timeout(10):
            assert [r.value for r in (await read).records] == [b"2"]

    async def test_a_waiting_read_ends_when_another_process_appends(self, spec: str, log: Log) -> None:
        """The same, where the append comes from elsewhere."""
        read = asyncio.create_task(log.read(1, 0, bytes_max=PLENTY, wait_seconds=WAIT_SECONDS))
        await asyncio.sleep(0.1)
        appender = await Appender.start(spec, log.log_id, 2, 1, "child", 1, 3)
        async with asyncio.timeout(25):
            found = await read
        await appender.acknowledged()
        await appender.kill()
        assert found.records[0].value == b"child/0/0/3"

    async def test_a_waiting_read_returns_empty_when_nothing_comes(self, log: Log) -> None:
        """A wait ends by itself, with the position it began at."""
        await log.append(0, _one(b"1"))
        async with asyncio.timeout(10):
            found = await log.read(0, 1, bytes_max=PLENTY, wait_seconds=0.2)
        assert (list(found.records), found.next_offset, found.end_offset) == ([], 1, 1)

    async def test_a_read_beyond_the_end_returns_the_true_end_at_once(self, log: Log) -> None:
        """A position that the log has not reached is answered with where it ends, without waiting."""
        await log.append(0, batch("b", 0, 2))
        async with asyncio.timeout(10):
            found = await log.read(0, 1_000, bytes_max=PLENTY, wait_seconds=WAIT_SECONDS)
        assert (list(found.records), found.end_offset) == ([], 2)

    async def test_waiting_on_one_partition_does_not_hold_up_another(self, logs: Logs) -> None:
        """Eighty partitions of twenty logs are waited for at once; each gets its own record, in any order."""
        opened = [await logs.open(f"many{n}", new_log_id(), 4) for n in range(20)]
        waiting = {
            (n, p): asyncio.create_task(log.read(p, 0, bytes_max=PLENTY, wait_seconds=WAIT_SECONDS))
            for n, log in enumerate(opened)
            for p in range(4)
        }
        await asyncio.sleep(0.1)
        for n, p in reversed(waiting):
            await opened[n].append(p, _one(f"{n}/{p}".encode()))
            if p == 3:
                async with asyncio.timeout(10):
                    assert [r.value for r in (await waiting[n, p]).records] == [f"{n}/{p}".encode()]
        async with asyncio.timeout(20):
            for (n, p), read in waiting.items():
                assert [r.value for r in (await read).records] == [f"{n}/{p}".encode()]
        for n, log in enumerate(opened):
            await logs.drop(f"many{n}", log.log_id, 4)

    async def test_a_cancelled_read_costs_nothing(self, log: Log) -> None:
        """Giving up on a read takes no record from the next one."""
        for _ in range(3):
            read = asyncio.create_task(log.read(0, 0, bytes_max=PLENTY, wait_seconds=WAIT_SECONDS))
            await asyncio.sleep(0.05)
            read.cancel()
        await log.append(0, _one(b"kept"))
        assert [r.value for r in await read_all(log, 0)] == [b"kept"]

    async def test_a_cancelled_append_is_still_carried_out(self, log: Log) -> None:
        """A caller that goes away does not take back what was accepted."""
        task = asyncio.create_task(log.append(0, batch("c", 0, 3)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        found = await log.read(0, 0, bytes_max=PLENTY, wait_seconds=WAIT_SECONDS)
        assert [r.value for r in found.records] == [r.value for r in batch("c", 0, 3)]

    async def test_ends_include_what_another_process_was_told(self, spec: str, log: Log) -> None:
        """Ends are read from the log itself, not remembered."""
        await log.append(0, _one(b"mine"))
        await log.ends()
        appender = await Appender.start(spec, log.log_id, 2, 0, "child", 4, 5)
        said = await appender.acknowledged()
        await appender.kill()
        assert len(said) == 4
        assert (await log.ends())[0] == said[3] + 5

    @pytest.mark.parametrize("count", [1, 1_000])
    async def test_the_largest_append_is_taken_whole(self, log: Log, count: int) -> None:
        """One call may carry `APPEND_BYTES_MAX` bytes, as one record or as many."""
        value = bytes(APPEND_BYTES_MAX // count)
        appended = await log.append(0, [LogRecord(None, value)] * count)
        assert appended == Appended(0, count)
        assert sum(len(r.value) for r in await read_all(log, 0, bytes_max=1 << 20)) == len(value) * count

    async def test_an_append_over_the_limit_is_refused_whole(self, log: Log) -> None:
        """One byte more is refused, and nothing of it is in the log."""
        half = bytes(APPEND_BYTES_MAX // 2)
        with pytest.raises(PayloadTooLarge, match=str(APPEND_BYTES_MAX)):
            await log.append(0, [LogRecord(b"k", half), LogRecord(None, half)])
        assert list(await log.ends()) == [0, 0]

    async def test_large_concurrent_appends_stay_whole(self, log: Log) -> None:
        """Requests that do not fit into one commit together are still whole, each on its own."""
        value = bytes(1 << 20)
        appended = await asyncio.gather(*(log.append(0, [LogRecord(None, value)] * 3) for _ in range(8)))
        assert sorted(a.begin_offset for a in appended) == [3 * n for n in range(8)]
        assert len(await read_all(log, 0, bytes_max=4 << 20)) == 24

    async def test_opening_again_gives_the_same_log(self, logs: Logs, others: Logs, log: Log) -> None:
        """Open makes a log only once; whoever opens it sees the same records."""
        await log.append(0, _one(b"1"))
        again = await logs.open("contract", log.log_id, 2)
        elsewhere = await others.open("contract", log.log_id, 2)
        for other in (again, elsewhere):
            assert (other.log_id, other.partitions) == (log.log_id, 2)
            assert [r.value for r in await read_all(other, 0)] == [b"1"]

    async def test_racing_opens_make_one_log(self, logs: Logs, others: Logs) -> None:
        """Many callers in two processes that make a log at once all get the same one."""
        log_id = new_log_id()
        opened = await asyncio.gather(*(where.open("race", log_id, 3) for where in (logs, others) * 4))
        for number, log in enumerate(opened):
            await log.append(1, _one(str(number).encode()))
        assert len(await read_all(opened[0], 1)) == len(opened)
        await logs.drop("race", log_id, 3)

    async def test_another_partition_count_is_refused(self, logs: Logs, others: Logs, log: Log) -> None:
        """The number of partitions is fixed when a log is made."""
        for where in (logs, others):
            with pytest.raises(ConfigError, match="2 partitions"):
                await where.open("contract", log.log_id, 3)

    async def test_a_dropped_log_is_gone_and_others_stay(self, logs: Logs, log: Log) -> None:
        """Drop deletes one log; made again, it is empty; dropping what is not there is fine."""
        log_id = new_log_id()
        await log.append(0, _one(b"stays"))
        doomed = await logs.open("doomed", log_id, 2)
        await doomed.append(0, batch("d", 0, 10))
        await logs.drop("doomed", log_id, 2)
        await logs.drop("doomed", log_id, 2)
        assert [r.value for r in await read_all(log, 0)] == [b"stays"]
        again = await logs.open("doomed", log_id, 2)
        assert list(await again.ends()) == [0, 0]
        await logs.drop("doomed", log_id, 2)

    async def test_the_control_log_is_the_same_for_all(self, logs: Logs, others: Logs) -> None:
        """There is one control log with one partition, from the first start on, for every process."""
        assert logs.control.partitions == 1
        assert logs.control.log_id == others.control.log_id
        begin = (await logs.control.append(0, _one(b"index made"))).begin_offset
        found = await others.control.read(0, begin, bytes_max=PLENTY, wait_seconds=WAIT_SECONDS)
        assert found.records[0].value == b"index made"

    async def test_a_log_goes_on_after_a_restart(self, spec: str, log: Log, others: Logs) -> None:
        """Closing and opening again keeps records, ends and the next offset."""
        other = await others.open("contract", log.log_id, 2)
        said = await _append_some(other, 0, "before", batches=3, count=4)
        await others.close()
        logs = make_logs(spec)
        await logs.start()
        again = await logs.open("contract", log.log_id, 2)
        assert (await again.ends())[0] == 12
        said |= await _append_some(again, 0, "after", batches=1, count=4)
        assert said["after", 0] == 12
        assert_whole(await read_all(again, 0), said)
        await logs.close()

    async def test_close_finishes_what_was_accepted(self, log: Log, others: Logs) -> None:
        """Appends accepted before a close are answered by it; later ones are refused."""
        other = await others.open("contract", log.log_id, 2)
        tasks = [asyncio.create_task(other.append(0, batch("z", number, 2))) for number in range(50)]
        await asyncio.sleep(0)
        await others.close()
        said = {("z", number): (await task).begin_offset for number, task in enumerate(tasks)}
        assert_whole(await read_all(log, 0), said)
        with pytest.raises(LogUnavailable) as refused:
            await other.append(0, batch("z", 50, 2))
        assert refused.value.outcome == "refused"

    async def test_what_was_acknowledged_survives_a_kill(self, spec: str, log: Log) -> None:
        """A process killed without warning among its appends loses nothing that it was told, and leaves no half."""
        appender = await Appender.start(spec, log.log_id, 2, 0, "killed", 100_000, 7)
        said = await appender.acknowledged(40)
        appender.process.kill()
        said |= await appender.acknowledged()
        await appender.kill()
        records = await read_all(log, 0)
        assert_whole(records, {("killed", number): begin for number, begin in said.items()})
        assert (await log.append(0, _one(b"next/0/0/1"))).begin_offset >= len(records)

    @pytest.mark.parametrize("step", ["append.before_commit", "append.after_commit", "append.before_answer"])
    async def test_a_kill_at_each_step_leaves_wholes(self, spec: str, log: Log, step: str) -> None:
        """Wherever an appender dies, the request it worked on is in the log whole or not at all."""
        said, records = await killed_at_step(spec, log, step)
        committed = len(said) + (step != "append.before_commit")
        assert len(records) == 5 * committed, "neither earlier nor later than at its commit is a request in the log"

    async def test_several_processes_append_to_one_partition(self, spec: str, log: Log) -> None:
        """Appends of several processes share a partition; nothing is lost, mixed or overwritten."""
        appenders = {f"p{n}": await Appender.start(spec, log.log_id, 2, 0, f"p{n}", 30, 3 + n) for n in range(3)}
        said = await _append_some(log, 0, "here", batches=30, count=2)
        for tag, appender in appenders.items():
            found = await appender.acknowledged()
            await appender.kill()
            assert len(found) == 30, f"{tag} did not finish"
            said |= {(tag, number): begin for number, begin in found.items()}
        assert_whole(await read_all(log, 0), said)

    async def test_a_reader_beside_writers_misses_nothing(self, logs: Logs, others: Logs, log: Log) -> None:
        """A reader that follows while others write gets every record once, in order, and never one twice."""
        writer = await others.open("contract", log.log_id, 2)
        total = 300
        seen: list[StoredRecord] = []

        async def follow() -> Sequence[StoredRecord]:
            offset = 0
            while len(seen) < total:
                found = await log.read(0, offset, bytes_max=2_000, wait_seconds=WAIT_SECONDS)
                assert found.end_offset >= found.next_offset or not found.records
                seen.extend(found.records)
                offset = found.next_offset
            return seen

        following = asyncio.create_task(follow())
        said = await _append_some(writer, 0, "f", batches=total // 3, count=3)
        async with asyncio.timeout(20):
            await following
        assert_whole(seen, said)
