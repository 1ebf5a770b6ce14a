"""Records by their metadata, in pages: the answer of `fetch_by_metadata` from one snapshot."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter

from indexer.snapshots.snapshot import Snapshot
from schemas.errors import InvalidRequest
from schemas.filters import Filter
from schemas.limits import FETCH_MATCHING_MAX
from schemas.records import Record

__all__ = ["RecordPage", "check_matching", "record_page"]

# A value, an index and a value of a sparse vector.
_DENSE_BYTES, _SPARSE_BYTES = 4, 8


@dataclass(frozen=True, slots=True)
class RecordPage:
    """One page of records by id, in byte order; `after` continues it, None on the last one."""

    records: Mapping[str, Record]
    after: str | None


def check_matching(where: Filter | None, limit: int) -> Filter:
    """Return the filter of a page. Raises `InvalidRequest` where there is none, or for a limit out of bounds."""
    if where is None:
        raise InvalidRequest("Empty filter provided for fetch by metadata request")
    if not 1 <= limit <= FETCH_MATCHING_MAX:
        raise InvalidRequest(f"Limit must be 1 to {FETCH_MATCHING_MAX}, got {limit}", limit=FETCH_MATCHING_MAX)
    return where


def record_page(
    snapshot: Snapshot, name: str, where: Filter, *, after: str | None, limit: int, bytes_max: int
) -> RecordPage:
    """Return the matching records of a namespace that come after an id: at most `limit`, and about `bytes_max`.

    `name` is a canonical namespace. A page is never empty where anything is left. Pages go by id, so that whatever is
    written between them, nothing comes twice and nothing that was there throughout is missed.
    """
    past = None if after is None else after.encode()
    # One more than asked for tells whether there is another page.
    streams = [
        [(view.reader.id_bytes(row), view, row) for row in view.rows_by_id(part, where, after=past, limit=limit + 1)]
        for view, part in snapshot.slices(name)
    ]
    records: dict[str, Record] = {}
    size = 0
    last: str | None = None
    for key, view, row in islice(heapq.merge(*streams, key=itemgetter(0)), limit + 1):
        if len(records) == limit or size >= bytes_max:
            return RecordPage(records, last)
        last = key.decode()
        record = records[last] = view.record(row)
        size += _size(record)
    return RecordPage(records, None)


def _size(record: Record) -> int:
    values = 0 if record.values is None else _DENSE_BYTES * len(record.values)
    sparse = 0 if record.sparse is None else _SPARSE_BYTES * len(record.sparse.indices)
    return values + sparse + len(record.metadata)
