"""The catalog: which indexes and API keys live, as a fold of the control log. There is no second database.

Every process reaches the same catalog by reading; the order of the control log decides every race, on any log. A record
that cannot be read is skipped loudly and counted: a bad one must not lock everybody out of their indexes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from producer.keys import KeyRing
from producer.log.protocol import LogBatch, LogRecord, Logs, StoredRecord
from producer.metrics import ProducerMetrics
from producer.steps import Step, no_step
from schemas.catalog_events import (
    CatalogEvent,
    ConfigureIndexEvent,
    CreateIndexEvent,
    CreateKeyEvent,
    DeleteIndexEvent,
    RevokeKeyEvent,
    check_bounds,
    check_recall_target,
    check_spec,
    check_write_wait,
    configured,
    decode_catalog,
    encode_catalog,
    is_protected,
)
from schemas.errors import (
    AlreadyExists,
    CorruptData,
    Forbidden,
    FreshetError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    UnsupportedFormat,
)
from schemas.indexes import IndexSpec
from schemas.keys import ApiKey

__all__ = ["Catalog", "CatalogFold", "CatalogOptions"]

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


class CatalogFold:
    """The state that a sequence of catalog events leads to. Deterministic: the same events, the same ports."""

    def __init__(self) -> None:
        self.indexes: dict[str, IndexSpec] = {}
        self.by_port: dict[int, IndexSpec] = {}
        self.removed: list[IndexSpec] = []
        self.keys = KeyRing()
        self._ports_used: set[int] = set()

    def apply(self, event: CatalogEvent) -> IndexSpec | ApiKey | FreshetError:
        """Apply `event`; return what it made, changed or removed, or the error that its author gets."""
        if isinstance(event, CreateKeyEvent | RevokeKeyEvent):
            return self.keys.apply(event)
        if isinstance(event, ConfigureIndexEvent):
            return self._configure(event)
        if isinstance(event, DeleteIndexEvent):
            removed = self.indexes.get(event.name)
            if removed is None:
                return not_found(event.name)
            if is_protected(removed):
                return protected(event.name)
            del self.indexes[event.name]
            self.by_port.pop(removed.port, None)
            self.removed.append(removed)
            return removed
        if event.spec.name in self.indexes:
            return already_exists(event.spec.name)
        made = replace(event.spec, port=self._port(event))
        self.indexes[made.name] = made
        if made.port:
            self.by_port[made.port] = made
            self._ports_used.add(made.port)
        return made

    def _configure(self, event: ConfigureIndexEvent) -> IndexSpec | FreshetError:
        known = self.indexes.get(event.name)
        if known is None:
            return not_found(event.name)
        try:
            changed = configured(known, event)
        except InvalidRequest as error:
            return error
        self.indexes[event.name] = changed
        if changed.port:
            self.by_port[changed.port] = changed
        return changed

    def apply_record(
        self, record: StoredRecord, metrics: ProducerMetrics | None
    ) -> IndexSpec | ApiKey | FreshetError | None:
        """Apply a record of the control log as `apply` does; None where it can't be read, which is counted."""
        try:
            return self.apply(decode_catalog(record.value, dict(record.headers)))
        except (CorruptData, UnsupportedFormat, InvalidRequest) as error:
            _log.error("control record skipped", offset=record.offset, reason=str(error))
            if metrics is not None:
                metrics.catalog_poison.inc()
            return None

    def _port(self, event: CreateIndexEvent) -> int:
        """Return the first port that no index ever had, since clients cache hosts; else the first free one; else 0."""
        fresh = (port for port in event.ports if port not in self._ports_used)
        free = (port for port in event.ports if port not in self.by_port)
        return next(fresh, None) or next(free, 0)


def not_found(name: str) -> NotFound:
    """Return the error for an index that does not live."""
    return NotFound(f"Resource {name} not found", name=name)


def protected(name: str) -> Forbidden:
    """Return the error for an index that must not be deleted."""
    return Forbidden("Deletion protection is enabled for this index. Disable it before deleting.", name=name)


def already_exists(name: str) -> AlreadyExists:
    """Return the error for an index name that is taken."""
    return AlreadyExists(f"Resource {name} already exists", name=name)


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
        self._outcomes: dict[int, IndexSpec | ApiKey | FreshetError] = {}
        self._follower: asyncio.Task[None] | None = None

    @property
    def version(self) -> int:
        """Rises with every change that is visible here; compares only within one process."""
        return self._version

    @property
    def keys(self) -> Mapping[str, ApiKey]:
        """The living API keys by id."""
        return self._fold.keys.living

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
        spec = self._fold.indexes.get(name)
        if spec is None:
            raise not_found(name)
        return spec

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

        Raises `NotFound`, also where another delete came first; `Forbidden` where it is protected; `LogUnavailable`,
        `OutcomeUnknown` as `create`.
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

    async def decide(self, name: str, event: CatalogEvent) -> IndexSpec | ApiKey:
        """Append `event` under the key `name`, let the fold pass it, return or raise what it came to."""
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
            is_changed |= isinstance(outcome, IndexSpec | ApiKey)
            if self._waiting and outcome is not None:
                self._outcomes[record.offset] = outcome
        if batch.next_offset > self._next_offset:
            self._next_offset = batch.next_offset
            self._announce(is_changed=is_changed)

    def _announce(self, *, is_changed: bool) -> None:
        self._version += is_changed
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


def _index(outcome: IndexSpec | ApiKey) -> IndexSpec:
    assert isinstance(outcome, IndexSpec), "an event of an index leads to an index"
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
