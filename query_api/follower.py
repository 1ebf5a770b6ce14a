"""Follow the snapshots of one partition: refresh in a thread, swap one reference, wake exactly who waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import structlog

from indexer.snapshots.reader import SnapshotReader
from indexer.snapshots.snapshot import Snapshot
from producer.pokes import PokeReceiver, manifest_topic
from producer.steps import Step, no_step
from query_api.metrics import ApiMetrics
from query_api.pace import GraphPace
from schemas.errors import FreshetError
from schemas.indexes import IndexSpec

__all__ = ["FollowerOptions", "PartitionFollower"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FollowerOptions:
    """How often a follower looks without being poked: the pause doubles from `min` to `max` while nothing comes."""

    poll_seconds_min: float = 0.05
    poll_seconds_max: float = 1.0


class PartitionFollower:
    """The newest snapshot of one partition, and those who wait for a newer one.

    `snapshot` never goes backwards: where a newer one is damaged or only an older one is left, the old one stays.
    """

    def __init__(
        self,
        spec: IndexSpec,
        partition: int,
        *,
        open_reader: Callable[[IndexSpec, int], SnapshotReader],
        threads: Executor,
        metrics: ApiMetrics,
        options: FollowerOptions,
        step: Step = no_step,
    ) -> None:
        self._spec = spec
        self.partition = partition
        self._open_reader = open_reader
        self._threads = threads
        self._metrics = metrics
        self._options = options
        self._step = step
        self._snapshot: Snapshot | None = None
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._ticket = itertools.count()
        self._look = asyncio.Event()
        self._opened = asyncio.Event()
        self._pause = options.poll_seconds_min
        self._task: asyncio.Task[None] | None = None
        self.problem: str | None = None
        self.pace = GraphPace()

    def start(self, pokes: PokeReceiver) -> None:
        """Begin to follow, in a task."""
        pokes.listen(manifest_topic(self._spec.index_id, self.partition), self._look.set)
        self._task = asyncio.create_task(self._run(), name=f"follow {self._spec.index_id}/{self.partition}")

    async def close(self, pokes: PokeReceiver) -> None:
        """Stop following; those who still wait get the snapshot as it is."""
        pokes.unsubscribe(manifest_topic(self._spec.index_id, self.partition))
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for _, _, future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    @property
    def is_open(self) -> bool:
        """Whether the store was looked at once, so that `snapshot` is what it held."""
        return self._snapshot is not None

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot. Ask `is_open` first, or wait with `opened`."""
        assert self._snapshot is not None, "the follower has not opened a snapshot yet"
        return self._snapshot

    async def opened(self, *, until: float) -> bool:
        """Wait for the first look at the store, at most to the loop time `until`; say whether it happened."""
        with contextlib.suppress(TimeoutError):  # the answer says it
            async with asyncio.timeout_at(until):
                await self._opened.wait()
        return self.is_open

    async def reach(self, offset: int, *, until: float) -> Snapshot:
        """Wait until the snapshot shows every event below `offset`; return the newest snapshot at that moment.

        Returns what there is at the loop time `until`, and when the lineage of the partition changes: the caller
        compares. Ask `is_open` first.
        """
        if self.snapshot.next_offset < offset and asyncio.get_running_loop().time() < until:
            future = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (offset, next(self._ticket), future))
            if self._pause > self._options.poll_seconds_min:
                # Somebody waits now: look at once and then often, also where a poke was lost.
                self._look.set()
            with contextlib.suppress(TimeoutError):  # the caller compares
                async with asyncio.timeout_at(until):
                    await future
        return self.snapshot

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        reader: SnapshotReader | None = None
        while True:
            # Armed before reading, so that news during the reading are not missed.
            self._look.clear()
            try:
                if reader is None:
                    reader = await loop.run_in_executor(self._threads, self._open_reader, self._spec, self.partition)
                newer = None
                if self._snapshot is None or reader.may_be_behind():
                    newer = await loop.run_in_executor(self._threads, reader.refresh)
                self._note(None)
            except FreshetError as error:
                newer = None
                self._note(error.message)
            except Exception as error:  # noqa: BLE001 - a follower that ends would serve one snapshot for ever
                newer = None
                self._note(f"{type(error).__name__}: {error}")
            if newer is not None or (self._snapshot is None and reader is not None and self.problem is None):
                assert reader is not None
                self._swap(newer or reader.current)
                self._pause = self._options.poll_seconds_min
            await self._rest()

    async def _rest(self) -> None:
        """Wait for a poke, or for the pause, which doubles while nobody waits for anything."""
        while self._waiting and self._waiting[0][2].done():
            heapq.heappop(self._waiting)
        if self._waiting or self._snapshot is None:
            self._pause = self._options.poll_seconds_min
        with contextlib.suppress(TimeoutError):  # the poll
            async with asyncio.timeout(self._pause):
                await self._look.wait()
                return
        self._pause = min(2 * self._pause, self._options.poll_seconds_max)

    def _swap(self, newer: Snapshot) -> None:
        self._step("follower.before_swap")
        old, self._snapshot = self._snapshot, newer
        self._opened.set()
        self.pace.note(newer, asyncio.get_running_loop().time())
        self._metrics.swaps.inc()
        changed = old is not None and old.lineage != newer.lineage
        while self._waiting and (changed or self._waiting[0][0] <= newer.next_offset):
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)

    def _note(self, problem: str | None) -> None:
        """Remember what stands in the way, and say it once."""
        if problem is not None:
            self._metrics.follow_errors.inc()
            if problem != self.problem:
                _log.warning("snapshot.not_opened", index=self._spec.name, partition=self.partition, reason=problem)
        self.problem = problem
