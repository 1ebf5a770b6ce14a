"""Which bulk imports there are and how far they came: the part of the catalog's fold that is about them.

An import has one runner at a time. A term begins with the report that takes it over, and reports of an earlier term
change nothing: the order of the control log decides between two processes that both believe to be the runner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from schemas.errors import AlreadyExists, CommitConflict, FreshetError, NotFound
from schemas.import_events import (
    CancelImportEvent,
    ImportEnd,
    ImportEvent,
    ImportProgress,
    ReportImportEvent,
    StartImportEvent,
    index_name_of,
)
from schemas.indexes import IndexSpec

__all__ = ["ImportFold", "ImportJob", "import_not_found"]

# Of one index; the oldest that have ended are forgotten first.
_KEPT_MAX = 1_000


@dataclass(frozen=True, slots=True)
class ImportJob:
    """One import. `reports` rises with each report of its runner: an import whose number stands still has none.

    `fingerprints` is 8 bytes per file, empty until its files were listed and again once it has ended.
    """

    start: StartImportEvent
    runner: str
    term: int = 0
    reports: int = 0
    progress: ImportProgress = field(default_factory=ImportProgress)
    fingerprints: bytes = b""
    end: ImportEnd | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Identity of its index, and its own."""
        return self.start.index_id, self.start.id

    @property
    def status(self) -> str:
        """`Pending`, `InProgress`, `Completed`, `Failed` or `Cancelled`."""
        if self.end is not None:
            return self.end.status
        return "InProgress" if self.fingerprints else "Pending"


class ImportFold:
    """The imports that a sequence of catalog events leads to."""

    def __init__(self) -> None:
        self._jobs: dict[str, dict[str, ImportJob]] = {}

    def apply(self, event: ImportEvent, indexes: Mapping[str, IndexSpec]) -> ImportJob | FreshetError:
        """Apply `event` among the living `indexes`, by name; return the import, or the error that its author gets."""
        if isinstance(event, StartImportEvent):
            return self._start(event, indexes)
        job = self._jobs.get(event.index_id, {}).get(event.id)
        if job is None:
            return import_not_found(event.id)
        if isinstance(event, CancelImportEvent):
            if job.end is None:
                job = replace(job, end=ImportEnd("Cancelled", "", event.finished_ms), fingerprints=b"")
                self._jobs[event.index_id][event.id] = job
            return job
        return self._report(job, event)

    def get(self, index_id: str, import_id: str) -> ImportJob | None:
        """Return an import of an index, None where there is none."""
        return self._jobs.get(index_id, {}).get(import_id)

    def of_index(self, index_id: str) -> Sequence[ImportJob]:
        """Return the imports of an index, newest first."""
        return tuple(reversed(self._jobs.get(index_id, {}).values()))

    def unfinished(self) -> Sequence[ImportJob]:
        """Return the imports of all indexes that have not ended, of each index the oldest first."""
        return [job for jobs in self._jobs.values() for job in jobs.values() if job.end is None]

    def forget(self, index_id: str) -> None:
        """Forget the imports of an index that is gone."""
        self._jobs.pop(index_id, None)

    def _start(self, event: StartImportEvent, indexes: Mapping[str, IndexSpec]) -> ImportJob | FreshetError:
        name = index_name_of(event.index_id)
        if name not in indexes or indexes[name].index_id != event.index_id:
            return NotFound(f"Resource {name} not found", name=name)
        jobs = self._jobs.setdefault(event.index_id, {})
        if event.id in jobs:
            return AlreadyExists(f"Import {event.id} already exists", id=event.id)
        jobs[event.id] = ImportJob(event, event.runner)
        if len(jobs) > _KEPT_MAX:
            ended = next((job for job in jobs.values() if job.end is not None), None)
            if ended is not None:
                del jobs[ended.start.id]
        return jobs[event.id]

    def _report(self, job: ImportJob, event: ReportImportEvent) -> ImportJob | FreshetError:
        is_own = event.term == job.term and event.runner == job.runner
        if job.end is not None or not (is_own or event.term == job.term + 1):
            return CommitConflict(f"Import {event.id} is not run by {event.runner} any more.", id=event.id)
        if is_own:
            changed = replace(
                job,
                reports=job.reports + 1,
                progress=event.progress,
                fingerprints=b"" if event.end is not None else event.fingerprints or job.fingerprints,
                end=event.end,
            )
        else:
            changed = replace(job, runner=event.runner, term=event.term, reports=job.reports + 1)
        self._jobs[event.index_id][event.id] = changed
        return changed


def import_not_found(import_id: str) -> NotFound:
    """Return the error for an import that its index does not have."""
    return NotFound(f"Import {import_id[:80]} not found", id=import_id[:80])
