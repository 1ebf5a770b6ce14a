"""The API process: one server on the control port and the whole range of index ports."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog
import uvicorn
import uvloop

from compose.config import Settings
from compose.connections import ConnectionLimits, Connections
from compose.first_bytes import first_bytes_with
from compose.holding import hold, run_directory
from compose.peers import door_of
from compose.ports import BACKLOG, BoundPorts, bind_ports, inherited_ports
from compose.tls import server_context
from compose.wiring import api_parts, is_embedded
from query_api.app import create_app
from schemas.errors import FreshetError

__all__ = ["run_api"]

_log = structlog.get_logger(__name__)
# Above the idle time of common load balancers (60 s), so that they and not we close idle connections.
_KEEP_ALIVE_SECONDS = 75
# Left of a stop's time for what comes after the last request: appends under way, the log's own closing.
_CLOSING_SHARE = 0.3
# How long an API process that was just killed may take to let go of the embedded log.
_DYING_SECONDS = 2.0
_SWITCH_SECONDS = 0.0005


class _Server(uvicorn.Server):
    """uvicorn's server, with signals left to us, and with a Unix socket beside its ports where `door` is not empty."""

    def __init__(self, config: uvicorn.Config, door: str, begin_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._door = door
        self._begin_stop = begin_stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what was accepted; the socket goes first, so that nobody comes by it any more."""
        self._begin_stop()
        if self._door:
            await asyncio.to_thread(Path(self._door).unlink, missing_ok=True)
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on all of them."""
        if self._door:
            await asyncio.to_thread(Path(self._door).unlink, missing_ok=True)
        await super().startup(sockets)
        if self._door:
            made: Any = self.config.http_protocol_class

            def protocol() -> asyncio.Protocol:
                connection: asyncio.Protocol = made(self.config, self.server_state, self.lifespan.state)
                return connection

            self.servers.append(await asyncio.get_running_loop().create_unix_server(protocol, self._door))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield

    def stop(self) -> None:
        """Finish what was accepted, then end; the second call ends at once."""
        self.force_exit = self.should_exit
        self.should_exit = True


def run_api(settings: Settings, *, is_supervised: bool, worker: int = 0, descriptors: Sequence[int] = ()) -> int:
    """Run until SIGTERM or SIGINT; return the exit code. A supervised process leaves SIGINT to its supervisor.

    One of several gets its number, `worker`, and `descriptors` of the sockets that its supervisor has bound for it.

    Raises `ConfigError`, `LogUnavailable`.
    """
    with contextlib.ExitStack() as stack:
        if is_embedded(settings):
            name = f"serve-{worker}" if worker else "serve"
            stack.enter_context(hold(settings.data_dir, name, wait_seconds=_DYING_SECONDS))
        # The writer thread of the log takes the interpreter back some four times a commit; by default a busy event loop
        # may keep it for 5 ms each time.
        sys.setswitchinterval(_SWITCH_SECONDS)
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        ports = inherited_ports(settings, descriptors) if descriptors else bind_ports(settings)
        return runner.run(_serve(settings, ports, worker, is_supervised=is_supervised))


async def _serve(settings: Settings, ports: BoundPorts, worker: int, *, is_supervised: bool) -> int:
    # Large bodies are decoded one at a time: threads that all want the interpreter would hold up the event loop.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1, "bodies"))
    tls = server_context(settings)
    if ports.skipped:
        _log.warning("index ports in use elsewhere are skipped", ports=list(ports.skipped))
    try:
        async with api_parts(settings, index_ports=ports.index_ports, worker=worker) as parts:
            for spec in parts.catalog.list():
                if spec.port and spec.port not in ports.index_ports:
                    _log.error("the port of an index is not ours now; use its path", index=spec.name, port=spec.port)
            connections = Connections(ConnectionLimits(**settings.options_of(ConnectionLimits)))
            app = create_app(parts)
            config = uvicorn.Config(
                app,
                http=first_bytes_with(connections),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                ssl_context_factory=None if tls is None else (lambda *_: tls),
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, int(settings.stop_seconds * (1 - _CLOSING_SHARE))),
            )
            # What the program is made of lives as long as it does: no collection has to look at it again.
            gc.collect()
            gc.freeze()
            door = door_of(run_directory(settings.data_dir), worker) if settings.api_workers > 1 else ""
            server = _Server(config, door, app.begin_stop)
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, server.stop)
            loop.add_signal_handler(signal.SIGINT, (lambda: None) if is_supervised else server.stop)
            _log.info(
                "listening",
                host=settings.bind,
                port=settings.port,
                index_ports=len(ports.index_ports),
                tls=tls is not None,
            )
            await server.serve(sockets=list(ports.sockets))
            if not server.started:
                raise FreshetError("The API did not start; the lines above say why.")
            if worker:
                # Said before it leaves the owner of the log, which ends after all others.
                _log.info("stopped")
        if not worker:
            _log.info("stopped")
    finally:
        for listening in ports.sockets:
            listening.close()
    return 0
