"""Documents: records of an index whose vector fields have names of their own. Free of any transport.

A document is a record: its dense field is the record's values, its sparse field the sparse values, every other field is
metadata. Such an index is written to as documents only; asked for vectors, it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from query_api.questions import Match, Question
from schemas.errors import InvalidRequest
from schemas.filters import Filter
from schemas.index_fields import DENSE_TYPE, SPARSE_TYPE, IndexFields, index_fields
from schemas.indexes import IndexSpec, VectorType
from schemas.limits import BATCH_RECORDS_MAX
from schemas.metadata import canonical_metadata, metadata_document, shown
from schemas.operations import Update, UpdateWhere, Upsert
from schemas.records import Record, Sparse, check_id, dense_bytes, dense_values, make_sparse

__all__ = [
    "EVERY_FIELD",
    "NO_MODEL",
    "check_vectors_index",
    "document_of",
    "document_update",
    "document_updates",
    "document_upserts",
    "fields_of_documents",
    "holds_documents",
    "match_document",
    "score_question",
    "set_where",
    "sparse_vector",
]

NO_MODEL = "no embedding model is configured: send vectors instead of text"
_ID, _SCORE, _REMOVE = "_id", "_score", "_remove_fields"
# In a list of fields to include: every field.
EVERY_FIELD = "*"
_Event = TypeVar("_Event")
_SCORES_MAX = 100
_TEXT_SCORES, _EMBEDDED_SCORES = ("text", "query_string"), ("embed", "sparse_embed")
_NO_REMOVAL = "Fields can be set, not removed: upsert the document without the field instead"


def fields_of_documents(spec: IndexSpec) -> IndexFields:
    """Return the fields of an index of documents. Raises `InvalidRequest` for an index of vectors."""
    fields = index_fields(spec)
    if not fields.are_documents:
        raise InvalidRequest(
            f"Index '{spec.name}' holds vectors, not documents: use the /vectors and /query endpoints, or create an "
            "index whose schema names its own vector fields"
        )
    return fields


def holds_documents(spec: IndexSpec) -> bool:
    """Say whether an index holds documents: asked for vectors, it has none."""
    return index_fields(spec).are_documents


def check_vectors_index(spec: IndexSpec) -> None:
    """Raise `InvalidRequest` where vectors must not be written, since the index holds documents."""
    if index_fields(spec).are_documents:
        raise InvalidRequest(
            f"Index '{spec.name}' holds documents: write to it by POST /namespaces/<namespace>/documents/upsert, "
            "/documents/update and /documents/delete"
        )


def document_upserts(fields: IndexFields, documents: Sequence[Mapping[str, object]]) -> list[Upsert]:
    """Return the events of an upsert of documents. Raises `InvalidRequest`, which names the document."""
    return [_in_place(place, _upsert, fields, document) for place, document in _distinct(documents)]


def document_updates(fields: IndexFields, documents: Sequence[Mapping[str, object]]) -> list[Update]:
    """Return the events of an update of documents by id. Raises `InvalidRequest`, which names the document."""
    return [_in_place(place, document_update, fields, document) for place, document in _distinct(documents)]


def document_update(fields: IndexFields, document: Mapping[str, object]) -> Update:
    """Return the event that changes the named fields of one document. Raises `InvalidRequest`."""
    if document.get(_REMOVE):
        raise InvalidRequest(_NO_REMOVAL)
    values, sparse, metadata = _parts(fields, document, null_is_refused=True)
    if not values and sparse is None and not metadata:
        raise InvalidRequest("the update changes no field")
    return Update(str(document[_ID]), values or None, sparse, metadata or None)


def set_where(
    fields: IndexFields, where: bytes, set_fields: Mapping[str, object] | None, remove_fields: Sequence[str] | None
) -> UpdateWhere:
    """Return the event that sets metadata of all documents that match. Raises `InvalidRequest`."""
    if remove_fields:
        raise InvalidRequest(_NO_REMOVAL)
    for name in set_fields or {}:
        if name in (fields.dense, fields.sparse):
            raise InvalidRequest(f"Field '{name}' is a vector; by filter only metadata can be set")
    _, _, metadata = _parts(fields, set_fields or {}, null_is_refused=True)
    if not metadata:
        raise InvalidRequest("An update by filter needs 'set_fields' with at least one field")
    return UpdateWhere(where, metadata)


def score_question(
    fields: IndexFields, score_by: Sequence[Mapping[str, object]], top_k: int, where: Filter | None, *, is_bare: bool
) -> Question:
    """Return the question that a search of documents asks; `is_bare` where only ids and scores are wanted.

    Raises `InvalidRequest`.
    """
    if not 1 <= len(score_by) <= _SCORES_MAX:
        raise InvalidRequest(f"'score_by' must have 1 to {_SCORES_MAX} clauses, got {len(score_by)}", limit=_SCORES_MAX)
    for clause in score_by:
        _check_kind(clause)
    if len(score_by) > 1:
        raise InvalidRequest(f"A clause of type {score_by[0]['type']} must stand alone in 'score_by'")
    clause = score_by[0]
    name, kind = _scored_field(clause), str(clause["type"])
    if name != (fields.dense if kind == DENSE_TYPE else fields.sparse):
        raise InvalidRequest(f"Field '{name}' is not a {kind} field of this index's schema", field=name)
    asked = Question(top_k, where=where, include_values=not is_bare, include_metadata=not is_bare)
    if kind == SPARSE_TYPE:
        sparse = sparse_vector(clause.get("sparse_values"), "sparse_values")
        if sparse is None:
            raise InvalidRequest("A clause of type sparse_vector needs 'sparse_values'")
        return replace(asked, sparse=sparse, alone=VectorType.SPARSE)
    vector = dense_values(dense_bytes(clause.get("values")))
    if not len(vector):
        raise InvalidRequest("A clause of type dense_vector needs 'values'")
    return replace(asked, vector=vector, alone=VectorType.DENSE)


def sparse_vector(value: object, field: str) -> Sparse | None:
    """Return a sparse vector of JSON, None where it is absent or empty. Raises `InvalidRequest`."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"'{field}' must be an object with 'indices' and 'values', got '{shown(value)}'")
    return make_sparse(value.get("indices", []), value.get("values", []))


