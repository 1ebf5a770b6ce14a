"""The rows of an import on their way to the log, each once: what is in the log already is read from the log itself.

Rows go in the order of their files, one append after another, and each record says in a header which row its append
ended with. A process that goes on after another reads what was appended since the last report, which is little.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from producer.log.protocol import Log
from query_api.imports.reports import Reports
from query_api.served import ServedIndex
from query_api.writes import WriteContext, Writes
from schemas.errors import FreshetError, LogRegressed, LogUnavailable
from schemas.import_events import IMPORT_HEADER, ImportMark
from schemas.operations import Upsert

__all__ = ["Appends"]

_READ_BYTES = 4 * 1024 * 1024


class Appends:
    """Puts the rows of one import on the log of its index."""

    def __init__(self, index: ServedIndex, log: Log, writes: Writes, reports: Reports) -> None:
        self._index = index
        self._log = log
        self._writes = writes
        self._reports = reports
        # Rows before this place are in the log already.
        self.sent = ImportMark()

    async def recover(self) -> None:
        """Learn which rows after the last report are in the log. Raises `LogRegressed`."""
        self.sent = await self._last_sent()

    async def append(self, namespace: str, events: Sequence[Upsert], mark: ImportMark) -> None:
        """Append `events`, however long it takes; rows before `mark` are in the log then.

        Where the log or the index cannot take more now, it waits as it is told to. Raises `InvalidRequest` where one of
        the events may not enter the log, `LogRegressed` where the log lost events.
        """
        if not events:
            return
        import_id = self._reports.job.start.id
        # Where an append of unknown outcome lands after all, what was sent again is folded once: by its key.
        key = f"{import_id}.{mark.file}.{mark.row}".encode()
        context = WriteContext((mark.header(import_id),), visible_ms=0, idempotency_key=key)
        pause = self._reports.options.retry_seconds
        while True:
            await self._reports.keep()
            try:
                await self._writes.append(self._index, namespace, events, context)
                return
            except LogRegressed:
                raise
            except FreshetError as error:
                if error.retry_after_seconds is None:
                    raise
                await self._reports.wait(error, pause)
                if isinstance(error, LogUnavailable) and error.outcome == "unknown":
                    await self.recover()
                    if self.sent >= mark:
                        return
            pause = min(2 * pause, self._reports.options.retry_seconds_max)

    async def _last_sent(self) -> ImportMark:
        progress = self._reports.progress
        found = [await self._last_sent_to(partition, begin) for partition, begin in enumerate(progress.ends)]
        return max([progress.mark, *found])

    async def _last_sent_to(self, partition: int, offset: int) -> ImportMark:
        last = ImportMark()
        import_id = self._reports.job.start.id
        while True:
            read = functools.partial(self._log.read, partition, offset, bytes_max=_READ_BYTES, wait_seconds=0)
            batch = await self._reports.patiently(read)
            if batch.end_offset < offset:
                raise LogRegressed(
                    f"The log of partition {partition} ends at {batch.end_offset}, below the {offset} that it had "
                    "while the import ran: it lost events, so rows of the import may be missing. Delete its "
                    "namespaces and import again."
                )
            for record in batch.records:
                for name, value in record.headers:
                    if name == IMPORT_HEADER:
                        last = max(last, ImportMark.parse(value, import_id) or last)
            if batch.next_offset >= batch.end_offset:
                return last
            offset = batch.next_offset
