"""The schema of a create: an index of vectors, or one of documents, and which metadata can be filtered by.

API 2026-07 declares fields. The two reserved names make an index of vectors, a vector field of any other name makes one
of documents. Beside them stand fields of metadata that are filterable; where any does, only those are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from query_api.rest.models import FieldBody
from schemas.errors import InvalidRequest, UnprocessableBody
from schemas.index_fields import DENSE_TYPE, FIELD_TYPES, SPARSE_TYPE
from schemas.indexes import IndexSpec, Metric, VectorType
from schemas.namespaces import canonical_schema

__all__ = ["DENSE_FIELD", "SPARSE_FIELD", "DeclaredIndex", "declared_fields", "older_schema", "shown_fields"]

# The field names that both newest clients use for "an index of vectors", as opposed to documents.
DENSE_FIELD = "_values"
SPARSE_FIELD = "_sparse_values"
_RESERVED = {DENSE_FIELD: DENSE_TYPE, SPARSE_FIELD: SPARSE_TYPE}
_FIELD_NAME_BYTES_MAX = 64
_NO_MODEL = "no embedding model is configured: store the vectors themselves, in a dense_vector or sparse_vector field"


@dataclass(frozen=True, slots=True)
class DeclaredIndex:
    """What a schema says of an index. `fields` are kept with it: none for an index of vectors that declares no other.

    `dimension` is 0 for a sparse index.
    """

    dimension: int
    metric: str
    vector_type: VectorType
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)


def declared_fields(fields: dict[str, FieldBody]) -> DeclaredIndex:
    """Return what the fields of a create say. Raises `InvalidRequest`, `UnprocessableBody` where there is none."""
    if not fields:
        raise UnprocessableBody("Missing field 'schema.fields': an index needs a vector field")
    vectors: dict[str, str] = {}
    kept: dict[str, dict[str, Any]] = {}
    for name, body in fields.items():
        kind = _checked_type(name, body)
        if kind in (DENSE_TYPE, SPARSE_TYPE):
            if kind in vectors:
                raise InvalidRequest(
                    f"Schema fields '{vectors[kind]}' and '{name}' are both of type {kind}: an index has one at most"
                )
            vectors[kind] = name
        if name not in _RESERVED:
            kept[name] = body.model_dump(exclude_none=True)
    if not vectors:
        raise InvalidRequest(
            f"The schema has no vector field, only '{min(fields)}': an index needs a dense_vector or a sparse_vector"
        )
    own = sorted(name for name in vectors.values() if name not in _RESERVED)
    if own and len(own) < len(vectors):
        raise InvalidRequest(
            f"Schema field '{own[0]}' makes this an index of documents, where the reserved names of an index of "
            f"vectors, '{DENSE_FIELD}' and '{SPARSE_FIELD}', cannot stand"
        )
    if DENSE_TYPE in vectors:
        dense = fields[vectors[DENSE_TYPE]]
        assert dense.dimension is not None, "checked with the type"
        return DeclaredIndex(dense.dimension, dense.metric or Metric.COSINE.value, VectorType.DENSE, kept)
    sparse = fields[vectors[SPARSE_TYPE]]
    return DeclaredIndex(0, sparse.metric or Metric.DOTPRODUCT.value, VectorType.SPARSE, kept)


def older_schema(spec: dict[str, Any]) -> dict[str, Any] | None:
    """Return the `schema` of metadata in an older body's serverless or BYOC spec. Raises `InvalidRequest`."""
    inner = next(iter(spec.values()), None)
    schema = inner.get("schema") if isinstance(inner, dict) else None
    return schema if canonical_schema(schema) else None


def shown_fields(spec: IndexSpec, kept: dict[str, Any]) -> dict[str, object]:
    """Return the fields of an index as a description shows them; `kept` are those in its settings."""
    if any(isinstance(what, dict) and what.get("type") in (DENSE_TYPE, SPARSE_TYPE) for what in kept.values()):
        return dict(kept)
    if spec.vector_type is VectorType.SPARSE:
        return {SPARSE_FIELD: {"type": SPARSE_TYPE, "metric": spec.metric.value}, **kept}
    return {DENSE_FIELD: {"type": DENSE_TYPE, "dimension": spec.dimension, "metric": spec.metric.value}, **kept}


def _checked_type(name: str, body: FieldBody) -> str | None:
    kind = body.type
    wanted = _RESERVED.get(name)
    if wanted is not None:
        if kind != wanted:
            raise InvalidRequest(f"Schema field '{name}' must have the type {wanted}, got '{kind}'")
    elif not name or name[0] in "$_" or len(name.encode()) > _FIELD_NAME_BYTES_MAX:
        raise InvalidRequest(
            f"Schema field '{name[:80]}' must have a name of 1 to {_FIELD_NAME_BYTES_MAX} bytes that begins with "
            "neither '_' nor '$'"
        )
    if kind == DENSE_TYPE:
        if body.dimension is None:
            raise InvalidRequest(f"Schema field '{name}' needs a dimension")
    elif kind == SPARSE_TYPE:
        if body.dimension is not None:
            raise InvalidRequest("dimension should not be specified for sparse indexes")
    else:
        _check_metadata(name, body)
    return kind


def _check_metadata(name: str, body: FieldBody) -> None:
    if body.type == "semantic_text" or body.embed is not None or body.sparse_embed is not None:
        raise InvalidRequest(f"Schema field '{name}' is text to embed, but {_NO_MODEL}")
    if body.full_text_search is not None:
        raise InvalidRequest(
            f"Schema field '{name}' asks for full-text search, which is not supported; leave 'full_text_search' out "
            "and say 'filterable': true to filter by whole strings"
        )
    if body.type is not None and body.type not in FIELD_TYPES:
        known = ", ".join((DENSE_TYPE, SPARSE_TYPE, *FIELD_TYPES))
        raise InvalidRequest(f"Schema field '{name}' has the unknown type '{body.type}'; known are {known}")
    if body.filterable is not True:
        raise InvalidRequest(
            f"Schema field '{name}' must say 'filterable': true: a field that is not to be filtered by is not declared"
        )
