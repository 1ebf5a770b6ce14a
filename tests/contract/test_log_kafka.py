"""The log on Kafka keeps the contract on a real broker, and what only it has to face."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from producer.log.kafka import KafkaLog, KafkaLogOptions, KafkaLogs
from producer.log.protocol import Appended, LogRecord
from schemas.errors import ConfigError, LogUnavailable, NotFound, PayloadTooLarge
from tests.contract.log_contract import LogContract
from tests.support.appender import assert_whole, batch
from tests.support.broker import Broker
from tests.support.log_reading import new_log_id, read_all

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("kafka")]

_MIB = 1024 * 1024
# What the log promises while the broker is away and after it is back, with room for a busy machine.
_UNAVAILABLE_SECONDS = 2.0
_RECOVERED_SECONDS = 5.0
_ROOM_SECONDS = 1.5


class TestKafkaLog(LogContract):
    """Everything that every log promises."""

    @pytest.fixture
    def spec(self, kafka: Broker) -> str:
        return f"kafka:{kafka.bootstrap}"


async def _foreign(kafka: Broker, log: KafkaLog, records, **options) -> None:
    """Produce as another program would, to partition 0."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, **options)
    await producer.start()
    try:
        for key, value, headers in records:
            await producer.send_and_wait(log._topic, value, key=key, headers=headers, partition=0)
    finally:
        await producer.stop()


async def _ended(log: KafkaLog, end: int) -> None:
    """Wait for the end of partition 0: a broker confirms a commit first and writes its marker after that."""
    deadline = time.monotonic() + 30
    while (found := (await log.ends())[0]) != end:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.01)


@pytest.mark.asyncio
@pytest.mark.parametrize("compression", [None, "gzip", "lz4", "zstd"])
async def test_records_of_other_producers_are_read(kafka, log, compression):
    """Plain records with any compression, null keys, null values and headers with null values come through."""
    await _foreign(
        kafka,
        log,
        [(b"ns", b"value" * 100, []), (None, b"v", [("h", b"x")]), (b"ns", None, []), (b"ns", b"w", [("n", None)])],
        compression_type=compression,
    )
    found = await read_all(log, 0)
    assert [(r.offset, r.key, r.value, r.headers) for r in found] == [
        (0, b"ns", b"value" * 100, ()),
        (1, None, b"v", (("h", b"x"),)),
        (2, b"ns", b"", ()),
        (3, b"ns", b"w", (("n", b""),)),
    ]
    assert await log.append(0, batch("a", 0, 2)) == Appended(4, 6)


@pytest.mark.asyncio
async def test_positions_pass_over_transaction_markers(kafka, log):
    """A commit marker takes an offset without a record: the end counts it, and reading goes past it."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=new_log_id())
    await producer.start()
    for number in range(2):
        async with producer.transaction():
            await producer.send_and_wait(log._topic, b"%d" % number, partition=0)
    await producer.stop()
    await _ended(log, 4)
    assert [(r.offset, r.value) for r in await read_all(log, 0)] == [(0, b"0"), (2, b"1")]
    passed = await log.read(0, 3, bytes_max=_MIB, wait_seconds=5)
    assert (list(passed.records), passed.next_offset, passed.end_offset) == ([], 4, 4)
    assert await log.append(0, batch("a", 0, 1)) == Appended(4, 5)


@pytest.mark.asyncio
async def test_aborted_and_open_transactions_are_not_read(kafka, log):
    """Records of an aborted transaction never appear; those of an open one are beyond the end."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=new_log_id())
    await producer.start()
    await producer.begin_transaction()
    await producer.send_and_wait(log._topic, b"aborted", partition=0)
    await producer.abort_transaction()
    await log.append(0, batch("a", 0, 1))
    await producer.begin_transaction()
    await producer.send_and_wait(log._topic, b"open", partition=0)
    assert (await log.ends())[0] == 3
    assert [r.value for r in await read_all(log, 0)] == [b"a/0/0/1"]
    waiting = await log.read(0, 3, bytes_max=_MIB, wait_seconds=0.2)
    assert list(waiting.records) == []
    await producer.commit_transaction()
    await producer.stop()
    await _ended(log, 5)
    assert [r.value for r in await read_all(log, 0)] == [b"a/0/0/1", b"open"]


