"""The whole pipeline of one partition as a state machine: every way to write, publish, merge, die and be damaged.

Each rule is one thing that can happen next. After it, what the pipeline shows at a position must be what the oracle
says of that position; a position that was shown never goes back.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import initialize, precondition, rule

from indexer import merging
from indexer.segments.graph import GraphOptions
from indexer.snapshots import store as store_module
from schemas import idempotency
from schemas.errors import CommitConflict, CorruptData
from schemas.indexes import Metric
from tests.model.oracle import Oracle
from tests.model.stage import COVERED, Follower, Stage, Walk
from tests.model.world import (
    CUTS,
    DOCUMENTS,
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
from tests.support.builders import spec_of, update, upsert, words
from tests.support.driver import SMALL, Pipeline
from tests.support.engines import ENGINES, walks_always

__all__ = ["COVERED", "PartitionMachine"]


class PartitionMachine(Stage):
    """One partition, one worker at a time that is not fenced, two followers."""

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
        self.batches = []
        # So short that keys are forgotten; and no batch of this machine is longer.
        self.patch.setattr(idempotency, "IDEMPOTENCY_EVENTS", 60)
        self.patch.setattr(idempotency, "BATCH_RECORDS_MAX", 8)
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
            event = upsert(key, number, DOCUMENTS[number % len(DOCUMENTS)])
            # Three of four have sparse values, too.
            self.pipeline.book.append(name, replace(event, sparse=words(number)) if number % 4 else event)
        while self.worker.snapshot.next_offset < self.pipeline.book.end:
            self.publish(batch)

    @rule(
        writes=WRITES,
        name=st.sampled_from(NAMES),
        kept=st.sampled_from([0, 1, 8, 8]),
        publish=st.sampled_from([0, 1, 9]),
    )
    def write_once(self, writes, name, kept, publish):
        """Say some things under an idempotency key; of some batches only the first events have reached the log."""
        batch = (name, [event_of(write) for write in writes], b"key-%d" % (len(self.batches) % 7))
        self.batches.append(batch)
        self.pipeline.book.append_batch(name, batch[1][:kept], batch[2])
        if publish:
            self.publish(publish)

    @rule(which=st.integers(0, 3), restart=st.booleans(), publish=st.sampled_from([0, 1, 9]))
    def repeat(self, which, restart, publish):
        """Say again what was said under a key, be it after a restart."""
        if not self.batches:
            return
        if restart:
            self.replace_worker()
        self.pipeline.book.append_batch(*self.batches[-1 - which % len(self.batches)])
        if publish:
            self.publish(publish)

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
    repeat_more, repeat_on = repeat, repeat
