"""One ASGI program for both doors: gRPC calls go to one, everything else to the other."""

from __future__ import annotations

import asyncio

from query_api.grpc.program import GrpcProgram, is_grpc
from query_api.rest.exchange import Receive, Scope, Send
from query_api.rest.program import Program

__all__ = ["Doors"]


class Doors:
    """Serves REST (`rest`, which has the lifespan as well) and gRPC (`grpc`) on the same ports."""

    def __init__(self, rest: Program, grpc: GrpcProgram, stopping: asyncio.Event) -> None:
        self.rest = rest
        self.grpc = grpc
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope of ASGI."""
        if is_grpc(scope):
            await self.grpc(scope, receive, send)
        else:
            await self.rest(scope, receive, send)

    def begin_stop(self) -> None:
        """End what would go on for ever, and say to who asks that this server is going away."""
        self._stopping.set()
