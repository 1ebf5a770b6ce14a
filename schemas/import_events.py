"""Events of the control log about bulk imports: one was started, its runner reports, somebody cancels it.

An import's definition, progress and end are catalog events; which of its rows are in the log is said by the log itself,
in the header `freshet-import` of each of its records.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, cast

from schemas.errors import CorruptData, InvalidRequest
from schemas.limits import IMPORT_INTEGRATION_ID_CHARACTERS_MAX, IMPORT_URI_CHARACTERS_MAX
from schemas.pb import event_pb2 as pb

__all__ = [
    "FINGERPRINT_BYTES",
    "IMPORT_HEADER",
    "BadRow",
    "CancelImportEvent",
    "ImportEnd",
    "ImportEvent",
    "ImportMark",
    "ImportProgress",
    "OnError",
    "ReportImportEvent",
    "StartImportEvent",
    "check_start",
    "from_message",
    "index_name_of",
    "to_message",
]

# On every record that an import appends: `<import id> <file number> <row after the last one of its append>`.
IMPORT_HEADER = "freshet-import"
FINGERPRINT_BYTES = 8
OnError = Literal["abort", "continue"]
EndStatus = Literal["Completed", "Failed", "Cancelled"]
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_INDEX_ID = re.compile(r"([a-z0-9-]{1,45})\.[A-Za-z0-9_-]{22}")
_MARK = re.compile(rb"([A-Za-z0-9_-]{1,64}) (\d{1,9}) (\d{1,18})")


@dataclass(frozen=True, slots=True, order=True)
class ImportMark:
    """A place in an import: row `row` (from 0) of file number `file`."""

    file: int = 0
    row: int = 0

    def header(self, import_id: str) -> tuple[str, bytes]:
        """Return the header of records whose rows lie before this place."""
        return IMPORT_HEADER, f"{import_id} {self.file} {self.row}".encode()

    @staticmethod
    def parse(value: bytes, import_id: str) -> ImportMark | None:
        """Return the place that a header names, None where it is another import's or anything else."""
        found = _MARK.fullmatch(value)
        if found is None or found[1].decode() != import_id:
            return None
        return ImportMark(int(found[2]), int(found[3]))


@dataclass(frozen=True, slots=True)
class BadRow:
    """Row `row` (from 0) of `file` was not imported."""

    file: str
    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """All rows before `mark` are done: checked, or written where `is_writing`; `share` is 0 to 1.

    `ends` are ends of the log's partitions at a moment when no row after `mark` had been appended: whoever goes on
    reads the log from there to learn which rows are in it already.
    """

    is_writing: bool = False
    mark: ImportMark = ImportMark()
    share: float = 0.0
    imported: int = 0
    bad: int = 0
    sample: tuple[BadRow, ...] = ()
    ends: tuple[int, ...] = ()
    ignored_columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportEnd:
    """How an import ended; `error` only of a failed one."""

    status: EndStatus
    error: str
    finished_ms: int


@dataclass(frozen=True, slots=True)
class StartImportEvent:
    """An import is to run, at first by `runner` ("" = by whoever takes it)."""

    index_id: str
    id: str
    uri: str
    on_error: OnError
    integration_id: str
    created_ms: int
    runner: str


@dataclass(frozen=True, slots=True)
class ReportImportEvent:
    """What a runner says in its term; the term after the present one takes the import over.

    `fingerprints` has 8 bytes per file, only where the files were listed.
    """

    index_id: str
    id: str
    runner: str
    term: int
    progress: ImportProgress = field(default_factory=ImportProgress)
    fingerprints: bytes = b""
    end: ImportEnd | None = None


@dataclass(frozen=True, slots=True)
class CancelImportEvent:
    """An import is to stop; no effect on one that has ended."""

    index_id: str
    id: str
    finished_ms: int


ImportEvent = StartImportEvent | ReportImportEvent | CancelImportEvent


def index_name_of(index_id: str) -> str:
    """Return the name in the identity of an index. Raises `CorruptData`."""
    found = _INDEX_ID.fullmatch(index_id)
    if found is None:
        raise CorruptData(f"The catalog event names no index: {index_id[:120]!r}")
    return found[1]


