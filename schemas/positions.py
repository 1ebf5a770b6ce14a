"""Positions in a log: half-open by definition, compared and never counted.

A position names the first offset that is *not* included, so 0 means "nothing yet".
The text form is `<log_id>:<partition>=<next_offset>[,...]`; a partition that was folded again after its log had lost
events carries its lineage: `<partition>=<next_offset>~<lineage>`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from schemas.errors import ForeignPosition, InvalidRequest

__all__ = ["Position", "PositionToken"]

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}:[0-9~=,]{1,65536}")
_PART = re.compile(r"(\d{1,5})=(\d{1,19})(?:~(\d{1,9}))?")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where one partition stands: `next_offset` is its first offset not included."""

    lineage: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class PositionToken:
    """Positions of one or more partitions of one log."""

    log_id: str
    positions: Mapping[int, Position]

    def __str__(self) -> str:
        parts = (
            f"{number}={p.next_offset}" + (f"~{p.lineage}" if p.lineage else "")
            for number, p in sorted(self.positions.items())
        )
        return f"{self.log_id}:{','.join(parts)}"

    @classmethod
    def parse(cls, text: str) -> PositionToken:
        """Read the text form.

        Raises `InvalidRequest` where it is malformed or names a partition twice.
        """
        if not _TOKEN.fullmatch(text):
            raise InvalidRequest(
                f"Invalid position token {text[:80]!r}: expected '<log id>:<partition>=<offset>[,...]', "
                "as a response header x-freshet-position carries it."
            )
        log_id, _, rest = text.partition(":")
        positions: dict[int, Position] = {}
        for part in rest.split(","):
            match = _PART.fullmatch(part)
            if match is None or int(match[1]) in positions:
                raise InvalidRequest(f"Invalid position token: part {part[:40]!r} is malformed or repeated.")
            positions[int(match[1])] = Position(int(match[3] or 0), int(match[2]))
        return cls(log_id, positions)

    def merge(self, other: PositionToken) -> PositionToken:
        """Return the token that includes both, by maximum per partition.

        Raises `ForeignPosition` where they are of different logs.
        """
        if other.log_id != self.log_id:
            raise ForeignPosition(
                f"Positions of different logs cannot be merged: {self.log_id} and {other.log_id}.",
                log_id=self.log_id,
            )
        merged = dict(self.positions)
        for number, position in other.positions.items():
            merged[number] = max(position, merged.get(number, position))
        return PositionToken(self.log_id, merged)
