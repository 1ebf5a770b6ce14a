"""`freshet up`: API and indexer as processes, each with an interpreter of its own, under one watch.

Guarantees: one supervisor per data directory; a child that dies comes back, after a pause that grows while it keeps
dying; no child outlives its supervisor; a stop finishes what was accepted and ends within the time set for it. A child
that says its settings are wrong (`EXIT_CONFIG`) is not started again. Several API processes share the ports; the first
one owns the embedded log, and when all are told to stop it ends after the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from compose.config import Settings
from compose.holding import hold, run_directory
from compose.peers import door_of, get
from compose.ports import SharedPorts, check_control_port
from compose.tls import client_context, server_context
from schemas.errors import ConfigError

__all__ = ["EXIT_CONFIG", "SupervisorOptions", "supervise", "tie_to_parent"]

# sysexits.h: EX_CONFIG, and EX_TEMPFAIL.
EXIT_CONFIG = 78
_EXIT_LATER = 75
_PR_SET_PDEATHSIG = 1

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SupervisorOptions:
    """The pauses before a child is started again, and how long it must have lived for the pause to start over."""

    restart_seconds_min: float = 0.1
    restart_seconds_max: float = 5.0
    steady_seconds: float = 10.0
    ready_poll_seconds: float = 0.05
    # Kept back at a stop: the indexer, which has nothing to finish, gets this long after the API has ended.
    indexer_stop_seconds: float = 2.0


def tie_to_parent(parent: int) -> None:
    """End this process when `parent` ends, however that came about.

    Linux does it by itself; elsewhere, and where the parent ended before we asked, the end of standard input says so:
    it is a pipe that only the parent holds open.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)

    def watch() -> None:
        # Not through sys.stdin, whose lock a thread must not hold while the interpreter ends.
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


class _Child:
    """One process that is kept running."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        options: SupervisorOptions,
        ports: SharedPorts | None = None,
        worker: int = 0,
    ) -> None:
        self.name = name
        self._worker = worker
        self._command = command
        self._options = options
        self._ports = ports
        self._process: asyncio.subprocess.Process | None = None
        self._pause = options.restart_seconds_min
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Start, and start again, until told to stop; return the exit code of a child that must not come back."""
        while True:
            began = time.monotonic()
            code = await self._run_once()
            if self._stopping.is_set() or code == EXIT_CONFIG:
                return code
            if time.monotonic() - began >= self._options.steady_seconds:
                self._pause = self._options.restart_seconds_min
            _log.error("child ended; starting it again", child=self.name, exit=code, pause_seconds=self._pause)
            with contextlib.suppress(TimeoutError):  # nobody asked for a stop during the pause
                await asyncio.wait_for(self._stopping.wait(), self._pause)
                return code
            self._pause = min(2 * self._pause, self._options.restart_seconds_max)

    async def _run_once(self) -> int:
        """Run the process to its end; return its exit code."""
        try:
            sockets = self._ports.take() if self._ports is not None else ()
        except ConfigError as error:
            # While none of ours listened somebody took the port; it may be free again later.
            _log.error("no sockets for a child", child=self.name, reason=error.message)
            return _EXIT_LATER
        descriptors = [made.fileno() for made in sockets]
        own = ["--worker", f"{self._worker}:{','.join(map(str, descriptors))}"] if descriptors else []
        command = [*self._command, *own]
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, pass_fds=descriptors
            )
        finally:
            # Ours would keep a port listening when the child has died.
            for made in sockets:
                made.close()
        _log.debug("started", child=self.name, pid=self._process.pid)
        return await self._process.wait()

    def signal(self, number: int) -> None:
        """Send a signal, where there is a process to take it; the child is not started again."""
        self._stopping.set()
        if self._process is not None and self._process.returncode is None:
            # It ended just now: nothing is left to signal.
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def supervise(
    settings: Settings,
    arguments: Sequence[str],
    *,
    ready: Callable[[], None],
    options: SupervisorOptions | None = None,
    has_indexer: bool = True,
) -> int:
    """Run the API processes, and the indexer, until SIGTERM or SIGINT; return the exit code.

    `arguments` hand the command line's settings on to the children; `ready` is called once the API answers reads.
    Raises `ConfigError` where the data directory is held by somebody else, or the port is taken.
    """
    # Said before anything is started, not by every child.
    server_context(settings)
    with hold(settings.data_dir, "up") if has_indexer else contextlib.nullcontext():
        ports = None
        if settings.api_workers > 1:
            ports = SharedPorts(settings)
            if ports.skipped:
                _log.warning("index ports in use elsewhere are skipped", ports=list(ports.skipped))
        else:
            check_control_port(settings)
        options = options or SupervisorOptions()
        api, indexer = _children(settings.api_workers, arguments, options, ports)
        return asyncio.run(_supervise(settings, api, indexer if has_indexer else None, ready, options))


