"""Examine a whole deployment: every partition of every index in the catalog, and what belongs to none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from indexer.checkup import Finding, Level, PartitionCheckup
from indexer.doctor import DoctorOptions, examine, megabytes
from indexer.snapshots.store import Store
from producer.catalog import Catalog
from producer.log.protocol import Logs
from schemas.errors import FreshetError, NotFound
from schemas.indexes import IndexSpec

__all__ = ["Checkup", "DoctorParts", "check_up"]

_QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class DoctorParts:
    """What an examination looks at, all of it for reading only; the catalog and the logs are started."""

    catalog: Catalog
    logs: Logs
    store: Store
    options: DoctorOptions
    clock_ms: Callable[[], int]


@dataclass(slots=True)
class Checkup:
    """The whole examination. `unchecked` says, by `index` or `index/partition`, what could not be looked at and why."""

    partitions: list[PartitionCheckup] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unchecked: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """Return 1 where there are findings beyond notes, else 2 where something could not be checked, else 0."""
        is_sound = all(part.is_sound for part in self.partitions)
        if not is_sound or any(finding.level is not Level.NOTE for finding in self.findings):
            return 1
        return 2 if self.unchecked else 0

    def as_json(self) -> dict[str, Any]:
        """Return the examination as JSON values, in the spelling of the fields here."""
        partitions = []
        for part in self.partitions:
            told = asdict(part) | {"sound": part.is_sound}
            for segment, shown in zip(part.segments, told["segments"], strict=True):
                shown["dead_share"] = segment.dead_share
            partitions.append(told)
        return {
            "sound": self.exit_code == 0,
            "partitions": partitions,
            "findings": [asdict(finding) for finding in self.findings],
            "unchecked": self.unchecked,
        }


async def check_up(parts: DoctorParts, *, index: str = "") -> Checkup:
    """Examine one index, or all where `index` is "". Raises `NotFound` where there is no such index."""
    checkup = Checkup()
    for spec in [parts.catalog.get(index)] if index else parts.catalog.list():
        await _check_index(parts, spec, checkup)
    if not index:
        _check_rest(parts, checkup)
    return checkup


async def _check_index(parts: DoctorParts, spec: IndexSpec, checkup: Checkup) -> None:
    where = spec.name
    found: list[PartitionCheckup] = []
    try:
        log = await parts.logs.open(spec.name, spec.log_id, spec.partitions)
        for partition in range(spec.partitions):
            where = f"{spec.name}/{partition}"
            found.append(await examine(log, parts.store, spec, partition, parts.options, clock_ms=parts.clock_ms))
    except FreshetError as error:
        if isinstance(error, NotFound) and await _was_deleted(parts, spec):
            return
        checkup.unchecked[where] = error.message
    checkup.partitions.extend(found)


async def _was_deleted(parts: DoctorParts, spec: IndexSpec) -> bool:
    """Say whether the index was deleted while it was looked at."""
    await parts.catalog.refresh()
    return all(living.index_id != spec.index_id for living in parts.catalog.list())


def _check_rest(parts: DoctorParts, checkup: Checkup) -> None:
    """Tell what lies in the store beside the living indexes: what was set aside, and folders of nobody."""
    aside = parts.store.list(_QUARANTINE)
    if aside:
        size = megabytes(sum(parts.store.size_bytes(name) or 0 for name in aside))
        text = f"{len(aside)} damaged objects were set aside ({size}); look at them, then delete them by hand."
        checkup.findings.append(Finding(Level.NOTE, _QUARANTINE, text, _QUARANTINE))
    known = {spec.index_id for spec in (*parts.catalog.list(), *parts.catalog.removed())} | {_QUARANTINE}
    for name in (found.lstrip("/") for found in parts.store.list("")):
        if name not in known:
            text = f"The folder {name} belongs to no index that the log knows."
            checkup.findings.append(Finding(Level.WARNING, "folder", text, name))
