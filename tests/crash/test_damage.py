"""Every kind of object, cut and with turned bits in every region: found, set aside, and rebuilt from the log."""

from __future__ import annotations

import contextlib
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from indexer.segments.container import Container
from indexer.snapshots.reader import SnapshotReader
from indexer.snapshots.snapshot import Snapshot
from indexer.snapshots.store import manifest_name
from schemas.errors import CorruptData, SnapshotBehind
from schemas.manifest import ObjectRef
from schemas.operations import CreateNamespace, Delete, DeleteNamespace
from tests.model.checks import Query, assert_counts, assert_dead_letters, assert_shows
from tests.model.oracle import Oracle
from tests.support.builders import delete_where, dense, spec_of, update, update_where, upserts
from tests.support.driver import Book, Pipeline, Worker, manifest_objects

_NAMES = ["films", "books", "empty"]
_IDS = [f"id-{number:02d}" for number in range(60)]
_QUERY = Query(dense(7), 10, {"g": {"$in": ["x", "z"]}})
_KINDS = ["delta", "records", "vectors", "graph", "changes", "table", "manifest"]
_CUTS = {"empty": 0.0, "one byte": 1, "half": 0.5, "less one": -1}


@dataclass(frozen=True)
class Ground:
    """A partition with every kind of object, and the log that it was folded from."""

    root: Path
    book: Book
    objects: dict[str, list[ObjectRef]]
    version: int
    index_id: str


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    pipeline = Pipeline(tmp_path_factory.mktemp("ground") / "store", spec_of())
    book, worker = pipeline.book, pipeline.worker()
    for first in (0, 16, 32):
        book.append_all("films", upserts(_IDS[first : first + 16], first))
        book.append_all("books", upserts(_IDS[first // 4 : first // 4 + 4], first))
        worker.publish()
    worker.merge_all()
    assert any(view.in_graph for view in worker.snapshot.views)
    # Kills and patches of rolled-up segments, namespaces, outcomes and dead letters, in objects of their own.
    book.append_poison(None, b"nobody's")
    book.append("films", update(_IDS[3], {"g": "patched"}))
    worker.publish()
    book.append("empty", CreateNamespace(b""))
    worker.publish()
    book.append("films", Delete(_IDS[5]))
    book.append("films", update_where({"n": 4}, {"seen": True}))
    worker.publish()
    worker.merge_all()
    worker.checkpoint()
    # And two publishes that are not rolled up.
    book.append_all("films", upserts(_IDS[48:54], 100))
    book.append("books", delete_where({"n": 1}))
    worker.publish()
    book.append_all("books", upserts(_IDS[4:6], 200))
    book.append("empty", DeleteNamespace(keep=True))
    worker.publish()
    objects = manifest_objects(pipeline.store, worker.snapshot.manifest)
    assert set(objects) == set(_KINDS) - {"manifest"}
    return Ground(pipeline.root, book, objects, worker.snapshot.version, pipeline.spec.index_id)


@pytest.fixture
def pipeline(ground: Ground, tmp_path: Path) -> Pipeline:
    """A copy to be damaged, with its log."""
    shutil.copytree(ground.root, tmp_path / "store")
    pipeline = Pipeline(tmp_path / "store", spec_of())
    pipeline.book.said, pipeline.book.end = list(ground.book.said), ground.book.end
    pipeline.clock.now_ms = ground.book.clock.now_ms
    return pipeline


def names_of(ground: Ground, kind: str) -> list[str]:
    if kind == "manifest":
        return [manifest_name(ground.index_id, 0, ground.version)]
    return [ref.name for ref in ground.objects[kind]]


def shortened(data: bytes, cut: str) -> bytes:
    kept = _CUTS[cut]
    return data[: int(len(data) * kept) if isinstance(kept, float) else kept]


def marker_name(pipeline: Pipeline) -> str:
    (name,) = [name for name in pipeline.store.list(pipeline.prefix) if "/checkpoint" in name]
    return name


def quarantined_files(pipeline: Pipeline) -> list[Path]:
    folder = pipeline.root / "quarantine"
    return list(folder.iterdir()) if folder.exists() else []


def regions(path: Path) -> Iterator[int]:
    """Yield a place in every part of a file: magic, sections, padding, footer, length, checksum, end."""
    data = path.read_bytes()
    yield from (0, len(data) // 4, len(data) // 2, len(data) - 1)
    with contextlib.suppress(CorruptData):  # manifests and graphs have no sections: their places are above and below
        container = Container(memoryview(data))
        for section in container._sections.values():
            if section.size_bytes:
                yield section.offset + section.size_bytes // 2
            if section.offset % 64 == 0 and data[section.offset - 1] == 0:
                yield section.offset - 1
        footer_bytes = struct.unpack("<I", data[-16:-12])[0]
        yield from (len(data) - 17, len(data) - 16 - footer_bytes, len(data) - 16, len(data) - 12)
        return
    yield from range(3, len(data), max(1, len(data) // 23))


def assert_whole(snapshot: Snapshot, pipeline: Pipeline) -> None:
    """Compare to the oracle at the position that the snapshot says it shows."""
    state = Oracle(pipeline.book).at(snapshot.next_offset)
    assert_shows(snapshot, state, names=_NAMES, ids=_IDS, query=_QUERY)


def assert_honest(reader: SnapshotReader, pipeline: Pipeline) -> bool:
    """Refresh: the reader shows what its position says, or says that something is damaged; return whether it did."""
    try:
        reader.refresh()
    except (CorruptData, SnapshotBehind):
        assert_whole(reader.current, pipeline)
        return True
    assert_whole(reader.current, pipeline)
    return False


def assert_recovers(pipeline: Pipeline, *, quarantined: bool = True) -> Worker:
    """Take over, read the log again, and end up where the log ends; the damaged file was set aside."""
    worker = pipeline.worker()
    assert worker.partition.fallbacks
    assert worker.snapshot.next_offset < pipeline.book.end
    assert_whole(worker.snapshot, pipeline)
    worker.catch_up()
    assert_whole(worker.snapshot, pipeline)
    assert_whole(pipeline.fresh_snapshot(), pipeline)
    assert_dead_letters(pipeline.store, worker.snapshot, Oracle(pipeline.book).at(pipeline.book.end))
    assert bool(quarantined_files(pipeline)) is quarantined
    worker.merge_all()
    assert_whole(worker.snapshot, pipeline)
    return worker


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("cut", _CUTS)
def test_cut_object_is_set_aside_and_rebuilt_from_the_log(ground, pipeline, kind, cut):
    """Size and digest of every object are checked before it is used: a torn one costs a fold, not a lie."""
    settled = pipeline.follower()
    settled.refresh()
    path = pipeline.root / names_of(ground, kind)[0]
    data = path.read_bytes()
    path.write_bytes(shortened(data, cut))
    fresh = pipeline.follower()
    assert_honest(fresh, pipeline)
    assert_whole(settled.current, pipeline)
    worker = assert_recovers(pipeline)
    for reader in (fresh, settled):
        before = reader.current.next_offset
        assert not assert_honest(reader, pipeline)
        assert reader.current.version == worker.snapshot.version
        assert reader.current.next_offset >= before


@pytest.mark.parametrize("kind", _KINDS)
def test_missing_object_is_rebuilt_from_the_log(ground, pipeline, kind):
    """An object that is gone costs a fold of the log."""
    for name in names_of(ground, kind):
        if kind != "manifest":
            (pipeline.root / name).unlink()
    if kind == "manifest":
        (pipeline.root / names_of(ground, kind)[0]).write_bytes(b"")
    assert_honest(pipeline.follower(), pipeline)
    assert_recovers(pipeline, quarantined=kind == "manifest")


@pytest.mark.parametrize("kind", _KINDS)
def test_turned_bit_is_found_in_every_region_of_an_object(ground, pipeline, kind):
    """No bit of an object can turn without being found, by whoever opens it first and by a take-over."""
    store = pipeline.store
    for name in names_of(ground, kind):
        path = pipeline.root / name
        good = path.read_bytes()
        for place in dict.fromkeys(regions(path)):
            damaged = bytearray(good)
            damaged[place] ^= 1 << (place % 8)
            path.write_bytes(damaged)
            reader = pipeline.follower()
            told = assert_honest(reader, pipeline)
            found = told or reader.current.version < ground.version
            assert found, f"bit {place % 8} of byte {place} of {name}"
            if not store.exists(name):
                path.write_bytes(damaged)
            assert pipeline_falls_back(pipeline), f"byte {place} of {name}"
            path.write_bytes(good)


def pipeline_falls_back(pipeline: Pipeline) -> bool:
    """Take over on top of the damage and go back to how it was, but for the quarantine."""
    before = set(pipeline.store.list(f"{pipeline.prefix}/manifests"))
    worker = pipeline.worker()
    assert_counts(worker.snapshot, Oracle(pipeline.book).at(worker.snapshot.next_offset))
    for name in set(pipeline.store.list(f"{pipeline.prefix}/manifests")) - before:
        (pipeline.root / name).unlink()
    return worker.partition.fallbacks > 0


@pytest.mark.parametrize("cut", _CUTS)
def test_damaged_checkpoint_marker_retains_everything_until_the_next_one(pipeline, cut):
    """Without a marker nothing is known to be durable, so nothing is deleted that a power loss could need."""
    path = pipeline.root / marker_name(pipeline)
    data = path.read_bytes()
    path.write_bytes(shortened(data, cut))
    worker = pipeline.worker()
    assert worker.janitor.marker() is None
    before = set(pipeline.store.list(f"{pipeline.prefix}/objects"))
    assert worker.collect() == 0
    assert set(pipeline.store.list(f"{pipeline.prefix}/objects")) == before
    assert worker.checkpoint()
    assert worker.janitor.marker().version == worker.snapshot.version
    assert worker.collect() > 0
    assert_whole(pipeline.fresh_snapshot(), pipeline)


def test_turned_bit_of_a_checkpoint_marker_is_found(pipeline):
    """A marker that names another version would let the durable one be deleted."""
    path = pipeline.root / marker_name(pipeline)
    data = path.read_bytes()
    worker = pipeline.worker()
    assert worker.janitor.marker() is not None
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        assert worker.janitor.marker() is None, place


def test_merge_does_not_launder_damage(ground, pipeline):
    """What a merge reads is verified again: otherwise its output would carry the damage under a digest of its own."""
    worker = pipeline.worker()
    for ref in (*ground.objects["records"], *ground.objects["vectors"]):
        path = pipeline.root / ref.name
        data = bytearray(path.read_bytes())
        container = Container(memoryview(bytes(data)))
        section = container._sections["vectors" if "vectors" in container else "metadata_data"]
        data[section.offset + section.size_bytes // 2] ^= 4
        path.write_bytes(data)
    pipeline.book.append_all("books", upserts(_IDS[:20], 40))
    worker.publish()
    assert worker.start("rollup")
    assert any(
        ref.name == item.records.name for item in worker.jobs["rollup"].inputs for ref in ground.objects["records"]
    )
    with pytest.raises(CorruptData):
        worker.finish("rollup")
    assert_whole(worker.snapshot, pipeline)
    worker.take_over()
    worker.catch_up()
    worker.merge_all()
    assert_whole(pipeline.fresh_snapshot(), pipeline)


@pytest.mark.parametrize("how", ["cut", "gone"])
def test_dead_letters_are_checked_at_a_take_over(tmp_path, how):
    """Dead letters are read again only when they are merged: damage must be found while there is a way back."""
    pipeline = Pipeline(tmp_path, spec_of())
    worker = pipeline.worker()
    for number in range(3):
        pipeline.book.append_poison(None, b"nobody's %d" % number)
        worker.publish()
    worker.merge_all()
    (ref,) = worker.snapshot.table.dead_letters
    path = tmp_path / ref.name
    path.unlink() if how == "gone" else path.write_bytes(path.read_bytes()[:-1])
    again = pipeline.worker()
    assert again.partition.fallbacks
    again.catch_up()
    assert_dead_letters(pipeline.store, again.snapshot, Oracle(pipeline.book).at(pipeline.book.end))


def test_lost_log_is_not_remembered_by_a_fallback(tmp_path):
    """State of events that the log has lost never comes back, even if everything written since is damaged."""
    pipeline = Pipeline(tmp_path, spec_of())
    book, worker = pipeline.book, pipeline.worker()
    for first in (0, 10, 20):
        book.append_all("films", upserts(_IDS[first : first + 10], first))
        worker.publish()
    book.cut(12)
    again = pipeline.worker()
    assert again.snapshot.lineage == 1
    for first in (30, 40, 50):
        book.append_all("films", upserts(_IDS[first : first + 10], first))
        again.publish()
    assert book.end > worker.snapshot.next_offset
    for version in range(worker.snapshot.version + 1, again.snapshot.version + 1):
        path = tmp_path / manifest_name(pipeline.spec.index_id, 0, version)
        path.write_bytes(path.read_bytes()[:-1])
    recovered = pipeline.worker()
    assert_whole(recovered.snapshot, pipeline)
    recovered.catch_up()
    assert_whole(recovered.snapshot, pipeline)


def test_fallback_goes_back_along_parents(tmp_path):
    """Manifests that a take-over passed over stay so for the next one, even where it died before setting them aside."""

    def die(step: str) -> None:
        if step == "takeover.after_manifest":
            raise KeyboardInterrupt

    pipeline = Pipeline(tmp_path, spec_of())
    book, worker = pipeline.book, pipeline.worker()
    for first in (0, 10, 20):
        book.append_all("films", upserts(_IDS[first : first + 10], first))
        worker.publish()
    first_delta = worker.snapshot.manifest.recent[0].object.name
    # The last state before the cut shares no object with any other: damage to the others leaves it whole.
    worker.merge_all()
    assert not worker.snapshot.manifest.recent
    book.cut(12)
    with pytest.raises(KeyboardInterrupt):
        pipeline.worker(die)
    again = pipeline.worker()
    for first in (30, 40):
        book.append_all("films", upserts(_IDS[first : first + 10], first))
        again.publish()
    assert book.end > worker.snapshot.next_offset
    (tmp_path / first_delta).write_bytes(b"torn")
    recovered = pipeline.worker()
    assert recovered.snapshot.lineage == 1
    assert_whole(recovered.snapshot, pipeline)
    recovered.catch_up()
    assert_whole(recovered.snapshot, pipeline)


@pytest.mark.parametrize("what", ["manifest", "delta"])
def test_damage_after_the_log_was_cut_keeps_the_lineage(tmp_path, what):
    """Old positions stay refused when the first state of a new lineage is damaged."""
    pipeline = Pipeline(tmp_path, spec_of())
    book, worker = pipeline.book, pipeline.worker()
    for first in (0, 10, 20):
        book.append_all("films", upserts(_IDS[first : first + 10], first))
        worker.publish()
    book.cut(12)
    again = pipeline.worker()
    book.append_all("films", upserts(_IDS[30:], 30))
    again.publish()
    name = manifest_name(pipeline.spec.index_id, 0, again.snapshot.version)
    if what == "delta":
        name = again.snapshot.manifest.recent[-1].object.name
    (tmp_path / name).write_bytes(b"torn")
    recovered = pipeline.worker()
    assert recovered.snapshot.lineage >= 1
    assert_whole(recovered.snapshot, pipeline)


def test_damaged_manifest_is_copied_aside_once(ground, pipeline):
    """A damaged manifest keeps its name and is met at every look: the quarantine does not grow with looks."""
    name = names_of(ground, "manifest")[0]
    (pipeline.root / name).write_bytes(b"torn")
    reader = pipeline.follower()
    for _ in range(5):
        reader.refresh()
        pipeline.follower().refresh()
    pipeline.worker()
    pipeline.worker()
    assert len(quarantined_files(pipeline)) == 1
    assert (pipeline.root / name).exists()


def test_damage_of_all_manifests_folds_the_whole_log(pipeline):
    """Snapshots are a cache of the log: without any of them, the log is enough."""
    names = pipeline.store.list(f"{pipeline.prefix}/manifests")
    for name in names:
        (pipeline.root / name).write_bytes(b"")
    worker = pipeline.worker()
    assert worker.snapshot.version == len(names) + 1
    assert worker.snapshot.next_offset == 0
    worker.catch_up()
    assert_whole(pipeline.fresh_snapshot(), pipeline)
