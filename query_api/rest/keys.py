"""Routes of the control plane for API keys. A key is shown once, in the answer to its creation."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from fastapi import APIRouter, Depends, Request, Response

from producer.catalog import Catalog
from producer.keys import create_key, new_key, revoke_key
from query_api.rest.models import CreateKeyBody, parsed
from query_api.rest.rights import is_local_socket
from query_api.rest.routing import body_of, control_only, documented, json_answer
from schemas.errors import Forbidden
from schemas.keys import described_key, parse_role

__all__ = ["keys_router"]


def keys_router(catalog: Catalog, clock_ms: Callable[[], int]) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["keys"], dependencies=[Depends(control_only)])

    @router.get("/keys", summary="List API keys; the keys themselves are not kept")
    async def list_keys() -> Response:
        await catalog.refresh()
        return json_answer({"keys": [described_key(key) for key in catalog.keys.values()]})

    @router.post(
        "/keys",
        summary="Make an API key; this answer alone shows it",
        status_code=201,
        **documented(body="CreateKeyBody"),
    )
    async def make_key(request: Request) -> Response:
        wanted = parsed(CreateKeyBody, await body_of(request), is_control=True)
        key, kept = new_key(
            parse_role(wanted.role),
            indexes=tuple(wanted.indexes),
            namespaces=tuple(wanted.namespaces),
            label=wanted.label,
            created_ms=clock_ms(),
        )
        await catalog.refresh()
        if not catalog.keys and not _is_from_here(request):
            raise Forbidden(
                "The first key is made on the machine of the server itself: whoever made it from elsewhere would own "
                "everything. Run `freshet keys create` there."
            )
        made = await create_key(catalog, kept)
        return json_answer({"key": key, **described_key(made)}, {"cache-control": "no-store"}, 201)

    @router.delete("/keys/{key_id}", summary="Revoke an API key")
    async def take_key(key_id: str) -> Response:
        return json_answer({"revoked": (await revoke_key(catalog, key_id)).id})

    return router


def _is_from_here(request: Request) -> bool:
    """Say whether a request came from this machine."""
    if is_local_socket(request.scope):
        return True
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
