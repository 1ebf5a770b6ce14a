"""The merges of one partition beside its loop: started and committed by the loop, carried out by the pool."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures.process import BrokenProcessPool

import structlog

from indexer.merger import MergeResult
from indexer.merging import LANES, Merges
from indexer.metrics import IndexerMetrics
from indexer.partition import PartitionIndexer
from indexer.pool import MergePool
from schemas.errors import CorruptData, Unavailable

__all__ = ["MergeLanes"]

_log = structlog.get_logger(__name__)


class MergeLanes:
    """At most one merge per lane, under way."""

    def __init__(self, partition: PartitionIndexer, pool: MergePool, metrics: IndexerMetrics) -> None:
        """Merge for `partition`, on `pool`."""
        self._partition = partition
        self._merges = Merges(partition)
        self._pool = pool
        self._metrics = metrics
        self._running: dict[str, tuple[asyncio.Task[MergeResult], float]] = {}
        self._moved_offset = -1
        self._moved_at = time.monotonic()

    @property
    def tasks(self) -> set[asyncio.Task[MergeResult]]:
        """The merges under way."""
        return {task for task, _ in self._running.values()}

    @property
    def busy_seconds(self) -> float:
        """How long the oldest merge has been under way; 0 without one."""
        now = time.monotonic()
        return max((now - started for _, started in self._running.values()), default=0.0)

    def advance(self) -> bool:
        """Commit what has ended and start what is due, where nothing is folded but not published.

        Return whether there is a new manifest. Raises `CommitConflict`, `CorruptData`, `StoreUnavailable`,
        `FileNotFoundError`.
        """
        if self._partition.is_pending:
            return False
        is_quiet = self._is_quiet()
        committed = [self._commit(lane) for lane, (task, _) in list(self._running.items()) if task.done()]
        for lane in LANES:
            job = None if lane in self._running else self._merges.next_job(lane, is_quiet=is_quiet)
            if job is not None:
                task = asyncio.create_task(self._pool.run(self._partition.store, job))
                self._running[lane] = (task, time.monotonic())
        return any(committed)

    async def drop(self) -> None:
        """Let go of all merges: a thread or process that is still at work ends by itself, its result is garbage."""
        tasks = self.tasks
        self._running.clear()
        self._merges.forget()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_quiet(self) -> bool:
        """Say whether the partition took no event for a while."""
        now, offset = time.monotonic(), self._partition.snapshot.next_offset
        if offset != self._moved_offset:
            self._moved_offset, self._moved_at = offset, now
        return now - self._moved_at >= self._partition.options.merge.settle_seconds

    def _commit(self, lane: str) -> bool:
        task, _ = self._running.pop(lane)
        try:
            result = task.result()
        except (BrokenProcessPool, Unavailable, CorruptData, FileNotFoundError, MemoryError) as error:
            self._metrics.merge_failures.inc()
            self._merges.abandon(lane)
            _log.warning("merge_failed", kind=lane, index=self._partition.spec.name, reason=str(error))
            if isinstance(error, CorruptData | FileNotFoundError):
                raise
            return False
        self._merges.commit(lane, result)
        self._metrics.merges.labels(kind=lane).inc()
        return True
