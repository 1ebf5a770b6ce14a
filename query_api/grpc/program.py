"""gRPC as an ASGI program over any HTTP/2 server that sends trailers: method, message, index, answer."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Mapping
from contextlib import nullcontext

import structlog

from producer.steps import Step, no_step
from query_api.access import Grant, key_of_headers
from query_api.grpc.exchange import Exchange, deadline_exceeded, timeout_of
from query_api.grpc.frames import Gone, Messages
from query_api.grpc.service import VECTOR_SERVICE, UnaryMethod
from query_api.grpc.status import code_of
from query_api.grpc.streams import StreamMethod
from query_api.metrics import ApiMetrics
from query_api.rest.addressing import Address
from query_api.rest.exchange import Call, Receive, Scope, Send, header_dict
from query_api.rest.program import Entrance
from query_api.served import Served, ServedIndex
from schemas.errors import Code, FreshetError, NotFound, Unimplemented
from schemas.keys import Role

__all__ = ["GrpcProgram", "is_grpc"]

_log = structlog.get_logger(__name__)
_TYPE = b"application/grpc"
_UNKNOWN = "other"
# Whatever does not stand here is a write: a new method is closed to keys that may only read until somebody has thought
# about it.
_READS = frozenset(
    {
        "Query",
        "Fetch",
        "FetchByMetadata",
        "List",
        "DescribeIndexStats",
        "ListNamespaces",
        "DescribeNamespace",
    }
)
# Answered to everybody, as REST's health routes are.
_OPEN = "/grpc.health.v1.Health/"


def is_grpc(scope: Scope) -> bool:
    """Say whether a request is a gRPC call that can be answered as one."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return False
    if "http.response.trailers" not in scope.get("extensions", ()):
        return False
    for name, value in scope["headers"]:
        if name == b"content-type":
            rest: bytes = value[len(_TYPE) :]
            return value.startswith(_TYPE) and (not rest or rest[:1] == b";" or rest.startswith(b"+proto"))
    return False


class GrpcProgram:
    """Serves the methods of indexes, one message each way, and those of the server, which may be streams."""

    def __init__(
        self,
        vectors: Mapping[str, UnaryMethod],
        streams: Mapping[str, StreamMethod],
        *,
        served: Served,
        entrance: Entrance,
        metrics: ApiMetrics,
        step: Step = no_step,
    ) -> None:
        """Serve `vectors` by name under `/VectorService/`, and `streams` by path."""
        self._vectors = {f"/{VECTOR_SERVICE}/{name}": method for name, method in vectors.items()}
        self._streams = dict(streams)
        self._operations = {path: f"grpc.{path.rpartition('/')[2]}" for path in (*self._vectors, *self._streams)}
        self._served = served
        self._entrance = entrance
        self._metrics = metrics
        self._step = step
        self._request_prefix = secrets.token_hex(4)
        self._request_numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        began = time.perf_counter()
        path: str = scope["path"]
        headers = header_dict(scope["headers"])
        request_id = f"{self._request_prefix}-{next(self._request_numbers)}".encode()
        exchange = Exchange(send, headers, (b"x-pinecone-request-id", request_id))
        try:
            await self._serve(path, scope, headers, receive, exchange)
        except Gone:
            exchange.close()
            return
        except FreshetError as error:
            if code_of(error) is Code.INTERNAL:
                _log.error("request.failed", path=path, error=repr(error), exc_info=error)
            await self._fail(exchange, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer, and the log the trace
            _log.error("request.failed", path=path, error=repr(error), exc_info=error)
            message = f"Internal error: {type(error).__name__}. The server's log says more."
            await self._fail(exchange, FreshetError(message))
        operation = self._operations.get(path, f"grpc.{_UNKNOWN}")
        self._metrics.answered(operation, exchange.http_status, seconds=time.perf_counter() - began)

    async def _serve(
        self, path: str, scope: Scope, headers: dict[bytes, bytes], receive: Receive, exchange: Exchange
    ) -> None:
        await self._authenticate(path, headers)
        seconds = timeout_of(headers)
        encoding = headers.get(b"grpc-encoding", b"identity").decode("latin-1")
        room = nullcontext() if path.startswith(_OPEN) else self._entrance.in_flight
        with room, self._entrance.bodies.reading() as coming:
            messages = Messages(coming.counted(receive), encoding=encoding)
            method = self._vectors.get(path)
            if method is None:
                await self._stream(path, messages, exchange, seconds)
                return
            exchange.begin_deadline(seconds)
            message = await messages.only()
            # A message may take its time: the key counts as it is now.
            grant = await self._authenticate(path, headers)
            address = await self._addressed(scope, headers)
            # Before anything tells whether the index exists.
            grant.check_index(address.spec.name if address.spec is not None else address.missing_name)
            grant.check_role(Role.READ if path.rpartition("/")[2] in _READS else Role.WRITE)
            index = await self._index_of(path, address)
            reply = await method(Call(index, headers, b"", message))
            self._step("api.before_answer")
            await exchange.reply(reply.message, reply.headers)

    async def _stream(self, path: str, messages: Messages, exchange: Exchange, seconds: float | None) -> None:
        stream = self._streams.get(path)
        if stream is None:
            known = ", ".join(name.removeprefix(f"/{VECTOR_SERVICE}/") for name in self._vectors)
            raise Unimplemented(f"There is no method {path[:200]}; {VECTOR_SERVICE} has {known}")
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await stream(messages, exchange.message)
        except TimeoutError:
            if limit.expired():
                raise deadline_exceeded(seconds or 0.0) from None
            raise
        await exchange.finish()

    async def _fail(self, exchange: Exchange, error: FreshetError) -> None:
        self._step("api.before_answer")
        await exchange.fail(error)

    async def _authenticate(self, path: str, headers: Mapping[bytes, bytes]) -> Grant:
        """Return what the call's key grants, and leave it for those who ask later. Raises `Unauthenticated`."""
        access = self._entrance.rights.access
        return await access.admit(key_of_headers(headers), is_open=path.startswith(_OPEN))

    async def _addressed(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Address:
        host = headers.get(b"host", b"").decode("latin-1")
        address = self._entrance.addressing.resolve(scope, host)
        return address if address.is_certain else await self._entrance.addressing.look_again(scope, host)

    async def _index_of(self, path: str, address: Address) -> ServedIndex:
        """Return the index that a call is for. Raises `NotFound`, `LogUnavailable`."""
        if address.missing is not None:
            raise address.missing
        if address.spec is None:
            raise NotFound(
                f"{path} is a method of an index, and this is the control plane: call it on the index's own port, "
                "which describe_index gives, or by a host name whose first label is the index."
            )
        return await self._served.get(address.spec)
