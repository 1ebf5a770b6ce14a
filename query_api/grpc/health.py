"""`grpc.health.v1.Health`: whether all that the logs held at start is shown, as `/readyz` says over REST."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from google.protobuf.message import DecodeError

from query_api.grpc import health_pb2 as pb
from query_api.grpc.frames import Messages
from query_api.grpc.streams import Answering
from schemas.errors import InvalidRequest, NotFound

__all__ = ["DESCRIPTOR", "Health"]

DESCRIPTOR = pb.DESCRIPTOR
_Status = pb.HealthCheckResponse.ServingStatus


class Health:
    """Answers for the server (service "") and for each of `services`."""

    def __init__(
        self,
        is_ready: Callable[[], bool],
        services: Collection[str],
        *,
        stopping: asyncio.Event,
        look_seconds: float = 0.25,
    ) -> None:
        """Look at `is_ready` every `look_seconds` while somebody watches, until `stopping`."""
        self._is_ready = is_ready
        self._services = frozenset(services) | {""}
        self._stopping = stopping
        self._look_seconds = look_seconds

    async def check(self, messages: Messages, answer: Answering) -> None:
        """Answer how it stands now. Raises `NotFound` for a service that nobody serves."""
        service = await self._asked(messages)
        if service not in self._services:
            raise NotFound(f"There is no service '{service[:80]}' here")
        await answer(_answer(self._now()))

    async def watch(self, messages: Messages, answer: Answering) -> None:
        """Answer how it stands, and again whenever that has changed."""
        service = await self._asked(messages)
        told: pb.HealthCheckResponse.ServingStatus | None = None
        gone = asyncio.create_task(messages.gone())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            while not gone.done():
                status = self._now() if service in self._services else _Status.SERVICE_UNKNOWN
                if status != told:
                    await answer(_answer(status))
                    told = status
                if stopping.done():
                    return
                await asyncio.wait([gone, stopping], timeout=self._look_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            stopping.cancel()

    def _now(self) -> pb.HealthCheckResponse.ServingStatus:
        return _Status.SERVING if self._is_ready() and not self._stopping.is_set() else _Status.NOT_SERVING

    @staticmethod
    async def _asked(messages: Messages) -> str:
        try:
            request: pb.HealthCheckRequest = pb.HealthCheckRequest.FromString(await messages.only())
        except DecodeError as error:
            raise InvalidRequest(f"Invalid request: the message is no HealthCheckRequest: {error}") from error
        return request.service


def _answer(status: pb.HealthCheckResponse.ServingStatus) -> bytes:
    data: bytes = pb.HealthCheckResponse(status=status).SerializeToString()
    return data
