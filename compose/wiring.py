"""Plain code that builds the parts of each process. The only place that chooses a log and a store.

What only one of the processes needs is imported where it is built: it halves the time that `freshet up` takes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector

from compose.config import Settings
from compose.holding import hold, run_directory
from compose.peer_metrics import PeerMetrics
from compose.peers import api_name
from indexer.segments.graph import GraphOptions
from indexer.snapshots.reader import ReaderOptions, SnapshotReader
from indexer.snapshots.store import LocalStore
from producer.catalog import Catalog
from producer.log.protocol import Log, Logs
from producer.log.sqlite import SqliteLogOptions, SqliteLogs
from producer.metrics import ProducerMetrics
from producer.pokes import PokeReceiver, PokeSender, log_topic, manifest_topic, socket_path
from producer.publisher import Publisher
from producer.steps import Step, no_step
from schemas.errors import ConfigError
from schemas.indexes import IndexSpec

if TYPE_CHECKING:
    from compose.doctor import DoctorParts
    from indexer.indexer import Indexer, IndexerOptions
    from query_api.app import ApiDeps, ApiOptions
    from query_api.restores import RestoreParts

__all__ = [
    "INDEXER",
    "api_parts",
    "catalog_at_rest",
    "clock_ms",
    "crash_step",
    "doctor_parts",
    "indexer_parts",
    "is_embedded",
    "log_bytes",
    "open_logs",
    "open_store",
]

INDEXER = "indexer"
# Of the time for a stop, what the owner of the log leaves to the others that were told to stop at the same moment.
_LINGER_SHARE = 0.2


def clock_ms() -> int:
    """Return milliseconds since 1970: the one clock of every process."""
    return time.time_ns() // 1_000_000


def crash_step(crash_at: str) -> Step:
    """Return the step that ends this process by SIGKILL at the n-th passing of `<name>[:n]`; "" never does."""
    if not crash_at:
        return no_step
    wanted, _, count = crash_at.partition(":")
    left = int(count or 1)
    lock = threading.Lock()

    def step(name: str, /) -> None:
        nonlocal left
        if name != wanted:
            return
        with lock:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return step


def open_logs(
    settings: Settings,
    *,
    senders: Sequence[PokeSender] = (),
    receiver: PokeReceiver | None = None,
    step: Step,
    is_read_only: bool = False,
) -> Logs:
    """Return the place of logs that the settings name, not yet started; `is_read_only` makes and changes nothing."""
    if not is_embedded(settings):
        from producer.log.kafka import KafkaLogs
        from producer.log.kafka_cluster import KafkaLogOptions

        kafka = KafkaLogOptions(**settings.options_of(KafkaLogOptions))
        return KafkaLogs(settings.log.removeprefix("kafka://"), kafka, step=step, is_read_only=is_read_only)
    options = SqliteLogOptions(**settings.options_of(SqliteLogOptions))
    path = settings.data_dir / "log.sqlite"
    return SqliteLogs(
        path,
        options,
        clock_ms=clock_ms,
        step=step,
        senders=senders,
        receiver=receiver,
        is_read_only=is_read_only,
    )


def log_bytes(settings: Settings) -> int | None:
    """Return the bytes on disk of the embedded log, its write-ahead log included; None where the log is elsewhere."""
    if not is_embedded(settings):
        return None
    files = [settings.data_dir / name for name in ("log.sqlite", "log.sqlite-wal")]
    return sum(file.stat().st_size for file in files if file.exists())


def is_embedded(settings: Settings) -> bool:
    """Return whether the log is a file of this data directory: then one API process writes it."""
    return not settings.log.startswith("kafka://")


@contextlib.asynccontextmanager
async def api_parts(settings: Settings, *, index_ports: Sequence[int], worker: int = 0) -> AsyncIterator[ApiDeps]:
    """Start what the query API is made of; `index_ports` are those that were bound. Ends in reverse order.

    `worker` is the number of this API process; the first one owns the embedded log, the others hand it their appends.

    Raises `ConfigError`, `LogUnavailable`.
    """
    from query_api.app import ApiDeps

    step = crash_step(settings.crash_at)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metrics = ProducerMetrics(registry)
    async with contextlib.AsyncExitStack() as stack:
        folder = run_directory(settings.data_dir)
        pokes = await _receiver(folder, api_name(worker), stack)
        logs = await _api_logs(settings, worker, pokes, step, stack)
        catalog = Catalog(logs, metrics=metrics, step=step)
        await catalog.start()
        stack.push_async_callback(catalog.close)
        _check_bind(settings, catalog)

        async def open_log(spec: IndexSpec) -> Log:
            return await logs.open(spec.name, spec.log_id, spec.partitions)

        publisher = Publisher(open_log, metrics=metrics, step=step)
        stack.push_async_callback(publisher.close)
        store = open_store(settings, step)
        reading = ReaderOptions(graph=_graph_options(settings))

        def open_reader(spec: IndexSpec, partition: int) -> SnapshotReader:
            return SnapshotReader(store, spec, partition, reading)

        yield ApiDeps(
            catalog=catalog,
            publisher=publisher,
            open_log=open_log,
            open_reader=open_reader,
            pokes=pokes,
            clock_ms=clock_ms,
            registry=registry,
            options=_api_options(settings, index_ports, worker),
            log_bytes=lambda: log_bytes(settings),
            # The first process runs the jobs, for as long as it alone holds them in this data directory.
            restores=None if worker else _restore_parts(settings, store),
            merged_metrics=(
                PeerMetrics(folder, own=worker, workers=settings.api_workers).merged
                if settings.api_workers > 1
                else None
            ),
            step=step,
        )


def _restore_parts(settings: Settings, store: LocalStore) -> RestoreParts:
    from indexer.snapshots.pinned import open_pinned
    from query_api.restores import RestoreParts

    return RestoreParts(functools.partial(open_pinned, store), lambda: hold(settings.data_dir, "restore"))


def _check_bind(settings: Settings, catalog: Catalog) -> None:
    if not catalog.keys and not settings.is_open_without_keys:
        raise ConfigError(
            f"bind: {settings.bind} can be reached from other machines, and there are no keys yet: everybody who "
            "reaches it could read and delete everything. Make one (`freshet keys create --role admin`), or bind "
            "127.0.0.1, or say FRESHET_BIND_WITHOUT_KEYS=true where the network itself is closed."
        )


async def _api_logs(
    settings: Settings, worker: int, pokes: PokeReceiver, step: Step, stack: contextlib.AsyncExitStack
) -> Logs:
    """Open the logs of an API process: its own, or by way of the process that owns the embedded log."""
    folder = run_directory(settings.data_dir)
    door = socket_path(folder, "log")
    if worker and is_embedded(settings):
        from producer.log.forwarded import ForwardedLogs

        options = SqliteLogOptions(**settings.options_of(SqliteLogOptions))
        path = settings.data_dir / "log.sqlite"
        return await _started(ForwardedLogs(path, options, door=door, step=step, receiver=pokes), stack)
    # The others follow the catalog; what else is appended is read by the indexer alone.
    control_topic: set[str] = set()
    others = [_sender(folder, api_name(n), stack, only=control_topic) for n in range(1, settings.api_workers)]
    senders = [_sender(folder, INDEXER, stack), *others]
    logs = await _started(open_logs(settings, senders=senders, receiver=pokes, step=step), stack)
    control_topic.add(log_topic(logs.control.log_id))
    if isinstance(logs, SqliteLogs) and settings.api_workers > 1:
        from producer.log.forwarded_owner import OwnerDoor

        owner = OwnerDoor(logs)
        await owner.start(door)
        stack.push_async_callback(owner.close, settings.stop_seconds * _LINGER_SHARE)
    return logs


@contextlib.asynccontextmanager
async def indexer_parts(settings: Settings, registry: CollectorRegistry) -> AsyncIterator[Indexer]:
    """Start the indexer and what it is made of. Ends in reverse order. Raises `ConfigError`, `LogUnavailable`."""
    from indexer.indexer import Indexer
    from indexer.metrics import IndexerMetrics

    step = crash_step(settings.crash_at)
    ProcessCollector(registry=registry)
    async with contextlib.AsyncExitStack() as stack:
        folder = run_directory(settings.data_dir)
        pokes = await _receiver(folder, INDEXER, stack)
        to_apis = [_sender(folder, api_name(worker), stack) for worker in range(settings.api_workers)]
        logs = await _started(open_logs(settings, senders=to_apis, receiver=pokes, step=step), stack)
        catalog = Catalog(logs)
        await catalog.start()
        stack.push_async_callback(catalog.close)

        def published(index_id: str, partition: int) -> None:
            for sender in to_apis:
                sender.poke(manifest_topic(index_id, partition))

        indexer = Indexer(
            logs,
            catalog,
            open_store(settings, step),
            _indexer_options(settings),
            clock_ms=clock_ms,
            metrics=IndexerMetrics(registry),
            published=published,
        )
        indexer.use_step(step)
        await indexer.start()
        stack.push_async_callback(indexer.close)
        yield indexer


@contextlib.asynccontextmanager
async def doctor_parts(settings: Settings, *, queries: int) -> AsyncIterator[DoctorParts]:
    """Open what the doctor looks at, for reading only, beside a running server or without one.

    Raises `ConfigError` where there is no such data directory, `NotFound` where it has no log, `LogUnavailable`.
    """
    from compose.doctor import DoctorParts
    from indexer.doctor import DoctorOptions
    from indexer.recall_sample import SampleOptions

    if not (settings.data_dir / "snapshots").is_dir():
        raise ConfigError(f"There are no snapshots in {settings.data_dir.resolve()}: is that the data directory?")
    indexer = _indexer_options(settings)
    async with contextlib.AsyncExitStack() as stack:
        logs = await _started(open_logs(settings, step=no_step, is_read_only=True), stack)
        catalog = Catalog(logs)
        await catalog.start()
        stack.push_async_callback(catalog.close)
        options = DoctorOptions(indexer.partition, indexer.retention, SampleOptions(queries=queries))
        yield DoctorParts(catalog, logs, open_store(settings), options, clock_ms)


@contextlib.asynccontextmanager
async def catalog_at_rest(settings: Settings) -> AsyncIterator[Catalog]:
    """Open the catalog to change it while no API process of this data directory runs: the caller holds it as one.

    Raises `ConfigError`, `LogUnavailable`.
    """
    async with contextlib.AsyncExitStack() as stack:
        logs = await _started(open_logs(settings, step=no_step), stack)
        catalog = Catalog(logs)
        await catalog.start()
        stack.push_async_callback(catalog.close)
        yield catalog


async def _receiver(folder: Path, name: str, stack: contextlib.AsyncExitStack) -> PokeReceiver:
    pokes = PokeReceiver(folder, name)
    await pokes.start()
    stack.push_async_callback(pokes.close)
    return pokes


def _sender(
    folder: Path, name: str, stack: contextlib.AsyncExitStack, *, only: Container[str] | None = None
) -> PokeSender:
    sender = PokeSender(folder, name, only=only)
    stack.callback(sender.close)
    return sender


async def _started(logs: Logs, stack: contextlib.AsyncExitStack) -> Logs:
    # Also where starting failed half-way: closing is what stops its threads.
    stack.push_async_callback(logs.close)
    await logs.start()
    return logs


def open_store(settings: Settings, step: Step = no_step) -> LocalStore:
    """Return the snapshot store that the settings name. Raises `ConfigError`."""
    try:
        return LocalStore(settings.data_dir / "snapshots", step, now=time.time)
    except OSError as error:
        raise ConfigError(f"Cannot use the data directory {settings.data_dir}: {error.strerror}.") from error


def _graph_options(settings: Settings) -> GraphOptions:
    return GraphOptions(**settings.options_of(GraphOptions))


def _api_options(settings: Settings, index_ports: Sequence[int], worker: int) -> ApiOptions:
    from query_api.app import ApiOptions
    from query_api.ends import EndsOptions
    from query_api.fullness import BoundOptions
    from query_api.imports.service import ImportOptions
    from query_api.shedding import RateOptions
    from query_api.writes import WriteOptions

    return ApiOptions(
        control_port=settings.port,
        index_ports=tuple(index_ports),
        host_template=settings.host_template,
        portless_host_template=settings.portless_host_template,
        ends=EndsOptions(is_sole_writer=is_embedded(settings) and settings.api_workers == 1),
        writes=WriteOptions(**settings.options_of(WriteOptions)),
        imports=ImportOptions(
            role=("none" if worker else "owner") if is_embedded(settings) else "peer",
            **settings.options_of(ImportOptions),
        ),
        rates=RateOptions(**settings.options_of(RateOptions)),
        bounds=BoundOptions(**settings.options_of(BoundOptions)),
        is_open_without_keys=settings.is_open_without_keys,
        **settings.options_of(ApiOptions),
    )


def _indexer_options(settings: Settings) -> IndexerOptions:
    from indexer.gc import RetentionOptions
    from indexer.housekeeping import HousekeepingOptions
    from indexer.indexer import IndexerOptions
    from indexer.merge_policy import MergeOptions
    from indexer.partition import PartitionOptions
    from indexer.worker import WorkerOptions

    try:
        merge = MergeOptions(**settings.options_of(MergeOptions))
    except ValueError as error:
        raise ConfigError(f"Wrong setting. {error}") from error
    return IndexerOptions(
        partition=PartitionOptions(merge=merge, graph=_graph_options(settings)),
        worker=WorkerOptions(**settings.options_of(WorkerOptions)),
        housekeeping=HousekeepingOptions(**settings.options_of(HousekeepingOptions)),
        retention=RetentionOptions(**settings.options_of(RetentionOptions)),
        **settings.options_of(IndexerOptions),
    )
