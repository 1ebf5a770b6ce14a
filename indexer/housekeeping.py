"""Checkpoints and collections beside the loop of a partition, in a thread, one at a time."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass

import structlog

from indexer.gc import Janitor
from indexer.metrics import IndexerMetrics
from indexer.partition import PartitionIndexer
from indexer.snapshots.pinned import let_go
from schemas.backups import Pin

__all__ = ["Housekeeping", "HousekeepingOptions"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HousekeepingOptions:
    """When: a checkpoint every `checkpoint_seconds` or `checkpoint_events`, a collection every `collect_seconds`.

    Nothing is done where nothing has changed.
    """

    checkpoint_seconds: float = 5.0
    checkpoint_events: int = 50_000
    collect_seconds: float = 15.0


class Housekeeping:
    """Keeps the store of one partition durable and small."""

    def __init__(
        self, partition: PartitionIndexer, janitor: Janitor, options: HousekeepingOptions, metrics: IndexerMetrics
    ) -> None:
        """Work on `partition` through `janitor`."""
        self._partition = partition
        self._janitor = janitor
        self._options = options
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None
        self._next_checkpoint = 0.0
        self._next_collection = 0.0
        self._checkpoint_offset = 0
        self._checkpoint_version = 0
        # Collections still to run after the newest checkpoint: what is too young now is garbage a little later.
        self._collections_left = 0

    def start_if_due(self, *, busy_seconds: float) -> None:
        """Start what is due; raise what the round before raised. `busy_seconds` is the age of the oldest merge."""
        if self._task is not None:
            if not self._task.done():
                return
            finished, self._task = self._task, None
            finished.result()
        now = time.monotonic()
        offset = self._partition.snapshot.next_offset
        if now < self._next_checkpoint and offset - self._checkpoint_offset < self._options.checkpoint_events:
            return
        if self._is_settled():
            return
        self._next_checkpoint = now + self._options.checkpoint_seconds
        self._checkpoint_offset = offset
        collects = now >= self._next_collection
        self._task = asyncio.create_task(self._round(collects=collects, busy_seconds=busy_seconds))

    def due_seconds(self) -> float:
        """Return in how many seconds `start_if_due` wants to be called; infinity where nothing has changed."""
        if self._is_settled():
            return math.inf
        return max(0.0, self._next_checkpoint - time.monotonic())

    async def pin(self, backup_id: str, offset: int) -> Pin | None:
        """Hold the newest snapshot for a backup; None where it does not show every event below `offset` yet.

        None also where another worker has taken over. Raises as `Janitor.pin`.
        """
        pin = await asyncio.to_thread(self._janitor.pin, backup_id, offset)
        if pin is not None and pin.version > self._checkpoint_version:
            # It is durable now, as after a checkpoint of our own.
            self._checkpoint_version = pin.version
            self._collections_left = self._janitor.collections_needed(self._options.collect_seconds)
        return pin

    async def let_go(self, backup_id: str, *, but_version: int = 0) -> None:
        """Let go of what a backup holds, but for one version; the next collections take it away. Raises `OSError`."""
        partition = self._partition
        place = (partition.store, partition.spec, partition.partition)
        if await asyncio.to_thread(let_go, *place, backup_id, but_version=but_version):
            self._collections_left = self._janitor.collections_needed(self._options.collect_seconds)

    async def drop(self) -> None:
        """Let go of the round under way; its thread ends by itself."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _is_settled(self) -> bool:
        """Say whether the newest manifest is durable and all garbage is collected."""
        return self._partition.snapshot.version == self._checkpoint_version and not self._collections_left

    async def _round(self, *, collects: bool, busy_seconds: float) -> None:
        manifest = self._partition.snapshot.manifest
        if await asyncio.to_thread(self._janitor.checkpoint, manifest):
            self._checkpoint_version = manifest.version
            self._metrics.checkpoints.inc()
            self._collections_left = self._janitor.collections_needed(self._options.collect_seconds)
        if collects and self._collections_left:
            self._collections_left -= 1
            self._next_collection = time.monotonic() + self._options.collect_seconds
            await asyncio.to_thread(self._janitor.audit, manifest)
            self._metrics.collected.inc(await asyncio.to_thread(self._janitor.collect, busy_seconds=busy_seconds))
            if self._janitor.damage:
                _log.error("nothing_collected", partition=self._partition.partition, reason=self._janitor.damage)
