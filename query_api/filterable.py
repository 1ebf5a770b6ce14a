"""Whether a filter names only fields that a namespace's schema makes filterable. Free of any transport.

This is asked at the door, of the newest snapshot: the fold evaluates every filter that is in the log, over all fields,
so that a replay gives the same whatever a schema said.
"""

from __future__ import annotations

from indexer.snapshots.snapshot import Snapshot
from schemas.errors import InvalidRequest
from schemas.filters import Filter, fields_of
from schemas.index_fields import index_fields
from schemas.indexes import IndexSpec
from schemas.namespaces import filterable_fields

__all__ = ["check_filterable"]

_NAMED_MAX = 10


def check_filterable(spec: IndexSpec, snapshot: Snapshot, name: str, where: Filter | None) -> None:
    """Raise `InvalidRequest`, which names the field, where the filter may not be asked of namespace `name` (canonical).

    A namespace without a schema has that of its index; without either, every field is filterable.
    """
    if where is None:
        return
    row = snapshot.namespaces.get(name)
    allowed = index_fields(spec).filterable if row is None or not row.schema else filterable_fields(row.schema)
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
