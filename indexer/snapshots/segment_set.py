"""The segments of a snapshot, and which of them to ask for a namespace: not all, where most are graphs of others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from indexer.segments.reader import Slice
from indexer.segments.view import SegmentView
from schemas.manifest import SegmentTable

__all__ = ["Places", "SegmentSet"]


class Places:
    """Which segments of a table may hold rows of a namespace. Made once per table, that is per merge."""

    def __init__(self, table: SegmentTable | None = None) -> None:
        """Look through all entries of `table`."""
        self._graphs: dict[str, list[int]] = {}
        self._shared: list[int] = []
        entries = () if table is None else table.segments
        for entry in entries:
            if entry.graph is not None and entry.namespace:
                # A graph holds the rows of one namespace; any other segment may hold those of any.
                self._graphs.setdefault(entry.namespace, []).append(entry.segment_id)
            else:
                self._shared.append(entry.segment_id)
        self.all = frozenset(entry.segment_id for entry in entries)

    def numbers(self, name: str) -> Iterator[int]:
        """Yield the numbers of the segments that may hold rows of a namespace."""
        yield from self._graphs.get(name, ())
        yield from self._shared


class SegmentSet:
    """Views by segment number, those of the table first, then the recent ones, oldest first. Never changes."""

    def __init__(self, places: Places | None = None, views: Mapping[int, SegmentView] | None = None) -> None:
        """Hold `views`, which must not be changed afterwards: those of the table of `places`, and recent ones."""
        self.places = places or Places()
        self.by_number: Mapping[int, SegmentView] = views or {}
        self._recent = tuple(number for number in self.by_number if number not in self.places.all)
        # Live records of all namespaces, and those of them that are not in a graph.
        self.live_rows = sum(view.live_rows for view in self.by_number.values())
        self.tail_rows = sum(view.live_rows for view in self.by_number.values() if not view.in_graph)

    def with_views(self, views: Mapping[int, SegmentView], changed: Iterable[int]) -> SegmentSet:
        """Return the set of the same table with `views`, of which those `changed` are new or not what they were.

        Costs what changed, and a copy of references. `views` must not be changed afterwards.
        """
        made = SegmentSet(self.places)
        made.by_number = views
        live, tail, recent = self.live_rows, self.tail_rows, list(self._recent)
        for number in changed:
            view, old = views[number], self.by_number.get(number)
            more = view.live_rows - (old.live_rows if old is not None else 0)
            live += more
            tail += 0 if view.in_graph else more
            if old is None:
                recent.append(number)
        made.live_rows, made.tail_rows, made._recent = live, tail, tuple(sorted(recent))
        return made

    @cached_property
    def views(self) -> tuple[SegmentView, ...]:
        """All of them, in order."""
        return tuple(self.by_number.values())

    def slices(self, name: str) -> Iterator[tuple[SegmentView, Slice]]:
        """Yield the segments that hold rows of a namespace, with these rows, recent ones first."""
        for number in (*reversed(self._recent), *self.places.numbers(name)):
            view = self.by_number[number]
            part = view.reader.slice_of(name)
            if part is not None:
                yield view, part
