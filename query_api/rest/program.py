"""The ASGI program: address, body, then a hot route or the framework; every error in the words of its plane."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from producer.steps import Step, no_step
from query_api.access import EVERYTHING
from query_api.metrics import ApiMetrics
from query_api.rest.addressing import Addressing
from query_api.rest.errors import error_answer, speaks_control, status_of
from query_api.rest.exchange import Answer, Call, Receive, Scope, Send, header_dict
from query_api.rest.hot import HotRoutes
from query_api.rest.rights import Rights, is_health
from query_api.rest.routing import INDEX_KEY, answer_of
from query_api.served import Served, ServedIndex
from query_api.shedding import Bodies, Body, InFlight
from schemas.errors import FreshetError, InvalidRequest, MethodNotAllowed, NotFound, PayloadTooLarge
from schemas.limits import BODY_WITHOUT_RECORDS_BYTES_MAX

__all__ = ["Entrance", "Lifetime", "Program", "ProgramOptions", "add_error_handlers"]

_log = structlog.get_logger(__name__)
# A body that is too large is read to its end up to here, so that the client reads the answer instead of a reset.
_DRAINED_BYTES_MAX = 256 * 1024 * 1024
# How the paths end whose bodies bring records.
_RECORDS = ("/upsert", "/documents/update")
_JSON = (b"content-type", b"application/json")


class _Gone(Exception):
    """The client went away before its body was whole."""


@dataclass(frozen=True, slots=True)
class ProgramOptions:
    """`body_bytes_max` bounds every request's body."""

    body_bytes_max: int
    step: Step = no_step


@dataclass(frozen=True, slots=True)
class Lifetime:
    """What the program starts before the first request and ends after the last one."""

    start: Callable[[], Awaitable[None]]
    close: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Entrance:
    """What a request passes on its way in: which index it is for, whether it may, whether there is room for it."""

    addressing: Addressing
    rights: Rights
    in_flight: InFlight
    bodies: Bodies


