"""What the runner of an import says to the catalog, and whether it is its runner still."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from producer.catalog import Catalog
from producer.imports import ImportJob
from producer.log.protocol import Log
from producer.steps import Step, no_step
from schemas.errors import CommitConflict, FreshetError, OutcomeUnknown, Unavailable
from schemas.import_events import ImportEnd, ReportImportEvent, index_name_of

__all__ = ["NotMine", "ReportOptions", "Reports"]

_log = structlog.get_logger(__name__)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """`progress_seconds`: time between two reports, so how much of the log is read after a kill.

    `lease_seconds`: how long a runner may be silent before another process takes the import; 0 = nobody else may.
    """

    progress_seconds: float = 2.0
    lease_seconds: float = 0.0
    retry_seconds: float = 0.2
    retry_seconds_max: float = 5.0


class NotMine(Exception):
    """The import has ended, has another runner, or its index is gone: nothing more is to be done here."""


class Reports:
    """The progress of one import that this process has taken; whoever moves it writes `progress`."""

    def __init__(
        self, catalog: Catalog, log: Log, job: ImportJob, options: ReportOptions, *, step: Step = no_step
    ) -> None:
        self.job = job
        self.progress = job.progress
        self.ignored: dict[str, None] = dict.fromkeys(job.progress.ignored_columns)
        self.options = options
        self._catalog = catalog
        self._log = log
        self._step = step
        self._last = asyncio.get_running_loop().time()

    def check(self) -> None:
        """Raise `NotMine` unless this process still runs the import."""
        job = self._catalog.imports.get(*self.job.key)
        if job is None or job.end is not None or (job.runner, job.term) != (self.job.runner, self.job.term):
            raise NotMine

    async def keep(self) -> None:
        """Raise `NotMine` unless this process still runs the import, which it makes sure of where others may take it.

        A process that was stopped for a while finds out here, before it appends anything.
        """
        self.check()
        lease = self.options.lease_seconds
        if lease and asyncio.get_running_loop().time() - self._last > lease / 3:
            await self._say(self._event())

    async def move(self, fingerprints: bytes = b"") -> None:
        """Make the progress known, with ends of the log that lie before all rows after it.

        Only between appends: none is under way, and of none it is unknown what came of it.
        """
        self.progress = replace(self.progress, ends=tuple(await self.patiently(self._log.ends)))
        await self._say(self._event(fingerprints))
        self._step("import.reported")

    async def move_sometimes(self) -> None:
        """Make the progress known where the last report is some time ago."""
        if asyncio.get_running_loop().time() - self._last >= self.options.progress_seconds:
            await self.move()

    async def end(self, end: ImportEnd) -> None:
        """Say how it ended."""
        await self._say(self._event(end=end))
        _log.info(
            "import.ended",
            index=index_name_of(self.job.start.index_id),
            id=self.job.start.id,
            status=end.status,
            imported=self.progress.imported,
            bad=self.progress.bad,
            error=end.error,
        )

    async def patiently(self, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Return what is answered, however long it takes; to say the same twice changes nothing."""
        pause = self.options.retry_seconds
        while True:
            self.check()
            try:
                return await ask()
            except (Unavailable, OutcomeUnknown) as error:
                _log.info("import.waits", id=self.job.start.id, reason=error.message)
                await asyncio.sleep(max(pause, error.retry_after_seconds or 0.0))
                pause = min(2 * pause, self.options.retry_seconds_max)

    async def wait(self, error: FreshetError, pause: float) -> None:
        """Wait as long as `error` says, at least `pause` seconds; the import stays ours meanwhile."""
        _log.info("import.waits", id=self.job.start.id, reason=error.message)
        loop = asyncio.get_running_loop()
        until = loop.time() + max(pause, error.retry_after_seconds or 0.0)
        while (left := until - loop.time()) > 0:
            await asyncio.sleep(min(left, self.options.progress_seconds))
            await self.keep()

    def _event(self, fingerprints: bytes = b"", end: ImportEnd | None = None) -> ReportImportEvent:
        progress = replace(self.progress, ignored_columns=tuple(self.ignored))
        return ReportImportEvent(*self.job.key, self.job.runner, self.job.term, progress, fingerprints, end)

    async def _say(self, event: ReportImportEvent) -> None:
        name = index_name_of(event.index_id)
        try:
            await self.patiently(lambda: self._catalog.decide(name, event))
        except CommitConflict as error:
            raise NotMine from error
        self._last = asyncio.get_running_loop().time()
