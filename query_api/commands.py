"""What a request to change or delete records asks for, as events: the rules that every transport shares."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.errors import InvalidRequest
from schemas.filters import Filter, filter_to_json, parse_filter
from schemas.limits import BATCH_RECORDS_MAX
from schemas.metadata import canonical_metadata
from schemas.operations import Delete, DeleteNamespace, DeleteWhere, Event, Update
from schemas.records import Sparse, check_id

__all__ = ["deletions", "required_filter", "update_of"]


def deletions(ids: Sequence[str] | None, *, is_all: bool, where: object) -> list[Event]:
    """Return the events of a delete by exactly one of `ids`, everything, and a filter (`where`, JSON, None = absent).

    Raises `InvalidRequest`.
    """
    if is_all:
        if ids is not None or where is not None:
            raise InvalidRequest("'deleteAll' cannot be combined with 'ids' or 'filter'")
        return [DeleteNamespace(keep=True)]
    if where is not None and (where != {} or not ids):
        # Ids beside a filter are dropped, as the hosted service does.
        return [DeleteWhere(filter_to_json(required_filter(where, "Delete with empty metadata filter is not allowed")))]
    if not ids:
        raise InvalidRequest("Delete needs one of 'ids' (not empty), 'deleteAll' and 'filter'")
    if len(ids) > BATCH_RECORDS_MAX:
        raise InvalidRequest(
            f"Delete of {len(ids)} ids; the limit is {BATCH_RECORDS_MAX}: send several.", limit=BATCH_RECORDS_MAX
        )
    for name in ids:
        check_id(name)
    return [Delete(name) for name in ids]


def update_of(name: str | None, *, values: bytes, sparse: Sparse | None, set_metadata: object, dry_run: bool) -> Update:
    """Return the event of an update by id; `values`: little-endian float32, `b""` = absent. Raises `InvalidRequest`."""
    if dry_run:
        raise InvalidRequest("'dryRun' counts the records of a 'filter'; an update by id has none")
    if name is None:
        raise InvalidRequest("Update needs an 'id' or a 'filter'")
    check_id(name)
    event = Update(name, values or None, sparse, canonical_metadata(set_metadata) or None)
    if event.values is None and event.sparse is None and event.set_metadata is None:
        raise InvalidRequest("Update must change at least one of 'values', 'sparseValues' and 'setMetadata'")
    return event


def required_filter(value: object, empty: str) -> Filter:
    """Return a filter. Raises `InvalidRequest`, with the message `empty` where it would mean everything."""
    where = parse_filter(value)
    if where is None:
        raise InvalidRequest(empty)
    return where
