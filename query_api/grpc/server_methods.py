"""The methods of the server itself, which need no index: health checks and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from query_api.grpc import codec, health, reflection
from query_api.grpc.health import Health
from query_api.grpc.reflection import Reflection
from query_api.grpc.service import VECTOR_SERVICE
from query_api.grpc.streams import StreamMethod
from query_api.served import Served

__all__ = ["server_methods"]

_HEALTH = "grpc.health.v1.Health"


def server_methods(served: Served, stopping: asyncio.Event) -> Mapping[str, StreamMethod]:
    """Return the methods by path; watchers end when `stopping` is set."""
    checks = Health(served.is_ready, [VECTOR_SERVICE, _HEALTH], stopping=stopping)
    mirror = Reflection([codec.DESCRIPTOR, health.DESCRIPTOR, reflection.DESCRIPTOR])
    return {
        f"/{_HEALTH}/Check": checks.check,
        f"/{_HEALTH}/Watch": checks.watch,
        # Older tools ask for the version before; its messages are the same.
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": mirror.info,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": mirror.info,
    }
