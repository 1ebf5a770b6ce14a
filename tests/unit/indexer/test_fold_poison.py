"""Records that cannot be folded become dead letters, exactly; the partition moves on. A newer format stops it."""

from __future__ import annotations

import pytest

from indexer.dead_letters import read_dead_letters, skip_record
from indexer.fold import decode_records
from schemas.errors import UnsupportedFormat
from schemas.events import FORMAT_HEADER
from tests.model.checks import Query, assert_dead_letters, assert_shows
from tests.model.oracle import Oracle
from tests.model.world import FILTERS, IDS, NAMES, PARTITIONS, poison_of
from tests.support.builders import dense, spec_of, update_where, upserts
from tests.support.driver import Pipeline

_KINDS = ["null key", "key", "protobuf", "dimension", "not a number", "partition", "format"]


@pytest.fixture
def pipeline(tmp_path):
    return Pipeline(tmp_path, spec_of(partitions=PARTITIONS))


@pytest.mark.parametrize("kind", _KINDS)
def test_poison_is_one_dead_letter_and_its_neighbours_are_folded(pipeline, kind):
    """One bad record never stops a partition, nor does it take a good one with it."""
    pipeline.book.append_all(NAMES[0], upserts(IDS[:2]))
    offset = pipeline.book.append_poison(*poison_of(kind, NAMES[0]), gap=3)
    pipeline.book.append_all(NAMES[0], upserts(IDS[2:4], 2))
    worker = pipeline.worker()
    worker.publish()
    assert worker.snapshot.next_offset == pipeline.book.end
    assert worker.snapshot.counts() == {NAMES[0]: 4}
    (letter,) = read_dead_letters(pipeline.store, pipeline.spec, 0)
    assert letter.offset == offset
    assert_dead_letters(pipeline.store, worker.snapshot, Oracle(pipeline.book).at(pipeline.book.end))


def test_dead_letters_survive_every_merge_restart_and_repetition_of_the_fold(pipeline):
    """Each is counted once, by its position, however often the log is folded again and the lists are rewritten."""
    worker = pipeline.worker()
    for number in range(60):
        pipeline.book.append_poison(*poison_of(_KINDS[number % len(_KINDS)], NAMES[0]))
        pipeline.book.append_all(NAMES[0], upserts(IDS[:2], number))
        worker.publish()
        worker.merge_all()
        if number % 20 == 10:
            last = worker.snapshot.manifest.recent or worker.snapshot.table.dead_letters
            name = getattr(last[-1], "object", last[-1]).name
            (pipeline.root / name).write_bytes(b"torn")
            worker = pipeline.worker()
            assert worker.partition.fallbacks
            worker.catch_up()
    state = Oracle(pipeline.book).at(pipeline.book.end)
    assert len(state.dead_letters) == 60
    assert_dead_letters(pipeline.store, worker.snapshot, state)
    assert_shows(pipeline.fresh_snapshot(), state, names=NAMES, ids=IDS, query=Query(dense(1), 5, FILTERS[0]))
    assert len(read_dead_letters(pipeline.store, pipeline.spec, 0)) == 60
    assert len(worker.snapshot.table.dead_letters) <= 8


def test_newer_format_stops_the_partition_until_it_is_skipped(pipeline):
    """What came before it is published; it is not passed over, and after the operator's word it is a dead letter."""
    pipeline.book.append_all(NAMES[0], upserts(IDS[:2]))
    offset = pipeline.book.append_poison(*poison_of("newer", NAMES[0]))
    pipeline.book.append_all(NAMES[0], upserts(IDS[2:4], 2))
    worker = pipeline.worker()
    partition = worker.partition
    for _ in range(2):
        records, next_offset = pipeline.book.read(partition.folded_offset, 100)
        with pytest.raises(UnsupportedFormat):
            partition.fold(records, next_offset)
        partition.publish()
        assert worker.snapshot.next_offset == offset
        assert worker.snapshot.counts() == {NAMES[0]: 2}
    skip_record(pipeline.store, pipeline.spec, 0, offset)
    skip_record(pipeline.store, pipeline.spec, 0, offset)
    worker.publish()
    assert worker.snapshot.next_offset == pipeline.book.end
    assert worker.snapshot.counts() == {NAMES[0]: 4}
    (letter,) = read_dead_letters(pipeline.store, pipeline.spec, 0)
    assert (letter.offset, letter.headers) == (offset, ((FORMAT_HEADER, b"2"),))


def test_json_record_of_a_foreign_producer_is_folded(pipeline):
    """A record whose header says JSON means what its protobuf form means."""
    value = b'{"upsert": {"id": "id-00", "values": [1, 0, 0.5, -2], "metadata": {"n": 1}}}'
    pipeline.book.append_poison(NAMES[0].encode(), value, (("content-type", b"application/json"),))
    decoded = decode_records([said.record for said in pipeline.book.said], pipeline.spec, 0, lambda _: False)
    assert not decoded.dead_letters
    worker = pipeline.worker()
    worker.publish()
    assert worker.snapshot.fetch(NAMES[0], ["id-00"])["id-00"].metadata == b'{"n":1}'


def test_position_advances_over_offsets_without_records(pipeline):
    """Kafka's markers carry nothing, and `at least this position` must be reached nevertheless."""
    worker = pipeline.worker()
    pipeline.book.append_all(NAMES[0], upserts(IDS[:1]))
    worker.publish()
    objects = len(pipeline.store.list(f"{pipeline.prefix}/objects"))
    pipeline.book.skip_offsets(5)
    assert worker.publish()
    assert worker.snapshot.next_offset == pipeline.book.end == 6
    assert len(pipeline.store.list(f"{pipeline.prefix}/objects")) == objects
    assert not worker.publish()


def test_events_without_effect_are_passed_over(pipeline):
    """An update by filter that matches nothing has an outcome all the same."""
    worker = pipeline.worker()
    offset = pipeline.book.append(NAMES[1], update_where({"n": 1}, {"n": 2}))
    worker.publish()
    assert worker.snapshot.counts() == {}
    assert worker.snapshot.outcomes[offset].matched_records == 0
    assert worker.snapshot.dead_letters == 0
    assert pipeline.book.end == offset + 1 == worker.snapshot.next_offset
