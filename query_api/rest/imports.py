"""Routes of bulk imports, as the hosted service has them, with what it does not say: bad rows and ignored columns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from producer.imports import ImportJob
from query_api.imports.service import Imports
from query_api.rest.exchange import Call
from query_api.rest.models import StartImportBody, parsed
from query_api.rest.pages import page_token, read_page_token
from query_api.rest.routing import body_of, call_of, documented, json_answer
from schemas.errors import InvalidRequest
from schemas.limits import LIST_LIMIT_MAX

__all__ = ["imports_router"]

# From this API version on, an import says how many of its records failed.
_RESULT_SINCE = "2026-07"
# Tokens of other listings are not ours.
_PREFIX = "import"


def imports_router(imports: Imports) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["imports"])

    @router.post("/bulk/imports", summary="Import Parquet files", **documented(body="StartImportBody"))
    async def start_import(request: Request) -> Response:
        call = call_of(request)
        body = parsed(StartImportBody, await body_of(request))
        on_error = "abort" if body.error_mode is None else body.error_mode.on_error
        job = await imports.start(call.index, body.uri, on_error, body.integration_id or "")
        return json_answer({"id": job.start.id})

    @router.get("/bulk/imports", summary="List imports, newest first")
    async def list_imports(
        request: Request,
        limit: Annotated[int, Query()] = LIST_LIMIT_MAX,
        paginationToken: Annotated[str | None, Query()] = None,  # noqa: N803 - the wire's spelling
    ) -> Response:
        call = call_of(request)
        if not 1 <= limit <= LIST_LIMIT_MAX:
            raise InvalidRequest(f"limit must be 1 to {LIST_LIMIT_MAX}, got {limit}", limit=LIST_LIMIT_MAX)
        after = read_page_token(paginationToken, _PREFIX)[1] if paginationToken else None
        page, following = await imports.page(call.index, after=after, limit=limit)
        answer: dict[str, object] = {"data": [_described(call, job) for job in page]}
        if following is not None:
            answer["pagination"] = {"next": page_token(_PREFIX, following)}
        return json_answer(answer)

    @router.get("/bulk/imports/{id}", summary="Describe an import")
    async def describe_import(request: Request, id: str) -> Response:
        call = call_of(request)
        return json_answer(_described(call, await imports.get(call.index, id)))

    @router.delete("/bulk/imports/{id}", summary="Cancel an import")
    async def cancel_import(request: Request, id: str) -> Response:
        call = call_of(request)
        await imports.cancel(call.index, id)
        return json_answer({})

    return router


def _described(call: Call, job: ImportJob) -> dict[str, object]:
    progress = job.progress
    described: dict[str, object] = {
        "id": job.start.id,
        "uri": job.start.uri,
        "status": job.status,
        "createdAt": _time(job.start.created_ms),
        "percentComplete": round(100 * progress.share, 2),
        "recordsImported": progress.imported,
    }
    if job.end is not None:
        described["finishedAt"] = _time(job.end.finished_ms)
        if job.end.error:
            described["error"] = job.end.error
    if call.headers.get(b"x-pinecone-api-version", b"").decode("latin-1") >= _RESULT_SINCE:
        described["validationResult"] = {"importErrors": progress.bad, "importSuccesses": progress.imported}
    described["onError"] = job.start.on_error
    described["badRows"] = progress.bad
    if progress.sample:
        described["badRowSample"] = [
            {"file": bad.file, "row": bad.row, "reason": bad.reason} for bad in progress.sample
        ]
    if progress.ignored_columns:
        described["ignoredColumns"] = list(progress.ignored_columns)
    return described


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