def document_of(fields: IndexFields, record: Record, wanted: Collection[str]) -> dict[str, object]:
    """Return a record as a document with the `wanted` fields; `*` is every field."""
    every = EVERY_FIELD in wanted
    document: dict[str, object] = {_ID: record.id}
    if fields.dense is not None and record.values is not None and (every or fields.dense in wanted):
        document[fields.dense] = np.ascontiguousarray(record.values)
    if fields.sparse is not None and record.sparse is not None and (every or fields.sparse in wanted):
        document[fields.sparse] = {
            "indices": np.ascontiguousarray(record.sparse.indices),
            "values": np.ascontiguousarray(record.sparse.values),
        }
    kept = metadata_document(record.metadata)
    document |= kept if every else {name: kept[name] for name in wanted if name in kept}
    return document


def match_document(fields: IndexFields, match: Match, wanted: Collection[str]) -> dict[str, object]:
    """Return a match as a document with its score."""
    document: dict[str, object] = {_ID: match.id, _SCORE: np.float32(match.score)}
    if match.record is not None:
        document |= document_of(fields, match.record, wanted)
    return document


def _distinct(documents: Sequence[Mapping[str, object]]) -> Sequence[tuple[int, Mapping[str, object]]]:
    """Return the documents with their places. Raises `InvalidRequest` where they are too many, or two are the same."""
    if not 1 <= len(documents) <= BATCH_RECORDS_MAX:
        raise InvalidRequest(
            f"'documents' must have 1 to {BATCH_RECORDS_MAX} documents, got {len(documents)}", limit=BATCH_RECORDS_MAX
        )
    seen: set[object] = set()
    for place, document in enumerate(documents):
        name = document.get(_ID)
        if not isinstance(name, str):
            raise InvalidRequest(f"Document at position {place}: '{_ID}' must be a string, got '{shown(name)}'")
        if name in seen:
            raise InvalidRequest(
                f"Document at position {place} has the '{_ID}' of another one in the request: '{name}'"
            )
        seen.add(name)
    return list(enumerate(documents))


