"""The query API as one ASGI program: commands go to the log, questions to the snapshots."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from indexer.snapshots.reader import SnapshotReader
from producer.catalog import Catalog
from producer.log.protocol import Log
from producer.pokes import PokeReceiver
from producer.publisher import Publisher
from producer.steps import Step, no_step
from schemas.indexes import IndexSpec
from schemas.limits import BODY_BYTES_MAX

__all__ = ["ApiDeps", "ApiOptions", "AsgiProgram", "create_app"]

AsgiProgram = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[MutableMapping[str, Any]]],
        Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ],
    Awaitable[None],
]


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """What the API obeys. Times in the unit of their name.

    `index_ports` are the ports that this server has bound for indexes, best first; `host_template` is what
    `describe_index` returns (`{port}`, `{name}`, `{control_port}`), `portless_host_template` for an index without port.
    """

    control_port: int = 5080
    index_ports: tuple[int, ...] = ()
    host_template: str = "http://localhost:{port}"
    portless_host_template: str = "http://localhost:{control_port}/i/{name}"
    partitions: int = 4
    body_bytes_max: int = BODY_BYTES_MAX
    tail_rows_max: int = 200_000


@dataclass(frozen=True, slots=True)
class ApiDeps:
    """The parts that the API is made of; all are started before the program's lifespan begins.

    `open_log` opens the log of an index (idempotent), `drop_log` deletes it for good after the index was deleted,
    `open_reader` makes the snapshot reader of one partition.
    """

    catalog: Catalog
    publisher: Publisher
    open_log: Callable[[IndexSpec], Awaitable[Log]]
    drop_log: Callable[[IndexSpec], Awaitable[None]]
    open_reader: Callable[[IndexSpec, int], SnapshotReader]
    pokes: PokeReceiver
    clock_ms: Callable[[], int]
    registry: CollectorRegistry
    options: ApiOptions = field(default_factory=ApiOptions)
    step: Step = no_step


def create_app(deps: ApiDeps) -> AsgiProgram:
    """Return the program; its lifespan starts and ends the followers, so run it with lifespan on."""
    raise NotImplementedError
