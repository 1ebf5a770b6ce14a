"""Settings of what one API process takes, and of how much an index may hold; a part of `compose.config.Settings`."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings

__all__ = ["LimitSettings", "obeyed_by"]

_RATES = "query_api.shedding:RateOptions."
_BOUNDS = "query_api.fullness:BoundOptions."


def obeyed_by(target: str, description: str, **bounds: float) -> Any:
    """Declare a setting whose default stands in the options class named by `target` (`module:Class.field`)."""
    return Field(default=None, description=description, json_schema_extra={"obeyed_by": target}, **bounds)  # type: ignore[call-overload]


class LimitSettings(BaseSettings):
    """Rates, sizes, requests and connections at a time, and bounds of indexes."""

    body_bytes_max: int | None = obeyed_by(
        "query_api.app:ApiOptions.body_bytes_max", "Largest body of a request.", ge=1_024
    )
    tail_rows_max: int | None = obeyed_by(
        "query_api.writes:WriteOptions.tail_rows_max",
        "Rows of a namespace in no graph above which writes get a 429.",
        ge=1,
    )
    requests_in_flight_max: int | None = obeyed_by(
        "query_api.app:ApiOptions.requests_in_flight_max",
        "Requests that an API process works on at a time; above that they get a 429. 0 for no bound.",
        ge=0,
    )
    bodies_bytes_max: int | None = obeyed_by(
        "query_api.app:ApiOptions.bodies_bytes_max",
        "Bytes of requests that an API process holds at a time; above that they get a 429. 0 for no bound.",
        ge=0,
    )
    connections_max: int | None = obeyed_by(
        "compose.connections:ConnectionLimits.connections_max",
        "Connections open at a time; 0 for what open files allow.",
        ge=0,
    )
    request_seconds: float | None = obeyed_by(
        "compose.connections:ConnectionLimits.request_seconds",
        "How long nothing may come of a request that was begun.",
        gt=0,
    )
    answer_seconds: float | None = obeyed_by(
        "compose.connections:ConnectionLimits.answer_seconds", "How long a client may read nothing of its answer.", gt=0
    )
    query_rate_max: float | None = obeyed_by(
        f"{_RATES}query", "Queries per second of one namespace in an API process; 0 for no bound.", ge=0
    )
    fetch_rate_max: float | None = obeyed_by(f"{_RATES}fetch", "The same for fetches.", ge=0)
    list_rate_max: float | None = obeyed_by(f"{_RATES}list", "The same for listings of ids.", ge=0)
    stats_rate_max: float | None = obeyed_by(
        f"{_RATES}stats", "The same for stats and listings of namespaces, per index.", ge=0
    )
    upsert_rate_max: float | None = obeyed_by(f"{_RATES}upsert", "The same for upserts.", ge=0)
    update_rate_max: float | None = obeyed_by(f"{_RATES}update", "The same for updates.", ge=0)
    delete_rate_max: float | None = obeyed_by(f"{_RATES}delete", "The same for deletes.", ge=0)
    index_records_max: int | None = obeyed_by(
        f"{_BOUNDS}max_records", "Records from which on an index without a bound of its own is full; 0 for none.", ge=0
    )
    index_bytes_max: int | None = obeyed_by(
        f"{_BOUNDS}max_bytes", "Bytes of its snapshots from which on such an index is full; 0 for none.", ge=0
    )
