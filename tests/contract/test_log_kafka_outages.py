"""The log on Kafka while its broker goes, hangs and comes back."""

from __future__ import annotations

import asyncio
import time

import pytest

from producer.log.kafka import KafkaLog, KafkaLogOptions, KafkaLogs
from producer.log.protocol import Appended
from schemas.errors import LogUnavailable
from tests.support.appender import Appender, assert_whole, batch
from tests.support.log_reading import new_log_id, read_all

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("kafka")]

_MIB = 1024 * 1024
# What the log promises while the broker is away and after it is back, with room for a busy machine.
_UNAVAILABLE_SECONDS = 2.0
_RECOVERED_SECONDS = 5.0
_ROOM_SECONDS = 1.5


async def _unavailable_outcome(log: KafkaLog, number: int) -> str:
    """Append while the broker is away; return the outcome, which has to come in time."""
    begin = time.monotonic()
    with pytest.raises(LogUnavailable) as failed:
        await log.append(0, batch("away", number, 3))
    assert time.monotonic() - begin < _UNAVAILABLE_SECONDS + _ROOM_SECONDS
    return failed.value.outcome


async def _recovered(log: KafkaLog, *, count: int = 1) -> tuple[float, dict[tuple[str, int], int]]:
    """Append until it works; return how long that took, and where the batch is said to be."""
    begin = time.monotonic()
    number = 0
    while True:
        try:
            appended = await log.append(0, batch("back", number, count))
        except LogUnavailable:
            number += 1
            await asyncio.sleep(0.05)
        else:
            return time.monotonic() - begin, {("back", number): appended.begin_offset}


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_broker_that_goes_and_comes_back(private_kafka, private_logs, how):
    """Without its broker the log is unavailable within 2 s, and usable within 5 s of its return, with every record."""
    log = await private_logs.open("away", new_log_id(), 1)
    assert await log.append(0, batch("before", 0, 5)) == Appended(0, 5)
    getattr(private_kafka, how)()
    await asyncio.sleep(0.2)
    outcomes = [await _unavailable_outcome(log, number) for number in range(2)]
    assert set(outcomes) == {"refused"}, "nothing was sent: there was nobody to connect to"
    begin = time.monotonic()
    with pytest.raises(LogUnavailable):
        await log.ends()
    with pytest.raises(LogUnavailable):
        await log.read(0, 0, bytes_max=_MIB, wait_seconds=0)
    assert time.monotonic() - begin < 2 * (_UNAVAILABLE_SECONDS + _ROOM_SECONDS)
    private_kafka.start()
    seconds, said = await _recovered(log)
    assert seconds < _RECOVERED_SECONDS + _ROOM_SECONDS
    records = await read_all(log, 0)
    assert_whole(records, {("before", 0): 0} | said)
    assert not [r for r in records if r.value.startswith(b"away/")]


@pytest.mark.asyncio
async def test_a_kill_under_load_is_answered_truthfully(private_kafka, private_logs):
    """Killed among appends: acknowledged ones are there, refused ones are not, unknown ones once or not at all."""
    log = await private_logs.open("load", new_log_id(), 1)
    told: dict[int, object] = {}
    stop = asyncio.Event()
    numbers = iter(range(1_000_000))

    async def write() -> None:
        while not stop.is_set():
            number = next(numbers)
            try:
                told[number] = (await log.append(0, batch("l", number, 3))).begin_offset
            except LogUnavailable as error:
                told[number] = error.outcome
                await asyncio.sleep(0.01)

    writers = [asyncio.create_task(write()) for _ in range(8)]
    for _ in range(2):
        await asyncio.sleep(0.5)
        private_kafka.kill()
        private_kafka.launch()
        await asyncio.to_thread(private_kafka.wait)
        await asyncio.sleep(1.0)
    stop.set()
    await asyncio.gather(*writers)
    await _recovered(log)
    await asyncio.sleep(0.5)
    records = await read_all(log, 0)
    acknowledged = {("l", number): said for number, said in told.items() if isinstance(said, int)}
    assert_whole(records, acknowledged)
    present = {int(r.value.split(b"/")[1]) for r in records if r.value.startswith(b"l/")}
    refused = {number for number, said in told.items() if said == "refused"}
    assert len(acknowledged) > 20
    assert refused, "the broker was away long enough for some to be refused"
    assert not present & refused


@pytest.mark.asyncio
async def test_a_broker_that_hangs_is_unavailable_with_unknown_outcome(private_kafka, private_logs):
    """A broker that takes a request and does not answer: unknown within 2 s; later it appears once or not at all."""
    log = await private_logs.open("hang", new_log_id(), 1)
    await log.append(0, batch("before", 0, 2))
    private_kafka.pause()
    try:
        assert await _unavailable_outcome(log, 0) == "unknown"
        assert await _unavailable_outcome(log, 1) == "refused", "a connection to a hanging broker is not made"
        begin = time.monotonic()
        with pytest.raises(LogUnavailable):
            await log.ends()
        assert time.monotonic() - begin < _UNAVAILABLE_SECONDS + _ROOM_SECONDS
    finally:
        private_kafka.resume()
    # As many records as the unknown batch: the broker must not take it for that one, sent again.
    seconds, said = await _recovered(log, count=3)
    assert seconds < _RECOVERED_SECONDS + _ROOM_SECONDS
    await asyncio.sleep(1.0)
    records = await read_all(log, 0)
    assert_whole(records, {("before", 0): 0} | said)
    tags = [r.value.split(b"/")[1] for r in records if r.value.startswith(b"away/")]
    assert tags in ([], [b"0"] * 3), "the refused one never appears, the unknown one at most once"


