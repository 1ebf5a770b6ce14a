"""A whole pipeline in one process on real ports: embedded log, catalog, indexer, query API, HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import uvicorn
from prometheus_client import CollectorRegistry

from compose.connections import ConnectionLimits, Connections
from compose.first_bytes import first_bytes_with
from indexer.indexer import Indexer, IndexerOptions
from indexer.metrics import IndexerMetrics
from indexer.snapshots.pinned import open_pinned
from indexer.snapshots.reader import SnapshotReader
from indexer.snapshots.store import LocalStore
from producer.catalog import Catalog
from producer.log.protocol import Log
from producer.log.sqlite import SqliteLogOptions, SqliteLogs
from producer.pokes import PokeReceiver, PokeSender, manifest_topic
from producer.publisher import Publisher
from producer.steps import Step, no_step
from query_api.app import ApiDeps, ApiOptions, create_app
from query_api.doors import Doors
from query_api.ends import EndsOptions
from query_api.freshness import Freshness
from query_api.restores import RestoreParts
from schemas.errors import ConfigError
from schemas.indexes import IndexSpec

# A busy machine makes nobody's wait end before what it is for: a test of what happens then names its own.
PATIENT = ApiOptions(
    freshness=Freshness(wait_ms_default=20_000, ready_wait_ms=20_000, outcome_wait_ms=20_000),
    ends=EndsOptions(is_sole_writer=True, patience_seconds=20),
)


def clock_ms() -> int:
    return time.time_ns() // 1_000_000


def listening(port: int = 0) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Inherited by accepted connections; without it an answer in two parts waits for the client's delayed ACK, 40 ms.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.bind(("127.0.0.1", port))
    made.listen(128)
    return made


@dataclass
class ApiServer:
    """Runs the pipeline on an event loop of its own, in a thread; `indexing` can be switched off and on.

    The embedded log of a test need not survive power loss, so it does not wait for the disk.
    """

    folder: Path
    options: ApiOptions = PATIENT
    indexer_options: IndexerOptions = field(default_factory=IndexerOptions)
    index_ports: int = 8
    ports: tuple[int, ...] = ()
    indexing: bool = True
    step: Step = no_step

    def __enter__(self) -> Self:
        self._ready = threading.Event()
        self._restores_held = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="api-server")
        self._thread.start()
        assert self._ready.wait(30)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    @property
    def url(self) -> str:
        return f"http://localhost:{self.ports[0]}"

    def call(self, function: Callable[[], object]) -> object:
        """Run `function` (which may return an awaitable) on the server's loop and return what it gives."""

        async def called() -> object:
            value = function()
            return await value if asyncio.iscoroutine(value) else value

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(30)

    def pause_indexing(self) -> None:
        self.call(self._stop_indexer)

    def resume_indexing(self) -> None:
        self.call(self._start_indexer)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the test
            self._failure = error
        finally:
            self._ready.set()

    def hold_restores(self) -> None:
        """Let restore jobs wait, as where another process that runs them hangs."""
        self._restores_held = True

    def release_restores(self) -> None:
        self._restores_held = False

    def _exclusive(self) -> contextlib.AbstractContextManager[None]:
        if self._restores_held:
            raise ConfigError("Another process runs the restore jobs.")
        return contextlib.nullcontext()

    async def _start_indexer(self) -> None:
        self._indexer = Indexer(
            self.logs,
            self.catalog,
            self.store,
            self.indexer_options,
            clock_ms=clock_ms,
            metrics=IndexerMetrics(CollectorRegistry()),
            published=lambda index_id, partition: self._sender.poke(manifest_topic(index_id, partition)),
        )
        await self._indexer.start()

    async def _stop_indexer(self) -> None:
        if self._indexer is not None:
            await self._indexer.close()
            self._indexer = None

    def _made_app(self, pokes: PokeReceiver) -> Doors:
        async def open_log(spec: IndexSpec) -> Log:
            return await self.logs.open(spec.name, spec.log_id, spec.partitions)

        self.publisher = Publisher(open_log)
        return create_app(
            ApiDeps(
                catalog=self.catalog,
                publisher=self.publisher,
                open_log=open_log,
                open_reader=lambda spec, partition: SnapshotReader(self.store, spec, partition),
                pokes=pokes,
                clock_ms=clock_ms,
                registry=CollectorRegistry(),
                restores=RestoreParts(functools.partial(open_pinned, self.store), self._exclusive),
                step=self.step,
                options=replace(self.options, control_port=self.ports[0], index_ports=self.ports[1:]),
            )
        )

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        sockets = [listening(port) for port in (self.ports or [0] * (self.index_ports + 1))]
        self.ports = tuple(made.getsockname()[1] for made in sockets)
        self._sender = PokeSender(self.folder, "api")
        pokes = PokeReceiver(self.folder, "api")
        await pokes.start()
        self.logs = SqliteLogs(
            self.folder / "log.sqlite",
            SqliteLogOptions(synchronous="NORMAL", reserve_bytes=0),
            clock_ms=clock_ms,
            senders=[self._sender],
            receiver=pokes,
        )
        await self.logs.start()
        self.catalog = Catalog(self.logs)
        await self.catalog.start()
        self.store = LocalStore(self.folder / "snapshots")

        self._indexer: Indexer | None = None
        if self.indexing:
            await self._start_indexer()
        self.app = self._made_app(pokes)
        config = uvicorn.Config(
            self.app,
            http=first_bytes_with(Connections(ConnectionLimits())),
            ws="none",
            log_level="warning",
            lifespan="on",
            timeout_keep_alive=60,
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=sockets))
        while not server.started and not serving.done():  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # uvicorn says it in no other way
        self._ready.set()
        await self._stop.wait()
        self.app.begin_stop()
        server.should_exit = True
        await serving
        await self._stop_indexer()
        await self.publisher.close()
        await self.catalog.close()
        await self.logs.close()
        await pokes.close()
        self._sender.close()
