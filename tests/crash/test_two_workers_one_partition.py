"""A worker that was paused past a take-over: it is refused, deletes nothing, and misleads nobody.

The pause is a named step at which the second worker runs; the first goes on afterwards as if it had slept.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.snapshots.store import LocalStore
from schemas.errors import CommitConflict
from tests.model.checks import Query, assert_shows
from tests.model.oracle import Oracle
from tests.support.builders import dense, spec_of, update, upserts
from tests.support.driver import Pipeline, Worker, manifest_objects

_IDS = [f"id-{number:03d}" for number in range(120)]
_QUERY = Query(dense(3), 10, {"n": {"$gte": 2}})


class Pause:
    """A step at which something else happens, once it is armed."""

    def __init__(self) -> None:
        self._at = ""
        self._then: Callable[[], None] | None = None
        self.seen: list[str] = []

    def arm(self, at: str, then: Callable[[], None]) -> None:
        self._at, self._then = at, then

    def __call__(self, name: str, /) -> None:
        self.seen.append(name)
        if name == self._at and self._then is not None:
            then, self._then = self._then, None
            then()

    @property
    def has_happened(self) -> bool:
        return self._then is None


class Scene:
    """A first worker with something to lose, and a second one that takes everything over while it is paused."""

    def __init__(self, root: Path) -> None:
        self.pause = Pause()
        self.pipeline = Pipeline(root, spec_of())
        self.pipeline.store = LocalStore(root, self.pause)
        self.first = self.pipeline.worker(self.pause)
        for start in (0, 20, 40):
            self.pipeline.book.append_all("films", upserts(_IDS[start : start + 20], start))
            self.first.publish()
        self.first.merge_all()
        self.first.checkpoint()
        self.pipeline.book.append_all("films", upserts(_IDS[60:63], 60))
        self.first.publish()
        # The second one has a process of its own: another store object over the same directory.
        self.pipeline.store = LocalStore(root)
        self.second: Worker | None = None
        self.truth: dict[str, bytes] = {}

    def take_over(self) -> None:
        """Take over, write, merge, checkpoint and collect with no grace: all that could be in the first one's way."""
        pipeline = self.pipeline
        self.second = pipeline.worker()
        for start in (63, 80, 100):
            pipeline.book.append_all("films", upserts(_IDS[start : start + 10], start))
            pipeline.book.append("films", update(_IDS[start - 60], {"g": "second"}))
            self.second.publish()
        self.second.merge_all()
        self.second.checkpoint()
        self.second.collect()
        self.truth = self.named()

    def named(self) -> dict[str, bytes]:
        """Return every manifest and marker, and the objects that the second worker's newest manifest names."""
        assert self.second is not None
        refs = manifest_objects(self.pipeline.store, self.second.snapshot.manifest)
        names = {ref.name for kind in refs.values() for ref in kind}
        files = self.pipeline.files()
        assert names <= set(files)
        return {name: data for name, data in files.items() if name in names or "/objects/" not in name}

    def assert_undisturbed(self) -> None:
        """Everything is as the second worker left it, and it goes on."""
        assert self.pause.has_happened, f"never got there: {self.pause.seen}"
        assert self.second is not None
        assert self.named() == self.truth
        state = Oracle(self.pipeline.book).at(self.second.snapshot.next_offset)
        assert_shows(self.pipeline.fresh_snapshot(), state, names=["films"], ids=_IDS, query=_QUERY)
        self.pipeline.book.append_all("films", upserts(_IDS[:2], 200))
        assert self.second.publish()
        state = Oracle(self.pipeline.book).at(self.pipeline.book.end)
        assert_shows(self.pipeline.fresh_snapshot(), state, names=["films"], ids=_IDS, query=_QUERY)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def assert_shows_its_past(worker: Worker, scene: Scene, next_offset: int) -> None:
    assert worker.snapshot.next_offset == next_offset
    state = Oracle(scene.pipeline.book).at(next_offset)
    assert_shows(worker.snapshot, state, names=["films"], ids=_IDS, query=_QUERY)


@pytest.mark.parametrize("step", ["publish.before_object", "store.written", "publish.before_manifest"])
def test_publish_that_slept_past_a_take_over_is_refused(scene, step):
    """The manifest is the commit: a worker paused on the way to it collides with the take-over's manifest."""
    before = scene.first.snapshot.next_offset
    scene.pipeline.book.append_all("films", upserts(_IDS[110:], 110))
    scene.first.fold()
    scene.pause.arm(step, scene.take_over)
    with pytest.raises(CommitConflict):
        scene.first.partition.publish()
    assert_shows_its_past(scene.first, scene, before)
    scene.assert_undisturbed()
    with pytest.raises(CommitConflict):
        scene.first.partition.publish()


@pytest.mark.parametrize("step", ["merge.before_commit", "merge.before_manifest"])
@pytest.mark.parametrize("lane", ["rollup", "graph"])
def test_merge_that_slept_past_a_take_over_is_refused(scene, lane, step):
    """A merge commits by a manifest like everything else; its inputs may even be gone by then."""
    before = scene.first.snapshot.next_offset
    for start in (0, 20):
        scene.pipeline.book.append_all("books", upserts(_IDS[start : start + 20], start))
        scene.first.publish()
    if lane == "graph":
        assert scene.first.start("rollup")
        scene.first.finish("rollup")
    before = scene.first.snapshot.next_offset
    assert scene.first.start(lane)
    scene.first.build(lane)
    scene.pause.arm(step, scene.take_over)
    with pytest.raises((CommitConflict, FileNotFoundError)):
        scene.first.finish(lane)
    assert_shows_its_past(scene.first, scene, before)
    scene.assert_undisturbed()


