"""What comes again under an idempotency key is folded once, whatever happens in between."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.key_window import KeyUse, KeyWindow, entries_of
from schemas import idempotency
from schemas.events import CreateNamespace, Delete, DeleteNamespace
from schemas.idempotency import KEY_HEADER, ORDINAL_HEADER, digest_of, joined_entries
from schemas.limits import BATCH_RECORDS_MAX, IDEMPOTENCY_EVENTS
from tests.model.checks import Query, assert_shows
from tests.model.oracle import Oracle
from tests.support.builders import dense, spec_of, update, update_where, upsert, upserts
from tests.support.driver import Pipeline

_NAME = "films"
_IDS = [f"id-{number:02d}" for number in range(40)]
_ONE, _TWO = upsert("a", 1, {"n": 1}), update("a", {"n": 2})


@pytest.fixture
def pipeline(tmp_path):
    return Pipeline(tmp_path, spec_of())


def documents(snapshot, *ids):
    """Return the metadata of records."""
    return [record.metadata for record in snapshot.fetch(_NAME, ids or ("a",)).values()]


def assert_right(pipeline, worker):
    """Compare what the worker shows, and what somebody opens who has seen nothing, to the oracle."""
    state = Oracle(pipeline.book).at(worker.snapshot.next_offset)
    for snapshot in (worker.snapshot, pipeline.fresh_snapshot()):
        assert_shows(snapshot, state, names=[_NAME], ids=["a", *_IDS], query=Query(dense(1), 5, {"n": 1}))


@pytest.mark.parametrize("between", ["nothing", "publish", "merge", "restart", "fallback", "rebuild"])
def test_an_upsert_that_comes_again_does_not_undo_the_update_after_it(pipeline, between):
    """Upsert under a key, update, the upsert again under its key: the update survives; and that in every replay."""
    book, worker = pipeline.book, pipeline.worker()
    book.append_batch(_NAME, [_ONE], b"k")
    worker.publish()
    book.append(_NAME, _TWO)
    if between != "nothing":
        worker.publish()
    if between == "merge":
        for number in range(8):
            book.append_all(_NAME, upserts(_IDS[:3], number))
            worker.publish()
        worker.merge_all()
        assert worker.snapshot.table.keys
    if between == "restart":
        worker = pipeline.worker()
    if between == "fallback":
        name = worker.snapshot.manifest.recent[-1].object.name
        (pipeline.root / name).write_bytes(b"torn")
        worker = pipeline.worker()
        assert worker.partition.fallbacks
    book.append_batch(_NAME, [_ONE], b"k")
    worker.catch_up()
    if between == "rebuild":
        for name in pipeline.files():
            (pipeline.root / name).unlink()
        worker = pipeline.worker()
        worker.catch_up()
    assert documents(worker.snapshot) == [b'{"n":2}']
    assert_right(pipeline, worker)


def test_events_without_a_key_are_folded_as_often_as_they_come(pipeline):
    """And nothing is remembered of them."""
    pipeline.book.append_all(_NAME, [_ONE, _TWO, _ONE])
    worker = pipeline.worker()
    worker.publish()
    assert documents(worker.snapshot) == [b'{"n":1}']
    assert len(worker.snapshot.keys) == 0


def test_a_key_means_something_in_its_own_namespace_only(pipeline):
    """Two namespaces may use the same one."""
    pipeline.book.append_batch(_NAME, [_ONE], b"k")
    pipeline.book.append_batch("other", [_ONE], b"k")
    worker = pipeline.worker()
    worker.publish()
    assert worker.snapshot.counts() == {_NAME: 1, "other": 1}


@pytest.mark.parametrize("records_max", [1, 3, 1_000])
def test_the_events_of_a_batch_are_recognised_one_by_one(pipeline, records_max):
    """A batch of which only the beginning reached the log is completed by its repetition; the rest is left out."""
    book, worker = pipeline.book, pipeline.worker()
    batch = upserts(_IDS[:10])
    book.append_batch(_NAME, batch[:4], b"k")
    book.append(_NAME, Delete(_IDS[0]))
    book.append_batch(_NAME, batch, b"k")
    book.append(_NAME, Delete(_IDS[9]))
    book.append_batch(_NAME, batch, b"k")
    while worker.snapshot.next_offset < book.end:
        worker.publish(records_max)
    assert worker.snapshot.list_ids(_NAME, prefix="", after=None, limit=99) == _IDS[1:9]
    assert_right(pipeline, worker)


def test_what_came_of_the_first_is_told_again(pipeline):
    """Records matched, and whether the namespace existed: the answer of the first one, however long ago it was."""
    book, worker = pipeline.book, pipeline.worker()
    book.append_all(_NAME, upserts(_IDS))
    change = update_where({"g": "x"}, {"g": "seen"})
    firsts = [change, CreateNamespace(b"")]
    names = [_NAME, "new"]
    begun = [book.append_batch(name, [event], b"k") - 1 for name, event in zip(names, firsts, strict=True)]
    worker.publish()
    told = [worker.snapshot.outcomes[offset] for offset in begun]
    assert [(one.code, one.matched_records) for one in told] == [(0, 14), (0, 0)]
    pipeline.clock.now_ms += 3_600_000
    book.append("new", DeleteNamespace(keep=False))
    worker.publish()
    worker.merge_all()
    worker = pipeline.worker()
    again = [book.append_batch(name, [event], b"k") - 1 for name, event in zip(names, firsts, strict=True)]
    worker.publish()
    told = [worker.snapshot.outcomes[offset] for offset in again]
    assert [(one.code, one.matched_records) for one in told] == [(0, 14), (0, 0)]
    assert not worker.snapshot.namespace_exists("new"), "created again by a repetition"


def test_a_key_is_forgotten_after_so_many_events_of_its_partition(pipeline, monkeypatch):
    """Decided by offsets alone: at one event less it is recognised, wherever publishes and merges happened."""
    monkeypatch.setattr(idempotency, "IDEMPOTENCY_EVENTS", 30)
    book, worker = pipeline.book, pipeline.worker()
    for key, gap in ((b"near", 28), (b"far", 29)):
        book.append_batch(_NAME, [_ONE], key)
        book.append(_NAME, _TWO)
        for number in range(gap - 1):
            book.append(_NAME, upsert(_IDS[number], number))
            if number % 5 == 0:
                worker.publish()
        worker.merge_all()
        book.append_batch(_NAME, [_ONE], key)
        worker.publish()
        assert documents(worker.snapshot) == [b'{"n":2}' if key == b"near" else b'{"n":1}'], key
    assert_right(pipeline, worker)


@pytest.mark.parametrize(
    "headers",
    [
        ((KEY_HEADER, b""),),
        ((KEY_HEADER, b"x" * 65),),
        ((KEY_HEADER, b"with space"),),
        ((KEY_HEADER, b"\xff"),),
        ((KEY_HEADER, b"k"), (ORDINAL_HEADER, b"-1")),
        ((KEY_HEADER, b"k"), (ORDINAL_HEADER, b"1000")),
        ((KEY_HEADER, b"k"), (ORDINAL_HEADER, b"")),
    ],
)
def test_a_foreign_record_with_a_malformed_key_is_a_dead_letter(pipeline, headers):
    """Whoever sent it relies on a key that could not be obeyed."""
    said = pipeline.book.append(_NAME, _ONE)
    record = pipeline.book.said[said].record
    pipeline.book.append_poison(record.key, record.value, headers)
    worker = pipeline.worker()
    worker.publish()
    assert worker.snapshot.dead_letters == 1
    assert worker.snapshot.counts() == {_NAME: 1}


def test_a_foreign_record_without_an_ordinal_is_a_batch_of_its_own(pipeline):
    """A Kafka producer sets one header."""
    record = pipeline.book.said[pipeline.book.append_batch(_NAME, [_ONE], b"k") - 1].record
    bare = type(record)(record.offset, record.time_ms, record.key, record.value, ((KEY_HEADER, b"k"),))
    pipeline.book.said[-1] = type(pipeline.book.said[-1])(bare, _NAME, _ONE, b"k", 0)
    pipeline.book.append(_NAME, _TWO)
    pipeline.book.append_batch(_NAME, [_ONE], b"k")
    worker = pipeline.worker()
    worker.publish()
    assert documents(worker.snapshot) == [b'{"n":2}']


def test_the_window_stays_small_however_many_keys_are_used(pipeline, monkeypatch):
    """In memory, in the store, and in the number of lists: twice the window at most."""
    monkeypatch.setattr(idempotency, "IDEMPOTENCY_EVENTS", 100)
    monkeypatch.setattr(idempotency, "BATCH_RECORDS_MAX", 5)
    book, worker = pipeline.book, pipeline.worker()
    for number in range(300):
        for place in range(4):
            book.append_batch(_NAME, [upsert(_IDS[place], number)], b"%d-%d" % (number, place))
        worker.publish()
        worker.merge_all()
        assert len(worker.snapshot.keys) <= 300
        assert len(worker.snapshot.table.keys) <= 9
    stored = [worker.partition.opener.changes(ref).keys for ref in worker.snapshot.table.keys]
    assert sum(map(len, stored)) // idempotency.ENTRY.itemsize <= 300
    assert len(pipeline.fresh_snapshot().keys) <= 300


def test_entries_join_to_the_same_in_any_order_and_any_number_of_times():
    """So it does not matter which lists a reader has seen."""
    rng = np.random.default_rng(0)
    digests = [digest_of("n", b"%d" % number) for number in range(20)] + [b"\0" * 16, b"\1" + b"\0" * 15]
    lists = []
    for _ in range(12):
        picked = rng.choice(len(digests), 8, replace=False)
        lists.append(
            entries_of({digests[at]: KeyUse(int(rng.integers(5)), int(rng.integers(1, 4))) for at in picked.tolist()})
        )
    expected = joined_entries(lists, next_offset=10)
    for _ in range(10):
        order = rng.integers(0, len(lists), 40).tolist() + list(range(len(lists)))
        rng.shuffle(order)
        window = KeyWindow()
        for at in order:
            window = window.with_entries([lists[at]], next_offset=10)
        found = window.find(digests)
        assert joined_entries([entries_of(found)], next_offset=10).tobytes() == expected.tobytes()
        assert len(found) == len(expected)


def test_nothing_is_pruned_that_an_event_to_come_can_need():
    """The last event of the longest batch, which began before the publish that pruned."""
    digest = digest_of("n", b"k")
    oldest = entries_of({digest: KeyUse(0, 5)})
    end = IDEMPOTENCY_EVENTS + BATCH_RECORDS_MAX
    assert len(joined_entries([oldest], next_offset=end)) == 1
    assert len(joined_entries([oldest], next_offset=end + 1)) == 0
