"""Routes of backups and restore jobs, as the hosted service has them since API 2025-04."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response

from producer.backups import BackupCommands
from producer.log.protocol import Log
from query_api.rest.index_bodies import cloud_of, fields_of, spec_of_restore
from query_api.rest.indexes import ControlPlane
from query_api.rest.models import CreateBackupBody, parsed
from query_api.rest.routing import body_of, control_only, documented, json_answer
from schemas.backups import Backup, RestoreJob
from schemas.errors import InvalidRequest
from schemas.indexes import IndexSpec, VectorType
from schemas.limits import LIST_LIMIT_MAX

__all__ = ["backups_router"]

_Item = TypeVar("_Item")
# Backups or jobs on a page where no limit is given (Pinecone).
_PAGE = 10
# Before, a schema of fields with types breaks the client.
_TYPED_SCHEMA_SINCE = "2026-07"
_Limit = Annotated[int, Query()]
_Token = Annotated[str | None, Query()]


def backups_router(control: ControlPlane, open_log: Callable[[IndexSpec], Awaitable[Log]]) -> APIRouter:
    """Return the routes; `open_log` tells where the log of an index ends when a backup is asked for."""
    router = APIRouter(tags=["backups"], dependencies=[Depends(control_only)])
    commands = BackupCommands(control.catalog)
    _add_of_index(router, control, commands, open_log)

    @router.get("/backups", summary="List all backups, oldest first")
    async def list_backups(request: Request, limit: _Limit = _PAGE, paginationToken: _Token = None) -> Response:  # noqa: N803 - the wire's spelling
        await control.catch_up()
        found = [(_key(one.created_ms, one.backup_id), one) for one in control.catalog.backups.backups()]
        page, pagination = _page(found, limit, paginationToken)
        return json_answer({"data": [_backup(one, request) for one in page], **pagination})

    @router.get("/backups/{backup_id}", summary="Describe a backup")
    async def describe_backup(request: Request, backup_id: str) -> Response:
        await control.catch_up()
        return json_answer(_backup(control.catalog.backups.backup(backup_id), request))

    @router.delete("/backups/{backup_id}", summary="Delete a backup, and what only it holds", status_code=202)
    async def delete_backup(backup_id: str) -> Response:
        await commands.delete(backup_id)
        return Response(status_code=202)

    @router.post(
        "/backups/{backup_id}/create-index",
        summary="Make a new index from a backup",
        status_code=202,
        **documented(body="RestoreBackupBody"),
    )
    async def restore_backup(request: Request, backup_id: str) -> Response:
        document = await body_of(request)
        await control.catch_up()
        backup = control.catalog.backups.backup(backup_id)
        target = spec_of_restore(backup.source, backup_id, document)
        job = await commands.restore(backup_id, target, control.ports)
        return json_answer({"restore_job_id": job.job_id, "index_id": job.target.index_id}, status=202)

    @router.get("/restore-jobs", summary="List restore jobs, oldest first")
    async def list_restore_jobs(limit: _Limit = _PAGE, paginationToken: _Token = None) -> Response:  # noqa: N803 - the wire's spelling
        await control.catch_up()
        found = [(_key(one.created_ms, one.job_id), one) for one in control.catalog.backups.jobs()]
        page, pagination = _page(found, limit, paginationToken)
        return json_answer({"data": [_job(one) for one in page], **pagination})

    @router.get("/restore-jobs/{job_id}", summary="Describe a restore job with its progress")
    async def describe_restore_job(job_id: str) -> Response:
        await control.catch_up()
        return json_answer(_job(control.catalog.backups.job(job_id)))

    return router


def _add_of_index(
    router: APIRouter,
    control: ControlPlane,
    commands: BackupCommands,
    open_log: Callable[[IndexSpec], Awaitable[Log]],
) -> None:
    @router.post(
        "/indexes/{name}/backups",
        summary="Back up an index as it is now",
        status_code=201,
        **documented(body="CreateBackupBody"),
    )
    async def create_backup(request: Request, name: str) -> Response:
        body = parsed(CreateBackupBody, await body_of(request) if await request.body() else {}, is_control=True)
        spec = await control.living(name)
        control.catalog.backups.check_whole(spec)
        ends = await (await open_log(spec)).ends()
        made = await commands.create(spec, ends, name=body.name or "", description=body.description or "")
        return json_answer(_backup(made, request), status=201)

    @router.get("/indexes/{name}/backups", summary="List the backups of an index, oldest first")
    async def list_backups_of_index(
        request: Request,
        name: str,
        limit: _Limit = _PAGE,
        paginationToken: _Token = None,  # noqa: N803 - the wire's spelling
        *,
        include_deleted: bool = False,
    ) -> Response:
        if include_deleted:
            await control.catch_up()
            chosen = [one for one in control.catalog.backups.backups() if one.source.name == name]
        else:
            chosen = list(control.catalog.backups.of_index((await control.living(name)).index_id))
        page, pagination = _page([(_key(one.created_ms, one.backup_id), one) for one in chosen], limit, paginationToken)
        return json_answer({"data": [_backup(one, request) for one in page], **pagination})


def _backup(backup: Backup, request: Request) -> dict[str, object]:
    source = backup.source
    settings = orjson.loads(source.settings)
    cloud, region = cloud_of(source)
    described: dict[str, object] = {
        "backup_id": backup.backup_id,
        "source_index_name": source.name,
        "source_index_id": source.index_id,
        "status": backup.status.value,
        "cloud": cloud,
        "region": region,
        "metric": source.metric.value,
        "record_count": backup.records,
        "namespace_count": sum(pin.namespaces for pin in backup.pins.values()),
        "size_bytes": sum(pin.size_bytes for pin in backup.pins.values()),
        "created_at": _time(backup.created_ms),
    }
    if source.vector_type is not VectorType.SPARSE:
        described["dimension"] = source.dimension
    if backup.name:
        described["name"] = backup.name
    if backup.description:
        described["description"] = backup.description
    if settings.get("tags"):
        described["tags"] = settings["tags"]
    if backup.source_deleted_ms:
        described["source_index_deleted_at"] = _time(backup.source_deleted_ms)
    if request.headers.get("x-pinecone-api-version", "") >= _TYPED_SCHEMA_SINCE:
        described["schema"] = {"fields": fields_of(source)}
    return described


def _job(job: RestoreJob) -> dict[str, object]:
    described: dict[str, object] = {
        "restore_job_id": job.job_id,
        "backup_id": job.backup.backup_id,
        "target_index_name": job.target.name,
        "target_index_id": job.target.index_id,
        "status": job.status.value,
        "created_at": _time(job.created_ms),
        "percent_complete": job.percent_complete,
    }
    if job.completed_ms:
        described["completed_at"] = _time(job.completed_ms)
    if job.reason:
        described["error"] = job.reason
    return described


def _time(ms: int) -> str:
    """Return milliseconds since 1970 as RFC 3339."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _key(created_ms: int, name: str) -> str:
    """Return the place in a listing: by age, digits for every time that there will be."""
    return f"{created_ms:015d}.{name}"


