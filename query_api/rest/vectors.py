"""Routes of the vectors of an index. The hot three stand here for the document; `app` serves them before this."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from query_api.access import granted
from query_api.commands import deletions, required_filter, update_of
from query_api.documents import check_vectors_index, holds_documents
from query_api.engine_stats import engine_stats
from query_api.matching import RecordPage
from query_api.reads import IdPage, Reads
from query_api.rest.decode import sparse_of
from query_api.rest.encode import encode_fetch
from query_api.rest.exchange import Call, read_headers, visible_fields, wanted_of, write_context, write_headers
from query_api.rest.hot import HotRoutes
from query_api.rest.models import DeleteBody, FetchByMetadataBody, StatsBody, UpdateBody, parsed
from query_api.rest.pages import filter_page_token, page_token, read_filter_page_token, read_page_token
from query_api.rest.routing import answer_of, body_of, call_of, documented, json_answer
from query_api.writes import Writes
from schemas.errors import InvalidRequest
from schemas.filters import filter_to_json, parse_filter
from schemas.indexes import VectorType
from schemas.limits import FETCH_MATCHING_DEFAULT, LIST_LIMIT_MAX
from schemas.metadata import canonical_metadata
from schemas.operations import Update, UpdateWhere
from schemas.records import dense_bytes

__all__ = ["vectors_router"]


def vectors_router(reads: Reads, writes: Writes, hot: HotRoutes) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["vectors"])
    _add_hot(router, hot)

    @router.post(
        "/vectors/update",
        summary="Update a record, or the metadata of all that match a filter",
        **documented(body="UpdateBody"),
    )
    async def update(request: Request) -> Response:
        body = parsed(UpdateBody, await body_of(request))
        call = call_of(request)
        check_vectors_index(call.index.spec)
        if body.filter is not None:
            return await _update_where(reads, writes, call, body)
        written = await writes.append(call.index, body.namespace or "", [_update(body)], write_context(call.headers))
        return json_answer(visible_fields(written), write_headers(written))

    @router.post(
        "/vectors/delete",
        summary="Delete records by id, by filter, or all of a namespace",
        **documented(body="DeleteBody"),
    )
    async def delete(request: Request) -> Response:
        body = parsed(DeleteBody, await body_of(request))
        return await _delete(writes, call_of(request), body)

    @router.delete("/vectors/delete", summary="The same with query parameters")
    async def delete_by_parameters(
        request: Request,
        ids: Annotated[list[str] | None, Query()] = None,
        deleteAll: Annotated[bool | None, Query()] = None,  # noqa: N803 - the wire's spelling
        namespace: Annotated[str, Query()] = "",
    ) -> Response:
        body = DeleteBody(ids=ids, deleteAll=deleteAll, namespace=namespace)
        return await _delete(writes, call_of(request), body)

    _add_questions(router, reads)
    return router


def _add_questions(router: APIRouter, reads: Reads) -> None:
    @router.get("/vectors/list", summary="List ids by prefix, in pages")
    async def list_ids(
        request: Request,
        prefix: Annotated[str | None, Query()] = None,
        limit: Annotated[int, Query()] = LIST_LIMIT_MAX,
        paginationToken: Annotated[str | None, Query()] = None,  # noqa: N803
        namespace: Annotated[str, Query()] = "",
    ) -> Response:
        call = call_of(request)
        after: str | None = None
        if paginationToken:
            prefix, after = read_page_token(paginationToken, prefix)
        page, shown = await reads.list_ids(
            call.index, namespace, wanted_of(call.headers), prefix=prefix or "", after=after, limit=limit
        )
        if holds_documents(call.index.spec):
            page = IdPage([], None)
        answer: dict[str, object] = {"vectors": [{"id": name} for name in page.ids]}
        if page.after is not None:
            answer["pagination"] = {"next": page_token(prefix or "", page.after)}
        answer |= {"namespace": namespace, "usage": {"readUnits": 1}}
        return json_answer(answer, read_headers(shown))

    @router.post(
        "/vectors/fetch_by_metadata",
        summary="Fetch the records that match a filter, in pages by id",
        **documented(body="FetchByMetadataBody", answer="FetchByMetadataAnswer"),
    )
    async def fetch_by_metadata(request: Request) -> Response:
        return await _fetch_by_metadata(reads, call_of(request), parsed(FetchByMetadataBody, await body_of(request)))

    @router.post(
        "/describe_index_stats",
        summary="Record counts, and the freshness of every partition",
        **documented(body="StatsBody"),
    )
    async def describe_index_stats(request: Request) -> Response:
        body = parsed(StatsBody, await body_of(request)) if await request.body() else StatsBody()
        if body.filter not in (None, {}):
            raise InvalidRequest("Describing index statistics with a metadata filter is not supported")
        return await _stats(reads, call_of(request), body.consistency)

    @router.get("/describe_index_stats", summary="The same without a body")
    async def describe_index_stats_of(request: Request) -> Response:
        return await _stats(reads, call_of(request), None)


def _add_hot(router: APIRouter, hot: HotRoutes) -> None:
    @router.post(
        "/vectors/upsert",
        summary="Upsert records; answered when durable, or when visible",
        **documented(body="UpsertBody", answer="UpsertAnswer"),
    )
    async def upsert(request: Request) -> Response:
        return answer_of(await hot.upsert(call_of(request, await request.body())))

    @router.post(
        "/query",
        summary="Find the nearest records of a namespace",
        **documented(body="QueryBody", answer="QueryAnswer"),
    )
    async def query(request: Request) -> Response:
        return answer_of(await hot.query(call_of(request, await request.body())))

    @router.get("/vectors/fetch", summary="Fetch records by id", **documented(answer="FetchAnswer"))
    async def fetch(
        request: Request,
        ids: Annotated[list[str] | None, Query()] = None,  # noqa: ARG001 - for the document; the route decodes itself
        namespace: Annotated[str, Query()] = "",  # noqa: ARG001
    ) -> Response:
        return answer_of(await hot.fetch(call_of(request)))


async def _fetch_by_metadata(reads: Reads, call: Call, body: FetchByMetadataBody) -> Response:
    where = None if body.filter is None else parse_filter(body.filter)
    after = None
    if body.pagination_token and where is not None:
        after = read_filter_page_token(body.pagination_token, where)
    limit = FETCH_MATCHING_DEFAULT if body.limit is None else body.limit
    namespace = body.namespace or ""
    wanted = wanted_of(call.headers, body.consistency)
    page, shown = await reads.fetch_by_metadata(call.index, namespace, where, wanted, after=after, limit=limit)
    if holds_documents(call.index.spec):
        page = RecordPage({}, None)
    next_page = None if where is None or page.after is None else filter_page_token(where, page.after)
    encoded = await asyncio.to_thread(
        encode_fetch, page.records, namespace, asked=len(page.records), next_page=next_page
    )
    return Response(encoded, 200, read_headers(shown), media_type="application/json")


def _update(body: UpdateBody) -> Update:
    return update_of(
        body.id,
        values=dense_bytes(body.values),
        sparse=sparse_of(body.sparse_values, "sparseValues"),
        set_metadata=body.set_metadata,
        dry_run=bool(body.dry_run),
    )


async def _update_where(reads: Reads, writes: Writes, call: Call, body: UpdateBody) -> Response:
    """Update by filter; an `id` beside it is dropped, as the hosted service does."""
    where = required_filter(body.filter, "Update with empty metadata filter is not allowed")
    if body.values or body.sparse_values:
        raise InvalidRequest("Update by metadata filter can set metadata only, not values")
    namespace = body.namespace or ""
    set_metadata = canonical_metadata(body.set_metadata)
    if body.dry_run:
        matched, shown = await reads.count_matching(call.index, namespace, where, wanted_of(call.headers))
        return json_answer({"matchedRecords": matched}, read_headers(shown))
    event = UpdateWhere(filter_to_json(where), set_metadata)
    matched, written = await writes.update_where(call.index, namespace, event, write_context(call.headers))
    return json_answer({"matchedRecords": matched, **visible_fields(written)}, write_headers(written))


async def _delete(writes: Writes, call: Call, body: DeleteBody) -> Response:
    check_vectors_index(call.index.spec)
    events = deletions(body.ids, is_all=bool(body.delete_all), where=body.filter)
    written = await writes.delete(call.index, body.namespace or "", events, write_context(call.headers))
    return json_answer(visible_fields(written), write_headers(written))


async def _stats(reads: Reads, call: Call, consistency: object) -> Response:
    stats, shown = await reads.stats(call.index, wanted_of(call.headers, consistency))
    spec = call.index.spec
    partitions = [
        {
            "partition": one.partition,
            "logEnd": one.log_end,
            "applied": one.applied,
            "lagEvents": None if one.log_end is None else one.log_end - one.applied,
            "lagSeconds": one.lag_seconds,
            "snapshotVersion": one.snapshot.version,
            "segments": one.snapshot.segments,
            "tailRows": one.snapshot.tail_rows,
            "graphRowsPerSecond": one.graph_rows_per_second,
            "deadLetters": one.snapshot.dead_letters,
            "engine": engine_stats(one.snapshot),
        }
        for one in stats.freshness
    ]
    body: dict[str, object] = {
        "namespaces": {name: {"vectorCount": count} for name, count in sorted(stats.namespaces.items())},
        "indexFullness": stats.fullness,
        "totalVectorCount": sum(stats.namespaces.values()),
        "metric": spec.metric.value,
        "vectorType": spec.vector_type.value,
        "memoryFullness": 0,
        "storageFullness": 0,
        "freshness": {
            "logId": spec.log_id,
            # The log of all indexes: none of the business of a key that does not reach them.
            "logBytes": None if granted().is_scoped else call.index.log_bytes(),
            "recallTarget": spec.recall_target,
            "partitions": partitions,
        },
    }
    if spec.vector_type is VectorType.DENSE:
        body["dimension"] = spec.dimension
    return json_answer(body, read_headers(shown))
