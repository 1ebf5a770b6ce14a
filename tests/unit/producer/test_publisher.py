import asyncio

import pytest
from prometheus_client import CollectorRegistry

from producer.metrics import ProducerMetrics
from producer.publisher import Publisher
from schemas.errors import InvalidRequest, LogFull, LogRegressed, PayloadTooLarge, TailFull
from schemas.events import decode, namespace_of
from schemas.idempotency import Mark, digest_of, mark_of
from schemas.indexes import IndexSpec, Metric
from schemas.limits import APPEND_BYTES_MAX
from schemas.metadata import canonical_metadata
from schemas.operations import Delete, DeleteNamespace, Upsert
from schemas.partitions import partition_of
from schemas.records import dense_bytes
from tests.unit.producer.log_fixtures import all_records, sqlite_logs

SPEC = IndexSpec("movies", "A" * 22, 4, 3, Metric.COSINE)


def upsert(name, metadata=b""):
    return Upsert(name, dense_bytes([1, 2, 3]), None, metadata)


def opener(logs):
    return lambda spec: logs.open(spec.name, spec.log_id, spec.partitions)


@pytest.mark.asyncio
async def test_batch_lies_whole_and_in_order_in_the_namespaces_partition(tmp_path):
    """One event is one record; event i lies at begin_offset + i; the key is the namespace."""
    async with sqlite_logs(tmp_path) as logs:
        publisher = Publisher(opener(logs))
        events = [upsert("a"), upsert("b", b'{"x":1}'), Delete("a"), DeleteNamespace(keep=True)]
        first = await publisher.publish(SPEC, "", [Delete("z")])
        batch = await publisher.publish(SPEC, "", events, headers=(("traceparent", b"00-1"),))
        assert first.partition == batch.partition == partition_of("__default__", 4)
        assert (batch.begin_offset, batch.next_offset) == (first.next_offset, first.next_offset + 4)
        log = await logs.open(SPEC.name, SPEC.log_id, 4)
        records = (await all_records(log, batch.partition))[1:]
        assert [record.offset for record in records] == [batch.begin_offset + place for place in range(4)]
        assert [decode(record.value, dict(record.headers)) for record in records] == events
        assert {namespace_of(record.key) for record in records} == {"__default__"}
        assert all(dict(record.headers)["traceparent"] == b"00-1" for record in records)
        assert sum(await log.ends()) == 5


@pytest.mark.asyncio
async def test_every_request_has_a_batch_id_of_its_own(tmp_path):
    """All records of a request carry one id, which no other request has."""
    async with sqlite_logs(tmp_path) as logs:
        publisher = Publisher(opener(logs))
        for _ in range(3):
            batch = await publisher.publish(SPEC, "n", [upsert("a"), upsert("b")])
        log = await logs.open(SPEC.name, SPEC.log_id, 4)
        ids = [dict(record.headers)["freshet-batch"] for record in await all_records(log, batch.partition)]
        assert len(ids) == 6
        assert ids[0::2] == ids[1::2]
        assert len(set(ids)) == 3


@pytest.mark.asyncio
async def test_records_of_a_batch_with_a_key_carry_it_and_their_place(tmp_path):
    """So that they are recognised one by one; without a key nothing is added, and a malformed one is refused."""
    async with sqlite_logs(tmp_path) as logs:
        publisher = Publisher(opener(logs))
        first = await publisher.publish(SPEC, "n", [upsert(str(place)) for place in range(40)], idempotency_key=b"k")
        await publisher.publish(SPEC, "n", [upsert("a")], idempotency_key=b"one")
        await publisher.publish(SPEC, "n", [upsert("a"), upsert("b")])
        with pytest.raises(InvalidRequest, match="freshet-idempotency-key"):
            await publisher.publish(SPEC, "n", [upsert("a")], idempotency_key=b"with space")
        log = await logs.open(SPEC.name, SPEC.log_id, 4)
        records = await all_records(log, first.partition)
        marks = [mark_of(dict(record.headers), "n") for record in records]
        assert marks[:40] == [Mark(digest_of("n", b"k"), place) for place in range(40)]
        assert marks[40:] == [Mark(digest_of("n", b"one"), 0), None, None]
        assert [name for name, _ in records[40].headers] == ["freshet-batch", "freshet-idempotency-key"]
        assert [name for name, _ in records[41].headers] == ["freshet-batch"]