@pytest.mark.asyncio
async def test_waiting_appends_are_refused_with_the_one_that_failed(private_kafka, private_logs):
    """Requests that waited behind a batch without an answer are refused with it, in the same time."""
    log = await private_logs.open("queue", new_log_id(), 1)
    await log.append(0, batch("before", 0, 1))
    private_kafka.pause()
    try:
        begin = time.monotonic()
        first = asyncio.create_task(log.append(0, batch("q", 0, 1)))
        await asyncio.sleep(0.2)
        rest = [asyncio.create_task(log.append(0, batch("q", number, 1))) for number in range(1, 20)]
        outcomes = [
            error.outcome if isinstance(error, LogUnavailable) else error
            for error in await asyncio.gather(first, *rest, return_exceptions=True)
        ]
        assert outcomes == ["unknown"] + ["refused"] * 19
        assert time.monotonic() - begin < _UNAVAILABLE_SECONDS + _ROOM_SECONDS
    finally:
        private_kafka.resume()
    await _recovered(log)
    found = {r.value.decode() for r in await read_all(log, 0)}
    assert not found & {f"q/{number}/0/1" for number in range(1, 20)}


@pytest.mark.asyncio
async def test_a_short_hang_is_bridged_without_a_duplicate(private_kafka):
    """A batch whose answer comes late but in time is acknowledged, and is in the log once."""
    private_kafka.start()
    logs = KafkaLogs(private_kafka.bootstrap, KafkaLogOptions(control=new_log_id(), answer_seconds=20.0))
    await logs.start()
    log = await logs.open("short", new_log_id(), 1)
    await log.append(0, batch("before", 0, 1))
    private_kafka.pause()
    append = asyncio.create_task(log.append(0, batch("late", 0, 2)))
    await asyncio.sleep(0.7)
    private_kafka.resume()
    assert (await append).begin_offset == 1
    assert_whole(await read_all(log, 0), {("before", 0): 0, ("late", 0): 1})
    await logs.close()


@pytest.mark.asyncio
async def test_a_lost_connection_is_bridged_without_a_duplicate(private_logs):
    """A batch whose connection broke after it was sent is sent again on a new one, and the broker keeps it once."""
    log = await private_logs.open("cut", new_log_id(), 1)
    await log.append(0, batch("before", 0, 1))
    cluster = log._cluster
    request = cluster.request
    cuts = []

    async def cutting(broker, purpose, what, **options):
        answer = await request(broker, purpose, what, **options)
        if purpose[0] == "append" and len(cuts) < 3:
            cuts.append(purpose)
            cluster.disconnect(broker, purpose)
            from producer.log.kafka_cluster import AnswerLost  # noqa: PLC0415  # the door's own failure

            raise AnswerLost("cut after the broker had answered")
        return answer

    cluster.request = cutting
    assert await log.append(0, batch("cut", 0, 4)) == Appended(1, 5)
    assert len(cuts) == 3
    assert await log.append(0, batch("after", 0, 1)) == Appended(5, 6)
    assert_whole(await read_all(log, 0), {("before", 0): 0, ("cut", 0): 1, ("after", 0): 5})


@pytest.mark.asyncio
async def test_a_reader_goes_on_after_the_broker_was_away(private_kafka, private_logs):
    """A waiting read fails or goes on while the broker is away; the same position works when it is back."""
    log = await private_logs.open("follow", new_log_id(), 1)
    await log.append(0, batch("a", 0, 2))
    read = asyncio.create_task(log.read(0, 2, bytes_max=_MIB, wait_seconds=30))
    await asyncio.sleep(0.2)
    private_kafka.kill()
    async with asyncio.timeout(_UNAVAILABLE_SECONDS + _ROOM_SECONDS):
        with pytest.raises(LogUnavailable):
            await read
    private_kafka.start()
    seconds, said = await _recovered(log)
    assert seconds < _RECOVERED_SECONDS + _ROOM_SECONDS
    found = await log.read(0, 2, bytes_max=_MIB, wait_seconds=10)
    assert_whole(found.records, said)


@pytest.mark.asyncio
async def test_an_appender_killed_with_the_broker_loses_nothing(private_kafka, private_logs):
    """Appender and broker killed at once: after the broker is back every acknowledged batch is there, whole."""
    log = await private_logs.open("contract", new_log_id(), 1)
    appender = await Appender.start(f"kafka:{private_kafka.bootstrap}", log.log_id, 1, 0, "both", 100_000, 5)
    said = await appender.acknowledged(30)
    private_kafka.kill()
    appender.process.kill()
    said |= await appender.acknowledged()
    await appender.kill()
    private_kafka.start()
    await _recovered(log)
    assert_whole(await read_all(log, 0), {("both", number): begin for number, begin in said.items()})