def check_start(event: StartImportEvent) -> None:
    """Raise `InvalidRequest` where an import cannot be like that."""
    if not event.uri or len(event.uri) > IMPORT_URI_CHARACTERS_MAX:
        raise InvalidRequest(
            f"uri must be 1 to {IMPORT_URI_CHARACTERS_MAX} characters long, got {len(event.uri)}",
            limit=IMPORT_URI_CHARACTERS_MAX,
        )
    if len(event.integration_id) > IMPORT_INTEGRATION_ID_CHARACTERS_MAX:
        raise InvalidRequest(
            f"integrationId must be at most {IMPORT_INTEGRATION_ID_CHARACTERS_MAX} characters long",
            limit=IMPORT_INTEGRATION_ID_CHARACTERS_MAX,
        )
    if event.on_error not in ("abort", "continue"):
        raise InvalidRequest(f"errorMode.onError must be 'abort' or 'continue', got {event.on_error[:80]!r}")


def to_message(event: ImportEvent, message: pb.CatalogEvent) -> None:
    """Write `event` into a catalog event."""
    match event:
        case StartImportEvent():
            message.start_import.CopyFrom(
                pb.StartImport(
                    index_id=event.index_id,
                    id=event.id,
                    uri=event.uri,
                    on_error=event.on_error,
                    integration_id=event.integration_id,
                    created_ms=event.created_ms,
                    runner=event.runner,
                )
            )
        case ReportImportEvent():
            message.report_import.CopyFrom(
                pb.ReportImport(
                    index_id=event.index_id,
                    id=event.id,
                    runner=event.runner,
                    term=event.term,
                    fingerprints=event.fingerprints,
                    progress=_progress_message(event.progress),
                    end=None if event.end is None else _end_message(event.end),
                )
            )
        case CancelImportEvent():
            message.cancel_import.CopyFrom(
                pb.CancelImport(index_id=event.index_id, id=event.id, finished_ms=event.finished_ms)
            )


def from_message(message: pb.CatalogEvent) -> ImportEvent:
    """Return the event about an import in a catalog event. Raises `CorruptData`, `InvalidRequest`."""
    match message.WhichOneof("operation"):
        case "start_import":
            started = message.start_import
            _check_names(started.index_id, started.id)
            event = StartImportEvent(
                started.index_id,
                started.id,
                started.uri,
                cast("OnError", started.on_error),
                started.integration_id,
                started.created_ms,
                started.runner,
            )
            check_start(event)
            return event
        case "report_import":
            report = message.report_import
            _check_names(report.index_id, report.id)
            if len(report.fingerprints) % FINGERPRINT_BYTES or not report.runner:
                raise CorruptData("The catalog event is not a report of an import.")
            return ReportImportEvent(
                report.index_id,
                report.id,
                report.runner,
                report.term,
                _progress(report.progress),
                report.fingerprints,
                _end(report.end) if report.HasField("end") else None,
            )
        case _:
            cancelled = message.cancel_import
            _check_names(cancelled.index_id, cancelled.id)
            return CancelImportEvent(cancelled.index_id, cancelled.id, cancelled.finished_ms)


def _check_names(index_id: str, import_id: str) -> None:
    index_name_of(index_id)
    if not _ID.fullmatch(import_id):
        raise CorruptData(f"The catalog event names no import: {import_id[:120]!r}")


def _progress_message(progress: ImportProgress) -> pb.ImportProgress:
    return pb.ImportProgress(
        is_writing=progress.is_writing,
        file=progress.mark.file,
        row=progress.mark.row,
        share=progress.share,
        imported=progress.imported,
        bad=progress.bad,
        sample=[pb.ImportBadRow(file=bad.file, row=bad.row, reason=bad.reason) for bad in progress.sample],
        ends=progress.ends,
        ignored_columns=progress.ignored_columns,
    )


def _progress(message: pb.ImportProgress) -> ImportProgress:
    return ImportProgress(
        message.is_writing,
        ImportMark(message.file, message.row),
        message.share,
        message.imported,
        message.bad,
        tuple(BadRow(bad.file, bad.row, bad.reason) for bad in message.sample),
        tuple(message.ends),
        tuple(message.ignored_columns),
    )


def _end_message(end: ImportEnd) -> pb.ImportEnd:
    return pb.ImportEnd(status=end.status, error=end.error, finished_ms=end.finished_ms)


def _end(message: pb.ImportEnd) -> ImportEnd:
    if message.status not in ("Completed", "Failed", "Cancelled"):
        raise CorruptData(f"The catalog event has an unknown end of an import: {message.status[:80]!r}")
    return ImportEnd(cast("EndStatus", message.status), message.error, message.finished_ms)
