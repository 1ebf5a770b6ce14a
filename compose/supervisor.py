"""`freshet up`: API and indexer as two processes, each with an interpreter of its own, under one watch.

Guarantees: one supervisor per data directory; a child that dies comes back, after a pause that grows while it keeps
dying; no child outlives its supervisor; a stop finishes what was accepted and ends within the time set for it. A child
that says its settings are wrong (`EXIT_CONFIG`) is not started again.
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
from compose.holding import hold
from compose.ports import check_control_port

__all__ = ["EXIT_CONFIG", "SupervisorOptions", "supervise", "tie_to_parent"]

# sysexits.h: EX_CONFIG.
EXIT_CONFIG = 78
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

    def __init__(self, name: str, command: Sequence[str], options: SupervisorOptions) -> None:
        self.name = name
        self._command = command
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self._pause = options.restart_seconds_min
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Start, and start again, until told to stop; return the exit code of a child that must not come back."""
        while True:
            began = time.monotonic()
            self._process = await asyncio.create_subprocess_exec(*self._command, stdin=asyncio.subprocess.PIPE)
            _log.debug("started", child=self.name, pid=self._process.pid)
            code = await self._process.wait()
            if self._stopping.is_set() or code == EXIT_CONFIG:
                return code
            if time.monotonic() - began >= self._options.steady_seconds:
                self._pause = self._options.restart_seconds_min
            _log.error("child ended; starting it again", child=self.name, exit=code, pause_seconds=self._pause)
            with contextlib.suppress(TimeoutError):  # nobody asked for a stop during the pause
                await asyncio.wait_for(self._stopping.wait(), self._pause)
                return code
            self._pause = min(2 * self._pause, self._options.restart_seconds_max)

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
) -> int:
    """Run API and indexer until SIGTERM or SIGINT; return the exit code.

    `arguments` hand the command line's settings on to the children; `ready` is called once the API answers reads.
    Raises `ConfigError` where the data directory is held by somebody else, or the port is taken.
    """
    with hold(settings.data_dir, "up"):
        check_control_port(settings)
        return asyncio.run(_supervise(settings, arguments, ready, options or SupervisorOptions()))


async def _supervise(
    settings: Settings, arguments: Sequence[str], ready: Callable[[], None], options: SupervisorOptions
) -> int:
    def child(command: str) -> _Child:
        own = [sys.executable, "-P", "-m", "compose", command, "--supervised-by", str(os.getpid())]
        return _Child(command, [*own, *arguments], options)

    api, indexer = child("serve"), child("index")
    running = {asyncio.create_task(each.run(), name=each.name): each for each in (api, indexer)}
    stop_asked = asyncio.Event()
    signals = 0

    def on_signal(number: signal.Signals) -> None:
        nonlocal signals
        signals += 1
        _log.info("stopping" if signals == 1 else "stopping at once", signal=number.name)
        stop_asked.set()
        if signals > 1:
            for each in (api, indexer):
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
    api: _Child,
    indexer: _Child,
    tasks: dict[str, asyncio.Task[int]],
    seconds: float,
    options: SupervisorOptions,
) -> None:
    """End the API first, since its last writers may wait for the indexer; what is late is killed."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    api.signal(signal.SIGTERM)
    await asyncio.wait([tasks[api.name]], timeout=max(0.0, seconds - options.indexer_stop_seconds))
    indexer.signal(signal.SIGTERM)
    await asyncio.wait(tasks.values(), timeout=max(0.0, deadline - loop.time()))
    for each in (api, indexer):
        if not tasks[each.name].done():
            _log.error("child did not stop in time and is killed", child=each.name, seconds=seconds)
            each.signal(signal.SIGKILL)
    await asyncio.wait(tasks.values())


async def _announce(settings: Settings, ready: Callable[[], None], options: SupervisorOptions) -> None:
    """Call `ready` once `/readyz` answers 200."""
    host = "127.0.0.1" if settings.bind in ("0.0.0.0", "localhost") else settings.bind  # noqa: S104 # compared only
    while True:
        await asyncio.sleep(options.ready_poll_seconds)
        # Nobody listens yet, or it went away half-way: asked again.
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection(host, settings.port)
                writer.write(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                status = await reader.readline()
                writer.close()
            if status.split(b" ")[1:2] == [b"200"]:
                ready()
                return
