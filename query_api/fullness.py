"""How full an index is, and whether it takes upserts: by its newest snapshots and what this process appended since.

What other processes have appended and no snapshot shows yet is not counted, nor is what is being appended right now: an
index may hold that much more than its bound.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from weakref import WeakKeyDictionary

import orjson

from indexer.snapshots.snapshot import Snapshot
from query_api.engine_stats import bytes_of
from query_api.freshness import reach
from query_api.served import ServedIndex
from schemas.errors import IndexFull, TooManyRequests
from schemas.indexes import IndexSpec
from schemas.operations import Delete, DeleteNamespace, DeleteWhere, Upsert

__all__ = ["BoundOptions", "Fullness"]

_RETRY_SECONDS = 1.0
_DELETES = (Delete, DeleteWhere, DeleteNamespace)


@dataclass(frozen=True, slots=True)
class BoundOptions:
    """Bounds of an index that names none itself; 0 = none.

    Bytes are those of the objects that the newest snapshots name. Where it can't be told at once whether an index is
    full, an upsert waits for at most `wait_seconds`.
    """

    max_records: int = 0
    max_bytes: int = 0
    wait_seconds: float = 2.0


class _Batch(NamedTuple):
    """Events that were appended: the position after them, records and bytes that they may add, whether any deletes."""

    next_offset: int
    records: int
    bytes: int
    deletes: bool


class _Unseen:
    """Upserts and deletes of this process to one partition that its snapshot may not show yet."""

    def __init__(self) -> None:
        self._batches: deque[_Batch] = deque()
        self._lineage = 0
        self._measured: tuple[Snapshot | None, int] = (None, 0)
        self.records = 0
        self.bytes = 0
        self.next_offset = 0

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def deletes(self) -> bool:
        """Whether there are deletes: there may be less than the snapshot shows."""
        return any(batch.deletes for batch in self._batches)

    def appended(self, batch: _Batch) -> None:
        """Take note of a batch."""
        self._batches.append(batch)
        self.records += batch.records
        self.bytes += batch.bytes
        self.next_offset = max(self.next_offset, batch.next_offset)

    def shown(self, snapshot: Snapshot) -> None:
        """Forget what `snapshot` shows, and what was lost with the end of the log where that made a new lineage."""
        is_lost = snapshot.lineage != self._lineage
        self._lineage = snapshot.lineage
        while self._batches and (is_lost or self._batches[0].next_offset <= snapshot.next_offset):
            batch = self._batches.popleft()
            self.records -= batch.records
            self.bytes -= batch.bytes
        if not self._batches:
            self.next_offset = 0

    def size_of(self, snapshot: Snapshot) -> int:
        """Return the bytes of a snapshot, counted once per snapshot."""
        if self._measured[0] is not snapshot:
            self._measured = (snapshot, bytes_of(snapshot))
        return self._measured[1]


class Fullness:
    """Keeps the bounds of all indexes of this process."""

    def __init__(self, options: BoundOptions) -> None:
        self._options = options
        self._unseen: WeakKeyDictionary[ServedIndex, list[_Unseen]] = WeakKeyDictionary()

    def bounds(self, spec: IndexSpec) -> tuple[int, int]:
        """Return the most records and bytes of an index, 0 for no bound."""
        records, size = _own_bounds(spec.settings)
        return (
            self._options.max_records if records is None else records,
            self._options.max_bytes if size is None else size,
        )

    def share(self, index: ServedIndex, snapshots: Sequence[Snapshot]) -> float:
        """Return how full the index is that `snapshots` show, 0 to 1; 0 where it has no bound."""
        records_max, bytes_max = self.bounds(index.spec)
        shares = [0.0]
        if records_max:
            shares.append(sum(snapshot.live_rows for snapshot in snapshots) / records_max)
        if bytes_max:
            shares.append(sum(map(bytes_of, snapshots)) / bytes_max)
        return min(1.0, max(shares))

    async def check(self, index: ServedIndex) -> None:
        """Let an upsert pass unless the index is full.

        What no snapshot shows yet may have replaced or deleted records, so it is waited for before it is counted as
        more, and so is what others append in the meantime. Raises `IndexFull`; `TooManyRequests` where what is not
        shown yet decides.
        """
        if self.bounds(index.spec) == (0, 0) or self._excess(index) is None:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + self._options.wait_seconds
        unseens = self._of(index)
        while (excess := self._excess(index)) is not None and any(unseens) and loop.time() < until:
            for follower, unseen in zip(index.followers, unseens, strict=True):
                if await follower.opened(until=until):
                    await reach(follower, unseen.next_offset, until=until)
        if excess is None:
            return
        shown = self._excess(index, with_unseen=False)
        if shown is None or any(unseen.deletes for unseen in unseens):
            raise TooManyRequests(
                f"Index '{index.spec.name}' may be full: with what is not indexed yet it has {excess}. Nothing was "
                "written: send again.",
                retry_after_seconds=_RETRY_SECONDS,
            )
        raise IndexFull(
            f"Index is full, cannot accept data. Index '{index.spec.name}' has {shown}. Delete records, or configure "
            "a larger bound."
        )

    def appended(self, index: ServedIndex, partition: int, next_offset: int, events: Sequence[object]) -> None:
        """Take note of events that this process appended."""
        if self.bounds(index.spec) == (0, 0):
            return
        upserts = [event for event in events if isinstance(event, Upsert)]
        deletes = any(isinstance(event, _DELETES) for event in events)
        if upserts or deletes:
            size = sum(event.size_bytes for event in upserts)
            self._of(index)[partition].appended(_Batch(next_offset, len(upserts), size, deletes))

    def _of(self, index: ServedIndex) -> list[_Unseen]:
        return self._unseen.setdefault(index, [_Unseen() for _ in range(index.spec.partitions)])

    def _excess(self, index: ServedIndex, *, with_unseen: bool = True) -> str | None:
        """Return of what there is as much as there may be, None where there is room."""
        records_max, bytes_max = self.bounds(index.spec)
        records = size = 0
        for follower, unseen in zip(index.followers, self._of(index), strict=True):
            if follower.is_open:
                unseen.shown(follower.snapshot)
                records += follower.snapshot.live_rows
                size += unseen.size_of(follower.snapshot) if bytes_max else 0
            records += unseen.records if with_unseen else 0
            size += unseen.bytes if with_unseen else 0
        if records_max and records >= records_max:
            return f"{records} records; its bound (max_records) is {records_max}"
        if bytes_max and size >= bytes_max:
            return f"{size} bytes; its bound (max_bytes) is {bytes_max}"
        return None


@lru_cache(maxsize=4_096)
def _own_bounds(settings: bytes) -> tuple[int | None, int | None]:
    """Return the bounds that an index names itself; whatever a foreign record put there is none."""
    kept = orjson.loads(settings)
    records, size = kept.get("max_records"), kept.get("max_bytes")
    return (records if type(records) is int else None, size if type(size) is int else None)