def _page(
    found: Sequence[tuple[str, _Item]], limit: int, token: str | None
) -> tuple[list[_Item], dict[str, dict[str, str]]]:
    """Return one page of `found` and, where more remains, what continues it; a token carries the size of its pages.

    Raises `InvalidRequest` for a limit out of range and a token that is not ours.
    """
    after = ""
    if token:
        limit, after = _read_token(token, limit)
    if not 1 <= limit <= LIST_LIMIT_MAX:
        raise InvalidRequest(f"Limit must be 1 to {LIST_LIMIT_MAX}, got {limit}", limit=LIST_LIMIT_MAX)
    rest = sorted((item for item in found if item[0] > after), key=lambda item: item[0])
    page = rest[:limit]
    if len(rest) <= limit:
        return [item for _, item in page], {}
    token = base64.urlsafe_b64encode(orjson.dumps({"limit": limit, "skip_past": page[-1][0]})).decode()
    return [item for _, item in page], {"pagination": {"next": token}}


def _read_token(token: str, limit: int) -> tuple[int, str]:
    """Return the size of the pages and the place to begin after. A limit that is given beside a token counts."""
    try:
        fields = orjson.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
        size, after = fields["limit"], fields["skip_past"]
    except (binascii.Error, orjson.JSONDecodeError, UnicodeEncodeError, KeyError, TypeError) as error:
        raise InvalidRequest(f"Invalid pagination token {token[:80]!r}") from error
    if type(size) is not int or not isinstance(after, str):
        raise InvalidRequest(f"Invalid pagination token {token[:80]!r}")
    return size if limit == _PAGE else limit, after