@pytest.mark.asyncio
async def test_time_is_the_brokers(kafka, log):
    """Time is when the broker appended, whatever the producer claims."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    before = time.time_ns() // 1_000_000
    await producer.send_and_wait(log._topic, b"v", partition=0, timestamp_ms=1_000)
    await producer.stop()
    (record,) = await read_all(log, 0)
    assert before - 60_000 < record.time_ms < before + 60_000


@pytest.mark.asyncio
async def test_concurrent_appends_share_batches(log):
    """Requests that wait while a batch is on its way go into the next one together."""
    await log.append(0, batch("first", 0, 1))
    sent = []
    release = asyncio.Event()
    cluster = log._cluster
    request = cluster.request

    async def counting(broker, purpose, what, **options):
        if purpose[0] == "append":
            sent.append(what)
            await release.wait()
        return await request(broker, purpose, what, **options)

    cluster.request = counting
    alone = asyncio.create_task(log.append(0, batch("alone", 0, 3)))
    await asyncio.sleep(0.05)
    waiting = [asyncio.create_task(log.append(0, batch("s", number, 3))) for number in range(100)]
    await asyncio.sleep(0.05)
    release.set()
    appended = await asyncio.gather(alone, *waiting)
    assert len(sent) == 2
    said = {("s", number): a.begin_offset for number, a in enumerate(appended[1:])}
    assert_whole(await read_all(log, 0), said)


@pytest.mark.asyncio
async def test_a_topic_that_does_not_fit_is_refused(kafka, logs):
    """A topic with another timestamp type, compaction or small batches is not used as a log."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    for setting, value in {
        "message.timestamp.type": "CreateTime",
        "cleanup.policy": "compact",
        "max.message.bytes": "1000000",
        "retention.ms": "60000",
    }.items():
        good = {
            "message.timestamp.type": "LogAppendTime",
            "cleanup.policy": "delete",
            "max.message.bytes": str(16 * _MIB),
            "retention.ms": "-1",
        }
        log_id = new_log_id()
        topic = NewTopic(f"freshet.odd.{log_id}", 1, 1, topic_configs=good | {setting: value})
        await admin.create_topics([topic])
        with pytest.raises(ConfigError, match=setting):
            await logs.open("odd", log_id, 1)
        await logs.drop("odd", log_id, 1)
    await admin.close()


@pytest.mark.asyncio
async def test_nobody_brings_a_dropped_topic_back(kafka, logs):
    """Reads, appends and ends of a log that was dropped fail; asking does not make the topic again."""
    log = await logs.open("gone", new_log_id(), 1)
    await log.append(0, batch("a", 0, 1))
    other = KafkaLogs(kafka.bootstrap, KafkaLogOptions(control="tests", answer_seconds=4.0))
    await other.start()
    stale = await other.open("gone", log.log_id, 1)
    await stale.append(0, batch("a", 1, 1))
    await logs.drop("gone", log.log_id, 1)
    with pytest.raises(LogUnavailable):
        await stale.append(0, batch("a", 2, 1))
    with pytest.raises(LogUnavailable):
        await stale.read(0, 0, bytes_max=_MIB, wait_seconds=0)
    with pytest.raises(LogUnavailable):
        await stale.ends()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    assert log._topic not in await admin.list_topics()
    await admin.close()
    await other.close()


@pytest.mark.asyncio
async def test_a_batch_that_the_topic_does_not_take_is_refused(log):
    """Very many tiny records are larger encoded than a topic takes: refused whole, and the next append works."""
    with pytest.raises(PayloadTooLarge):
        await log.append(0, [LogRecord(b"k", b"")] * 2_500_000)
    assert await log.append(0, batch("a", 0, 1)) == Appended(0, 1)


@pytest.mark.asyncio
@pytest.mark.parametrize("bootstrap", ["localhost", "host:port", "", "a:1,b"])
async def test_a_malformed_address_is_a_setting_error(bootstrap):
    """The address is checked before anything is tried."""
    with pytest.raises(ConfigError, match="host:port"):
        KafkaLogs(bootstrap, KafkaLogOptions())


@pytest.mark.asyncio
async def test_a_broker_that_is_not_there_is_unavailable_in_time():
    """Starting without a broker fails within two seconds."""
    logs = KafkaLogs("127.0.0.1:1", KafkaLogOptions())
    async with asyncio.timeout(_UNAVAILABLE_SECONDS + _ROOM_SECONDS):
        with pytest.raises(LogUnavailable):
            await logs.start()
    await logs.close()


@pytest.mark.asyncio
async def test_two_runs_have_catalogs_of_their_own(kafka):
    """The control log's name keeps installations on one cluster apart."""
    first, second = new_log_id(), new_log_id()
    made = [KafkaLogs(kafka.bootstrap, KafkaLogOptions(control=name, answer_seconds=20.0)) for name in (first, second)]
    for logs in made:
        await logs.start()
    await made[0].control.append(0, batch("a", 0, 1))
    assert list(await made[1].control.ends()) == [0]
    for logs, name in zip(made, (first, second), strict=True):
        await logs.drop("__control__", name, 1)
        await logs.close()


@pytest.mark.asyncio
async def test_logs_for_reading_only_make_no_topic(kafka: Broker, log: KafkaLog):
    """What is there is read; what is missing is not made."""
    other_id = new_log_id()
    await log.append(1, [LogRecord(b"ns", b"value")])
    reading = KafkaLogs(kafka.bootstrap, KafkaLogOptions(control="tests", answer_seconds=20.0), is_read_only=True)
    missing = KafkaLogs(kafka.bootstrap, KafkaLogOptions(control=new_log_id(), answer_seconds=20.0), is_read_only=True)
    try:
        await reading.start()
        assert [record.value for record in await read_all(await reading.open("own", log.log_id, 2), 1)] == [b"value"]
        for _ in range(2):
            with pytest.raises(NotFound, match=r"no topic freshet\.books\."):
                await reading.open("books", other_id, 1)
            with pytest.raises(NotFound, match="no topic"):
                await missing.start()
    finally:
        await reading.close()
        await missing.close()