def test_take_over_that_slept_past_another_one_is_refused(scene):
    """Of two workers that take over at once one wins; the other knows it."""
    scene.pause.arm("takeover.before_manifest", scene.take_over)
    before = scene.first.snapshot
    with pytest.raises(CommitConflict):
        scene.first.take_over()
    assert scene.first.snapshot is before
    scene.assert_undisturbed()


@pytest.mark.parametrize("unlinks", [0, 1])
def test_collection_that_slept_past_a_take_over_disturbs_nobody(scene, unlinks):
    """Collection deletes what nothing retained names: resumed in its middle, it finds nothing that anybody needs."""
    names = scene.pipeline.store.list(f"{scene.pipeline.prefix}/objects")
    seen = iter(range(unlinks + 1))

    def before_unlink() -> None:
        if next(seen) < unlinks:
            scene.pause.arm("gc.unlink", before_unlink)
        else:
            scene.take_over()

    scene.pause.arm("gc.unlink", before_unlink)
    assert scene.first.collect() > unlinks
    assert set(scene.pipeline.store.list(f"{scene.pipeline.prefix}/objects")) - set(names), "the second wrote nothing"
    scene.assert_undisturbed()


@pytest.mark.parametrize("folder", ["objects", "manifests"])
def test_collection_that_slept_before_it_looked_who_writes_deletes_nothing(scene, folder):
    """The newest manifest is read again right before anything is deleted."""

    class SleepyStore(LocalStore):
        def list(self, prefix: str, *, is_finished: bool = True) -> list[str]:
            found = super().list(prefix, is_finished=is_finished)
            if prefix.endswith(folder) and scene.second is None:
                scene.take_over()
                before.update(scene.pipeline.files())
            return found

    before: dict[str, bytes] = {}
    scene.first.partition.store = SleepyStore(scene.pipeline.root)
    with pytest.raises(CommitConflict):
        scene.first.collect()
    assert scene.pipeline.files() == before


@pytest.mark.parametrize(
    "step", ["checkpoint.before_objects", "checkpoint.before_manifest", "checkpoint.before_marker"]
)
def test_checkpoint_that_slept_past_a_take_over_does_not_mislead(scene, step):
    """The last durable checkpoint stays the second worker's, and retains its objects."""
    second_version: list[int] = []

    def take_over() -> None:
        scene.take_over()
        second_version.append(scene.second.janitor.marker().version)

    scene.pause.arm(step, take_over)
    try:
        scene.first.checkpoint()
    except Exception as error:  # noqa: BLE001 # its objects may be gone: any error but one of its own is a failure
        assert type(error).__name__ == "CorruptData"  # noqa: PT017 # it may as well succeed
    assert scene.second.janitor.marker().version >= second_version[0]
    scene.second.collect()
    objects = manifest_objects(scene.pipeline.store, scene.second.snapshot.manifest)
    assert all(scene.pipeline.store.exists(ref.name) for kind in objects.values() for ref in kind)


def test_paused_worker_collides_even_after_many_publishes_and_collections(scene):
    """The first manifest of every epoch is never collected, so the name that a paused worker tries next is taken."""
    scene.pipeline.book.append_all("films", upserts(_IDS[110:], 110))
    scene.first.fold()
    scene.take_over()
    for number in range(30):
        scene.pipeline.book.append_all("films", upserts(_IDS[number : number + 1], number))
        scene.second.publish()
        scene.second.merge_all()
        scene.second.checkpoint()
        scene.second.collect()
    left = scene.pipeline.store.list(f"{scene.pipeline.prefix}/manifests")
    assert len(left) < 10, "nothing was collected"
    with pytest.raises(CommitConflict):
        scene.first.partition.publish()


def test_paused_worker_collides_although_the_take_over_is_damaged(scene):
    """A damaged manifest keeps its name, so it fences as well as a whole one."""
    scene.pipeline.book.append_all("films", upserts(_IDS[110:], 110))
    scene.first.fold()
    second = scene.pipeline.worker()
    taken = scene.pipeline.store.list(f"{scene.pipeline.prefix}/manifests")[-1]
    (scene.pipeline.root / taken).write_bytes(b"torn")
    for number in range(10):
        scene.pipeline.book.append_all("films", upserts(_IDS[number : number + 1], number))
        second.publish()
        second.checkpoint()
        second.collect()
    with pytest.raises(CommitConflict):
        scene.first.partition.publish()


def test_collection_is_fenced_although_the_take_over_is_damaged(scene):
    """An epoch that cannot be read is counted: the next take-over never gets the number of one that is alive."""
    second = scene.pipeline.worker()
    taken = scene.pipeline.store.list(f"{scene.pipeline.prefix}/manifests")[-1]
    (scene.pipeline.root / taken).write_bytes(b"torn")
    third = scene.pipeline.worker()
    assert third.snapshot.epoch > second.snapshot.epoch
    before = scene.pipeline.files()
    for fenced in (scene.first, second):
        with pytest.raises(CommitConflict):
            fenced.collect()
    assert scene.pipeline.files() == before


def test_worker_whose_own_take_over_came_between_does_not_collect_by_the_older_list(scene):
    """A collection that goes on in its thread while its worker takes over again is fenced as another worker's is."""

    class SleepyStore(LocalStore):
        def list(self, prefix: str, *, is_finished: bool = True) -> list[str]:
            found = super().list(prefix, is_finished=is_finished)
            if prefix.endswith("objects") and not slept:
                slept.append(True)
                scene.first.take_over()
            return found

    slept: list[bool] = []
    scene.first.partition.store = SleepyStore(scene.pipeline.root)
    with pytest.raises(CommitConflict):
        scene.first.collect()
