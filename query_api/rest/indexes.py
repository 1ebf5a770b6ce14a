"""Routes of the control plane: indexes, and the answers that clients expect where there is nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from fastapi import APIRouter, Depends, Request, Response

from producer.catalog import Catalog
from query_api.access import granted
from query_api.rest.index_bodies import describe_index, event_of_configure, refuse_model, spec_of_create
from query_api.rest.models import CreateCollectionBody, parsed
from query_api.rest.routing import body_of, control_only, documented, json_answer
from query_api.served import Served
from schemas.backups import RestoreStatus
from schemas.catalog_events import check_index_name
from schemas.errors import InvalidRequest, LogUnavailable, NotFound, OutcomeUnknown, Unavailable
from schemas.indexes import IndexSpec, VectorType

__all__ = ["ControlPlane", "indexes_router"]

_log = structlog.get_logger(__name__)
# Clients of earlier versions, and those that send none, cannot read a listing with an index that has no dimension.
_SPARSE_SINCE = "2025-01"
# From here on a field that a configure does not know is refused.
_STRICT_SINCE = "2026-07"


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """What the control plane works with; `host_of` says where clients reach an index."""

    catalog: Catalog
    served: Served
    host_of: Callable[[IndexSpec], str]
    ports: Sequence[int]
    partitions: int

    def described(self, spec: IndexSpec) -> dict[str, object]:
        """Return the index as clients see it."""
        job = self.catalog.backups.partial(spec.index_id)
        return describe_index(
            spec,
            host=self.host_of(spec),
            is_ready=self.served.is_open(spec),
            has_failed=job is not None and job.status is RestoreStatus.FAILED,
        )

    async def catch_up(self) -> None:
        """Read the catalog to its end, where another process may have changed it; else what is known is shown."""
        # The log does not answer: indexes are found without it.
        with contextlib.suppress(LogUnavailable, OutcomeUnknown):
            await self.catalog.refresh()

    async def living(self, name: str) -> IndexSpec:
        """Return the index as of now. Raises `NotFound`; `LogUnavailable` where that can't be known."""
        await self.catch_up()
        try:
            return self.catalog.get(name)
        except NotFound:
            await self.catalog.refresh()
            return self.catalog.get(name)

    async def open(self, spec: IndexSpec) -> None:
        """Open the index here; where the log does not answer, `status.ready` says so, and the follower tries again.

        One that is being restored stays closed until it is whole.
        """
        if self.served.is_partial(spec):
            return
        try:
            await self.served.get(spec)
        except Unavailable as error:
            _log.warning("index.not_opened", index=spec.name, reason=error.message)


def indexes_router(control: ControlPlane) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["indexes"], dependencies=[Depends(control_only)])

    @router.get("/indexes", summary="List indexes")
    async def list_indexes(request: Request) -> Response:
        knows_sparse = request.headers.get("x-pinecone-api-version", "") >= _SPARSE_SINCE
        await control.catch_up()
        specs = [
            spec
            for spec in control.catalog.list()
            if granted().reaches(spec.name) and (knows_sparse or spec.vector_type is VectorType.DENSE)
        ]
        return json_answer({"indexes": [control.described(spec) for spec in specs]})

    @router.post(
        "/indexes",
        summary="Create an index; both generations of bodies",
        status_code=201,
        **documented(body="CreateIndexBody"),
    )
    async def create_index(request: Request) -> Response:
        wanted = spec_of_create(await body_of(request), partitions=control.partitions)
        spec = await control.catalog.create(wanted, control.ports)
        await control.open(spec)
        return json_answer(control.described(spec), status=201)

    @router.get("/indexes/{name}", summary="Describe an index")
    async def describe(name: str) -> Response:
        spec = await control.living(name)
        await control.open(spec)
        return json_answer(control.described(spec))

    @router.delete("/indexes/{name}", summary="Delete an index, its log and its snapshots", status_code=202)
    async def delete_index(name: str) -> Response:
        await control.catalog.delete(name)
        return Response(status_code=202)

    @router.patch(
        "/indexes/{name}",
        summary="Change tags, deletion protection, recall target or the wait of writes of an index",
        **documented(body="ConfigureIndexBody"),
    )
    async def configure_index(name: str, request: Request) -> Response:
        spec = await control.living(name)
        is_strict = request.headers.get("x-pinecone-api-version", "") >= _STRICT_SINCE
        event = event_of_configure(spec, await body_of(request), is_strict=is_strict)
        return json_answer(control.described(await control.catalog.configure(event)))

    @router.post(
        "/indexes/create-for-model",
        summary="Refused: no embedding model is configured",
        **documented(body="CreateForModelBody"),
    )
    async def create_for_model(request: Request) -> Response:
        refuse_model(await body_of(request))

    _add_collections(router, control)
    return router


def _add_collections(router: APIRouter, control: ControlPlane) -> None:
    @router.get("/collections", summary="Collections: always none")
    async def list_collections() -> Response:
        return json_answer({"collections": []})

    @router.post(
        "/collections", summary="Refused: there are no pods to collect", **documented(body="CreateCollectionBody")
    )
    async def create_collection(request: Request) -> Response:
        body = parsed(CreateCollectionBody, await body_of(request), is_control=True)
        check_index_name(body.name)
        spec = await control.living(body.source)
        raise InvalidRequest(f"Index {spec.name} is not made of pods, which collections are for: make a backup of it")

    @router.get("/collections/{name}", summary="Describe a collection: there is none")
    async def describe_collection(name: str) -> Response:
        raise NotFound(f"Resource {name} not found", name=name)

    @router.delete("/collections/{name}", summary="Delete a collection: there is none")
    async def delete_collection(name: str) -> Response:
        raise NotFound(f"Resource {name} not found", name=name)
