"""Routes of documents (API 2026-07): an index whose schema names its own vector fields."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from fastapi import APIRouter, Request, Response

from query_api.documents import (
    EVERY_FIELD,
    document_of,
    document_updates,
    document_upserts,
    fields_of_documents,
    match_document,
    score_question,
    set_where,
)
from query_api.reads import Reads
from query_api.rest.document_models import (
    DeleteDocumentsBody,
    FetchDocumentsBody,
    ListDocumentsBody,
    SearchDocumentsBody,
    UpdateDocumentsBody,
    UpsertDocumentsBody,
)
from query_api.rest.exchange import Call, read_headers, visible_fields, wanted_of, write_context, write_headers
from query_api.rest.models import parsed
from query_api.rest.pages import filter_page_token, page_token, read_filter_page_token, read_page_token
from query_api.rest.routing import body_of, call_of, documented, json_answer
from query_api.writes import Writes
from schemas.errors import InvalidRequest
from schemas.filters import Filter, filter_to_json, parse_filter
from schemas.index_fields import IndexFields
from schemas.limits import BATCH_RECORDS_MAX, FETCH_MATCHING_DEFAULT, LIST_LIMIT_MAX
from schemas.operations import Delete, DeleteNamespace, DeleteWhere, Event
from schemas.records import Record, check_id

__all__ = ["documents_router"]

_PATH = "/namespaces/{namespace:path}/documents/"
# Put together on the event loop itself: about a fifth of a millisecond.
_INLINE_BYTES_MAX = 64 * 1024
_T = TypeVar("_T")


def documents_router(reads: Reads, writes: Writes) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["documents"])

    @router.post(
        _PATH + "upsert",
        summary="Upsert documents; answered when durable, or when visible",
        **documented(body="UpsertDocumentsBody", answer="UpsertDocumentsAnswer"),
    )
    async def upsert_documents(request: Request, namespace: str) -> Response:
        body = parsed(UpsertDocumentsBody, await body_of(request))
        call = call_of(request, await request.body())
        fields = fields_of_documents(call.index.spec)
        events = await _built(call, lambda: document_upserts(fields, body.documents))
        written = await writes.append(call.index, namespace, events, write_context(call.headers))
        return json_answer({"upserted_count": len(events), **visible_fields(written)}, write_headers(written))

    @router.post(
        _PATH + "update",
        summary="Set fields of documents, by id or of all that match a filter",
        **documented(body="UpdateDocumentsBody", answer="MatchedDocumentsAnswer"),
    )
    async def update_documents(request: Request, namespace: str) -> Response:
        body = parsed(UpdateDocumentsBody, await body_of(request))
        call = call_of(request, await request.body())
        return await _update(writes, call, namespace, body)

    @router.post(
        _PATH + "delete",
        summary="Delete documents by id, by filter, or all of a namespace",
        **documented(body="DeleteDocumentsBody", answer="MatchedDocumentsAnswer"),
    )
    async def delete_documents(request: Request, namespace: str) -> Response:
        body = parsed(DeleteDocumentsBody, await body_of(request))
        return await _delete(writes, call_of(request), namespace, body)

    _add_questions(router, reads)
    return router


def _add_questions(router: APIRouter, reads: Reads) -> None:
    @router.post(
        _PATH + "search",
        summary="Find the nearest documents of a namespace by one vector field",
        **documented(body="SearchDocumentsBody", answer="SearchDocumentsAnswer"),
    )
    async def search_documents(request: Request, namespace: str) -> Response:
        body = parsed(SearchDocumentsBody, await body_of(request))
        call = call_of(request)
        fields = fields_of_documents(call.index.spec)
        names = body.include_fields or ()
        where = None if body.filter is None else parse_filter(body.filter)
        question = score_question(fields, body.score_by, body.top_k, where, is_bare=not names)
        result, shown = await reads.query(call.index, namespace, question, wanted_of(call.headers))
        matches = [match_document(fields, match, names) for match in result.matches]
        answer: dict[str, object] = {"matches": matches, "namespace": namespace, "usage": {"read_units": 1}}
        return json_answer(answer, read_headers(shown))

    @router.post(
        _PATH + "fetch",
        summary="Fetch documents by id, or those that match a filter in pages",
        **documented(body="FetchDocumentsBody", answer="FetchDocumentsAnswer"),
    )
    async def fetch_documents(request: Request, namespace: str) -> Response:
        body = parsed(FetchDocumentsBody, await body_of(request))
        return await _fetch(reads, call_of(request), namespace, body)

    @router.post(
        _PATH + "list",
        summary="List ids of documents by prefix, in pages",
        **documented(body="ListDocumentsBody", answer="ListDocumentsAnswer"),
    )
    async def list_documents(request: Request, namespace: str) -> Response:
        body = parsed(ListDocumentsBody, await body_of(request))
        call = call_of(request)
        fields_of_documents(call.index.spec)
        prefix, after = body.prefix, None
        if body.pagination_token:
            prefix, after = read_page_token(body.pagination_token, prefix)
        limit = LIST_LIMIT_MAX if body.limit is None else body.limit
        page, shown = await reads.list_ids(
            call.index, namespace, wanted_of(call.headers), prefix=prefix or "", after=after, limit=limit
        )
        answer: dict[str, object] = {
            "documents": [{"_id": name} for name in page.ids],
            "namespace": namespace,
            "usage": {"read_units": 1},
        }
        if page.after is not None:
            answer["pagination"] = {"next": page_token(prefix or "", page.after)}
        return json_answer(answer, read_headers(shown))


async def _fetch(reads: Reads, call: Call, namespace: str, body: FetchDocumentsBody) -> Response:
    fields = fields_of_documents(call.index.spec)
    if (body.ids is None) == (body.filter is None):
        raise InvalidRequest("Fetch of documents needs one of 'ids' and 'filter'")
    wanted = wanted_of(call.headers)
    names = body.include_fields or (EVERY_FIELD,)
    if body.ids is not None:
        if body.pagination_token is not None:
            raise InvalidRequest("'pagination_token' goes with a 'filter', not with 'ids'")
        records, shown = await reads.fetch(call.index, namespace, body.ids, wanted)
        answer = await asyncio.to_thread(_fetched, fields, namespace, list(records.values()), names)
        return json_answer(answer, read_headers(shown))
    where = parse_filter(body.filter)
    after = None
    if body.pagination_token and where is not None:
        after = read_filter_page_token(body.pagination_token, where)
    limit = FETCH_MATCHING_DEFAULT if body.limit is None else body.limit
    page, shown = await reads.fetch_by_metadata(call.index, namespace, where, wanted, after=after, limit=limit)
    answer = await asyncio.to_thread(_fetched, fields, namespace, list(page.records.values()), names)
    if page.after is not None and where is not None:
        answer["pagination"] = {"next": filter_page_token(where, page.after)}
    return json_answer(answer, read_headers(shown))


def _fetched(fields: IndexFields, namespace: str, records: Sequence[Record], names: Sequence[str]) -> dict[str, object]:
    documents = {record.id: document_of(fields, record, names) for record in records}
    return {"documents": documents, "namespace": namespace, "usage": {"read_units": 1}}


async def _update(writes: Writes, call: Call, namespace: str, body: UpdateDocumentsBody) -> Response:
    fields = fields_of_documents(call.index.spec)
    context = write_context(call.headers)
    patched = body.documents
    if patched is not None:
        if body.filter is not None or body.set_fields or body.remove_fields:
            raise InvalidRequest("'documents' cannot be combined with 'filter', 'set_fields' or 'remove_fields'")
        events = await _built(call, lambda: document_updates(fields, patched))
        written = await writes.append(call.index, namespace, events, context)
        return json_answer(visible_fields(written), write_headers(written))
    where = _filter(body.filter, "Update of documents needs 'documents', or a 'filter' that is not empty")
    event = set_where(fields, filter_to_json(where), body.set_fields, body.remove_fields)
    matched, written = await writes.update_where(call.index, namespace, event, context)
    return json_answer({"matched_records": matched, **visible_fields(written)}, write_headers(written))


async def _delete(writes: Writes, call: Call, namespace: str, body: DeleteDocumentsBody) -> Response:
    fields_of_documents(call.index.spec)
    context = write_context(call.headers)
    if sum((bool(body.ids), body.filter is not None, bool(body.delete_all))) != 1:
        raise InvalidRequest("Delete of documents needs exactly one of 'ids' (not empty), 'filter' and 'delete_all'")
    if body.filter is not None:
        where = _filter(body.filter, "Delete with empty metadata filter is not allowed")
        event = DeleteWhere(filter_to_json(where))
        matched, written = await writes.delete_where(call.index, namespace, event, context)
        return json_answer({"matched_records": matched, **visible_fields(written)}, write_headers(written))
    events: list[Event] = [DeleteNamespace(keep=True)]
    if body.ids:
        if len(body.ids) > BATCH_RECORDS_MAX:
            raise InvalidRequest(
                f"Delete of {len(body.ids)} ids; the limit is {BATCH_RECORDS_MAX}: send several.",
                limit=BATCH_RECORDS_MAX,
            )
        for name in body.ids:
            check_id(name)
        events = [Delete(name) for name in body.ids]
    written = await writes.delete(call.index, namespace, events, context)
    return json_answer(visible_fields(written), write_headers(written))


def _filter(value: object, empty: str) -> Filter:
    where = None if value is None else parse_filter(value)
    if where is None:
        raise InvalidRequest(empty)
    return where


async def _built(call: Call, build: Callable[[], _T]) -> _T:
    """Build the events of a request; of a large one on a thread, so that others are served meanwhile."""
    if len(call.body) <= _INLINE_BYTES_MAX:
        return build()
    return await asyncio.to_thread(build)
