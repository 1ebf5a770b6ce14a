"""Run `freshet` so that it stops itself (SIGSTOP) where it would kill itself: `python -m tests.crash.paused index`.

`FRESHET_CRASH_AT=<step>[:n]` says where, as for a crash; only the signal is another.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from compose import wiring
from compose.cli import main
from producer.steps import Step, no_step


def pausing_step(pause_at: str) -> Step:
    """Return a step that stops the process at the n-th passing of `<step>[:n]`."""
    if not pause_at:
        return no_step
    wanted, _, count = pause_at.partition(":")
    left = [int(count or 1)]
    lock = threading.Lock()

    def step(name: str, /) -> None:
        if name == wanted:
            with lock:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGSTOP)

    return step


if __name__ == "__main__":
    setattr(wiring, "crash_step", pausing_step)  # noqa: B010 # mypy minds an assignment
    sys.exit(main())
