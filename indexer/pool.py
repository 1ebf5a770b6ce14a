"""Where merges run: roll-ups in a thread, all others in a niced process of their own, which dies with its parent."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from indexer.merger import MergeJob, MergeResult, run_merge
from indexer.snapshots.store import Store

__all__ = ["MergePool"]

_PR_SET_PDEATHSIG = 1
_NICENESS = 10
_PARENT_LOOK_SECONDS = 1.0


class MergePool:
    """Runs merges beside the event loop."""

    def __init__(self, processes: int = 1) -> None:
        """Use up to `processes` builders; they start at first use."""
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None

    async def run(self, store: Store, job: MergeJob) -> MergeResult:
        """Carry out `job`. Raises what `run_merge` raises, `BrokenProcessPool` where the builder was killed."""
        if not job.is_large:
            return await asyncio.to_thread(run_merge, store, job)
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self._processes, mp_context=context, initializer=_start_builder, initargs=(os.getpid(),)
            )
        pool = self._pool
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, run_merge, store, job)
        except BrokenProcessPool:
            # A killed builder breaks its pool for good: the next merge gets a new one.
            if self._pool is pool:
                self._pool = None
            pool.shutdown(wait=False, cancel_futures=True)
            raise

    def close(self) -> None:
        """End the builders; what they were writing is garbage."""
        if self._pool is None:
            return
        # The executor has no public way to end a running builder.
        for process in list((self._pool._processes or {}).values()):  # noqa: SLF001
            process.terminate()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = None


def _start_builder(parent: int) -> None:
    os.nice(_NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):  # only Linux has it; the watch below works everywhere
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_LOOK_SECONDS)
    os._exit(1)
