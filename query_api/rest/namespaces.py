"""Routes of the namespaces of an index: snake_case, unlike the vectors, as the hosted service has them."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request, Response

from query_api.reads import NamespaceInfo, Reads
from query_api.rest.exchange import Call, read_headers, wanted_of, write_context, write_headers
from query_api.rest.models import CreateNamespaceBody, parsed
from query_api.rest.pages import page_token, read_page_token
from query_api.rest.routing import body_of, call_of, documented, json_answer
from query_api.writes import Writes
from schemas.index_fields import inherited_schema
from schemas.limits import LIST_LIMIT_MAX
from schemas.namespaces import canonical_schema

__all__ = ["namespaces_router"]

# From this API version on, counts are decimal strings.
_STRING_COUNTS_SINCE = "2026-07"


def namespaces_router(reads: Reads, writes: Writes) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["namespaces"])

    @router.get("/namespaces", summary="List namespaces with their record counts")
    async def list_namespaces(
        request: Request,
        prefix: Annotated[str | None, Query()] = None,
        limit: Annotated[int, Query()] = LIST_LIMIT_MAX,
        paginationToken: Annotated[str | None, Query()] = None,  # noqa: N803 - the wire's spelling
    ) -> Response:
        call = call_of(request)
        after: str | None = None
        if paginationToken:
            prefix, after = read_page_token(paginationToken, prefix)
        page, shown = await reads.list_namespaces(
            call.index, wanted_of(call.headers), prefix=prefix or "", after=after, limit=limit
        )
        answer: dict[str, object] = {
            "namespaces": [_described(call, info) for info in page.namespaces],
            "total_count": page.total,
        }
        if page.after is not None:
            answer["pagination"] = {"next": page_token(prefix or "", page.after)}
        return json_answer(answer, read_headers(shown))

    @router.post("/namespaces", summary="Create an empty namespace", **documented(body="CreateNamespaceBody"))
    async def create_namespace(request: Request) -> Response:
        body = parsed(CreateNamespaceBody, await body_of(request))
        call = call_of(request)
        schema = canonical_schema(body.namespace_schema)
        written = await writes.create_namespace(call.index, body.name, schema, write_context(call.headers))
        return json_answer(_described(call, NamespaceInfo(body.name, 0, schema)), write_headers(written))

    @router.get("/namespaces/{name:path}", summary="Describe a namespace")
    async def describe_namespace(request: Request, name: str) -> Response:
        call = call_of(request)
        info, shown = await reads.describe_namespace(call.index, name, wanted_of(call.headers))
        return json_answer(_described(call, info), read_headers(shown))

    @router.delete("/namespaces/{name:path}", summary="Delete a namespace with its records")
    async def delete_namespace(request: Request, name: str) -> Response:
        call = call_of(request)
        written = await writes.delete_namespace(call.index, name, write_context(call.headers))
        return json_answer({}, write_headers(written))

    return router


def _described(call: Call, info: NamespaceInfo) -> dict[str, object]:
    count: int | str = str(info.records) if call.api_version >= _STRING_COUNTS_SINCE else info.records
    described: dict[str, object] = {"name": info.name, "record_count": count}
    schema = info.schema or inherited_schema(call.index.spec)
    if schema:
        described["schema"] = orjson.Fragment(schema)
        described["indexed_fields"] = {"fields": list(orjson.loads(schema)["fields"])}
    return described
