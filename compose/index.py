"""The indexer process: all workers, and a small door of its own for its metrics and state."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
import uvloop
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from compose.config import Settings
from compose.wiring import indexer_parts

if TYPE_CHECKING:
    from indexer.indexer import Indexer

__all__ = ["run_indexer"]

_log = structlog.get_logger(__name__)
_REQUEST_SECONDS = 5.0


def run_indexer(settings: Settings, *, is_supervised: bool) -> int:
    """Run until SIGTERM or SIGINT; return the exit code. A supervised process leaves SIGINT to its supervisor.

    Raises `ConfigError`, `LogUnavailable`.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_index(settings, is_supervised=is_supervised))


async def _index(settings: Settings, *, is_supervised: bool) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGINT, (lambda: None) if is_supervised else stopping.set)
    registry = CollectorRegistry()
    async with indexer_parts(settings, registry) as indexer:
        door = await _open_door(settings, indexer, registry)
        _log.info("indexing", data_dir=str(settings.data_dir), log=settings.log)
        await stopping.wait()
        if door is not None:
            door.close()
    _log.info("stopped")
    return 0


async def _open_door(settings: Settings, indexer: Indexer, registry: CollectorRegistry) -> asyncio.Server | None:
    """Open the port for metrics; without it where it is taken, since indexing matters more."""
    if not settings.indexer_port:
        return None
    pages: dict[str, Callable[[], tuple[str, bytes]]] = {
        "/healthz": lambda: ("application/json", b'{"status":"ok"}'),
        "/metrics": lambda: (CONTENT_TYPE_LATEST, generate_latest(registry)),
        "/status": lambda: ("application/json", _status(indexer)),
    }

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
                page = pages.get(request.split(b" ", 2)[1].decode(errors="replace").partition("?")[0])
                kind, body = ("text/plain", b"not found\n") if page is None else page()
                status = "404 Not Found" if page is None else "200 OK"
                head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
                writer.write(f"{head}connection: close\r\n\r\n".encode() + body)
                await writer.drain()
        except (OSError, TimeoutError, IndexError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            _log.debug("request for metrics broke off", reason=str(error))
        finally:
            writer.close()

    # It asks for no key and names every index, so where others must have one only this machine reaches it.
    host = settings.bind if settings.is_open_without_keys else "127.0.0.1"
    try:
        return await asyncio.start_server(answer, host, settings.indexer_port)
    except OSError as error:
        _log.warning("no metrics of the indexer: its port is taken", port=settings.indexer_port, reason=error.strerror)
        return None


def _status(indexer: Indexer) -> bytes:
    return json.dumps([dataclasses.asdict(status) for status in indexer.status()]).encode()