def _in_place(
    place: int,
    build: Callable[[IndexFields, Mapping[str, object]], _Event],
    fields: IndexFields,
    document: Mapping[str, object],
) -> _Event:
    try:
        check_id(str(document[_ID]))
        return build(fields, document)
    except InvalidRequest as error:
        said = f"Document at position {place} ('{str(document[_ID])[:80]}'): {error.message}"
        placed = InvalidRequest(said, document=place)
        placed.facts |= error.facts
        raise placed from error


def _upsert(fields: IndexFields, document: Mapping[str, object]) -> Upsert:
    if _REMOVE in document:
        raise InvalidRequest(f"'{_REMOVE}' belongs to an update")
    values, sparse, metadata = _parts(fields, document, null_is_refused=False)
    if fields.dense is not None and not values:
        raise InvalidRequest(f"field '{fields.dense}' of type {DENSE_TYPE} is required", field=fields.dense)
    if fields.dense is None and sparse is None:
        raise InvalidRequest(f"field '{fields.sparse}' of type {SPARSE_TYPE} is required", field=fields.sparse)
    return Upsert(str(document[_ID]), values, sparse, metadata)


def _parts(
    fields: IndexFields, document: Mapping[str, object], *, null_is_refused: bool
) -> tuple[bytes, Sparse | None, bytes]:
    """Return dense bytes, sparse vector and canonical metadata of the fields that a document names."""
    values, sparse = b"", None
    metadata: dict[str, object] = {}
    for name, value in document.items():
        if name in (_ID, _REMOVE):
            continue
        if name.startswith("_"):
            raise InvalidRequest(f"field '{name}' begins with '_', which is reserved", field=name)
        if value is None:
            if null_is_refused:
                raise InvalidRequest(f"field '{name}' is null: a field is set to a value", field=name)
            continue
        if name == fields.dense:
            values = dense_bytes(value)
        elif name == fields.sparse:
            sparse = sparse_vector(value, name)
        else:
            _check_type(fields, name, value)
            metadata[name] = value
    return values, sparse, canonical_metadata(metadata)


def _check_type(fields: IndexFields, name: str, value: object) -> None:
    declared = fields.types.get(name)
    if declared is not None and not _TYPES[declared](value):
        raise InvalidRequest(
            f"field '{name}' is declared as {declared}, got '{shown(value)}'", field=name, type=declared
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Mapping[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "string_list": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and float(value).is_integer(),  # type: ignore[arg-type]
    "float": _is_number,
}


def _check_kind(clause: Mapping[str, object]) -> None:
    kind = clause.get("type")
    if kind in _TEXT_SCORES:
        raise InvalidRequest(
            f"A clause of type {kind} asks for full-text search, which is not supported; score by dense_vector or "
            "sparse_vector"
        )
    if kind in _EMBEDDED_SCORES:
        raise InvalidRequest(f"A clause of type {kind} asks for text to be embedded, but {NO_MODEL}")
    if kind not in (DENSE_TYPE, SPARSE_TYPE):
        raise InvalidRequest(
            f"A clause of 'score_by' must have the type dense_vector or sparse_vector, got '{shown(kind)}'"
        )


def _scored_field(clause: Mapping[str, object]) -> str:
    field, several = clause.get("field"), clause.get("fields")
    if several is not None:
        if field is not None or not isinstance(several, list) or len(several) != 1:
            raise InvalidRequest("A clause of 'score_by' names exactly one field, in 'field' or as the one of 'fields'")
        field = several[0]
    if not isinstance(field, str):
        raise InvalidRequest(f"A clause of 'score_by' names a field in 'field', got '{shown(field)}'")
    return field
