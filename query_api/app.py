"""The query API as one ASGI program: commands go to the log, questions to the snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry

from indexer.snapshots.reader import SnapshotReader
from producer.catalog import Catalog
from producer.log.protocol import Log
from producer.pokes import PokeReceiver
from producer.publisher import Publisher
from producer.steps import Step, no_step
from query_api.access import Access
from query_api.appends import Appends
from query_api.doors import Doors
from query_api.ends import EndsOptions
from query_api.follower import FollowerOptions
from query_api.freshness import Freshness
from query_api.fullness import BoundOptions, Fullness
from query_api.gates import Gates
from query_api.grpc.program import GrpcProgram
from query_api.grpc.server_methods import server_methods
from query_api.grpc.service import VectorService
from query_api.imports.service import ImportOptions, ImportParts, Imports
from query_api.metrics import ApiMetrics
from query_api.reads import ReadOptions, Reads
from query_api.rest.addressing import Addressing
from query_api.rest.backups import backups_router
from query_api.rest.documents import documents_router
from query_api.rest.hot import HotRoutes
from query_api.rest.imports import imports_router
from query_api.rest.indexes import ControlPlane, indexes_router
from query_api.rest.keys import keys_router
from query_api.rest.namespaces import namespaces_router
from query_api.rest.openapi import add_document
from query_api.rest.ops import ops_router
from query_api.rest.program import Entrance, Lifetime, Program, ProgramOptions, add_error_handlers
from query_api.rest.records import records_router
from query_api.rest.rights import Rights
from query_api.rest.vectors import vectors_router
from query_api.restores import RestoreOptions, RestoreParts, Restores
from query_api.served import Served, ServingParts
from query_api.shedding import Bodies, InFlight, RateOptions, Rates
from query_api.writes import WriteOptions, Writes
from schemas.indexes import IndexSpec
from schemas.limits import BODY_BYTES_MAX

__all__ = ["ApiDeps", "ApiOptions", "create_app"]


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """What the API obeys.

    `index_ports` are the ports that this server has bound for indexes, best first; `host_template` is what
    `describe_index` returns (`{port}`, `{name}`, `{control_port}`), `portless_host_template` for an index without port.
    Searches and small file reads run on threads of their own. While there is no API key, everybody may do everything
    where `is_open_without_keys`, nobody anything else.
    """

    control_port: int = 5080
    index_ports: tuple[int, ...] = ()
    host_template: str = "http://localhost:{port}"
    portless_host_template: str = "http://localhost:{control_port}/i/{name}"
    partitions: int = 4
    is_open_without_keys: bool = True
    # Per process; 0 = no bound.
    requests_in_flight_max: int = 0
    bodies_bytes_max: int = 512 * 1024 * 1024
    body_bytes_max: int = BODY_BYTES_MAX
    search_threads: int = 2
    follower_threads: int = 2
    reads: ReadOptions = field(default_factory=ReadOptions)
    writes: WriteOptions = field(default_factory=WriteOptions)
    freshness: Freshness = field(default_factory=Freshness)
    rates: RateOptions = field(default_factory=RateOptions)
    bounds: BoundOptions = field(default_factory=BoundOptions)
    follower: FollowerOptions = field(default_factory=FollowerOptions)
    ends: EndsOptions = field(default_factory=EndsOptions)
    restores: RestoreOptions = field(default_factory=RestoreOptions)
    imports: ImportOptions = field(default_factory=ImportOptions)


@dataclass(frozen=True, slots=True)
class ApiDeps:
    """The parts that the API is made of; all are started before the program's lifespan begins.

    `open_log` is the one of the publisher: it opens the log of an index, again and again. `open_reader` makes the
    snapshot reader of one partition. `log_bytes` says how large the file of all logs is, None where there is none.
    `merged_metrics` adds the other API processes' numbers to the text of this one's; None where there are no others.
    `restores` is None where another API process runs the restore jobs.
    Logs and snapshots of deleted indexes are cleared away by the indexer.
    """

    catalog: Catalog
    publisher: Publisher
    open_log: Callable[[IndexSpec], Awaitable[Log]]
    open_reader: Callable[[IndexSpec, int], SnapshotReader]
    pokes: PokeReceiver
    clock_ms: Callable[[], int]
    registry: CollectorRegistry
    options: ApiOptions = field(default_factory=ApiOptions)
    log_bytes: Callable[[], int | None] = lambda: None
    merged_metrics: Callable[[bytes], Awaitable[bytes]] | None = None
    restores: RestoreParts | None = None
    step: Step = no_step


def create_app(deps: ApiDeps) -> Doors:
    """Return the program; its lifespan starts and ends the followers, so run it with lifespan on."""
    options = deps.options
    metrics = ApiMetrics(deps.registry)
    search_threads = ThreadPoolExecutor(options.search_threads, "search")
    follower_threads = ThreadPoolExecutor(options.follower_threads, "follower")
    served = Served(_serving_parts(deps, metrics, follower_threads))
    gates = Gates(Rates(options.rates), Fullness(options.bounds))
    reads = _reads(options, search_threads, gates)
    writes = _writes(deps, metrics, gates)
    import_parts = ImportParts(deps.catalog, served, writes, deps.open_log, deps.clock_ms, deps.step)
    imports = Imports(import_parts, options.imports)
    restores = _restores(deps)
    hot = HotRoutes(reads, writes)
    control = ControlPlane(
        catalog=deps.catalog,
        served=served,
        host_of=lambda spec: host_of(spec, options),
        ports=options.index_ports,
        partitions=options.partitions,
    )

    rest = _rest(
        vectors_router(reads, writes, hot),
        documents_router(reads, writes),
        records_router(reads),
        namespaces_router(reads, writes),
        imports_router(imports),
        indexes_router(control),
        backups_router(control, deps.open_log),
        keys_router(deps.catalog, deps.clock_ms),
        ops_router(served, deps.registry, metrics, deps.merged_metrics),
    )
    entrance = _entrance(deps.catalog, options)
    program = Program(
        rest,
        hot,
        served=served,
        entrance=entrance,
        metrics=metrics,
        options=ProgramOptions(options.body_bytes_max, deps.step),
        lifetime=_lifetime(served, (restores, imports), writes, reads, (search_threads, follower_threads)),
    )
    stopping = asyncio.Event()
    methods = (VectorService(reads, writes).methods, server_methods(served, stopping))
    grpc = GrpcProgram(*methods, served=served, entrance=entrance, metrics=metrics, step=deps.step)
    return Doors(program, grpc, stopping)


def _lifetime(
    served: Served,
    jobs: tuple[Restores, Imports],
    writes: Writes,
    reads: Reads,
    threads: Sequence[ThreadPoolExecutor],
) -> Lifetime:
    restores, imports = jobs

    async def start() -> None:
        await served.start()
        await restores.start()
        await imports.start_running()

    async def close() -> None:
        for part in (imports, restores, writes, served):
            await part.close()
        reads.close()
        for pool in threads:
            pool.shutdown()

    return Lifetime(start, close)


def _entrance(catalog: Catalog, options: ApiOptions) -> Entrance:
    return Entrance(
        Addressing(catalog, control_port=options.control_port),
        Rights(Access(catalog, is_open_without_keys=options.is_open_without_keys)),
        InFlight(options.requests_in_flight_max),
        Bodies(options.bodies_bytes_max),
    )


def host_of(spec: IndexSpec, options: ApiOptions) -> str:
    """Return the host that clients are told to reach an index by; not by a port that this server could not bind."""
    template = options.host_template if spec.port in options.index_ports else options.portless_host_template
    return template.format(port=spec.port, name=spec.name, control_port=options.control_port)


def _restores(deps: ApiDeps) -> Restores:
    return Restores(
        deps.restores,
        deps.catalog,
        deps.publisher,
        open_log=deps.open_log,
        open_reader=deps.open_reader,
        options=deps.options.restores,
        step=deps.step,
    )


def _rest(*routers: APIRouter) -> FastAPI:
    rest = FastAPI(
        title="Freshet",
        description="An event-sourced vector index that speaks the Pinecone wire surface.",
        redoc_url=None,
        redirect_slashes=False,
    )
    add_error_handlers(rest)
    for router in routers:
        rest.include_router(router)
    add_document(rest)
    return rest


def _reads(options: ApiOptions, threads: ThreadPoolExecutor, gates: Gates) -> Reads:
    return Reads(
        threads=threads,
        options=options.reads,
        freshness=options.freshness,
        gates=gates,
        native_threads=options.search_threads,
    )


def _writes(deps: ApiDeps, metrics: ApiMetrics, gates: Gates) -> Writes:
    appends = Appends(deps.publisher, clock_ms=deps.clock_ms, metrics=metrics, fullness=gates.fullness, step=deps.step)
    return Writes(appends, options=deps.options.writes, freshness=deps.options.freshness, gates=gates)


def _serving_parts(deps: ApiDeps, metrics: ApiMetrics, threads: ThreadPoolExecutor) -> ServingParts:
    return ServingParts(
        catalog=deps.catalog,
        publisher=deps.publisher,
        open_log=deps.open_log,
        open_reader=deps.open_reader,
        pokes=deps.pokes,
        clock_ms=deps.clock_ms,
        metrics=metrics,
        threads=threads,
        follower=deps.options.follower,
        ends=deps.options.ends,
        log_bytes=deps.log_bytes,
        step=deps.step,
    )
