"""The catalog: which indexes, keys, backups and imports there are, as a fold of the control log. No second database.

Every process reaches the same catalog by reading; the order of the control log decides every race, on any log. A record
that cannot be read is skipped loudly and counted: a bad one must not lock everybody out of their indexes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from producer.backup_fold import BackupFold
from producer.catalog_fold import CatalogFold, Outcome, already_exists, protected
from producer.imports import ImportFold
from producer.log.protocol import LogBatch, LogRecord, Logs
from producer.metrics import ProducerMetrics
from producer.steps import Step, no_step
from schemas.catalog_events import (
    CatalogEvent,
    ConfigureIndexEvent,
    CreateIndexEvent,
    DeleteIndexEvent,
    check_bounds,
    check_recall_target,
    check_spec,
    check_write_wait,
    configured,
    encode_catalog,
    is_protected,
)
from schemas.errors import FreshetError, OutcomeUnknown
from schemas.indexes import IndexSpec
from schemas.keys import ApiKey

__all__ = ["Catalog", "CatalogOptions"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CatalogOptions:
    """How the control log is followed; seconds and bytes."""

    read_bytes_max: int = 4 * 1024 * 1024
    read_wait_seconds: float = 1.0
    retry_seconds_min: float = 0.1
    retry_seconds_max: float = 2.0
    # How long a create or delete waits for its own event to come by before it answers "outcome not known yet".
    outcome_wait_seconds: float = 5.0


def _report_end(task: asyncio.Task[None]) -> None:
    """Say so where following ended by itself: a mistake of ours, after which the catalog stands still."""
    if not task.cancelled():
        _log.critical("catalog no longer follows its log", exc_info=task.exception())


class Catalog:
    """The living indexes, kept current by a task of its own. One per process."""

    def __init__(
        self,
        logs: Logs,
        *,
        options: CatalogOptions | None = None,
        metrics: ProducerMetrics | None = None,
        step: Step = no_step,
    ) -> None:
        self._logs = logs
        self._options = options or CatalogOptions()
        self._metrics = metrics
        self._step = step
        self._fold = CatalogFold()
        self._next_offset = 0
        self._version = 0
        self._moved = asyncio.Event()
        self._waiting = 0
        self._outcomes: dict[int, Outcome | FreshetError] = {}
        self._follower: asyncio.Task[None] | None = None

    @property
    def version(self) -> int:
        """Rises with every change that is visible here; compares only within one process."""
        return self._version

    @property
    def keys(self) -> Mapping[str, ApiKey]:
        """The living API keys by id."""
        return self._fold.keys.living

    @property
    def may_have_other_keys(self) -> bool:
        """Whether an event of a key could not be read, so that there may be keys beside those that are known."""
        return self._fold.keys.is_torn

    @property
    def backups(self) -> BackupFold:
        """Backups and restore jobs, as far as the control log was read; `producer.backups` changes them."""
        return self._fold.backups

    @property
    def imports(self) -> ImportFold:
        """The imports as of now; ask again after each wait."""
        return self._fold.imports

    @property
    def moved(self) -> asyncio.Event:
        """Set at the next move of the fold, whatever it brings; take it before looking, then wait for it."""
        return self._moved

    async def start(self) -> None:
        """Fold to the control log's current end, then follow it in a task. Raises `LogUnavailable`."""
        (end,) = await self._logs.control.ends()
        while self._next_offset < end:
            self._take(await _read(self._logs, self._options, self._next_offset))
        self._follower = asyncio.create_task(self._follow(), name="catalog")
        self._follower.add_done_callback(_report_end)

    async def close(self) -> None:
        """Stop following."""
        if self._follower is not None:
            self._follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                # It was cancelled on the line above.
                await self._follower
            self._follower = None

    def get(self, name: str) -> IndexSpec:
        """Return the living index of that name. Raises `NotFound`."""
        return self._fold.get(name)

    def list(self) -> Sequence[IndexSpec]:
        """Return all living indexes by name."""
        return sorted(self._fold.indexes.values(), key=lambda spec: spec.name)

    def removed(self) -> Sequence[IndexSpec]:
        """Return all indexes that were deleted, oldest first: their logs and snapshots are to be cleared away."""
        return tuple(self._fold.removed)

    def by_port(self, port: int) -> IndexSpec | None:
        """Return the living index that is reached by a port of its own, None where there is none."""
        return self._fold.by_port.get(port)

    async def refresh(self, next_offset: int | None = None) -> None:
        """Wait until the fold has passed `next_offset`, else what the control log held when this was called.

        Raises `LogUnavailable`; `OutcomeUnknown` where the fold does not get there in time.
        """
        if next_offset is None:
            (next_offset,) = await self._logs.control.ends()
        try:
            async with asyncio.timeout(self._options.outcome_wait_seconds):
                while self._next_offset < next_offset:
                    await self._moved.wait()
        except TimeoutError as error:
            raise OutcomeUnknown(
                "The catalog has not caught up with its log yet; a change that was asked for is durable "
                "if it was appended. Look again later.",
                next_offset=next_offset,
                reached=self._next_offset,
            ) from error

    async def changed(self, version: int) -> int:
        """Wait until `version` is passed; return the one that is reached."""
        while self._version <= version:
            await self._moved.wait()
        return self._version

    async def create(self, spec: IndexSpec, ports: Sequence[int]) -> IndexSpec:
        """Make an index; return it with its port, one of `ports` (best first) or 0.

        Raises `InvalidRequest`; `AlreadyExists` where the name is taken, also by a create that came first by a moment;
        `LogUnavailable` (its `outcome` says whether the index may still appear), `OutcomeUnknown` (it is durable).
        """
        spec = replace(spec, port=0)
        check_spec(spec)
        await self.refresh()
        if spec.name in self._fold.indexes:
            raise already_exists(spec.name)
        return _index(await self.decide(spec.name, CreateIndexEvent(spec, tuple(ports))))

    async def delete(self, name: str) -> None:
        """Remove the living index of that name; its log and snapshots are others' to remove.

        Raises `NotFound`, also where another delete came first; `Forbidden` where it is protected; `NotReady` while a
        backup of it is being made; `LogUnavailable`, `OutcomeUnknown` as `create`.
        """
        await self.refresh()
        if is_protected(self.get(name)):
            raise protected(name)
        await self.decide(name, DeleteIndexEvent(name))

    async def configure(self, event: ConfigureIndexEvent) -> IndexSpec:
        """Change a living index; return it as it is then, changes of others that came before included.

        Raises `NotFound`, `InvalidRequest` where it would have too many tags; `LogUnavailable`, `OutcomeUnknown`.
        """
        if event.recall_target is not None:
            check_recall_target(event.recall_target)
        check_write_wait(event.write_wait_ms)
        check_bounds(event.max_records, event.max_bytes)
        await self.refresh()
        # What can be known to fail is not appended.
        configured(self.get(event.name), event)
        return _index(await self.decide(event.name, event))

    async def decide(self, name: str, event: CatalogEvent) -> Outcome:
        """Append `event`, let the fold pass it, return or raise what it came to.

        `name` is what the event is about: the record's key. Raises `LogUnavailable`, `OutcomeUnknown` as `create`.
        """
        record = LogRecord(name.encode(), encode_catalog(event))
        self._waiting += 1
        try:
            self._step("catalog.before_append")
            appended = await self._logs.control.append(0, [record])
            self._step("catalog.after_append")
            await self.refresh(appended.next_offset)
            outcome = self._outcomes.get(appended.begin_offset)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._outcomes.clear()
        if outcome is None:
            raise OutcomeUnknown("The control log lost its tail meanwhile; the change may be lost with it. Look again.")
        if isinstance(outcome, FreshetError):
            raise outcome
        return outcome

    async def _follow(self) -> None:
        pause = self._options.retry_seconds_min
        while True:
            try:
                batch = await _read(self._logs, self._options, self._next_offset)
                if batch.end_offset < self._next_offset:
                    _log.error(
                        "control log ends below what was folded; folding it again",
                        end=batch.end_offset,
                        folded=self._next_offset,
                    )
                    self._fold, self._next_offset = await _fold_again(
                        self._logs, self._options, batch.end_offset, self._metrics
                    )
                    self._announce(is_changed=True)
                else:
                    self._take(batch)
                pause = self._options.retry_seconds_min
            except FreshetError as error:
                _log.warning("control log does not answer", error=str(error), retry_seconds=pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, self._options.retry_seconds_max)

    def _take(self, batch: LogBatch) -> None:
        is_changed = False
        for record in batch.records:
            outcome = self._fold.apply_record(record, self._metrics)
            is_changed |= outcome is not None and not isinstance(outcome, FreshetError)
            if self._waiting and outcome is not None:
                self._outcomes[record.offset] = outcome
        if batch.next_offset > self._next_offset:
            self._next_offset = batch.next_offset
            self._announce(is_changed=is_changed)

    def _announce(self, *, is_changed: bool) -> None:
        self._version += is_changed
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


def _index(outcome: Outcome) -> IndexSpec:
    assert isinstance(outcome, IndexSpec), "an event of an index comes to an index"
    return outcome


async def _read(logs: Logs, options: CatalogOptions, offset: int) -> LogBatch:
    return await logs.control.read(0, offset, bytes_max=options.read_bytes_max, wait_seconds=options.read_wait_seconds)


async def _fold_again(
    logs: Logs, options: CatalogOptions, end: int, metrics: ProducerMetrics | None
) -> tuple[CatalogFold, int]:
    """Fold the control log anew, since it lost its tail: later events would lie below what was passed."""
    fold, offset = CatalogFold(), 0
    while offset < end:
        batch = await _read(logs, options, offset)
        for record in batch.records:
            fold.apply_record(record, metrics)
        offset = batch.next_offset
    return fold, offset
