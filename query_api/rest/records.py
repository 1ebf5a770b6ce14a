"""Routes of records: searches by vector or id in the snake_case surface of integrated embedding, without its models."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from query_api.documents import EVERY_FIELD, NO_MODEL, holds_documents
from query_api.questions import Question
from query_api.reads import Reads
from query_api.rest.document_models import RecordsVectorBody, SearchRecordsBody
from query_api.rest.exchange import read_headers, wanted_of
from query_api.rest.models import parsed
from query_api.rest.routing import body_of, call_of, documented, json_answer
from schemas.errors import InvalidRequest
from schemas.filters import parse_filter
from schemas.limits import RECORD_FIELDS_MAX
from schemas.metadata import metadata_document
from schemas.records import Record, Sparse, dense_bytes, dense_values, make_sparse

__all__ = ["records_router"]


def records_router(reads: Reads) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["records"])

    @router.post(
        "/records/namespaces/{namespace:path}/search",
        summary="Search records by vector or by id; text is refused, as no embedding model is configured",
        **documented(body="SearchRecordsBody", answer="SearchRecordsAnswer"),
    )
    async def search_records(request: Request, namespace: str) -> Response:
        body = parsed(SearchRecordsBody, await body_of(request))
        call = call_of(request)
        names = _wanted_fields(body.fields)
        question = _question(body, is_bare=not names)
        result, shown = await reads.query(call.index, namespace, question, wanted_of(call.headers))
        matches = [] if holds_documents(call.index.spec) else result.matches
        hits = [{"_id": match.id, "_score": match.score, "fields": _fields(match.record, names)} for match in matches]
        return json_answer({"result": {"hits": hits}, "usage": {"read_units": 1}}, read_headers(shown))

    @router.post(
        "/records/namespaces/{namespace:path}/upsert",
        summary="Refused: no embedding model is configured",
    )
    async def upsert_records(request: Request, namespace: str) -> Response:  # noqa: ARG001 - a part of the path
        call_of(request)
        raise InvalidRequest(f"Records of text cannot be upserted: {NO_MODEL}, by POST /vectors/upsert")

    return router


def _wanted_fields(fields: Sequence[str] | None) -> Sequence[str]:
    if fields is None:
        return [EVERY_FIELD]
    if len(fields) > RECORD_FIELDS_MAX:
        raise InvalidRequest(
            f"'fields' names {len(fields)} fields; the limit is {RECORD_FIELDS_MAX}", limit=RECORD_FIELDS_MAX
        )
    return fields


def _question(body: SearchRecordsBody, *, is_bare: bool) -> Question:
    query = body.query
    if query.inputs is not None:
        raise InvalidRequest(f"'inputs' cannot be searched by: {NO_MODEL}, in 'vector'")
    if query.match_terms is not None:
        raise InvalidRequest(f"'match_terms' cannot be searched by: {NO_MODEL}, in 'vector'")
    if body.rerank is not None:
        raise InvalidRequest("'rerank' is not supported: no reranking model is configured")
    vector = query.vector or RecordsVectorBody()
    dense = dense_values(dense_bytes(vector.values)) if vector.values else None
    return Question(
        query.top_k,
        vector=dense,
        id=query.id,
        sparse=_sparse(vector),
        where=None if query.filter is None else parse_filter(query.filter),
        include_metadata=not is_bare,
    )


def _sparse(vector: RecordsVectorBody) -> Sparse | None:
    if vector.sparse_values is None and vector.sparse_indices is None:
        return None
    return make_sparse(vector.sparse_indices or [], vector.sparse_values or [])


def _fields(record: Record | None, names: Sequence[str]) -> dict[str, object]:
    if record is None:
        return {}
    kept: dict[str, object] = dict(metadata_document(record.metadata))
    return kept if EVERY_FIELD in names else {name: kept[name] for name in names if name in kept}
