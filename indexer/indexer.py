"""All workers of one process: one per partition of every index in the catalog; clears up after deleted indexes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from indexer.backups import BackupKeeper, clear_all_but_pinned
from indexer.gc import Janitor, RetentionOptions
from indexer.housekeeping import Housekeeping, HousekeepingOptions
from indexer.lanes import MergeLanes
from indexer.metrics import IndexerMetrics
from indexer.partition import PartitionIndexer, PartitionOptions
from indexer.pool import MergePool
from indexer.snapshots.store import Store
from indexer.worker import PartitionWorker, WorkerOptions, WorkerStatus
from producer.catalog import Catalog
from producer.log.protocol import Log, Logs
from producer.steps import Step, no_step
from schemas.errors import FreshetError, NotFound
from schemas.indexes import IndexSpec

__all__ = ["Indexer", "IndexerOptions"]

_log = structlog.get_logger(__name__)
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class IndexerOptions:
    """Options of all partitions of a process."""

    partition: PartitionOptions = field(default_factory=PartitionOptions)
    worker: WorkerOptions = field(default_factory=WorkerOptions)
    housekeeping: HousekeepingOptions = field(default_factory=HousekeepingOptions)
    retention: RetentionOptions = field(default_factory=RetentionOptions)
    # Processes that build graphs.
    builders: int = 1


class Indexer:
    """Runs the workers of every index in the catalog."""

    def __init__(
        self,
        logs: Logs,
        catalog: Catalog,
        store: Store,
        options: IndexerOptions,
        *,
        clock_ms: Callable[[], int],
        metrics: IndexerMetrics,
        published: Callable[[str, int], None] = lambda _index_id, _partition: None,
    ) -> None:
        """Build; nothing runs before `start`. `published(index_id, partition)` is called after every new manifest."""
        self._logs = logs
        self._catalog = catalog
        self._store = store
        self._options = options
        self._clock_ms = clock_ms
        self._metrics = metrics
        self._published = published
        self._pool = MergePool(options.builders)
        self._writer = secrets.token_hex(8)
        self._workers: dict[str, list[PartitionWorker]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # As configured last; a worker that is started later begins with it.
        self._specs: dict[str, IndexSpec] = {}
        # Deleted indexes, with the backups for which something was left of them.
        self._cleared: dict[str, frozenset[str]] = {}
        self._followers: list[asyncio.Task[None]] = []
        self._step: Step = no_step

    def use_step(self, step: Step) -> None:
        """Call `step` at named points from now on; for tests that end the process there."""
        self._step = step

    async def start(self) -> None:
        """Start a worker for every partition and follow the catalog, which must be started."""
        keeper = BackupKeeper(self._catalog, self._store, self._housekeepings, step=self._step)
        self._followers = [
            asyncio.create_task(self._follow(), name="indexer"),
            asyncio.create_task(keeper.run(), name="backups"),
        ]

    async def close(self) -> None:
        """Stop all workers. What was folded and not published is folded again by the next one."""
        tasks = [*self._tasks.values(), *self._followers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._workers.clear()
        self._pool.close()

    def status(self) -> Sequence[WorkerStatus]:
        """Return what every worker is doing, by index and partition."""
        return [worker.status() for workers in self._workers.values() for worker in workers]

    def _housekeepings(self, index_id: str) -> list[Housekeeping]:
        return [worker.housekeeping for worker in self._workers.get(index_id, [])]

    async def _follow(self) -> None:
        while True:
            version = self._catalog.version
            living = {spec.index_id: spec for spec in self._catalog.list()}
            for index_id in [key for key in self._tasks if key not in living]:
                await self._stop(index_id)
            for index_id, spec in living.items():
                self._configure(spec)
                if index_id not in self._tasks:
                    self._tasks[index_id] = asyncio.create_task(self._run(spec), name=f"index {index_id}")
            left = [spec for spec in self._catalog.removed() if not await self._clear(spec)]
            if left:
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                await self._catalog.changed(version)

    def _configure(self, spec: IndexSpec) -> None:
        """Hand an index that was configured to its workers, which go on with it."""
        known = self._specs.get(spec.index_id)
        self._specs[spec.index_id] = spec
        if known is not None and known != spec:
            _log.info("index_configured", index=spec.name, recall_target=spec.recall_target)
            for worker in self._workers.get(spec.index_id, []):
                worker.use_spec(spec)

    async def _run(self, spec: IndexSpec) -> None:
        log = await self._open(spec)
        newest = self._specs[spec.index_id]
        self._workers[spec.index_id] = [self._worker(log, newest, number) for number in range(spec.partitions)]
        async with asyncio.TaskGroup() as group:
            for worker in self._workers[spec.index_id]:
                group.create_task(self._watch(worker))

    async def _watch(self, worker: PartitionWorker) -> None:
        """Run a worker; an error that nobody expected stops its partition loudly for a while, not its neighbours."""
        while True:
            try:
                await worker.run()
            except NotFound as error:
                # Its log was dropped: the index is being deleted, and the catalog will say so.
                _log.info("worker_ended", reason=error.message)
                return
            except Exception:  # noqa: BLE001 # the barrier between partitions: logged whole, then tried again
                _log.exception("worker_failed", status=worker.status())
                await asyncio.sleep(_RETRY_SECONDS)

    async def _open(self, spec: IndexSpec) -> Log:
        while True:
            try:
                return await self._logs.open(spec.name, spec.log_id, spec.partitions)
            except FreshetError as error:
                _log.warning("log_not_open", index=spec.name, reason=error.message)
                await asyncio.sleep(_RETRY_SECONDS)

    def _worker(self, log: Log, spec: IndexSpec, number: int) -> PartitionWorker:
        partition = PartitionIndexer(
            self._store,
            spec,
            number,
            self._options.partition,
            clock_ms=self._clock_ms,
            writer=self._writer,
            step=self._step,
        )
        janitor = Janitor(partition, self._options.retention)
        return PartitionWorker(
            log,
            partition,
            MergeLanes(partition, self._pool, self._metrics),
            Housekeeping(partition, janitor, self._options.housekeeping, self._metrics),
            self._options.worker,
            metrics=self._metrics,
            published=lambda: self._published(spec.index_id, number),
        )

    async def _stop(self, index_id: str) -> None:
        task = self._tasks.pop(index_id)
        task.cancel()
        # Not awaited itself: where this task is being cancelled too, that must not be taken for the other's end.
        await asyncio.gather(task, return_exceptions=True)
        self._workers.pop(index_id, None)
        self._specs.pop(index_id, None)

    async def _clear(self, spec: IndexSpec) -> bool:
        """Remove the snapshots and the log of a deleted index; say whether they are gone, else it is tried again.

        What backups hold stays until the last of them is deleted.
        """
        backups = frozenset(backup.backup_id for backup in self._catalog.backups.of_index(spec.index_id))
        if self._cleared.get(spec.index_id) == backups:
            return True
        try:
            if backups:
                await asyncio.to_thread(clear_all_but_pinned, self._store, spec)
            else:
                await asyncio.to_thread(self._store.delete_prefix, spec.index_id)
            await self._logs.drop(spec.name, spec.log_id, spec.partitions)
        except (FreshetError, OSError) as error:
            # Also a folder that is not empty: a publish that was under way in a thread when its worker was stopped.
            _log.warning("index_not_cleared", index=spec.name, reason=str(error))
            return False
        self._cleared[spec.index_id] = backups
        _log.info("index_cleared", index=spec.name, index_id=spec.index_id, backups=len(backups))
        return True
