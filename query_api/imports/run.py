"""One import from its first report to its end: list, check, write; or go on where a process before this one stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import structlog

from producer.log.protocol import Log
from producer.steps import Step, no_step
from query_api.freshness import decide_existence
from query_api.imports.appends import Appends
from query_api.imports.reports import NotMine, Reports
from query_api.imports.rows import ParquetRows, RowBatch, check_installed
from query_api.imports.source import ImportFile, ImportSource, check_files, fingerprint
from query_api.served import ServedIndex
from query_api.writes import Writes
from schemas.errors import FreshetError, InvalidRequest, Unavailable
from schemas.events import sound_vectors, validate
from schemas.import_events import FINGERPRINT_BYTES, BadRow, ImportEnd, ImportMark
from schemas.indexes import IndexSpec
from schemas.partitions import DEFAULT_NAMESPACE

__all__ = ["ImportRun", "RunParts"]

_log = structlog.get_logger(__name__)
# Bad rows that are told one by one, what is said of each, and columns that are told to be ignored.
_SAMPLE_ROWS = 20
_REASON_CHARACTERS = 300
_IGNORED_COLUMNS = 20
_EXISTENCE_WAIT_MS = 10_000


@dataclass(frozen=True, slots=True)
class RunParts:
    """What an import works with; `threads` is one thread, which reads files, `log` is the one of the index."""

    index: ServedIndex
    writes: Writes
    log: Log
    threads: Executor
    clock_ms: Callable[[], int]
    step: Step = no_step


class ImportRun:
    """Runs one import that this process has taken."""

    def __init__(self, parts: RunParts, source: ImportSource, reports: Reports) -> None:
        self._parts = parts
        self._source = source
        self._reports = reports
        self._appends = Appends(parts.index, parts.log, parts.writes, reports)
        # Bytes of all files before each, and of all.
        self._bytes_before = [0]

    async def run(self) -> None:
        """Run to the end, whichever it is; return early where the import is not ours any more."""
        facts = {"index": self._parts.index.spec.name, "id": self._reports.job.start.id}
        with contextlib.suppress(NotMine):
            try:
                await self._import()
                return
            except FreshetError as error:
                reason = error.message
            except NotMine:
                _log.info("import.left", **facts)
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, the client learns that it failed
                _log.error("import.failed", error=repr(error), exc_info=error, **facts)
                reason = f"Internal error: {type(error).__name__}. The server's log says more."
            await self._reports.end(ImportEnd("Failed", reason, self._parts.clock_ms()))

    async def _import(self) -> None:
        await self._on_thread(check_installed)
        files = await self._on_thread(self._source.files)
        check_files(files)
        self._bytes_before = [0, *accumulate(file.size for file in files)]
        await self._plan(files)
        if not self._reports.progress.is_writing:
            await self._check(files)
            self._reports.progress = replace(self._reports.progress, is_writing=True, mark=ImportMark())
            await self._reports.move()
        await self._write(files)
        self._reports.progress = replace(self._reports.progress, share=1.0)
        await self._reports.end(ImportEnd("Completed", "", self._parts.clock_ms()))

    async def _plan(self, files: Sequence[ImportFile]) -> None:
        """Remember which files there are, or compare them with what was remembered."""
        found = b"".join(fingerprint(file) for file in files)
        known = self._reports.job.fingerprints
        if not known:
            for namespace in dict.fromkeys(file.namespace for file in files):
                await self._check_new(namespace)
            await self._reports.move(found)
            self._parts.step("import.planned")
        elif found != known:
            raise InvalidRequest(_what_changed(files, found, known))
        elif self._reports.progress.is_writing:
            await self._appends.recover()

    async def _check_new(self, namespace: str) -> None:
        """Raise `InvalidRequest` unless the namespace does not exist; of the default one, unless it is empty."""
        index = self._parts.index
        exists = await self._reports.patiently(lambda: decide_existence(index, namespace, wait_ms=_EXISTENCE_WAIT_MS))
        if exists is None:
            raise Unavailable(
                "The index was not brought up to date in time to say whether the namespaces exist: try again later."
            )
        if exists and namespace != DEFAULT_NAMESPACE:
            raise InvalidRequest(f"Namespace '{namespace}' exists already: an import makes new namespaces only.")
        if exists and index.follower_of(namespace).snapshot.count(namespace):
            raise InvalidRequest("The default namespace is not empty: an import into it needs an empty one.")

    async def _check(self, files: Sequence[ImportFile]) -> None:
        """Look at what can be known to fail before the first row is written.

        All footers; where the first bad row is to end the import, all rows.
        """
        is_strict = self._reports.job.start.on_error == "abort"
        spec = self._parts.index.spec
        async with aclosing(self._left(files)) as left:
            async for number, rows, batches in left:
                if not is_strict:
                    continue
                async for batch in batches:
                    bad = await self._on_thread(_bad_rows, batch, spec)
                    if bad:
                        self._count(files[number], bad[:1])
                        raise InvalidRequest(f"{_said(self._reports.progress.sample[0])} Nothing was imported.")
                    await self._move(number, batch.end, rows.rows)

    async def _write(self, files: Sequence[ImportFile]) -> None:
        async with aclosing(self._left(files)) as left:
            async for number, rows, batches in left:
                async for batch in batches:
                    await self._write_batch(files[number], number, batch)
                    await self._move(number, batch.end, rows.rows)

    async def _write_batch(self, file: ImportFile, number: int, batch: RowBatch) -> None:
        """Append what is good of a batch and was not appended yet; count all of it."""
        mark = ImportMark(number, batch.end)
        bad = batch.bad
        is_mixed = ImportMark(number, batch.begin) < self._appends.sent
        if not is_mixed:
            try:
                await self._appends.append(file.namespace, batch.events, mark)
            except InvalidRequest:
                is_mixed = True
        if is_mixed:
            # Some of them may not enter the log, or went in before: which, is found out of all at once.
            bad = await self._on_thread(_bad_rows, batch, self._parts.index.spec)
            refused = {row for row, _ in bad}
            good = [
                event
                for row, event in zip(batch.rows, batch.events, strict=True)
                if row not in refused and ImportMark(number, row) >= self._appends.sent
            ]
            await self._appends.append(file.namespace, good, mark)
        self._count(file, bad)
        progress = self._reports.progress
        imported = progress.imported + batch.end - batch.begin - len(bad)
        self._reports.progress = replace(progress, imported=imported)
        self._parts.step("import.appended")

    async def _left(
        self, files: Sequence[ImportFile]
    ) -> AsyncGenerator[tuple[int, ParquetRows, AsyncGenerator[RowBatch, None]], None]:
        """Yield the files that are left, each with its number, open, and the batches that are left of it."""
        for number, file in enumerate(files):
            mark = self._reports.progress.mark
            if number < mark.file:
                continue
            await self._reports.move_sometimes()
            await self._on_thread(self._source.verify, file)
            opened = await self._on_thread(self._source.open, file)
            try:
                rows = await self._on_thread(ParquetRows, opened, file.path, self._parts.index.spec)
                for column in rows.ignored:
                    if len(self._reports.ignored) < _IGNORED_COLUMNS:
                        self._reports.ignored.setdefault(column)
                start = mark.row if number == mark.file else 0
                async with aclosing(self._batches(rows, start)) as batches:
                    yield number, rows, batches
                # What was read may be of two files that had the same name, one after the other.
                await self._on_thread(self._source.verify, file)
            finally:
                await self._on_thread(opened.close)

    async def _batches(self, rows: ParquetRows, start: int) -> AsyncGenerator[RowBatch, None]:
        """Yield batches; while one is being appended, the next is decoded."""
        batches: Iterator[RowBatch] = rows.batches(start)
        loop = asyncio.get_running_loop()
        following = loop.run_in_executor(self._parts.threads, next, batches, None)
        try:
            while (batch := await following) is not None:
                following = loop.run_in_executor(self._parts.threads, next, batches, None)
                yield batch
                self._reports.check()
        finally:
            # There is one thread: the file is closed only after what was begun on it.
            if not following.cancel() and not following.cancelled():
                # Asked for, so that the error of a read whose rows are wanted no more is no stray traceback.
                following.exception()

    async def _move(self, number: int, row: int, rows: int) -> None:
        """Take note that all rows before `row` of a file of so many rows are done."""
        begin, end = self._bytes_before[number : number + 2]
        share = (begin + (end - begin) * row / max(1, rows)) / max(1, self._bytes_before[-1])
        progress = self._reports.progress
        if self._reports.job.start.on_error == "abort":
            # The rows are read twice.
            share = share / 2 + (0.5 if progress.is_writing else 0)
        self._reports.progress = replace(progress, mark=ImportMark(number, row), share=min(share, 1.0))
        await self._reports.move_sometimes()

    def _count(self, file: ImportFile, bad: Sequence[tuple[int, str]]) -> None:
        progress = self._reports.progress
        room = max(0, _SAMPLE_ROWS - len(progress.sample))
        sample = [BadRow(file.path, row, reason[:_REASON_CHARACTERS]) for row, reason in bad[:room]]
        self._reports.progress = replace(progress, bad=progress.bad + len(bad), sample=(*progress.sample, *sample))

    async def _on_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._parts.threads, function, *arguments)


def _bad_rows(batch: RowBatch, spec: IndexSpec) -> list[tuple[int, str]]:
    """Return the rows of a batch that the index does not take, in order."""
    bad = list(batch.bad)
    sound = sound_vectors(batch.events, dimension=spec.dimension, vector_type=spec.vector_type)
    for row, event, is_sound in zip(batch.rows, batch.events, sound, strict=True):
        try:
            validate(
                event,
                dimension=spec.dimension,
                vector_type=spec.vector_type,
                is_vector_sound=is_sound,
                is_decoded=True,
            )
        except InvalidRequest as error:
            bad.append((row, error.message))
    return sorted(bad)


def _said(bad: BadRow) -> str:
    return f"File {bad.file}, row {bad.row} (from 0): {bad.reason.rstrip('.')}."


def _what_changed(files: Sequence[ImportFile], found: bytes, known: bytes) -> str:
    """Name the first file that is not the one that was listed when the import began."""
    size = FINGERPRINT_BYTES
    if len(found) == len(known):
        changed = next(file for at, file in enumerate(files) if found[at * size :][:size] != known[at * size :][:size])
        what = f"File {changed.path} has changed since the import began"
    else:
        what = f"There are {len(found) // size} files, and there were {len(known) // size} when the import began"
    return f"{what}. What was imported until then stays."
