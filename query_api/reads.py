"""Questions to the snapshots: query, fetch, list, stats, namespaces. Free of any transport."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from indexer.snapshots.snapshot import Snapshot
from query_api.access import granted
from query_api.filterable import check_filterable
from query_api.freshness import (
    Freshness,
    Shown,
    Wanted,
    decide_existence,
    show,
    snapshot_of,
    snapshots_of_all,
)
from query_api.gates import Gates
from query_api.matching import RecordPage, check_matching, record_page
from query_api.questions import QueryResult, Question, check_question, matches_of, query_of, search, search_ns
from query_api.searches import Searches, SearchOptions
from query_api.served import ServedIndex
from query_api.shedding import Operation
from schemas.errors import InvalidRequest, NotFound, SnapshotBehind
from schemas.filters import Filter
from schemas.limits import FETCH_IDS_MAX, ID_BYTES_MAX, LIST_LIMIT_MAX
from schemas.partitions import canonical_namespace
from schemas.records import Record, check_id

__all__ = [
    "IdPage",
    "IndexStats",
    "NamespaceInfo",
    "NamespacePage",
    "PartitionFreshness",
    "ReadOptions",
    "Reads",
    "units_of_fetch",
]

# A match with its values or metadata costs as much as so many without.
_RECORD_COST = 4
_FETCHED_PER_UNIT = 10

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What runs on the event loop itself: quick searches, and fetches of fewer ids than `inline_fetch_max`.

    Answers of up to `inline_matches_max` bare matches are put together there too. A page of a fetch by metadata ends
    early once its records have about `page_bytes_max` bytes.
    """

    searches: SearchOptions = field(default_factory=SearchOptions)
    inline_fetch_max: int = 100
    inline_matches_max: int = 400
    inline_namespaces_max: int = 1_000
    page_bytes_max: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class IdPage:
    """One page of ids; `after` continues it, None on the last one."""

    ids: Sequence[str]
    after: str | None


@dataclass(frozen=True, slots=True)
class NamespaceInfo:
    """A namespace and the number of its records; `schema` is the JSON that it was made with, or `b""`."""

    name: str
    records: int
    schema: bytes = b""


@dataclass(frozen=True, slots=True)
class NamespacePage:
    """One page of namespaces in byte order; `total` counts all that begin with the prefix."""

    namespaces: Sequence[NamespaceInfo]
    after: str | None
    total: int


@dataclass(frozen=True, slots=True)
class PartitionFreshness:
    """Where one partition stands; None where the log does not say, and before rows came into graphs under load."""

    partition: int
    log_end: int | None
    applied: int
    lag_seconds: float | None
    snapshot: Snapshot
    graph_rows_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class IndexStats:
    """Counts per namespace, how full the index is (0 to 1), and the freshness of every partition."""

    namespaces: dict[str, int]
    fullness: float
    freshness: Sequence[PartitionFreshness] = field(default=())