class Program:
    """Serves REST. The hot routes are looked up here, everything else is the framework's."""

    def __init__(
        self,
        rest: FastAPI,
        hot: HotRoutes,
        *,
        served: Served,
        entrance: Entrance,
        metrics: ApiMetrics,
        options: ProgramOptions,
        lifetime: Lifetime,
    ) -> None:
        self.rest = rest
        self._hot = hot
        self._served = served
        self._addressing = entrance.addressing
        self._rights = entrance.rights
        self._in_flight = entrance.in_flight
        self._bodies = entrance.bodies
        self._metrics = metrics
        self._options = options
        self._lifetime = lifetime
        self._request_prefix = secrets.token_hex(4)
        self._request_numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope of ASGI."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1003})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        headers = header_dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        address = self._addressing.resolve(scope, host)
        operation = "other"
        try:
            await self._rights.authenticate(scope, headers, address)
            with nullcontext() if is_health(address) else self._in_flight, self._bodies.reading() as coming:
                body = await self._body(receive, coming, brings_records=address.path.endswith(_RECORDS))
                if not address.is_certain:
                    address = await self._addressing.look_again(scope, host)
                # A body may take its time: the key counts as it is now.
                grant = await self._rights.authenticate(scope, headers, address)
                if grant is not EVERYTHING:
                    self._rights.authorize(grant, scope, address)
                if address.missing is not None:
                    raise address.missing
                index = None if address.spec is None else await self._served.get(address.spec)
                found = None if index is None else self._hot.table.get((scope["method"], address.path))
                if index is None or found is None:
                    operation, status = await self._by_framework(scope, body, index, address.path, send)
                    self._count(operation, status, began)
                    return
                operation, route = found
                answer = await route(Call(index, headers, scope["query_string"], body))
        except _Gone:
            return
        except FreshetError as error:
            answer = error_answer(error, is_control=address.is_control or speaks_control(address.path))
            if answer.status == 500:
                _log.error("request.failed", path=scope["path"], error=repr(error), exc_info=error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer, and the log the trace
            is_control = address.is_control or speaks_control(address.path)
            answer = error_answer(_internal(error, scope), is_control=is_control)
        self._options.step("api.before_answer")
        await self._send(answer, send)
        self._count(operation, answer.status, began)

    async def _by_framework(
        self, scope: Scope, body: bytes, index: ServedIndex | None, path: str, send: Send
    ) -> tuple[str, int]:
        """Serve by FastAPI; return the operation's name and the status."""
        status = 500
        inner = dict(scope)
        inner.update({"path": path, "raw_path": path.encode(), "root_path": "", INDEX_KEY: index})
        sent = started = False

        async def received() -> dict[str, object]:
            nonlocal sent
            if sent:
                return {"type": "http.disconnect"}
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def sending(message: dict[str, object]) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                started = True
                status = int(str(message["status"]))
                message = {**message, "headers": [*self._headers_of(message), self._request_id()]}
                self._options.step("api.before_answer")
            await send(message)

        try:
            await self.rest(inner, received, sending)  # type: ignore[arg-type] # the framework's message type is wider
        except Exception as error:
            if not started:
                raise
            # The framework has answered by our handler and raises what it answered.
            _internal(error, scope)
        endpoint = inner.get("endpoint")
        return getattr(endpoint, "__name__", "other"), status

    @staticmethod
    def _headers_of(message: dict[str, object]) -> list[tuple[bytes, bytes]]:
        headers = message.get("headers", [])
        assert isinstance(headers, list)
        return headers

    async def _body(self, receive: Receive, coming: Body, *, brings_records: bool) -> bytes:
        """Return the whole body.

        Raises `PayloadTooLarge` after reading on, so that the answer arrives; `TooManyRequests` at once where there is
        no room for it.
        """
        limit = self._options.body_bytes_max
        if not brings_records:
            limit = min(limit, BODY_WITHOUT_RECORDS_BYTES_MAX)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            part = message.get("body", b"")
            size += len(part)
            if size <= limit:
                coming.take(len(part))
                parts.append(part)
            else:
                parts.clear()
                coming.drop()
            if not message.get("more_body", False) or size > _DRAINED_BYTES_MAX:
                break
        if size > limit:
            raise PayloadTooLarge(
                f"The body is larger than the limit of {limit} bytes: send fewer records at a time.", limit=limit
            )
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _send(self, answer: Answer, send: Send) -> None:
        headers = [_JSON, (b"content-length", str(len(answer.body)).encode()), self._request_id()]
        headers.extend((name.encode(), value.encode("latin-1")) for name, value in answer.headers.items())
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _request_id(self) -> tuple[bytes, bytes]:
        return b"x-pinecone-request-id", f"{self._request_prefix}-{next(self._request_numbers)}".encode()

    def _count(self, operation: str, status: int, began: float) -> None:
        self._metrics.answered(operation, status, seconds=time.perf_counter() - began)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Speak the lifespan protocol (https://asgi.readthedocs.io/en/latest/specs/lifespan.html)."""
        await receive()
        try:
            await self._lifetime.start()
        except FreshetError as error:
            await send({"type": "lifespan.startup.failed", "message": error.message})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._lifetime.close()
        await send({"type": "lifespan.shutdown.complete"})


def add_error_handlers(rest: FastAPI) -> None:
    """Let the framework's errors and ours be answered in the body of their plane."""

    def answered(request: Request, error: FreshetError) -> Response:
        is_control = request.scope.get(INDEX_KEY) is None or speaks_control(request.scope["path"])
        return answer_of(error_answer(error, is_control=is_control))

    @rest.exception_handler(FreshetError)
    async def ours(request: Request, error: FreshetError) -> Response:
        if status_of(error) == 500:
            _log.error("request.failed", path=request.url.path, error=repr(error), exc_info=error)
        return answered(request, error)

    @rest.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "request"
        return answered(request, InvalidRequest(f"Invalid request: parameter '{place}': {first['msg']}"))

    @rest.exception_handler(HTTPException)
    async def routed(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        if error.status_code == 405:
            allow = (error.headers or {}).get("Allow", "")
            return answered(
                request,
                MethodNotAllowed(f"{path} does not take {request.method}; it takes {allow or 'others'}", allow=allow),
            )
        if error.status_code == 404:
            return answered(request, NotFound(f"There is no route {request.method} {path}"))
        return answered(request, InvalidRequest(f"Invalid request: {error.detail}"))

    @rest.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return answered(request, _unexpected(error))


def _internal(error: Exception, scope: Scope) -> FreshetError:
    _log.error("request.failed", path=scope["path"], error=repr(error), exc_info=error)
    return _unexpected(error)


def _unexpected(error: Exception) -> FreshetError:
    return FreshetError(f"Internal error: {type(error).__name__}. The server's log says more.")