def _children(
    workers: int, arguments: Sequence[str], options: SupervisorOptions, ports: SharedPorts | None
) -> tuple[Sequence[_Child], _Child]:
    def child(command: str, name: str, worker: int = 0) -> _Child:
        words = [sys.executable, "-P", "-m", "compose", command, "--supervised-by", str(os.getpid())]
        return _Child(name, [*words, *arguments], options, ports if command == "serve" else None, worker)

    if ports is None:
        return [child("serve", "serve")], child("index", "index")
    numbers = range(workers)
    api = [child("serve", f"serve-{n}" if n else "serve", n) for n in numbers]
    return api, child("index", "index")


async def _supervise(
    settings: Settings,
    api: Sequence[_Child],
    indexer: _Child | None,
    ready: Callable[[], None],
    options: SupervisorOptions,
) -> int:
    children = [*api, *([indexer] if indexer is not None else [])]
    running = {asyncio.create_task(each.run(), name=each.name): each for each in children}
    stop_asked = asyncio.Event()
    signals = 0

    def on_signal(number: signal.Signals) -> None:
        nonlocal signals
        signals += 1
        _log.info("stopping" if signals == 1 else "stopping at once", signal=number.name)
        stop_asked.set()
        if signals > 1:
            for each in children:
                each.signal(signal.SIGKILL)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # `nohup` has SIGHUP ignored, and means it.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, on_signal, number)
    announcing = asyncio.create_task(_announce(settings, ready, options))
    asked = asyncio.create_task(stop_asked.wait())
    done, _ = await asyncio.wait([asked, *running], return_when=asyncio.FIRST_COMPLETED)
    announcing.cancel()
    asked.cancel()
    codes = [task.result() for task in done if task in running]
    await _stop(api, indexer, {each.name: task for task, each in running.items()}, settings.stop_seconds, options)
    return codes[0] if codes else 0


async def _stop(
    api: Sequence[_Child],
    indexer: _Child | None,
    tasks: dict[str, asyncio.Task[int]],
    seconds: float,
    options: SupervisorOptions,
) -> None:
    """End the API first, since its last writers may wait for the indexer; what is late is killed.

    All API processes are told at once, so that their requests have the same time; the log's owner waits for the others.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    for each in api:
        each.signal(signal.SIGTERM)
    await asyncio.wait([tasks[each.name] for each in api], timeout=max(0.0, seconds - options.indexer_stop_seconds))
    if indexer is not None:
        indexer.signal(signal.SIGTERM)
    await asyncio.wait(tasks.values(), timeout=max(0.0, deadline - loop.time()))
    for each in (*api, *([indexer] if indexer is not None else [])):
        if not tasks[each.name].done():
            _log.error("child did not stop in time and is killed", child=each.name, seconds=seconds)
            each.signal(signal.SIGKILL)
    await asyncio.wait(tasks.values())


async def _announce(settings: Settings, ready: Callable[[], None], options: SupervisorOptions) -> None:
    """Call `ready` once `/readyz` of every API process answers 200."""
    if settings.api_workers > 1:
        folder = run_directory(settings.data_dir)
        for worker in range(settings.api_workers):
            while not await _is_ready(door_of(folder, worker)):  # noqa: ASYNC110 # it says so in no other way
                await asyncio.sleep(options.ready_poll_seconds)
        ready()
        return
    host = "127.0.0.1" if settings.bind in ("0.0.0.0", "localhost") else settings.bind  # noqa: S104 # compared only
    while True:
        await asyncio.sleep(options.ready_poll_seconds)
        # Nobody listens yet, or it went away half-way: asked again.
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection(host, settings.port, ssl=client_context(settings))
                writer.write(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                status = await reader.readline()
                writer.close()
            if status.split(b" ")[1:2] == [b"200"]:
                ready()
                return


async def _is_ready(door: str) -> bool:
    # Nobody listens there yet, or it went away half-way: asked again.
    with contextlib.suppress(OSError, TimeoutError):
        status, _ = await get(door, "/readyz")
        return status == 200
    return False
