"""A follower finds the newest snapshot that it can open, never goes back, and is never stuck."""

from __future__ import annotations

import pytest

from indexer.snapshots.store import LocalStore, manifest_name
from schemas.errors import CorruptData, SnapshotBehind
from tests.model.checks import assert_counts
from tests.model.oracle import Oracle
from tests.support.builders import spec_of, update_where, upserts
from tests.support.driver import Pipeline, Worker

_IDS = [f"id-{number:02d}" for number in range(40)]
# More looks than a follower may need before it lists again.
_PATIENCE = 8


class CountingStore(LocalStore):
    """Counts listings and look-ups."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.listings = self.look_ups = 0

    def list(self, prefix: str, *, is_finished: bool = True) -> list[str]:
        self.listings += 1
        return super().list(prefix, is_finished=is_finished)

    def exists(self, name: str) -> bool:
        self.look_ups += 1
        return super().exists(name)


@pytest.fixture
def pipeline(tmp_path):
    return Pipeline(tmp_path, spec_of())


def write(pipeline: Pipeline, worker: Worker, first: int = 0) -> None:
    pipeline.book.append_all("films", upserts(_IDS[first : first + 3], first))
    worker.publish()


def test_nothing_written_shows_the_empty_snapshot(pipeline):
    """Before the first manifest there is a snapshot too: of nothing, at position 0."""
    reader = pipeline.follower()
    assert reader.refresh() is None
    assert (reader.current.version, reader.current.next_offset, reader.current.counts()) == (0, 0, {})
    assert reader.current.fetch("films", _IDS) == {}


def test_refresh_shows_each_new_snapshot_once(pipeline):
    """`refresh` returns what is new, and None where nothing is."""
    worker, reader = pipeline.worker(), pipeline.follower()
    assert reader.refresh().version == 1
    for first in range(5):
        write(pipeline, worker, first)
        assert reader.refresh().next_offset == pipeline.book.end
        assert reader.refresh() is None
        assert_counts(reader.current, Oracle(pipeline.book).at(pipeline.book.end))


def test_follower_that_slept_opens_only_the_newest(pipeline):
    """Versions between are skipped: their state is part of the newest one."""
    worker, reader = pipeline.worker(), pipeline.follower()
    write(pipeline, worker)
    reader.refresh()
    for first in range(10):
        write(pipeline, worker, first)
    assert reader.refresh().version == worker.snapshot.version
    assert reader.refresh() is None


def test_idle_follower_costs_one_look_up_and_lists_now_and_then(tmp_path, pipeline):
    """Polling must be cheap: a listing is asked for only every so often."""
    store = CountingStore(tmp_path)
    worker, reader = pipeline.worker(), pipeline.follower(list_every=10, store=store)
    write(pipeline, worker)
    reader.refresh()
    store.listings = store.look_ups = 0
    for _ in range(44):
        reader.refresh()
    assert store.listings == 4
    assert store.look_ups <= 44


def test_outcome_survives_roll_ups_for_a_follower_that_skipped_versions(pipeline):
    """Whoever waits for the outcome of an event finds it for a minute, however many merges came between."""
    worker, reader = pipeline.worker(), pipeline.follower()
    write(pipeline, worker)
    reader.refresh()
    offset = pipeline.book.append("films", update_where({"g": "x"}, {"n": 7}))
    worker.publish()
    for first in range(12):
        write(pipeline, worker, first)
        worker.merge_all()
    reader.refresh()
    assert reader.current.outcomes[offset].matched_records == 1
    pipeline.clock.now_ms += 61_000
    for first in range(12):
        write(pipeline, worker, first)
        worker.merge_all()
    reader.refresh()
    assert offset not in reader.current.outcomes
    assert offset not in pipeline.fresh_snapshot().outcomes


def test_older_state_than_shown_is_refused_until_it_has_caught_up(pipeline):
    """After a fallback the newest manifest shows less: a follower waits rather than go back."""
    worker, reader = pipeline.worker(), pipeline.follower()
    for first in range(4):
        write(pipeline, worker, first)
    reader.refresh()
    shown = reader.current
    last = worker.snapshot.manifest.recent[-1].object.name
    (pipeline.root / last).write_bytes(b"torn")
    second = pipeline.worker()
    assert second.snapshot.next_offset < shown.next_offset
    for _ in range(3):
        with pytest.raises(SnapshotBehind) as caught:
            reader.refresh()
        assert caught.value.retry_after_seconds > 0
        assert reader.current is shown
    second.catch_up()
    assert reader.refresh().next_offset == pipeline.book.end
    assert_counts(reader.current, Oracle(pipeline.book).at(pipeline.book.end))


@pytest.mark.parametrize("list_every", [1, 5])
def test_follower_passes_a_gap_behind_a_take_over_that_showed_less(pipeline, list_every):
    """The first manifest of an epoch stays for ever; a follower must not take it for the newest one for ever."""
    worker, reader = pipeline.worker(), pipeline.follower(list_every=list_every)
    for first in range(4):
        write(pipeline, worker, first)
    reader.refresh()
    (pipeline.root / worker.snapshot.manifest.recent[-1].object.name).write_bytes(b"torn")
    second = pipeline.worker()
    stub = second.snapshot.version
    second.catch_up()
    for first in range(8):
        write(pipeline, second, first)
        second.checkpoint()
        second.collect()
    assert pipeline.store.exists(manifest_name(pipeline.spec.index_id, 0, stub))
    assert not pipeline.store.exists(manifest_name(pipeline.spec.index_id, 0, stub + 1))
    for _ in range(_PATIENCE):
        try:
            reader.refresh()
        except SnapshotBehind:
            continue
    assert reader.current.version == second.snapshot.version


@pytest.mark.parametrize("list_every", [1, 5])
def test_follower_passes_a_damaged_manifest_and_a_gap(pipeline, list_every):
    """A manifest that cannot be read keeps its name; what lies behind it and a gap is found by listing."""
    worker, reader = pipeline.worker(), pipeline.follower(list_every=list_every)
    write(pipeline, worker)
    reader.refresh()
    write(pipeline, worker, 1)
    damaged = worker.snapshot.version
    (pipeline.root / manifest_name(pipeline.spec.index_id, 0, damaged)).write_bytes(b"")
    for first in range(8):
        write(pipeline, worker, first)
        worker.checkpoint()
        worker.collect()
    assert not pipeline.store.exists(manifest_name(pipeline.spec.index_id, 0, damaged + 1))
    for _ in range(_PATIENCE):
        reader.refresh()
    assert reader.current.version == worker.snapshot.version


def test_damaged_object_is_set_aside_and_told(pipeline):
    """A follower that finds damage keeps what it has, and lets the worker find the object missing."""
    worker, reader = pipeline.worker(), pipeline.follower()
    write(pipeline, worker)
    reader.refresh()
    shown = reader.current
    write(pipeline, worker, 1)
    name = worker.snapshot.manifest.recent[-1].object.name
    (pipeline.root / name).write_bytes(b"torn")
    with pytest.raises(CorruptData):
        reader.refresh()
    assert reader.current is shown
    with pytest.raises(CorruptData):
        worker.janitor.audit(worker.snapshot.manifest)
    worker.take_over()
    worker.catch_up()
    assert reader.refresh().next_offset == pipeline.book.end


def test_objects_collected_while_opening_cost_another_look(pipeline):
    """What vanished between listing and opening means that there is something newer."""
    worker = pipeline.worker()
    write(pipeline, worker)

    class VanishingStore(LocalStore):
        def open(self, ref, *, verify):
            if not gone:
                gone.append(ref.name)
                for first in range(4):
                    write(pipeline, worker, first)
                    worker.merge_all()
                    worker.checkpoint()
                    worker.collect()
            return super().open(ref, verify=verify)

    gone: list[str] = []
    reader = pipeline.follower(store=VanishingStore(pipeline.root))
    for _ in range(3):
        reader.refresh()
    assert gone
    assert not pipeline.store.exists(gone[0])
    assert reader.current.version == worker.snapshot.version


def test_cut_log_brings_a_follower_back_under_another_lineage(pipeline):
    """Positions of another lineage are not compared: the follower starts over with what is true now."""
    worker, reader = pipeline.worker(), pipeline.follower()
    for first in range(4):
        write(pipeline, worker, first)
    reader.refresh()
    pipeline.book.cut(4)
    pipeline.worker()
    assert reader.refresh().lineage == 1
    assert reader.current.next_offset <= 4
    assert_counts(reader.current, Oracle(pipeline.book).at(reader.current.next_offset))


def test_log_cut_during_a_fallback_is_noticed(pipeline):
    """A position that somebody has seen counts, even if the newest manifest shows less than the shorter log holds."""
    worker, reader = pipeline.worker(), pipeline.follower()
    for first in range(4):
        write(pipeline, worker, first)
    reader.refresh()
    for delta in worker.snapshot.manifest.recent[1:]:
        (pipeline.root / delta.object.name).write_bytes(b"torn")
    second = pipeline.worker()
    assert second.snapshot.next_offset < 8
    pipeline.book.cut(8)
    pipeline.book.append_all("books", upserts(_IDS[:10]))
    third = pipeline.worker()
    assert third.snapshot.lineage == 0, "the end was read after the log had grown again"
    pipeline.book.cut(8)
    fourth = pipeline.worker()
    assert fourth.snapshot.lineage == 1
    fourth.catch_up()
    reader.refresh()
    assert_counts(reader.current, Oracle(pipeline.book).at(reader.current.next_offset))


def test_objects_are_verified_once_however_many_manifests_are_damaged(pipeline):
    """Falling back through manifests that share an object does not read it again for each of them."""
    worker = pipeline.worker()
    write(pipeline, worker)
    sound = worker.snapshot
    for first in range(4):
        write(pipeline, worker, first)
    # No manifest after that one can be opened.
    for delta in worker.snapshot.manifest.recent[len(sound.manifest.recent) :]:
        (pipeline.root / delta.object.name).unlink()
    verified: list[str] = []

    class ReportingStore(LocalStore):
        def open(self, ref, *, verify):
            data = super().open(ref, verify=verify)
            verified.extend([ref.name] * verify)
            return data

    assert pipeline.follower(store=ReportingStore(pipeline.root)).refresh().version == sound.version
    assert verified == [delta.object.name for delta in sound.manifest.recent]
