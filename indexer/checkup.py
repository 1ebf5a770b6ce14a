"""What an examination of a partition says: findings, what would be done about them, and figures. Plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Finding", "Level", "PartitionCheckup", "SegmentCheckup"]


class Level(StrEnum):
    """How much a finding matters: a note is ordinary work that waits to be done, or a trace of what was repaired."""

    NOTE = "note"
    WARNING = "warning"
    DAMAGE = "damage"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found, in a sentence; `name` is the object that it is about, "" where it is about none."""

    level: Level
    kind: str
    text: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class SegmentCheckup:
    """One segment of the snapshot that the partition goes on from.

    `recall` is what was measured just now over `queries` queries, None where the segment has no graph or nothing was
    asked; `recall_stored` and `ef_search` are what its entry says, 0 where it says nothing.
    """

    segment_id: int
    namespace: str
    rows: int
    dead_rows: int
    size_bytes: int
    has_graph: bool = False
    ef_search: int = 0
    recall_stored: float = 0.0
    recall: float | None = None
    queries: int = 0

    @property
    def dead_share(self) -> float:
        """Share of rows that are dead."""
        return self.dead_rows / self.rows if self.rows else 0.0


@dataclass(slots=True)
class PartitionCheckup:
    """One partition of one index. Offsets are positions of its log; `log_end` is None where the log was not asked."""

    index: str
    partition: int
    recall_target: float
    log_end: int | None = None
    version: int = 0
    epoch: int = 0
    lineage: int = 0
    next_offset: int = 0
    checkpoint_version: int = 0
    manifests: int = 0
    retained: int = 0
    objects: int = 0
    objects_bytes: int = 0
    orphans: int = 0
    orphans_bytes: int = 0
    live_rows: int = 0
    tail_rows: int = 0
    segments: list[SegmentCheckup] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    # What the worker and the collection would do, one sentence each.
    repairs: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Say whether nothing worse than notes was found."""
        return self.worst is None

    @property
    def worst(self) -> Level | None:
        """Return the worst that was found, None where it is nothing or notes only."""
        levels = {finding.level for finding in self.findings}
        return next((level for level in (Level.DAMAGE, Level.WARNING) if level in levels), None)

    def add(self, level: Level, kind: str, text: str, *, name: str = "") -> None:
        """Add a finding."""
        self.findings.append(Finding(level, kind, text, name))
