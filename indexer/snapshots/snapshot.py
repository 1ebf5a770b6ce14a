"""A snapshot: one partition of one index at a position. It never changes; a newer one is a new object.

Every answer comes from one snapshot, so it shows exactly the events below `next_offset`.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from indexer.key_window import KeyWindow
from indexer.segments.reader import Slice
from indexer.segments.rows import hash_ids
from indexer.segments.scoring import score_of_rank
from indexer.segments.search import Found, Prepared, Search, Searcher, SearchQuery, SliceReport
from indexer.segments.stock_search import StockSearch
from indexer.segments.view import SegmentView
from indexer.snapshots.layered import Layered
from indexer.snapshots.namespaces import Namespaces
from indexer.snapshots.segment_set import SegmentSet
from schemas.changes import Outcome
from schemas.filters import Filter
from schemas.indexes import Metric
from schemas.manifest import Manifest, SegmentTable
from schemas.records import Record

__all__ = ["Hit", "SearchQuery", "Snapshot"]


# Namespaces of which a snapshot remembers where they lie.
_KNOWN_MAX = 1024


class Hit(NamedTuple):
    """A match: where it lies, and its score in the spelling of the index's metric."""

    id: str
    score: float
    segment: SegmentView
    row: int


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a partition holds at `next_offset`. Safe to read from several threads."""

    manifest: Manifest
    metric: Metric
    table: SegmentTable = field(default_factory=SegmentTable)
    segment_set: SegmentSet = field(default_factory=SegmentSet)
    namespaces: Namespaces = field(default_factory=Namespaces)
    outcomes: Layered[int, Outcome] = field(default_factory=Layered)
    searcher: Searcher = field(default_factory=StockSearch)
    keys: KeyWindow = field(default_factory=KeyWindow)

    @property
    def version(self) -> int:
        """Version of the manifest; 0 before the first one."""
        return self.manifest.version

    @property
    def epoch(self) -> int:
        """Epoch of the worker that wrote it."""
        return self.manifest.epoch

    @property
    def lineage(self) -> int:
        """How often the log of this partition was found shorter than what had been folded."""
        return self.manifest.lineage

    @property
    def next_offset(self) -> int:
        """First offset that is not shown."""
        return self.manifest.next_offset

    @property
    def applied_time_ms(self) -> int:
        """Append time of the newest event shown, milliseconds since 1970; 0 = none."""
        return self.manifest.applied_time_ms

    @property
    def dead_letters(self) -> int:
        """Records that could not be folded, since the beginning."""
        return self.manifest.dead_letters

    @property
    def segments(self) -> int:
        """Number of segments."""
        return len(self.segment_set.by_number)

    @property
    def views(self) -> tuple[SegmentView, ...]:
        """The segments, those of the table first, then the recent ones, oldest first."""
        return self.segment_set.views

    @property
    def live_rows(self) -> int:
        """Live records of all namespaces."""
        return self.segment_set.live_rows

    @property
    def tail_rows(self) -> int:
        """Live rows that are not in a graph."""
        return self.segment_set.tail_rows

    def tail_rows_of(self, name: str) -> int:
        """Return the live rows of a namespace that are not in a graph."""
        return sum(view.live_in(part) for view, part in self.slices(name) if not view.in_graph)

    def namespace_exists(self, name: str) -> bool:
        """Say whether the namespace exists, empty or not."""
        row = self.namespaces.get(name)
        return row is not None and row.exists

    def count(self, name: str) -> int:
        """Return the live records of a namespace; 0 where it does not exist."""
        return sum(view.live_in(part) for view, part in self.slices(name))

    def counts(self) -> Mapping[str, int]:
        """Return the live records of every existing namespace. Costs what there is, once per snapshot."""
        return self._counts

    @cached_property
    def _counts(self) -> dict[str, int]:
        totals = dict.fromkeys(self.namespaces.existing, 0)
        for view in self.views:
            for name, count in zip(map(bytes.decode, view.reader.names), view.counts().tolist(), strict=True):
                if name in totals:
                    totals[name] += count
        return totals

    def search(self, name: str, query: SearchQuery) -> list[Hit]:
        """Return the best min(top_k, matching) records of a namespace, best first, ties by id.

        `query.vector` is float32 [dimension] of this index; an unknown namespace has no records. By sparse values alone
        only those match that share an index with the query.
        """
        return self.search_explained(name, query)[0]

    def search_explained(self, name: str, query: SearchQuery) -> tuple[list[Hit], Sequence[SliceReport]]:
        """Return what `search` returns, and how each segment was searched."""
        search = self.begin(name, query)
        search.run()
        found = search.found()
        return self.hits(found, query.top_k), found.reports

    def begin(self, name: str, query: SearchQuery) -> Search:
        """Return a search that was planned and not carried out yet; `hits` takes what it finds."""
        return self.searcher.begin(self.plan(name, query), query, self.metric)

    def hits(self, found: Found, top_k: int) -> list[Hit]:
        """Return the best `top_k` of what a search found, best first, ties by id."""
        ranked = []
        for rank, number, row in found.hits.tolist():
            view = found.planned[number].view
            ranked.append((-rank, view.reader.id_bytes(row), view, row))
        ranked.sort(key=itemgetter(0, 1))
        metric = found.metric
        return [Hit(key.decode(), score_of_rank(metric, -rank), view, row) for rank, key, view, row in ranked[:top_k]]

    def plan(self, name: str, query: SearchQuery) -> Prepared:
        """Return the plan of a search. That of a vector alone, without a filter, is remembered for every other one."""
        if query.sparse is not None or query.where is not None or query.vector is None or not query.vector.any():
            return self.searcher.prepare(self.slices(name), query)
        key = (name, query.top_k)
        prepared = self._plans.get(key)
        if prepared is None:
            prepared = self.searcher.prepare(self.slices(name), query)
            if len(self._plans) >= _KNOWN_MAX:
                self._plans.clear()
            self._plans[key] = prepared
        return prepared

    @cached_property
    def _plans(self) -> dict[tuple[str, int], Prepared]:
        return {}

    def fetch(self, name: str, ids: Sequence[str]) -> dict[str, Record]:
        """Return the records of those `ids` that exist."""
        return {key: view.record(row) for key, (view, row) in self.locate(name, ids).items()}

    def locate(self, name: str, ids: Sequence[str]) -> dict[str, tuple[SegmentView, int]]:
        """Return where the live row of each existing id lies."""
        wanted = list(dict.fromkeys(ids))
        found: dict[str, tuple[SegmentView, int]] = {}
        encoded = [key.encode() for key in wanted]
        hashes = hash_ids(encoded)
        for view, part in self.slices(name):
            rows = view.reader.find(part, encoded, hashes)
            for at in np.flatnonzero(rows >= 0).tolist():
                row = int(rows[at])
                if row not in view.dead:
                    found[wanted[at]] = (view, row)
        return found

    def records(self, hits: Sequence[Hit], *, values: bool, metadata: bool) -> list[Record]:
        """Return the records of `hits`, in order, with what was asked for."""
        return [hit.segment.record(hit.row, values=values, metadata=metadata) for hit in hits]

    def list_ids(self, name: str, *, prefix: str, after: str | None, limit: int) -> list[str]:
        """Return up to `limit` ids in byte order that begin with `prefix` and come after `after`."""
        streams = [
            view.ids(part, prefix=prefix.encode(), after=None if after is None else after.encode())
            for view, part in self.slices(name)
        ]
        merged = heapq.merge(*streams)
        return [key.decode() for _, key in zip(range(limit), merged, strict=False)]

    def count_matching(self, name: str, where: Filter) -> int:
        """Return how many records of a namespace match."""
        return sum(int(np.count_nonzero(view.matching(part, where))) for view, part in self.slices(name))

    def slices(self, name: str) -> Sequence[tuple[SegmentView, Slice]]:
        """Return the segments that hold rows of a namespace, recent ones first, with their rows."""
        found = self._known.get(name)
        if found is None:
            found = tuple(self.segment_set.slices(name))
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[name] = found
        return found

    @cached_property
    def _known(self) -> dict[str, tuple[tuple[SegmentView, Slice], ...]]:
        return {}
