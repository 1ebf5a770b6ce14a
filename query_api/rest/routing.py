"""What the framework's routes share: the index of a request, its body, its answer."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Request, Response

from query_api.rest.decode import INLINE_BYTES_MAX, json_object
from query_api.rest.encode import encode
from query_api.rest.exchange import Answer, Call
from query_api.served import ServedIndex
from schemas.errors import NotFound

__all__ = ["INDEX_KEY", "answer_of", "body_of", "call_of", "control_only", "documented", "json_answer"]

# Where the addressing leaves the index in the ASGI scope.
INDEX_KEY = "freshet.index"


def call_of(request: Request, body: bytes = b"") -> Call:
    """Return the request in the form of the hot routes. Raises `NotFound` where it addresses no index."""
    index = request.scope.get(INDEX_KEY)
    if not isinstance(index, ServedIndex):
        raise NotFound(
            f"Route {request.method} {request.url.path} is one of an index: reach it by its own port, "
            "by the path /i/<index>/..., or by a host name whose first label is the index."
        )
    return Call(index, dict(request.scope["headers"]), request.scope["query_string"], body)


def control_only(request: Request) -> None:
    """Raise `NotFound` for a control-plane route that is asked of an index."""
    if request.scope.get(INDEX_KEY) is not None:
        raise NotFound(f"Route {request.method} {request.url.path} is one of the control plane, not of an index.")


async def body_of(request: Request) -> dict[str, object]:
    """Return the body as a JSON object, whatever its content type. Raises `InvalidRequest`."""
    body = await request.body()
    return json_object(body) if len(body) <= INLINE_BYTES_MAX else await asyncio.to_thread(json_object, body)


def answer_of(answer: Answer) -> Response:
    """Return a hot route's answer as the framework's."""
    return Response(answer.body, answer.status, answer.headers, media_type="application/json")


def json_answer(body: dict[str, object], headers: dict[str, str] | None = None, status: int = 200) -> Response:
    """Return a JSON response; float32 arrays as their shortest decimals."""
    return Response(encode(body), status, headers, media_type="application/json")


def documented(*, body: str | None = None, answer: str | None = None) -> dict[str, Any]:
    """Return what the OpenAPI document says of a route whose body we decode ourselves; names of models."""
    extra: dict[str, Any] = {}
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body}"}
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if answer is not None:
        schema = {"$ref": f"#/components/schemas/{answer}"}
        extra["responses"] = {
            "200": {"description": "Successful Response", "content": {"application/json": {"schema": schema}}}
        }
    return {"openapi_extra": extra}
