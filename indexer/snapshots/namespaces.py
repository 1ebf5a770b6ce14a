"""The namespaces of a partition at a position: what a publish changes of them costs what it changes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from indexer.segments.view import SegmentView
from indexer.snapshots.layered import Layered
from schemas.changes import NamespaceRow

__all__ = ["Namespaces"]

# Rows of deleted namespaces are looked through when so many are new, and a quarter of those that exist.
_GONE_MIN = 8


class Namespaces(Mapping[str, NamespaceRow]):
    """Rows of namespaces by name; never changes. Deleted ones have one at least while segments hold rows of theirs."""

    def __init__(self, rows: Mapping[str, NamespaceRow] | None = None) -> None:
        """Hold `rows`, which must not be changed afterwards."""
        rows = rows or {}
        self._rows: Layered[str, NamespaceRow] = Layered(rows)
        # Those that were ever deleted, existing again or not: the only ones that may bury rows.
        self.buried: Layered[str, NamespaceRow] = Layered({name: row for name, row in rows.items() if row.floor})
        # Those that were ever made with a schema: the only ones in which not every field may be filterable.
        self.with_schema: Layered[str, NamespaceRow] = Layered({name: row for name, row in rows.items() if row.schema})
        self.gone = sum(1 for row in rows.values() if not row.exists)
        # How many were gone, and still held by a segment, when that was last looked at.
        self._held = 0

    def with_rows(self, changed: Mapping[str, NamespaceRow]) -> Namespaces:
        """Return the namespaces after `changed`, itself where nothing did. Costs what changed, whatever there is."""
        if not changed:
            return self
        if not self:
            return Namespaces(changed)
        made = Namespaces()
        made._rows = self._rows.with_items(changed)
        # A floor never goes away again.
        made.buried = self.buried.with_items({name: row for name, row in changed.items() if row.floor})
        limited = {name: row for name, row in changed.items() if row.schema or name in self.with_schema}
        made.with_schema = self.with_schema.with_items(limited)
        before = sum(1 for name in changed if not self._exists_or_unknown(name))
        made.gone = self.gone - before + sum(1 for row in changed.values() if not row.exists)
        made._held = self._held
        return made

    def without_gone(self, views: Sequence[SegmentView]) -> Namespaces:
        """Return the namespaces without those that were deleted and of which no segment holds a row.

        Itself until so many were deleted since the last look that it costs little against what they did.
        """
        if self.gone - self._held <= max(_GONE_MIN, (len(self) - self.gone) // 4):
            return self
        made = Namespaces(self.needed(views))
        made._held = made.gone
        return made

    def needed(self, views: Sequence[SegmentView]) -> dict[str, NamespaceRow]:
        """Return all rows but those of deleted namespaces of which no segment holds a row."""
        rows = self._rows.joined()
        gone = {name.encode() for name, row in self.buried.joined().items() if not row.exists}
        for name in gone - _held(views, gone):
            del rows[name.decode()]
        return rows

    @cached_property
    def existing(self) -> Sequence[str]:
        """Names of those that exist, in byte order. Made at first use."""
        # Code points sort as their UTF-8 does.
        return sorted(name for name, row in self._rows.joined().items() if row.exists)

    def starting_with(self, prefix: str) -> Sequence[str]:
        """Return the names of those that exist and begin with `prefix`, in byte order."""
        names = self.existing

        def beginning(name: str) -> str:
            return name[: len(prefix)]

        first = bisect_left(names, prefix, key=beginning)
        return names[first : bisect_right(names, prefix, first, key=beginning)] if prefix else names

    def __getitem__(self, name: str) -> NamespaceRow:
        """Return the row of a namespace. Raises `KeyError`."""
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        """Yield all names, of deleted ones too."""
        return iter(self._rows)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def _exists_or_unknown(self, name: str) -> bool:
        known = self._rows.get(name)
        return known is None or known.exists


def _held(views: Sequence[SegmentView], candidates: set[bytes]) -> set[bytes]:
    """Return those names of which a segment holds rows, dead or alive."""
    held: set[bytes] = set()
    for view in views:
        names = view.reader.names
        if len(names) < len(candidates):
            held.update(name for name in names if name in candidates)
        else:
            held.update(name for name in candidates if names.find(name) >= 0)
    return held
