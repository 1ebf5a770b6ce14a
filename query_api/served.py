"""The indexes that this process serves: per index its log, the ends of the log, and a follower per partition."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import structlog

from indexer.snapshots.reader import SnapshotReader
from producer.catalog import Catalog
from producer.log.protocol import Log
from producer.pokes import PokeReceiver
from producer.publisher import Publisher
from producer.steps import Step, no_step
from query_api.access import granted
from query_api.ends import EndsOptions, LogEnds
from query_api.follower import FollowerOptions, PartitionFollower
from query_api.metrics import ApiMetrics
from schemas.backups import RestoreStatus
from schemas.errors import FreshetError, LogRegressed, NotReady, SnapshotBehind, Unavailable
from schemas.indexes import IndexSpec
from schemas.partitions import canonical_namespace, partition_of

__all__ = ["Served", "ServedIndex", "ServingParts"]

_log = structlog.get_logger(__name__)
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ServingParts:
    """What a served index is made from."""

    catalog: Catalog
    publisher: Publisher
    open_log: Callable[[IndexSpec], Awaitable[Log]]
    open_reader: Callable[[IndexSpec, int], SnapshotReader]
    pokes: PokeReceiver
    clock_ms: Callable[[], int]
    metrics: ApiMetrics
    threads: Executor
    follower: FollowerOptions
    ends: EndsOptions
    # Bytes on disk of the log, where it is a file of this machine.
    log_bytes: Callable[[], int | None] = lambda: None
    step: Step = no_step


class ServedIndex:
    """One index as this process serves it."""

    def __init__(self, spec: IndexSpec, log: Log, parts: ServingParts) -> None:
        self.spec = spec
        self.followers: tuple[PartitionFollower, ...] = tuple(
            PartitionFollower(
                spec,
                partition,
                open_reader=parts.open_reader,
                threads=parts.threads,
                metrics=parts.metrics,
                options=parts.follower,
                step=parts.step,
            )
            for partition in range(spec.partitions)
        )
        self.ends = LogEnds(log, clock_ms=parts.clock_ms, options=parts.ends, before_look=self._before_look)
        self.log_bytes = parts.log_bytes
        self._parts = parts
        self._required: Sequence[int] = ()
        self._is_ready = [False] * spec.partitions
        self._refused: dict[int, int] = {}

    async def start(self) -> None:
        """Read the ends of the log, then begin to follow. Raises `LogUnavailable`."""
        self._required = tuple(await self.ends.read())
        for follower in self.followers:
            follower.start(self._parts.pokes)

    async def close(self) -> None:
        """Stop following."""
        for follower in self.followers:
            await follower.close(self._parts.pokes)
        await self.ends.close()

    def follower_of(self, namespace: str) -> PartitionFollower:
        """Return the follower of the partition that a namespace lies in.

        Every request for one namespace passes here. Raises `Forbidden` where the request's key does not reach it.
        """
        name = canonical_namespace(namespace)
        granted().check_namespace(name)
        return self.followers[partition_of(name, self.spec.partitions)]

    def required(self, partition: int) -> int:
        """Return the end of the log when this process began to serve the index."""
        return self._required[partition]

    def is_ready(self, follower: PartitionFollower) -> bool:
        """Say whether the snapshot showed once what the log held when this process began to serve the index."""
        number = follower.partition
        if not self._is_ready[number]:
            self._is_ready[number] = follower.is_open and follower.snapshot.next_offset >= self._required[number]
        return self._is_ready[number]

    async def ready(self, follower: PartitionFollower, *, wait_ms: int) -> None:
        """Wait until the partition is ready. Raises `SnapshotBehind` where it is not within `wait_ms`.

        What a process before this one has shown may be missing until then.
        """
        if self.is_ready(follower):
            return
        until = asyncio.get_running_loop().time() + wait_ms / 1000
        required = self._required[follower.partition]
        if await follower.opened(until=until):
            await follower.reach(required, until=until)
        if not self.is_ready(follower):
            applied = follower.snapshot.next_offset if follower.is_open else None
            because = f": {follower.problem}" if follower.problem else ""
            raise SnapshotBehind(
                f"Partition {follower.partition} of index '{self.spec.name}' is being brought up to date: it shows "
                f"{'nothing' if applied is None else applied} of {required} events{because}. Try again soon.",
                retry_after_seconds=1,
                partition=follower.partition,
                applied=applied,
                required=required,
            )

    def check_append(self, partition: int, *, begin_offset: int, applied: int) -> None:
        """Raise `LogRegressed` where an append landed below what was `applied` before it: it would never be folded."""
        if begin_offset < applied:
            self._refuse(partition, end=begin_offset, applied=applied)
            raise LogRegressed(
                f"The log of partition {partition} ended at {begin_offset}, below the {applied} that the snapshot "
                "shows: it lost events. The write is in the log, but is shown only once the partition was recovered.",
                retry_after_seconds=5,
                outcome="unknown",
            )

    def is_recovering(self, partition: int) -> bool:
        """Say whether the log of a partition was found to have lost events, and was not folded again since."""
        self.allow_if_recovered(partition)
        return partition in self._refused

    def _before_look(self) -> Callable[[Sequence[int]], None]:
        shown = [(f.snapshot.lineage, f.snapshot.next_offset) if f.is_open else (0, 0) for f in self.followers]

        def compare(ends: Sequence[int]) -> None:
            for number, ((lineage, applied), end) in enumerate(zip(shown, ends, strict=True)):
                if end < applied and self.followers[number].snapshot.lineage == lineage:
                    self._refuse(number, end=end, applied=applied)
                elif number in self._refused:
                    self.allow_if_recovered(number)

        return compare

    def _refuse(self, partition: int, *, end: int, applied: int) -> None:
        """Take no writes until the partition was folded again under a new lineage."""
        if partition not in self._refused:
            self._refused[partition] = self.followers[partition].snapshot.lineage
            _log.error("log.regressed", index=self.spec.name, partition=partition, end=end, applied=applied)
            self._parts.publisher.refuse(
                self.spec.index_id,
                partition,
                f"its log ends at {end}, below the {applied} that the snapshot shows. "
                "It lost events and is being recovered.",
            )

    def allow_if_recovered(self, partition: int) -> None:
        """Take writes again where the lineage has changed since they were refused."""
        lineage = self._refused.get(partition)
        if lineage is not None and self.followers[partition].snapshot.lineage != lineage:
            del self._refused[partition]
            self._parts.publisher.allow(self.spec.index_id, partition)
            _log.info("log.recovered", index=self.spec.name, partition=partition)


class Served:
    """All indexes of the catalog; a task follows it, so that new ones are served and deleted ones are closed."""

    def __init__(self, parts: ServingParts) -> None:
        self._parts = parts
        self._open: dict[str, ServedIndex] = {}
        self._opening: dict[str, asyncio.Task[ServedIndex]] = {}
        self._task: asyncio.Task[None] | None = None
        self._was_ready = False
        self.failures: dict[str, str] = {}

    async def start(self) -> None:
        """Begin to follow the catalog."""
        self._task = asyncio.create_task(self._follow(), name="served indexes")

    async def close(self) -> None:
        """Close all indexes."""
        tasks = [task for task in (self._task, *self._opening.values()) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for index in self._open.values():
            await index.close()
        self._open.clear()

    def indexes(self) -> Sequence[ServedIndex]:
        """Return the indexes that are served now."""
        return tuple(self._open.values())

    async def get(self, spec: IndexSpec) -> ServedIndex:
        """Return the served form of a living index, opening it first if need be.

        Raises `LogUnavailable`; `Unavailable` while it is being restored, `NotReady` where that failed.
        """
        index = self._open.get(spec.index_id)
        if index is not None:
            return index
        if self.is_partial(spec):
            # Another process may have finished it a moment ago.
            await self._parts.catalog.refresh()
            self._check_whole(spec)
        task = self._opening.get(spec.index_id)
        if task is None:
            task = asyncio.create_task(self._start(spec))
            self._opening[spec.index_id] = task
            task.add_done_callback(lambda _: self._opening.pop(spec.index_id, None))
        return await asyncio.shield(task)

    def is_partial(self, spec: IndexSpec) -> bool:
        """Say whether the index is being restored, or its restore failed: it is not served."""
        return self._parts.catalog.backups.partial(spec.index_id) is not None

    def _check_whole(self, spec: IndexSpec) -> None:
        job = self._parts.catalog.backups.partial(spec.index_id)
        if job is None:
            return
        if job.status is RestoreStatus.FAILED:
            raise NotReady(f"Index {spec.name} could not be restored: {job.reason} Delete it, and try again.")
        raise Unavailable(
            f"Index {spec.name} is being restored from backup {job.backup.backup_id}: "
            f"{job.percent_complete:.0f} % of its records are written. It is served when all of them are.",
            retry_after_seconds=1,
        )

    def is_open(self, spec: IndexSpec) -> bool:
        """Say whether the index is served now."""
        return spec.index_id in self._open

    def is_ready(self) -> bool:
        """Say whether every partition of every index has been ready; stays true from then on."""
        if not self._was_ready:
            living = [spec for spec in self._parts.catalog.list() if not self.is_partial(spec)]
            self._was_ready = all(spec.index_id in self._open for spec in living) and all(
                index.is_ready(follower) for index in self._open.values() for follower in index.followers
            )
        return self._was_ready

    async def _start(self, spec: IndexSpec) -> ServedIndex:
        index = ServedIndex(spec, await self._parts.open_log(spec), self._parts)
        await index.start()
        self._open[spec.index_id] = index
        self.failures.pop(spec.index_id, None)
        return index

    async def _follow(self) -> None:
        catalog = self._parts.catalog
        while True:
            version = catalog.version
            living = {spec.index_id: spec for spec in catalog.list() if not self.is_partial(spec)}
            for gone in self._open.keys() - living.keys():
                await self._open.pop(gone).close()
            failed = False
            for index_id, spec in living.items():
                try:
                    # It may have been configured since it was opened.
                    (await self.get(spec)).spec = spec
                except FreshetError as error:
                    failed = True
                    self.failures[index_id] = error.message
                    _log.warning("index.not_opened", index=spec.name, reason=error.message)
            if failed:
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                await catalog.changed(version)
