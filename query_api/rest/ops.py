"""Routes for operators: alive, ready, metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from query_api.access import granted
from query_api.metrics import ApiMetrics
from query_api.rest.routing import control_only, json_answer
from query_api.served import Served, ServedIndex

__all__ = ["ops_router"]


def ops_router(
    served: Served, registry: CollectorRegistry, metrics: ApiMetrics, merged: Callable[[bytes], Awaitable[bytes]] | None
) -> APIRouter:
    """Return the routes; `merged` adds the metrics of the other API processes to those of this one."""
    router = APIRouter(tags=["operations"], dependencies=[Depends(control_only)])

    @router.get("/healthz", summary="Whether the process answers")
    async def healthz() -> Response:
        return json_answer({"status": "ok"})

    @router.get("/readyz", summary="Whether all that the logs held at start is shown, with progress")
    async def readyz() -> Response:
        is_ready = served.is_ready()
        body: dict[str, object] = {
            "ready": is_ready,
            # Answered without a key too: the names of indexes are for those who may know them.
            "indexes": [_progress(index) for index in served.indexes() if granted().reaches(index.spec.name)],
            "failures": {} if granted().is_scoped else dict(served.failures),
        }
        return json_answer(body, status=200 if is_ready else 503)

    @router.get("/metrics", summary="Metrics in Prometheus' text format")
    async def prometheus(*, own: bool = False) -> Response:
        for index in served.indexes():
            _gauge(metrics, index)
        text = generate_latest(registry)
        if merged is not None and not own:
            text = await merged(text)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return router


def _progress(index: ServedIndex) -> dict[str, object]:
    partitions = [
        {
            "partition": follower.partition,
            "ready": index.is_ready(follower),
            "required": index.required(follower.partition),
            "applied": follower.snapshot.next_offset if follower.is_open else 0,
            "problem": follower.problem,
        }
        for follower in index.followers
    ]
    return {"index": index.spec.name, "partitions": partitions}


def _gauge(metrics: ApiMetrics, index: ServedIndex) -> None:
    for follower in index.followers:
        if not follower.is_open:
            continue
        snapshot = follower.snapshot
        labels = {"index": index.spec.name, "partition": str(follower.partition)}
        metrics.applied.labels(**labels).set(snapshot.next_offset)
        metrics.lag.labels(**labels).set(max(0, index.ends.known[follower.partition] - snapshot.next_offset))
        metrics.tail_rows.labels(**labels).set(snapshot.tail_rows)
