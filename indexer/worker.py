"""One loop per partition: read, fold, publish; commit merges between publishes; checkpoint; collect.

The loop owns the pace. What goes wrong around it is told apart here: a log or store that does not answer is waited for,
damage means to take over again and fold the log, a conflict means that another worker owns the partition.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import structlog

from indexer.housekeeping import Housekeeping
from indexer.lanes import MergeLanes
from indexer.metrics import IndexerMetrics
from indexer.partition import PartitionIndexer
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
from schemas.indexes import IndexSpec
from schemas.limits import RECENT_DELTAS_MAX

__all__ = ["PartitionWorker", "WorkerOptions", "WorkerState", "WorkerStatus"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The pace of a partition; seconds, bytes, events."""

    read_bytes_max: int = 2 * 1024 * 1024
    # A new event ends the wait; without one it paces only the look at checkpoints.
    read_wait_seconds: float = 5.0
    # How long a partition that stands at a record of a newer format waits before it looks again.
    look_again_seconds: float = 1.0
    # 0 publishes at once when idle, else as soon as the last publish ended.
    publish_interval_seconds: float = 0.0
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
        lanes: MergeLanes,
        housekeeping: Housekeeping,
        options: WorkerOptions,
        *,
        metrics: IndexerMetrics,
        published: Callable[[], None],
    ) -> None:
        """Read from `log`; `published` is called after every new manifest."""
        self._log = log
        self._partition = partition
        self._lanes = lanes
        # Backups are pinned by the hands that collect.
        self.housekeeping = housekeeping
        self._options = options
        self._metrics = metrics
        self._published = published
        self._state = WorkerState.STARTING
        self._detail = ""

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

    def use_spec(self, spec: IndexSpec) -> None:
        """Go on with the index as it was configured since: the next merge obeys it."""
        assert spec.index_id == self._partition.spec.index_id, "another index has another partition"
        self._partition.spec = spec

    async def run(self) -> None:
        """Work until cancelled."""
        pause = self._options.retry_seconds_min
        may_take_over = True
        while True:
            try:
                # What looks like damage may be the work of another, who collects what this one still knows.
                if not may_take_over and await asyncio.to_thread(self._partition.is_overtaken):
                    raise CommitConflict("Another worker has taken over.")
                may_take_over = False
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
                may_take_over = True
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
                await self._lanes.drop()
                await self.housekeeping.drop()
            pause = min(2 * pause, self._options.retry_seconds_max)

    async def _take_over(self) -> None:
        partition = self._partition
        # In this order: a manifest may only be called beyond the log's end if the end was read after it.
        seen_version = await asyncio.to_thread(partition.highest_version)
        end = (await self._log.ends())[partition.partition]
        before = partition.fallbacks
        await asyncio.to_thread(partition.take_over, end, seen_version=seen_version)
        self._metrics.fallbacks.inc(partition.fallbacks - before)
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
        started = time.monotonic()
        if crowded:
            await self._wait_for_merge()
        elif self._state is WorkerState.STOPPED:
            await self._look_again()
        elif not partition.is_pending:
            batch = await self._read()
            if batch.end_offset < partition.snapshot.next_offset:
                raise LogRegressed(
                    f"The log ends at {batch.end_offset}, below {partition.snapshot.next_offset}, which was folded.",
                )
            started = time.monotonic()
            self._fold(batch)
        if not crowded and partition.publish():
            self._metrics.publishes.inc()
            self._metrics.publish_seconds.observe(time.monotonic() - started)
            self._published()
            await self._pace(started)
        self._advance_merges()
        self.housekeeping.start_if_due(busy_seconds=self._lanes.busy_seconds)

    async def _read(self) -> LogBatch:
        """Read on, but wake up for a merge that ends meanwhile."""
        partition = self._partition
        read = asyncio.ensure_future(
            self._log.read(
                partition.partition,
                partition.folded_offset,
                bytes_max=self._options.read_bytes_max,
                wait_seconds=min(self._options.read_wait_seconds, self.housekeeping.due_seconds()),
            )
        )
        try:
            while not read.done():
                await asyncio.wait({read, *self._lanes.tasks}, return_when=asyncio.FIRST_COMPLETED)
                if not read.done():
                    self._advance_merges()
            return read.result()
        finally:
            read.cancel()

    def _fold(self, batch: LogBatch) -> None:
        partition = self._partition
        if batch.next_offset <= partition.folded_offset:
            return
        letters = partition.pending_dead_letters
        try:
            partition.fold(batch.records, batch.next_offset)
            self._detail = ""
        except UnsupportedFormat as error:
            self._metrics.stopped.inc()
            self._tell(WorkerState.STOPPED, error)
        self._metrics.events.inc(len(batch.records))
        self._metrics.dead_letters.inc(partition.pending_dead_letters - letters)
        if batch.records:
            age = (partition.clock_ms() - batch.records[0].time_ms) / 1000
            self._metrics.visible_seconds.observe(max(0.0, age))

    async def _look_again(self) -> None:
        """Look again at the record that stopped the partition: the operator may have skipped it."""
        if self._partition.is_pending:
            return
        await asyncio.sleep(self._options.look_again_seconds)
        self._state = WorkerState.RUNNING
        self._metrics.stopped.dec()

    async def _wait_for_merge(self) -> None:
        """Wait for a roll-up: the manifest lists as many recent deltas as it may."""
        tasks = self._lanes.tasks
        if tasks:
            wait_seconds = self._options.look_again_seconds
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=wait_seconds)
        else:
            await asyncio.sleep(0)

    def _advance_merges(self) -> None:
        if self._lanes.advance():
            self._published()

    async def _pace(self, started: float) -> None:
        rest = self._options.publish_interval_seconds - (time.monotonic() - started)
        await asyncio.sleep(max(0.0, rest))

    async def _stand_by(self, error: FreshetError) -> None:
        """Watch the other worker; return when its manifests stand still although events wait."""
        self._tell(WorkerState.STANDBY, error)
        partition = self._partition
        while True:
            seen = await asyncio.to_thread(partition.newest_manifest)
            waiting: int | None = None
            with contextlib.suppress(Unavailable):  # without the log there is nothing to take over for
                waiting = (await self._log.ends())[partition.partition]
            await asyncio.sleep(self._options.standby_seconds)
            newest = await asyncio.to_thread(partition.newest_manifest)
            if newest is not None and seen is not None and newest.version != seen.version:
                continue
            # Only events that have waited all that time: one that came just now says nothing about the other worker.
            if waiting is not None and (newest is None or waiting > newest.next_offset):
                return

    def _tell(self, state: WorkerState, error: FreshetError) -> None:
        self._state, self._detail = state, error.message
        _log.warning("worker_" + state.value, reason=error.message, **self._names())

    def _names(self) -> dict[str, object]:
        return {"index": self._partition.spec.name, "partition": self._partition.partition}
