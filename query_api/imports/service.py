"""The imports of all indexes: started, looked at and cancelled through any process, run by one of them at a time.

With the embedded log its owner runs all imports, so that nobody else ever does. On Kafka the server that took the
request runs it; where its reports stop for the time of a lease, another one takes the import over.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import structlog

from producer.catalog import Catalog
from producer.imports import ImportJob, import_not_found
from producer.log.protocol import Log
from producer.steps import Step, no_step
from query_api.imports.reports import ReportOptions, Reports
from query_api.imports.run import ImportRun, RunParts
from query_api.imports.source import is_installed, source_of
from query_api.served import Served, ServedIndex
from query_api.writes import Writes
from schemas.errors import Forbidden, FreshetError, InvalidRequest
from schemas.import_events import (
    CancelImportEvent,
    ImportEnd,
    OnError,
    ReportImportEvent,
    StartImportEvent,
    check_start,
)
from schemas.indexes import IndexSpec

__all__ = ["ImportOptions", "ImportParts", "Imports"]

_log = structlog.get_logger(__name__)
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """`dirs`: directories and `s3://` prefixes below which imports may read; none by default.

    `role`: `owner` runs all imports, `none` runs none (another process is the owner), `peer` is one of several servers
    that take imports over from each other after `lease_seconds`.
    """

    dirs: tuple[str, ...] = ()
    role: Literal["owner", "none", "peer"] = "owner"
    lease_seconds: float = 15.0
    progress_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class ImportParts:
    """What the imports of a process are made of."""

    catalog: Catalog
    served: Served
    writes: Writes
    open_log: Callable[[IndexSpec], Awaitable[Log]]
    clock_ms: Callable[[], int]
    step: Step = no_step


class Imports:
    """Starts, shows, cancels and runs imports. One per process."""

    def __init__(self, parts: ImportParts, options: ImportOptions) -> None:
        self._parts = parts
        self._options = options
        self._name = secrets.token_hex(8)
        self._threads = ThreadPoolExecutor(1, "imports")
        self._watching: asyncio.Task[None] | None = None
        self._running: dict[str, asyncio.Task[None]] = {}
        # When each import of another runner was last seen to move, by the loop's clock.
        self._seen: dict[tuple[str, str], tuple[int, int, float]] = {}

    async def start_running(self) -> None:
        """Begin to run what there is to run, imports of a process before this one included."""
        if self._options.role != "none":
            self._watching = asyncio.create_task(self._watch(), name="imports")

    async def close(self) -> None:
        """Stop running; what was begun goes on at the next start."""
        tasks = [*self._running.values(), *([] if self._watching is None else [self._watching])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def start(self, index: ServedIndex, uri: str, on_error: OnError, integration_id: str) -> ImportJob:
        """Make an import; it runs from now on.

        Raises `InvalidRequest` where the place is none or the server lacks what it takes, `Forbidden` where it may not
        be read; `LogUnavailable`, `OutcomeUnknown`.
        """
        event = StartImportEvent(
            index.spec.index_id,
            secrets.token_hex(8),
            uri,
            on_error,
            integration_id,
            self._parts.clock_ms(),
            self._name if self._options.role == "peer" else "",
        )
        check_start(event)
        if not is_installed("pyarrow"):
            raise InvalidRequest("Imports need pyarrow on the server: install freshet[parquet].")
        source = source_of(uri, self._options.dirs)
        await asyncio.get_running_loop().run_in_executor(None, source.check)
        return await self._decide(index, event)

    async def get(self, index: ServedIndex, import_id: str) -> ImportJob:
        """Return an import of an index. Raises `NotFound`, also where it was made long ago and forgotten."""
        job = self._parts.catalog.imports.get(index.spec.index_id, import_id)
        if job is None:
            # It may have been started by way of another process a moment ago.
            await self._parts.catalog.refresh()
            job = self._parts.catalog.imports.get(index.spec.index_id, import_id)
        if job is None:
            raise import_not_found(import_id)
        return job

    async def page(
        self, index: ServedIndex, *, after: str | None, limit: int
    ) -> tuple[Sequence[ImportJob], str | None]:
        """Return a page of the imports, newest first, and the id after which the next one begins, if there is one."""
        if after is None:
            await self._parts.catalog.refresh()
        jobs = self._parts.catalog.imports.of_index(index.spec.index_id)
        places = {job.start.id: place for place, job in enumerate(jobs)}
        # After one that was forgotten there are only older ones, which were forgotten too.
        begin = 0 if after is None else places.get(after, len(jobs)) + 1
        page = jobs[begin : begin + limit]
        return page, page[-1].start.id if begin + limit < len(jobs) else None

    async def cancel(self, index: ServedIndex, import_id: str) -> ImportJob:
        """End an import that has not ended; what it imported stays. Raises `NotFound`, `LogUnavailable`."""
        job = await self.get(index, import_id)
        if job.end is not None:
            return job
        return await self._decide(index, CancelImportEvent(*job.key, self._parts.clock_ms()))

    async def _decide(self, index: ServedIndex, event: StartImportEvent | CancelImportEvent) -> ImportJob:
        job = await self._parts.catalog.decide(index.spec.name, event)
        assert isinstance(job, ImportJob), "events about imports make and change imports"
        return job

    async def _watch(self) -> None:
        """Take what is to be run, one import of an index at a time."""
        while True:
            moved = self._parts.catalog.moved
            try:
                await self._look()
            except FreshetError as error:
                _log.warning("imports cannot be taken now", reason=error.message)
            try:
                # A lease runs out without any event.
                async with asyncio.timeout(_LOOK_SECONDS):
                    await moved.wait()
            except TimeoutError:
                continue

    async def _look(self) -> None:
        unfinished = self._parts.catalog.imports.unfinished()
        keys = {job.key for job in unfinished}
        self._seen = {key: seen for key, seen in self._seen.items() if key in keys}
        for job in unfinished:
            index_id = job.start.index_id
            if index_id in self._running or not self._may_take(job):
                continue
            spec = next((spec for spec in self._parts.catalog.list() if spec.index_id == index_id), None)
            if spec is not None:
                task = asyncio.create_task(self._run(spec, job), name=f"import {job.start.id}")
                self._running[index_id] = task
                task.add_done_callback(functools.partial(self._ended, index_id))

    def _ended(self, index_id: str, task: asyncio.Task[None]) -> None:
        self._running.pop(index_id, None)
        if not task.cancelled() and task.exception() is not None:
            _log.error("import.failed", error=repr(task.exception()), exc_info=task.exception())

    def _may_take(self, job: ImportJob) -> bool:
        """Say whether this process may run it: it is its own, nobody's, or its runner has been silent for too long."""
        if self._options.role == "owner" or job.runner in ("", self._name):
            return True
        now = asyncio.get_running_loop().time()
        term, reports, since = self._seen.get(job.key, (-1, -1, now))
        if (term, reports) != (job.term, job.reports):
            self._seen[job.key] = (job.term, job.reports, now)
            return False
        return now - since > self._options.lease_seconds

    async def _run(self, spec: IndexSpec, job: ImportJob) -> None:
        """Run an import to its end, first making it ours."""
        try:
            if job.runner != self._name:
                claimed = await self._parts.catalog.decide(
                    spec.name, ReportImportEvent(*job.key, self._name, job.term + 1)
                )
                assert isinstance(claimed, ImportJob), "a report changes an import"
                job = claimed
                _log.info("import.taken", index=spec.name, id=job.start.id, term=job.term)
            await self._import(spec, job)
        except FreshetError as error:
            # Somebody else has it, or the log does not answer: looked at again.
            _log.warning("import.not_taken", index=spec.name, id=job.start.id, reason=error.message)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _import(self, spec: IndexSpec, job: ImportJob) -> None:
        own, lease = self._parts, self._options.lease_seconds if self._options.role == "peer" else 0.0
        index, log = await own.served.get(spec), await own.open_log(spec)
        options = ReportOptions(self._options.progress_seconds, lease)
        reports = Reports(own.catalog, log, job, options, step=own.step)
        try:
            source = source_of(job.start.uri, self._options.dirs)
        except (InvalidRequest, Forbidden) as error:
            # It was allowed when the import began, by other settings.
            await reports.end(ImportEnd("Failed", error.message, own.clock_ms()))
            return
        parts = RunParts(index, own.writes, log, self._threads, own.clock_ms, own.step)
        await ImportRun(parts, source, reports).run()
