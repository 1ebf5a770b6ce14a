"""One loop per partition: read, fold, publish; commit merges between publishes; checkpoint; collect.

The loop owns the pace. What goes wrong around it is told apart here: a log or store that does not answer is waited for,
damage means to take over again and fold the log, a conflict means that another worker owns the partition.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from enum import StrEnum

import structlog

from indexer.gc import Janitor
from indexer.merger import MergeResult
from indexer.merging import Merges
from indexer.metrics import IndexerMetrics
from indexer.partition import PartitionIndexer
from indexer.pool import MergePool
from producer.log.protocol import Log, LogBatch
from schemas.errors import (
    CommitConflict,
    CorruptData,
    FreshetError,
    LogRegressed,
    LogUnavailable,
    Unavailable,
    UnsupportedFormat,
)
from schemas.limits import RECENT_DELTAS_MAX

__all__ = ["PartitionWorker", "WorkerOptions", "WorkerState", "WorkerStatus"]

_log = structlog.get_logger(__name__)
_LANES = ("rollup", "graph")


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The pace of a partition; seconds, bytes, events."""

    read_bytes_max: int = 2 * 1024 * 1024
    read_wait_seconds: float = 1.0
    # 0 publishes at once when idle, else as soon as the last publish ended.
    publish_interval_seconds: float = 0.0
    checkpoint_seconds: float = 5.0
    checkpoint_events: int = 50_000
    collect_seconds: float = 15.0
    # How long another worker's manifests must stand still while events wait before they are taken over.
    standby_seconds: float = 5.0
    retry_seconds_min: float = 0.1
    retry_seconds_max: float = 2.0


