"""The whole pipeline of one partition as a state machine: every way to write, publish, merge, die and be damaged.

Each rule is one thing that can happen next. After it, what the pipeline shows at a position must be what the oracle
says of that position; a position that was shown never goes back.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from indexer import merging
from indexer.segments.graph import GraphOptions
from indexer.snapshots import store as store_module
from indexer.snapshots.reader import SnapshotReader
from schemas.errors import CommitConflict, CorruptData, SnapshotBehind
from schemas.indexes import Metric
from tests.model.checks import Query, assert_counts, assert_dead_letters, assert_shows
from tests.model.oracle import Oracle, State
from tests.model.world import (
    CUTS,
    DOCUMENTS,
    FILTERS,
    IDS,
    LANES,
    NAMES,
    PARTITIONS,
    POISON,
    QUERIES,
    WRITES,
    event_of,
    poison_of,
)
from tests.support.builders import dense, spec_of, update, upsert
from tests.support.driver import SMALL, Pipeline, Worker, manifest_objects, manifests_of
from tests.support.engines import ENGINES, walks_always

__all__ = ["COVERED", "PartitionMachine"]

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


class PartitionMachine(RuleBasedStateMachine):
    """One partition, one worker at a time that is not fenced, two followers."""

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

    @initialize(
        metric=st.sampled_from(Metric),
        engine=st.sampled_from(ENGINES),
        eager=st.booleans(),
        list_every=st.sampled_from([0, 2]),
    )
    def begin(self, metric, engine, eager, list_every):
        if eager:
            # Segments of this size are cheaper to scan.
            self.walked = walks_always(self.patch)
        # Names of objects are random; here they are counted, so that a run can be repeated to the byte.
        numbers = itertools.count(1)
        counting = SimpleNamespace(token_hex=lambda size: f"{next(numbers):0{2 * size}x}")
        self.patch.setattr(store_module, "secrets", counting)
        graph = GraphOptions(ef_search=200, engine=engine)
        merge = replace(SMALL, patched_rows_min=0, patched_share_max=0)
        self.pipeline = Pipeline(self.root, spec_of(metric, partitions=PARTITIONS), merge=merge, graph=graph)
        self.oracle = Oracle(self.pipeline.book)
        self.list_every = list_every
        self.worker = self.pipeline.worker()
        self.followers = [Follower(self.pipeline.follower(list_every=list_every)) for _ in range(2)]

    # --- writing ------------------------------------------------------------------------------------------------------

    @rule(writes=WRITES, gap=st.sampled_from([0, 0, 3]), publish=st.booleans())
    def write(self, writes, gap, publish):
        """Say some things, and publish them or not."""
        for write in writes:
            self.pipeline.book.append(write[1], event_of(write), gap=gap)
            gap = 0
        if publish:
            self.publish()

    @rule(name=st.sampled_from(NAMES), first=st.integers(0, 255), start=st.integers(0, 20), batch=st.integers(5, 36))
    def load(self, name, first, start, batch):
        """Write many records of one namespace in partial batches, so that there is something to merge."""
        for number, key in enumerate(IDS[start:] + IDS[:start], first):
            self.pipeline.book.append(name, upsert(key, number, DOCUMENTS[number % len(DOCUMENTS)]))
        while self.worker.snapshot.next_offset < self.pipeline.book.end:
            self.publish(batch)

    @rule(kind=POISON, name=st.sampled_from(NAMES), publish=st.booleans())
    def poison(self, kind, name, publish):
        """Let somebody else write what cannot be folded."""
        self.pipeline.book.append_poison(*poison_of(kind, name))
        COVERED["dead letters"] += 1
        if publish:
            self.publish()
            self.publish()

    @rule(count=st.integers(1, 5))
    def mark(self, count):
        """Let the log grow without a record."""
        self.pipeline.book.skip_offsets(count)

    @rule(records_max=st.sampled_from([1, 2, 5, 1000]))
    def publish(self, records_max=1000):
        """Fold and publish some of what waits."""
        self.guarded(lambda: self.worker.publish(records_max))
        self.check()

    @rule(seconds=st.integers(1, 40))
    def tick(self, seconds):
        """Let time pass, so that outcomes grow old."""
        self.pipeline.clock.now_ms += 1000 * seconds

    # --- merging ------------------------------------------------------------------------------------------------------

    @rule(lane=LANES, build=st.booleans(), is_quiet=st.booleans())
    def freeze(self, lane, build, is_quiet=True):
        """Start a merge, also one for which a quiet moment was awaited; it reads its inputs now or at its commit."""
        self.guarded(lambda: self.worker.start(lane, is_quiet=is_quiet) and build and self.worker.build(lane))

    @rule(lane=LANES)
    def commit(self, lane):
        """End a merge, with all that was published since it was frozen."""
        job = self.worker.jobs.get(lane)
        if self.guarded(lambda: self.worker.finish(lane)):
            COVERED[f"{lane} merges"] += 1
            COVERED["records written anew"] += job is not None and job.rewritten is not None
            self.check()

    @rule(lane=LANES)
    def abandon(self, lane):
        """Give a merge up, as after a killed builder."""
        self.worker.abandon(lane)

    @rule(batches=st.tuples(WRITES, WRITES, WRITES), lanes=st.permutations(merging.LANES))
    def overlap(self, batches, lanes):
        """Freeze all kinds of merges, write, commit one, write, commit the next."""
        for lane in lanes:
            self.freeze(lane, build=True)
        for lane, batch in zip(lanes, batches, strict=True):
            self.write(batch, 0, publish=True)
            self.commit(lane)

    @rule(batches=st.lists(WRITES, min_size=3, max_size=4), more=WRITES, query=QUERIES)
    def roll_up(self, batches, more, query):
        """Publish a few times, roll it up while one more is published, and look at it with new eyes."""
        for writes in batches:
            self.write(writes, 0, publish=True)
        self.freeze("rollup", build=True)
        self.write(more, 0, publish=True)
        self.commit("rollup")
        self.replace_follower(1)
        self.assert_follower(self.followers[1], query)

    @rule(name=st.sampled_from(NAMES), first=st.integers(0, 20), more=WRITES, query=QUERIES)
    def write_records_anew(self, name, first, more, query):
        """Change the metadata of merged records one by one, and write them anew while more is said."""
        self.publish()
        self.freeze("rollup", build=True)
        self.commit("rollup")
        for number, key in enumerate(IDS[first : first + 8]):
            self.pipeline.book.append(name, update(key, DOCUMENTS[number % len(DOCUMENTS)]))
        self.publish()
        self.freeze("graph", build=True)
        self.write(more, 0, publish=True)
        self.commit("graph")
        self.replace_follower(1)
        self.assert_follower(self.followers[1], query)

    # --- dying, and being replaced ------------------------------------------------------------------------------------

    @rule()
    def crash(self):
        """Lose all that was in memory, and start again."""
        self.replace_worker()
        self.check()

    @rule(move=st.sampled_from(["publish", *merging.LANES, "collect", "checkpoint"]), writes=WRITES)
    def be_fenced(self, move, writes):
        """Let a second worker take over while the first is about to move: it must fail, and change nothing."""
        old = self.worker
        if move in merging.LANES and not self.guarded(lambda: old.start(move) and (old.build(move), True)[1]):
            move = "publish"
        if old is not self.worker:
            return
        for write in writes:
            self.pipeline.book.append(write[1], event_of(write))
        while not old.partition.is_pending:
            old.fold(3)
        self.replace_worker()
        self.worker.publish(5)
        # What the first worker published is true, so it may make it durable, unless the second has gone further.
        if move == "checkpoint" and not self.guarded(self.worker.checkpoint):
            move = "publish"
        before = self.named_files()
        if move == "checkpoint":
            assert not old.checkpoint(), "a fenced worker moved the marker back"
        else:
            moves = {"publish": old.partition.publish, "collect": old.collect}
            # What a merge reads may have been set aside since, or collected by the second worker.
            gone = (FileNotFoundError, CorruptData) if move in merging.LANES else ()
            with pytest.raises((CommitConflict, *gone)):
                moves.get(move, lambda: old.finish(move))()
        assert self.named_files() == before
        COVERED["fenced"] += 1
        self.check()

    @rule(kept=st.floats(0, 1), growth=WRITES)
    @precondition(lambda self: self.turn % 2 == 0)
    def lose_log(self, kept, growth):
        """Let the log come back shorter than what was folded, and grow again with other events."""
        book = self.pipeline.book
        if self.has_unreadable_manifest():
            # It may be the only one that knew of a position which somebody has seen: that is one fault too many.
            return
        book.cut(int(book.end * kept))
        lost = self.worker.snapshot.next_offset > book.end
        lineage = self.worker.snapshot.lineage
        self.oracle.cut(book.end)
        self.replace_worker()
        if lost:
            assert self.worker.snapshot.lineage > lineage
            COVERED["log cuts"] += 1
        self.check()
        self.write(growth, 0, publish=True)

    # --- damage -------------------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 10_000), cut=CUTS, restart=st.booleans())
    def damage_file(self, which, cut, restart):
        """Cut or remove an object or manifest."""
        path = self.some_file(which)
        data = path.read_bytes()
        if cut == "gone" and "/manifests/" not in path.as_posix():
            path.unlink()
        else:
            kept = {"empty": 0, "first byte": 1, "half": len(data) // 2, "last byte off": len(data) - 1}.get(cut, 0)
            path.write_bytes(data[:kept])
        self.after_damage(restart)

    @rule(
        which=st.integers(0, 10_000), at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), restart=st.booleans()
    )
    def flip_bit(self, which, at, bit, restart):
        """Turn one bit of an object or manifest round."""
        path = self.some_file(which)
        data = bytearray(path.read_bytes())
        if data:
            data[int(at * len(data))] ^= 1 << bit
            path.write_bytes(data)
        self.after_damage(restart)

    # --- keeping house ------------------------------------------------------------------------------------------------

    @rule(collect=st.booleans())
    def keep_house(self, collect):
        """Checkpoint, and delete at once whatever nobody needs."""
        self.guarded(self.worker.checkpoint)
        if collect:
            COVERED["collected"] += self.guarded(self.worker.collect) or 0
            self.check()

    # --- reading ------------------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 1), query=QUERIES)
    def follow(self, which, query):
        """Look for something newer, and ask."""
        follower = self.followers[which]
        self.refresh(follower)
        self.assert_follower(follower, query)

    @rule(which=st.integers(0, 1))
    def replace_follower(self, which):
        """Start a reader that has seen nothing."""
        self.followers[which] = Follower(self.pipeline.follower(list_every=self.list_every))
        if which == 0:
            self.walk = None
        self.refresh(self.followers[which])

    @rule(writes=WRITES, which=st.integers(0, 1), query=QUERIES)
    def read_own_writes(self, writes, which, query):
        """Ask for at least the position that a write returned: the snapshot which has it shows the write."""
        self.write(writes, 0, publish=False)
        position = self.pipeline.book.end
        self.settle()
        follower = self.followers[which]
        assert follower.reader.current.next_offset >= position
        self.assert_follower(follower, query)

    @rule(name=st.sampled_from(NAMES), size=st.integers(1, 20))
    def walk_page(self, name, size):
        """Read the next page of a listing, whatever has happened since the last one."""
        snapshot = self.followers[0].reader.current
        if self.walk is None:
            self.walk = Walk(name, size, set(self.followers[0].state.ids(name)))
        walk = self.walk
        page = snapshot.list_ids(walk.name, prefix="id-", after=walk.seen[-1] if walk.seen else None, limit=walk.size)
        walk.seen += page
        if len(page) < walk.size:
            assert walk.seen == sorted(set(walk.seen)), "an id came twice"
            assert walk.throughout <= set(walk.seen), "an id that was there throughout is missing"
            COVERED["walks"] += 1
            self.walk = None

    # Rules are drawn evenly: what makes a partition grow comes up more often than what makes it begin again.
    write_more, write_on, load_more, load_on = write, write, load, load
    overlap_more, roll_up_more, freeze_more, commit_more = overlap, roll_up, freeze, commit
    follow_more, walk_more = follow, walk_page

    # --- how it is driven and checked ---------------------------------------------------------------------------------

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
        query = Query(dense(self.turn), 5, FILTERS[self.turn % len(FILTERS)])
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
        assert_shows(snapshot, follower.state, names=NAMES, ids=IDS, query=Query(dense(number), top_k, where))

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
        query = Query(dense(self.turn), 10, FILTERS[0])
        assert_shows(fresh, self.oracle.at(book.end), names=NAMES, ids=IDS, query=query)
        needed = set()
        for manifest in list(manifests_of(self.pipeline))[-2:]:
            needed |= {ref.name for kind in manifest_objects(self.pipeline.store, manifest).values() for ref in kind}
        left = set(self.pipeline.store.list(f"{self.pipeline.prefix}/objects"))
        assert needed <= left
        self.note_worker(worker)
