"""Restore jobs: the records of a backup are written to the log of the new index as ordinary upserts.

So every promise of the log holds for a restored index: it is folded, replayed and recovered as any other. How far a job
has come is an event of the catalog, now and then; what was written after the last of them is written once more after
a crash, which changes nothing, since nobody else can write to the index before it is whole.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import orjson
import structlog

from indexer.snapshots.reader import SnapshotReader
from indexer.snapshots.snapshot import Snapshot
from producer.backups import BackupCommands
from producer.catalog import Catalog
from producer.log.protocol import Log
from producer.publisher import Publisher
from producer.steps import Step, no_step
from schemas.backups import Cursor, Pin, RestoreJob, RestoreStatus
from schemas.errors import ConfigError, FreshetError, NotFound, OutcomeUnknown, TailFull, Unavailable
from schemas.indexes import IndexSpec
from schemas.limits import BATCH_RECORDS_MAX, METADATA_BYTES_MAX
from schemas.metadata import canonical_metadata
from schemas.operations import CreateNamespace, Event, Update, Upsert
from schemas.records import Record, dense_bytes

__all__ = ["RestoreOptions", "RestoreParts", "Restores"]

_log = structlog.get_logger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """Pace of a job: records read at a time, bytes appended at a time, seconds between two notes of how far it is."""

    page_records: int = 250
    append_bytes: int = 2 * 1024 * 1024
    note_seconds: float = 1.0
    look_seconds: float = 0.05
    retry_seconds_min: float = 0.1
    retry_seconds_max: float = 5.0


@dataclass(frozen=True, slots=True)
class RestoreParts:
    """What a job works with.

    `open_pinned` returns what a backup holds of a partition, `exclusive` keeps all other processes from running jobs:
    it raises `ConfigError` where another does.
    """

    open_pinned: Callable[[IndexSpec, str, Pin], Snapshot]
    exclusive: Callable[[], AbstractContextManager[None]]


class _Ended(Exception):
    """The job is over already: its index was deleted."""


class Restores:
    """Runs the restore jobs of the catalog, oldest first, in a task; without `parts` they are another process's."""

    def __init__(
        self,
        parts: RestoreParts | None,
        catalog: Catalog,
        publisher: Publisher,
        *,
        open_log: Callable[[IndexSpec], Awaitable[Log]],
        open_reader: Callable[[IndexSpec, int], SnapshotReader],
        options: RestoreOptions | None = None,
        step: Step = no_step,
    ) -> None:
        self._parts = parts
        self._catalog = catalog
        self._commands = BackupCommands(catalog)
        self._publisher = publisher
        self._open_log = open_log
        self._open_reader = open_reader
        self._options = options or RestoreOptions()
        self._step = step
        self._threads = ThreadPoolExecutor(1, "restore")
        self._task: asyncio.Task[None] | None = None
        self._noted_at = 0.0

    async def start(self) -> None:
        """Begin to look for jobs."""
        if self._parts is not None:
            self._task = asyncio.create_task(self._run(self._parts), name="restores")

    async def close(self) -> None:
        """Stop; a job that is under way is gone on with by the next process."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._threads.shutdown()

    async def _run(self, parts: RestoreParts) -> None:
        pause = self._options.retry_seconds_min
        while True:
            version = self._catalog.version
            pending = [job for job in self._catalog.backups.jobs() if job.status is RestoreStatus.PENDING]
            if not pending:
                await self._catalog.changed(version)
                continue
            try:
                with parts.exclusive():
                    await self._carry_out(parts, pending[0])
                pause = self._options.retry_seconds_min
            except ConfigError:
                # Another process runs the jobs. Should it die, its lock is free.
                await asyncio.sleep(self._options.retry_seconds_max)
            except _Ended:
                _log.info("restore_ended", job=pending[0].job_id)
            except Exception as error:  # noqa: BLE001 # a job must not end for a mistake of ours: said, and tried again
                if not isinstance(error, FreshetError):
                    _log.exception("restore_broke_off", job=pending[0].job_id)
                else:
                    _log.warning("restore_waits", job=pending[0].job_id, reason=error.message)
                if self._has_moved(pending[0]):
                    pause = self._options.retry_seconds_min
                await asyncio.sleep(pause)
                pause = min(2 * pause, self._options.retry_seconds_max)

    def _has_moved(self, job: RestoreJob) -> bool:
        return any(one.job_id == job.job_id and one.cursor != job.cursor for one in self._catalog.backups.jobs())

    async def _carry_out(self, parts: RestoreParts, job: RestoreJob) -> None:
        """Write what is left of a job, wait until it is visible, and say so; or say why it can never be done.

        Raises what passes by itself, such as `Unavailable`.
        """
        _log.info("restore_begins", job=job.job_id, index=job.target.name, records=job.cursor.records)
        reason = ""
        try:
            await self._write(parts, job)
            await self._wait_until_visible(job)
        except (Unavailable, OutcomeUnknown, NotFound, TailFull):
            raise
        except FreshetError as error:
            # Damaged, or no longer what may be written.
            reason = error.message
            _log.error("restore_failed", job=job.job_id, index=job.target.name, reason=reason)
        self._check_pending(job)
        self._step("restore.before_finish")
        await self._commands.finish(job.job_id, reason=reason)
        self._step("restore.after_finish")
        _log.info("restore_finished", job=job.job_id, index=job.target.name, reason=reason)

    async def _write(self, parts: RestoreParts, job: RestoreJob) -> None:
        begin = job.cursor
        records = begin.records
        for number in range(begin.partition, job.backup.source.partitions):
            pin = job.backup.pins[number]
            snapshot = await self._in_thread(parts.open_pinned, job.backup.source, job.backup.backup_id, pin)
            for name in snapshot.namespaces.existing:
                after = ""
                if number == begin.partition:
                    if name < begin.namespace:
                        continue
                    after = begin.after if name == begin.namespace else ""
                row = snapshot.namespaces[name]
                if not after:
                    await self._append(job, name, [CreateNamespace(row.schema)], "create")
                while True:
                    page = await self._in_thread(_page, snapshot, name, after, self._options.page_records)
                    if not page:
                        break
                    events = [event for record in page for event in _events(record)]
                    for place, chunk in enumerate(_chunks(events, self._options.append_bytes)):
                        await self._append(job, name, chunk, f"{page[0].id}/{place}")
                    after = page[-1].id
                    records += len(page)
                    await self._note(job, Cursor(number, name, after, records))

    async def _append(self, job: RestoreJob, namespace: str, events: Sequence[Event], begin: str) -> None:
        """Append; again where that may not have been done.

        Pages and chunks are the same each time, so that an append which lands late, when the new index is written to
        by others, is known by its key, made of the namespace and where in it the append begins.
        """
        key = f"{job.job_id}{hashlib.blake2b(f'{namespace}/{begin}'.encode(), digest_size=16).hexdigest()}".encode()
        pause = self._options.retry_seconds_min
        while True:
            self._check_pending(job)
            self._step("restore.before_append")
            try:
                await self._publisher.publish(job.target, namespace, events, idempotency_key=key)
            except (Unavailable, TailFull) as error:
                _log.warning("restore_waits", job=job.job_id, reason=error.message)
                await asyncio.sleep(pause)
                pause = min(2 * pause, self._options.retry_seconds_max)
            else:
                self._step("restore.after_append")
                return

    async def _note(self, job: RestoreJob, cursor: Cursor) -> None:
        """Say how far the job is, now and then: each note is an event that every process folds."""
        now = asyncio.get_running_loop().time()
        if now - self._noted_at >= self._options.note_seconds:
            self._noted_at = now
            self._step("restore.before_note")
            await self._commands.advance(job.job_id, cursor)
            self._step("restore.after_note")

    async def _wait_until_visible(self, job: RestoreJob) -> None:
        """Wait until the snapshots of the new index show all that its log holds: nobody else writes to it."""
        ends = await (await self._open_log(job.target)).ends()
        for number, end in enumerate(ends):
            reader = self._open_reader(job.target, number)
            while reader.current.next_offset < end:
                self._check_pending(job)
                if await self._in_thread(reader.refresh) is None:
                    await asyncio.sleep(self._options.look_seconds)

    def _check_pending(self, job: RestoreJob) -> None:
        if self._catalog.backups.job(job.job_id).status is not RestoreStatus.PENDING:
            raise _Ended

    async def _in_thread(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))


def _page(snapshot: Snapshot, namespace: str, after: str, limit: int) -> list[Record]:
    """Return the next records of a namespace, in the order of their ids."""
    ids = snapshot.list_ids(namespace, prefix="", after=after or None, limit=limit)
    records = snapshot.fetch(namespace, ids)
    return [records[key] for key in ids]


def _events(record: Record) -> list[Upsert | Update]:
    """Return an upsert, and updates for what updates have added to its metadata beyond the size of one event."""
    values = dense_bytes(record.values)
    if len(record.metadata) <= METADATA_BYTES_MAX:
        return [Upsert(record.id, values, record.sparse, record.metadata)]
    first, *others = _pieces(orjson.loads(record.metadata))
    updates = [Update(record.id, None, None, canonical_metadata(piece)) for piece in others]
    return [Upsert(record.id, values, record.sparse, canonical_metadata(first)), *updates]


def _pieces(metadata: dict[str, object]) -> Iterator[dict[str, object]]:
    """Yield the fields in pieces that one event takes; each field came in one."""
    piece: dict[str, object] = {}
    size = 0
    for name, value in metadata.items():
        weight = len(orjson.dumps({name: value}))
        if piece and size + weight > METADATA_BYTES_MAX:
            yield piece
            piece, size = {}, 0
        piece[name] = value
        size += weight
    yield piece


def _chunks(events: Sequence[Upsert | Update], bytes_max: int) -> Iterator[list[Upsert | Update]]:
    """Yield `events` in order, so many at a time that they are about `bytes_max` bytes, and no more than one batch."""
    chunk: list[Upsert | Update] = []
    size = 0
    for event in events:
        if chunk and (size + event.size_bytes > bytes_max or len(chunk) == BATCH_RECORDS_MAX):
            yield chunk
            chunk, size = [], 0
        chunk.append(event)
        size += event.size_bytes
    if chunk:
        yield chunk
