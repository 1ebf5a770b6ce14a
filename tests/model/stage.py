"""What the state machine works on: a worker, followers and the oracle, and how they are driven and compared."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis.stateful import RuleBasedStateMachine

from indexer import merging
from indexer.snapshots.reader import SnapshotReader
from schemas.errors import CorruptData, SnapshotBehind
from tests.model.checks import Query, assert_counts, assert_dead_letters, assert_shows
from tests.model.oracle import State
from tests.model.world import (
    FILTERS,
    IDS,
    NAMES,
)
from tests.support.builders import dense, words
from tests.support.driver import Worker, manifest_objects, manifests_of

__all__ = ["COVERED", "Follower", "Stage", "Walk"]

# What all runs together have seen; the test asks for least numbers.
COVERED: Counter[str] = Counter()

_MEMORY = Path("/dev/shm")


@dataclass(slots=True)
class Follower:
    """A reader and the state it must show, which stays what it was even if the log is cut afterwards."""

    reader: SnapshotReader
    state: State = field(default_factory=State)

    @property
    def place(self) -> tuple[int, int]:
        """What must never go back."""
        return self.reader.current.lineage, self.reader.current.next_offset


@dataclass(slots=True)
class Walk:
    """A listing under way, page by page: ids seen, and those that were there throughout."""

    name: str
    size: int
    throughout: set[str]
    seen: list[str] = field(default_factory=list)


class Stage(RuleBasedStateMachine):
    """One partition under test; its rules are those of the machine that is made from it."""

    def __init__(self) -> None:
        super().__init__()
        # In memory where there is such a place: nothing here loses power, so a sync that reaches a disk shows nothing.
        place = _MEMORY if _MEMORY.is_dir() else None
        self.root = Path(tempfile.mkdtemp(prefix="freshet-model-", dir=place))
        self.damaged = False
        self.turn = 0
        self.walk: Walk | None = None
        self.walked: list[int] = []
        self.patch = pytest.MonkeyPatch()

    def guarded(self, action):
        """Do what a worker does; where an object is damaged, let it take over again, as its loop would."""
        try:
            return action()
        except (CorruptData, FileNotFoundError):
            assert self.damaged, "nothing was damaged"
            COVERED["damage met while running"] += 1
            self.note_worker(self.worker)
            self.worker.take_over()
            return None

    def note_worker(self, worker: Worker) -> None:
        """Count what a worker has been through, before it is dropped."""
        COVERED["graph walks"] += len(self.walked)
        self.walked.clear()
        COVERED["kills carried"] += worker.merges.carried.kills
        COVERED["patches carried"] += worker.merges.carried.patches
        worker.merges.carried.kills = worker.merges.carried.patches = 0
        COVERED["fallbacks"] += worker.partition.fallbacks
        worker.partition.fallbacks = 0

    def replace_worker(self) -> None:
        self.note_worker(self.worker)
        self.worker = self.pipeline.worker()
        COVERED["takeovers"] += 1

    def check(self) -> None:
        """Compare the worker's snapshot, and what somebody would see who opens it now, to the oracle."""
        self.turn += 1
        snapshot = self.worker.snapshot
        state = self.oracle.at(snapshot.next_offset)
        query = Query(dense(self.turn), 5, FILTERS[self.turn % len(FILTERS)], words(self.turn))
        assert_shows(snapshot, state, names=[NAMES[self.turn % len(NAMES)]], ids=IDS, query=query)

    def refresh(self, follower: Follower) -> None:
        before = follower.place
        version = follower.reader.current.version
        try:
            newer = follower.reader.refresh()
        except (SnapshotBehind, CorruptData):
            assert self.damaged, "nothing was damaged"
            COVERED["followers held back"] += 1
            newer = None
        assert follower.place >= before
        if newer is None:
            assert follower.reader.current.version == version
            return
        follower.state = self.oracle.at(newer.next_offset)
        assert_counts(newer, follower.state)
        if self.walk is not None and follower is self.followers[0]:
            self.walk.throughout &= set(follower.state.ids(self.walk.name))

    def assert_follower(self, follower: Follower, query) -> None:
        number, top_k, where = query
        snapshot = follower.reader.current
        assert_shows(
            snapshot, follower.state, names=NAMES, ids=IDS, query=Query(dense(number), top_k, where, words(number))
        )

    def settle(self) -> None:
        """Let everybody catch up; where a reader has set something damaged aside, the worker notices and goes on."""
        for attempt in range(10):
            while self.worker.snapshot.next_offset < self.pipeline.book.end:
                self.guarded(self.worker.publish)
            if all(self.catches_up(follower) for follower in self.followers):
                return
            assert self.damaged, "nothing was damaged"
            assert attempt < 9, "a follower is held back for good"
            self.guarded(lambda: self.worker.janitor.audit(self.worker.snapshot.manifest))
            self.pipeline.book.skip_offsets(1)

    def catches_up(self, follower: Follower) -> bool:
        for _ in range(self.list_every + 3):
            self.refresh(follower)
            if follower.reader.current.next_offset == self.pipeline.book.end:
                return True
        return False

    def has_unreadable_manifest(self) -> bool:
        names = self.pipeline.store.list(f"{self.pipeline.prefix}/manifests")
        return len(list(manifests_of(self.pipeline))) < len(names)

    def named_files(self) -> dict[str, bytes]:
        """Return all manifests, the marker, and every object that the newest manifest names."""
        files = self.pipeline.files()
        refs = manifest_objects(self.pipeline.store, self.worker.snapshot.manifest)
        names = {ref.name for kind in refs.values() for ref in kind}
        return {name: data for name, data in files.items() if name in names or "/objects/" not in name}

    def some_file(self, which: int) -> Path:
        """Return an object that the newest manifest names, or one of the newest manifests."""
        store = self.pipeline.store
        try:
            refs = manifest_objects(store, self.worker.snapshot.manifest)
        except (CorruptData, FileNotFoundError):
            refs = {}
        names = [ref.name for kind in refs.values() for ref in kind if store.exists(ref.name)]
        names += store.list(f"{self.pipeline.prefix}/manifests")[-3:]
        return self.root / names[which % len(names)]

    def after_damage(self, restart: bool) -> None:
        self.damaged = True
        COVERED["damaged"] += 1
        if restart:
            self.replace_worker()
            self.check()
        for follower in self.followers:
            self.refresh(follower)

    def teardown(self) -> None:
        """Come to rest: all is shown, all dead letters are there, all merges end, and only what is needed is left."""
        try:
            if hasattr(self, "worker"):
                self.come_to_rest()
        finally:
            self.patch.undo()
            shutil.rmtree(self.root)

    def come_to_rest(self) -> None:
        self.replace_worker()
        self.settle()
        for lane in merging.LANES:
            while self.worker.start(lane):
                self.worker.finish(lane)
        self.check()
        worker, book = self.worker, self.pipeline.book
        assert_dead_letters(self.pipeline.store, worker.snapshot, self.oracle.at(book.end))
        worker.checkpoint()
        worker.collect()
        fresh = self.pipeline.fresh_snapshot()
        query = Query(dense(self.turn), 10, FILTERS[0], words(self.turn))
        assert_shows(fresh, self.oracle.at(book.end), names=NAMES, ids=IDS, query=query)
        needed = set()
        for manifest in list(manifests_of(self.pipeline))[-2:]:
            needed |= {ref.name for kind in manifest_objects(self.pipeline.store, manifest).values() for ref in kind}
        left = set(self.pipeline.store.list(f"{self.pipeline.prefix}/objects"))
        assert needed <= left
        self.note_worker(worker)
        state = self.oracle.at(book.end)
        COVERED["repeats left out"] += state.repeated
        COVERED["repeats of forgotten keys"] += state.forgotten
