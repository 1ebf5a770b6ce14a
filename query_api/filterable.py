"""Whether a filter names only fields that a namespace's schema makes filterable. Free of any transport.

This is asked at the door, of the newest snapshot: the fold evaluates every filter that is in the log, over all fields,
so that a replay gives the same whatever a schema said. Merges lay out columns of filterable fields only; what the fold
asks of others is read from the documents.
"""

from __future__ import annotations

from indexer.snapshots.snapshot import Snapshot
from schemas.errors import InvalidRequest
from schemas.filters import Filter, fields_of
from schemas.index_fields import filterable_in
from schemas.indexes import IndexSpec

__all__ = ["check_filterable"]

_NAMED_MAX = 10


def check_filterable(spec: IndexSpec, snapshot: Snapshot, name: str, where: Filter | None) -> None:
    """Raise `InvalidRequest`, which names the field, where the filter may not be asked of namespace `name`."""
    if where is None:
        return
    row = snapshot.namespaces.get(name)
    allowed = filterable_in(spec, b"" if row is None else row.schema)
    if allowed is None:
        return
    refused = sorted(fields_of(where) - allowed)
    if refused:
        known = sorted(allowed)
        more = f" and {len(known) - _NAMED_MAX} more" if len(known) > _NAMED_MAX else ""
        raise InvalidRequest(
            f"Metadata field '{refused[0]}' is not filterable in namespace '{name}': its schema names "
            f"{', '.join(known[:_NAMED_MAX])}{more}",
            field=refused[0],
        )