class Reads:
    """Answers questions; every answer comes from one snapshot per partition, and says which."""

    def __init__(
        self,
        *,
        threads: Executor,
        options: ReadOptions,
        freshness: Freshness,
        gates: Gates,
        native_threads: int = 2,
    ) -> None:
        """Search on `threads`, or on as many as `native_threads` of the engine's own."""
        self._threads = threads
        self._searches = Searches(threads, options.searches, native_threads=native_threads)
        self._options = options
        self._freshness = freshness
        self._gates = gates

    async def query(
        self, index: ServedIndex, namespace: str, question: Question, wanted: Wanted
    ) -> tuple[QueryResult, Shown]:
        """Return the best matches of a namespace, best first; none where it does not exist.

        Raises `InvalidRequest`, and what `snapshot_of` raises.
        """
        self._gates.enter(Operation.QUERY, index.spec.name, namespace)
        check_question(index.spec, question)
        snapshot = await snapshot_of(index, namespace, wanted, self._freshness)
        shown = await show(index, [snapshot], is_one_namespace=True)
        name = canonical_namespace(namespace)
        check_filterable(index.spec, snapshot, name, question.where)
        query = query_of(snapshot, name, index.spec, question)
        if query is None:
            return QueryResult([], () if question.explain else None), shown
        if self._is_light(question):
            begun = snapshot.begin(name, query)
            await self._searches.carry_out(begun.cost_ns, begun)
            found = begun.found()
            matches = matches_of(snapshot, snapshot.hits(found, question.top_k), question)
            return QueryResult(matches, found.reports if question.explain else None), shown
        cost_ns = search_ns(snapshot, name, query)
        return await self._searches.run(cost_ns, search, snapshot, name, query, question), shown

    def _is_light(self, question: Question) -> bool:
        """Say whether all of a question but the search itself may be done on the event loop."""
        most = self._options.inline_matches_max
        if question.include_values or question.include_metadata:
            most //= _RECORD_COST
        return question.where is None and question.top_k <= most

    def close(self) -> None:
        """Wait for the searches under way, whose callers have gone, and end the threads that are its own."""
        self._searches.close()

    async def fetch(
        self, index: ServedIndex, namespace: str, ids: Sequence[str], wanted: Wanted
    ) -> tuple[dict[str, Record], Shown]:
        """Return those records of `ids` that exist. Raises `InvalidRequest`, and what `snapshot_of` raises."""
        self._gates.enter(Operation.FETCH, index.spec.name, namespace)
        if not ids:
            raise InvalidRequest("Fetch needs at least one id (query parameter 'ids')")
        if len(ids) > FETCH_IDS_MAX:
            raise InvalidRequest(
                f"Fetch of {len(ids)} ids; the limit is {FETCH_IDS_MAX}: send several.", limit=FETCH_IDS_MAX
            )
        for name in ids:
            check_id(name)
        snapshot = await snapshot_of(index, namespace, wanted, self._freshness)
        shown = await show(index, [snapshot], is_one_namespace=True)
        space = canonical_namespace(namespace)
        if len(ids) <= self._options.inline_fetch_max:
            return snapshot.fetch(space, ids), shown
        return await self._in_thread(snapshot.fetch, space, ids), shown

    async def fetch_by_metadata(
        self,
        index: ServedIndex,
        namespace: str,
        where: Filter | None,
        wanted: Wanted,
        *,
        after: str | None,
        limit: int,
    ) -> tuple[RecordPage, Shown]:
        """Return a page of the records that match, by id after `after`.

        Raises `InvalidRequest`, also for an empty filter (None), and what `snapshot_of` raises.
        """
        self._gates.enter(Operation.FETCH, index.spec.name, namespace)
        where = check_matching(where, limit)
        snapshot = await snapshot_of(index, namespace, wanted, self._freshness)
        name = canonical_namespace(namespace)
        check_filterable(index.spec, snapshot, name, where)
        shown = await show(index, [snapshot], is_one_namespace=True)
        page = await self._in_thread(
            record_page,
            snapshot,
            name,
            where,
            after=after,
            limit=limit,
            bytes_max=self._options.page_bytes_max,
        )
        return page, shown

    async def list_ids(
        self, index: ServedIndex, namespace: str, wanted: Wanted, *, prefix: str, after: str | None, limit: int
    ) -> tuple[IdPage, Shown]:
        """Return ids that begin with `prefix`, in byte order, after `after`."""
        self._gates.enter(Operation.LIST, index.spec.name, namespace)
        _check_page(prefix, limit)
        snapshot = await snapshot_of(index, namespace, wanted, self._freshness)
        shown = await show(index, [snapshot], is_one_namespace=True)
        # One more than asked for tells whether there is another page.
        ids = snapshot.list_ids(canonical_namespace(namespace), prefix=prefix, after=after, limit=limit + 1)
        more = len(ids) > limit
        page = ids[:limit]
        return IdPage(page, page[-1] if more else None), shown

    async def stats(self, index: ServedIndex, wanted: Wanted) -> tuple[IndexStats, Shown]:
        """Return counts per namespace and the freshness of every partition; only what the request's key reaches."""
        self._gates.enter_index(index.spec.name)
        snapshots = await snapshots_of_all(index, wanted, self._freshness, is_filtered=True)
        shown = await show(index, snapshots, is_one_namespace=False)
        if granted().namespaces:
            # How full the index is would tell of the other namespaces.
            return IndexStats(_counts_of(snapshots, granted().namespaces), 0.0), shown
        counts = await self._counts(snapshots)
        freshness = []
        for number, snapshot in enumerate(snapshots):
            stale = await index.ends.staleness_ms(number, snapshot.next_offset)
            end = None if stale is None else max(index.ends.known[number], snapshot.next_offset)
            lag = None if stale is None else stale / 1000
            pace = index.followers[number].pace.rows_per_second
            freshness.append(PartitionFreshness(number, end, snapshot.next_offset, lag, snapshot, pace))
        return IndexStats(counts, self._gates.fullness.share(index, snapshots), freshness), shown

    async def list_namespaces(
        self, index: ServedIndex, wanted: Wanted, *, prefix: str, after: str | None, limit: int
    ) -> tuple[NamespacePage, Shown]:
        """Return namespaces that begin with `prefix`, in byte order, after `after`."""
        _check_page(prefix, limit)
        self._gates.enter_index(index.spec.name)
        snapshots = await snapshots_of_all(index, wanted, self._freshness, is_filtered=True)
        shown = await show(index, snapshots, is_one_namespace=False)
        if granted().namespaces:
            return _page_of(snapshots, granted().namespaces, prefix, after, limit), shown
        if self._has_few_namespaces(snapshots):
            return _namespace_page(snapshots, prefix, after, limit), shown
        return await self._in_thread(_namespace_page, snapshots, prefix, after, limit), shown

    async def describe_namespace(
        self, index: ServedIndex, namespace: str, wanted: Wanted
    ) -> tuple[NamespaceInfo, Shown]:
        """Return one namespace. Raises `NotFound`, only from a snapshot that reached the end of the log."""
        self._gates.enter(Operation.FETCH, index.spec.name, namespace)
        name = canonical_namespace(namespace)
        snapshot = await snapshot_of(index, name, wanted, self._freshness)
        if not snapshot.namespace_exists(name):
            exists = await decide_existence(index, name, wait_ms=self._freshness.ready_wait_ms)
            if exists is None:
                raise SnapshotBehind(
                    f"Whether namespace '{name}' exists is not known yet: the snapshot has not reached the end of "
                    "the log. Try again soon.",
                    retry_after_seconds=1,
                )
            if not exists:
                raise NotFound(f"Namespace {name} not found", namespace=name)
            snapshot = index.follower_of(name).snapshot
        shown = await show(index, [snapshot], is_one_namespace=True)
        return NamespaceInfo(name, snapshot.count(name), _schema(snapshot, name)), shown

    async def count_matching(
        self, index: ServedIndex, namespace: str, where: Filter, wanted: Wanted
    ) -> tuple[int, Shown]:
        """Return how many records of the newest snapshot match. Raises as `fetch_by_metadata`."""
        self._gates.enter(Operation.QUERY, index.spec.name, namespace)
        name = canonical_namespace(namespace)
        snapshot = await snapshot_of(index, namespace, wanted, self._freshness)
        check_filterable(index.spec, snapshot, name, where)
        shown = await show(index, [snapshot], is_one_namespace=True)
        return await self._in_thread(snapshot.count_matching, name, where), shown

    async def _counts(self, snapshots: Sequence[Snapshot]) -> dict[str, int]:
        if self._has_few_namespaces(snapshots):
            return _all_counts(snapshots)
        return await self._in_thread(_all_counts, snapshots)

    def _has_few_namespaces(self, snapshots: Sequence[Snapshot]) -> bool:
        return sum(len(snapshot.namespaces) for snapshot in snapshots) <= self._options.inline_namespaces_max

    async def _in_thread(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))