@pytest.mark.asyncio
async def test_batch_above_the_append_limit_is_refused_before_anything_is_written(tmp_path):
    """Over 8 MB encoded is 413 with the limit; the log stays as it was. Below it the batch is taken whole."""
    async with sqlite_logs(tmp_path) as logs:
        publisher = Publisher(opener(logs))
        metadata = canonical_metadata({"x": "y" * 40_000})
        count = APPEND_BYTES_MAX // 40_200
        taken = await publisher.publish(SPEC, "n", [upsert(f"{place}", metadata) for place in range(count)])
        assert taken.next_offset - taken.begin_offset == count
        with pytest.raises(PayloadTooLarge, match=f"the limit is {APPEND_BYTES_MAX}") as caught:
            await publisher.publish(SPEC, "n", [upsert(f"{place}", metadata) for place in range(count + 5)])
        assert caught.value.facts["limit"] == APPEND_BYTES_MAX
        log = await logs.open(SPEC.name, SPEC.log_id, 4)
        assert sum(await log.ends()) == count


@pytest.mark.asyncio
async def test_event_that_does_not_fit_leaves_the_whole_batch_out(tmp_path):
    """Admission comes first: a batch is appended whole or not at all."""
    async with sqlite_logs(tmp_path) as logs:
        publisher = Publisher(opener(logs))
        with pytest.raises(InvalidRequest, match="Vector ID"):
            await publisher.publish(SPEC, "n", [upsert("a"), upsert("")])
        log = await logs.open(SPEC.name, SPEC.log_id, 4)
        assert sum(await log.ends()) == 0


@pytest.mark.asyncio
async def test_client_that_goes_away_does_not_tear_its_request(tmp_path):
    """A cancelled publish is still carried out once it was handed over, and close waits for it."""
    reached = asyncio.Event()
    async with sqlite_logs(tmp_path) as logs:
        publisher = Publisher(
            opener(logs), step=lambda name: reached.set() if name == "publish.before_append" else None
        )
        task = asyncio.create_task(publisher.publish(SPEC, "n", [upsert("a"), upsert("b")]))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await publisher.close()
        log = await logs.open(SPEC.name, SPEC.log_id, 4)
        assert sum(await log.ends()) == 2


@pytest.mark.asyncio
async def test_refused_partition_takes_no_writes_until_it_is_allowed(tmp_path):
    """A log that ends below what was folded takes no writes to that partition of that index; others go on."""
    async with sqlite_logs(tmp_path) as logs:
        publisher = Publisher(opener(logs))
        partition = partition_of("n", 4)
        elsewhere = next(name for name in map(str, range(100)) if partition_of(name, 4) != partition)
        publisher.refuse(SPEC.index_id, partition, "the log ends at 3, the snapshot stands at 7")
        with pytest.raises(LogRegressed, match="the log ends at 3, the snapshot stands at 7") as caught:
            await publisher.publish(SPEC, "n", [upsert("a")])
        assert caught.value.retry_after_seconds
        await publisher.publish(SPEC, elsewhere, [upsert("a")])
        other = IndexSpec("other", "B" * 22, 4, 3, Metric.COSINE)
        await publisher.publish(other, "n", [upsert("a")])
        publisher.allow(SPEC.index_id, partition)
        assert (await publisher.publish(SPEC, "n", [upsert("a")])).begin_offset == 0


@pytest.mark.asyncio
async def test_gate_holds_writes_back_before_the_log(tmp_path):
    """Back-pressure is answered before anything is appended, and knows index, partition and namespace."""
    asked = []

    def gate(spec, partition, namespace):
        asked.append((spec.name, partition, namespace))
        raise TailFull("too much is not indexed yet", retry_after_seconds=1)

    async with sqlite_logs(tmp_path) as logs:
        with pytest.raises(TailFull):
            await Publisher(opener(logs), gates=[gate]).publish(SPEC, "", [upsert("a")])
        log = await logs.open(SPEC.name, SPEC.log_id, 4)
        assert sum(await log.ends()) == 0
    assert asked == [("movies", partition_of("", 4), "__default__")]


@pytest.mark.asyncio
async def test_what_was_appended_and_what_failed_is_counted(tmp_path):
    """Events by operation, bytes, and failures by kind of error."""
    registry = CollectorRegistry()
    async with sqlite_logs(tmp_path) as logs:
        publisher = Publisher(opener(logs), metrics=ProducerMetrics(registry))
        await publisher.publish(SPEC, "n", [upsert("a"), upsert("b"), Delete("a")])
    async with sqlite_logs(tmp_path, reserve_bytes=1 << 60) as logs:
        publisher = Publisher(opener(logs), metrics=ProducerMetrics(other := CollectorRegistry()))
        with pytest.raises(LogFull):
            await publisher.publish(SPEC, "n", [upsert("a")])
    assert registry.get_sample_value("freshet_events_published_total", {"operation": "Upsert"}) == 2
    assert registry.get_sample_value("freshet_events_published_total", {"operation": "Delete"}) == 1
    assert registry.get_sample_value("freshet_append_seconds_count") == 1
    assert registry.get_sample_value("freshet_append_bytes_total") > 24
    assert other.get_sample_value("freshet_append_failures_total", {"error": "LogFull"}) == 1
