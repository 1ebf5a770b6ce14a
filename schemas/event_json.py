"""The JSON form of events, for producers without protobuf such as `kcat` and Kafka Connect.

One object with one key, the operation; its members carry Pinecone's names. Unknown members are refused: a misspelt one
would otherwise be lost without a word. The bytes are specified in docs/log-format.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson

from schemas.errors import CorruptData, InvalidRequest
from schemas.filters import filter_to_json, parse_filter
from schemas.metadata import canonical_metadata, shown
from schemas.namespaces import canonical_schema
from schemas.operations import CreateNamespace, Delete, DeleteNamespace, DeleteWhere, Event, Update, UpdateWhere, Upsert
from schemas.records import Sparse, dense_bytes, make_sparse

__all__ = ["event_from_json"]

Members = Mapping[str, object]


def event_from_json(text: bytes) -> Event:
    """Return the event that is written as JSON.

    Raises `CorruptData` or `InvalidRequest` with the member and the reason.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise CorruptData(f"The record is not valid JSON: {error}") from error
    if not isinstance(value, dict) or len(value) != 1:
        raise CorruptData("A JSON event is an object with one member: the operation.")
    ((operation, members),) = value.items()
    if operation not in _OPERATIONS:
        raise CorruptData(f"Unknown operation '{operation[:80]}': known are {', '.join(_OPERATIONS)}.")
    if not isinstance(members, dict):
        raise CorruptData(f"'{operation}' must be a JSON object, got '{shown(members)}'")
    known, build = _OPERATIONS[operation]
    unknown = sorted(set(members) - known)
    if unknown:
        raise CorruptData(f"Unknown member '{unknown[0][:80]}' of '{operation}': known are {', '.join(sorted(known))}.")
    return build(members)


def _id(members: Members) -> str:
    name = members.get("id")
    if not isinstance(name, str):
        raise InvalidRequest(f"'id' must be a string, got '{shown(name)}'")
    return name


def _sparse(members: Members) -> Sparse | None:
    value = members.get("sparseValues")
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"indices", "values"}:
        raise InvalidRequest(f"'sparseValues' must be an object of 'indices' and 'values', got '{shown(value)}'")
    return make_sparse(value["indices"], value["values"])


def _filter(members: Members) -> bytes:
    tree = parse_filter(members.get("filter"))
    if tree is None:
        raise InvalidRequest("Filter must not be empty")
    return filter_to_json(tree)


def _upsert(members: Members) -> Event:
    return Upsert(
        _id(members),
        dense_bytes(members.get("values")),
        _sparse(members),
        canonical_metadata(members.get("metadata")),
    )


def _update(members: Members) -> Event:
    return Update(
        _id(members),
        dense_bytes(members.get("values")) or None,
        _sparse(members),
        canonical_metadata(members.get("setMetadata")) or None,
    )


def _update_where(members: Members) -> Event:
    return UpdateWhere(_filter(members), canonical_metadata(members.get("setMetadata")))


def _delete_namespace(members: Members) -> Event:
    keep = members.get("keep")
    if not isinstance(keep, bool):
        raise InvalidRequest(f"'keep' must be a boolean, got '{shown(keep)}'")
    return DeleteNamespace(keep)


_OPERATIONS: dict[str, tuple[frozenset[str], Callable[[Members], Event]]] = {
    "upsert": (frozenset({"id", "values", "sparseValues", "metadata"}), _upsert),
    "update": (frozenset({"id", "values", "sparseValues", "setMetadata"}), _update),
    "updateWhere": (frozenset({"filter", "setMetadata"}), _update_where),
    "delete": (frozenset({"id"}), lambda members: Delete(_id(members))),
    "deleteWhere": (frozenset({"filter"}), lambda members: DeleteWhere(_filter(members))),
    "deleteNamespace": (frozenset({"keep"}), _delete_namespace),
    "createNamespace": (
        frozenset({"schema"}),
        lambda members: CreateNamespace(canonical_schema(members.get("schema"))),
    ),
}