def units_of_fetch(asked: int) -> int:
    """Return the read units of a fetch of so many ids, as the hosted service counts them."""
    return max(1, -(-asked // _FETCHED_PER_UNIT))


def _all_counts(snapshots: Sequence[Snapshot]) -> dict[str, int]:
    merged: dict[str, int] = {}
    for snapshot in snapshots:
        merged.update(snapshot.counts())
    return merged


def _namespace_page(snapshots: Sequence[Snapshot], prefix: str, after: str | None, limit: int) -> NamespacePage:
    """Return a page of the namespaces of all partitions; only those on it are counted."""
    found: list[tuple[str, int]] = []
    total = 0
    for number, snapshot in enumerate(snapshots):
        inside = snapshot.namespaces.starting_with(prefix)
        total += len(inside)
        begin = 0 if after is None else bisect_right(inside, after)
        # One more than asked for tells whether there is another page.
        found += [(name, number) for name in inside[begin : begin + limit + 1]]
    found.sort()
    infos = [
        NamespaceInfo(name, snapshots[number].count(name), _schema(snapshots[number], name))
        for name, number in found[:limit]
    ]
    return NamespacePage(infos, infos[-1].name if len(found) > limit else None, total)


def _counts_of(snapshots: Sequence[Snapshot], names: Collection[str]) -> dict[str, int]:
    """Return the counts of those of `names` that exist."""
    return {name: one.count(name) for one in snapshots for name in names if one.namespace_exists(name)}


def _page_of(
    snapshots: Sequence[Snapshot], names: Collection[str], prefix: str, after: str | None, limit: int
) -> NamespacePage:
    """Return a page as `_namespace_page`, of those of `names` that exist."""
    found = [
        NamespaceInfo(name, one.count(name), _schema(one, name))
        for name in sorted(names)
        for one in snapshots
        if name.startswith(prefix) and one.namespace_exists(name)
    ]
    rest = [info for info in found if after is None or info.name > after]
    return NamespacePage(rest[:limit], rest[limit - 1].name if len(rest) > limit else None, len(found))


def _schema(snapshot: Snapshot, name: str) -> bytes:
    row = snapshot.namespaces.get(name)
    return b"" if row is None else row.schema


def _check_page(prefix: str, limit: int) -> None:
    if not 1 <= limit <= LIST_LIMIT_MAX:
        raise InvalidRequest(f"Limit must be 1 to {LIST_LIMIT_MAX}, got {limit}", limit=LIST_LIMIT_MAX)
    if len(prefix) > ID_BYTES_MAX:
        raise InvalidRequest(
            f"Prefix is {len(prefix)} characters long, which exceeds the limit of {ID_BYTES_MAX}", limit=ID_BYTES_MAX
        )