class WorkerState(StrEnum):
    """What a worker is doing."""

    STARTING = "starting"
    RUNNING = "running"
    STANDBY = "standby"
    WAITING = "waiting"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What an operator sees of a worker; `detail` says why it is not running."""

    index: str
    partition: int
    state: WorkerState
    next_offset: int
    version: int
    epoch: int
    segments: int
    detail: str


class PartitionWorker:
    """Drives one `PartitionIndexer`."""

    def __init__(
        self,
        log: Log,
        partition: PartitionIndexer,
        janitor: Janitor,
        pool: MergePool,
        options: WorkerOptions,
        *,
        metrics: IndexerMetrics,
        published: Callable[[], None],
    ) -> None:
        """Read from `log`; `published` is called after every new manifest."""
        self._log = log
        self._partition = partition
        self._janitor = janitor
        self._merges = Merges(partition)
        self._pool = pool
        self._options = options
        self._metrics = metrics
        self._published = published
        self._state = WorkerState.STARTING
        self._detail = ""
        self._running: dict[str, tuple[asyncio.Task[MergeResult], float]] = {}
        self._housekeeping: asyncio.Task[None] | None = None
        self._next_checkpoint = 0.0
        self._next_collection = 0.0
        self._checkpoint_offset = 0
        # Collections still to run after the last checkpoint: what is too young now is garbage a little later.
        self._collections_left = 0

    def status(self) -> WorkerStatus:
        """Return what the worker is doing."""
        snapshot = self._partition.snapshot
        return WorkerStatus(
            self._partition.spec.name,
            self._partition.partition,
            self._state,
            snapshot.next_offset,
            snapshot.version,
            snapshot.epoch,
            snapshot.segments,
            self._detail,
        )

    async def run(self) -> None:
        """Work until cancelled."""
        pause = self._options.retry_seconds_min
        while True:
            try:
                await self._take_over()
                pause = self._options.retry_seconds_min
                while True:
                    try:
                        await self._turn()
                        pause = self._options.retry_seconds_min
                    except LogUnavailable as error:
                        # The state stays ours: only wait, so that a flapping broker costs no take-overs.
                        self._tell(WorkerState.WAITING, error)
                        await asyncio.sleep(pause)
                        pause = min(2 * pause, self._options.retry_seconds_max)
            except CommitConflict as error:
                self._metrics.conflicts.inc()
                await self._stand_by(error)
            except (CorruptData, LogRegressed) as error:
                self._tell(WorkerState.STARTING, error)
                await asyncio.sleep(pause)
            except Unavailable as error:
                self._tell(WorkerState.WAITING, error)
                await asyncio.sleep(pause)
            except FileNotFoundError as error:
                # An object vanished under a merge or a checkpoint: what is left decides.
                _log.warning("object_gone", file=error.filename, **self._names())
                await asyncio.sleep(pause)
            finally:
                await self._drop_tasks()
            pause = min(2 * pause, self._options.retry_seconds_max)

    async def _take_over(self) -> None:
        partition = self._partition
        end = (await self._log.ends())[partition.partition]
        before = partition.fallbacks
        await asyncio.to_thread(partition.take_over, end)
        self._merges.forget()
        self._metrics.fallbacks.inc(partition.fallbacks - before)
        self._checkpoint_offset = partition.snapshot.next_offset
        self._state, self._detail = WorkerState.RUNNING, ""
        _log.info(
            "partition_taken_over",
            version=partition.snapshot.version,
            epoch=partition.snapshot.epoch,
            next_offset=partition.snapshot.next_offset,
            fallbacks=partition.fallbacks - before,
            **self._names(),
        )
        self._published()

    async def _turn(self) -> None:
        """Read and publish once, or learn that there is nothing to read; then look after merges and the store."""
        partition = self._partition
        crowded = len(partition.snapshot.manifest.recent) >= RECENT_DELTAS_MAX - 1
        if crowded or self._state is WorkerState.STOPPED:
            await self._wait_for_merge()
        elif not partition.is_pending:
            batch = await self._read()
            if batch.end_offset < partition.snapshot.next_offset:
                raise LogRegressed(
                    f"The log ends at {batch.end_offset}, below {partition.snapshot.next_offset}, which was folded.",
                )
            self._fold(batch)
        if self._state is WorkerState.STOPPED and not crowded:
            await self._retry_stopped()
        started = time.monotonic()
        if not crowded and partition.publish():
            self._metrics.publishes.inc()
            self._published()
            await self._pace(started)
        self._commit_merges()
        self._start_merges()
        self._keep_house()

    async def _read(self) -> LogBatch:
        """Read on, but wake up for a merge that ends meanwhile."""
        partition = self._partition
        read = asyncio.ensure_future(
            self._log.read(
                partition.partition,
                partition.folded_offset,
                bytes_max=self._options.read_bytes_max,
                wait_seconds=self._options.read_wait_seconds,
            )
        )
        waits = {read, *(task for task, _ in self._running.values())}
        try:
            while not read.done():
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if not read.done():
                    self._commit_merges()
                    self._start_merges()
                    waits = {read, *(task for task, _ in self._running.values())}
            return read.result()
        finally:
            read.cancel()

    def _fold(self, batch: LogBatch) -> None:
        partition = self._partition
        if batch.next_offset <= partition.folded_offset:
            return
        started = time.monotonic()
        letters = partition.pending_dead_letters
        try:
            partition.fold(batch.records, batch.next_offset)
            self._detail = ""
        except UnsupportedFormat as error:
            self._metrics.stopped.inc()
            self._tell(WorkerState.STOPPED, error)
        self._metrics.events.inc(len(batch.records))
        self._metrics.dead_letters.inc(partition.pending_dead_letters - letters)
        self._metrics.publish_seconds.observe(time.monotonic() - started)
        if batch.records:
            age = (partition.clock_ms() - batch.records[0].time_ms) / 1000
            self._metrics.visible_seconds.observe(max(0.0, age))

    async def _retry_stopped(self) -> None:
        """Look again at the record that stopped the partition: the operator may have skipped it."""
        if self._partition.is_pending:
            return
        await asyncio.sleep(self._options.read_wait_seconds)
        self._state = WorkerState.RUNNING
        self._metrics.stopped.dec()

    async def _wait_for_merge(self) -> None:
        tasks = [task for task, _ in self._running.values()]
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=self._options.read_wait_seconds)
        else:
            await asyncio.sleep(0)

    async def _pace(self, started: float) -> None:
        rest = self._options.publish_interval_seconds - (time.monotonic() - started)
        await asyncio.sleep(max(0.0, rest))

    def _commit_merges(self) -> None:
        if self._partition.is_pending:
            return
        for lane, (task, _) in list(self._running.items()):
            if not task.done():
                continue
            del self._running[lane]
            try:
                result = task.result()
            except (BrokenProcessPool, Unavailable, CorruptData, FileNotFoundError, MemoryError) as error:
                self._metrics.merge_failures.inc()
                self._merges.abandon(lane)
                _log.warning("merge_failed", kind=lane, error=str(error), **self._names())
                if isinstance(error, CorruptData | FileNotFoundError):
                    raise
                continue
            self._merges.commit(lane, result)
            self._metrics.merges.labels(kind=lane).inc()
            self._published()

    def _start_merges(self) -> None:
        for lane in _LANES:
            if lane in self._running or self._partition.is_pending:
                continue
            job = self._merges.next_job(lane)
            if job is not None:
                task = asyncio.create_task(self._pool.run(self._partition.store, job))
                self._running[lane] = (task, time.monotonic())

    def _keep_house(self) -> None:
        """Start a checkpoint, and a collection after it, in a thread where one is due."""
        if self._housekeeping is not None:
            if not self._housekeeping.done():
                return
            finished, self._housekeeping = self._housekeeping, None
            finished.result()
        now = time.monotonic()
        folded = self._partition.snapshot.next_offset - self._checkpoint_offset
        if now < self._next_checkpoint and folded < self._options.checkpoint_events:
            return
        self._next_checkpoint = now + self._options.checkpoint_seconds
        self._checkpoint_offset = self._partition.snapshot.next_offset
        self._housekeeping = asyncio.create_task(self._checkpoint(collect=now >= self._next_collection))

    async def _checkpoint(self, *, collect: bool) -> None:
        manifest = self._partition.snapshot.manifest
        if await asyncio.to_thread(self._janitor.checkpoint, manifest):
            self._metrics.checkpoints.inc()
            self._collections_left = self._janitor.collections_needed(self._options.collect_seconds)
        if collect and self._collections_left:
            self._collections_left -= 1
            await asyncio.to_thread(self._janitor.audit, manifest)
            now = time.monotonic()
            self._next_collection = now + self._options.collect_seconds
            busy = max((now - started for _, started in self._running.values()), default=0.0)
            self._metrics.collected.inc(await asyncio.to_thread(self._janitor.collect, busy_seconds=busy))

    async def _stand_by(self, error: FreshetError) -> None:
        """Watch the other worker; return when its manifests stand still although events wait."""
        self._tell(WorkerState.STANDBY, error)
        partition = self._partition
        while True:
            seen = await asyncio.to_thread(partition.newest_manifest)
            await asyncio.sleep(self._options.standby_seconds)
            newest = await asyncio.to_thread(partition.newest_manifest)
            if newest is not None and seen is not None and newest.version != seen.version:
                continue
            with contextlib.suppress(Unavailable):  # without the log there is nothing to take over for
                end = (await self._log.ends())[partition.partition]
                if newest is None or end > newest.next_offset:
                    return

    async def _drop_tasks(self) -> None:
        """Let go of merges and housekeeping; a thread that is still at work ends by itself, its result is garbage."""
        tasks = [task for task, _ in self._running.values()]
        if self._housekeeping is not None:
            tasks.append(self._housekeeping)  # type: ignore[arg-type] # only waited for
        self._running.clear()
        self._housekeeping = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

    def _tell(self, state: WorkerState, error: FreshetError) -> None:
        self._state, self._detail = state, error.message
        _log.warning("worker_" + state.value, reason=error.message, **self._names())

    def _names(self) -> dict[str, object]:
        return {"index": self._partition.spec.name, "partition": self._partition.partition}
