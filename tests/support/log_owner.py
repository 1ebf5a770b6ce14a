"""A process that owns an embedded log and takes packs from others: `python -m tests.support.log_owner <path> [<step>]`.

It says `ready` on its output, and ends by itself when its input ends, or by SIGKILL at the fifth passing of the step.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from producer.log.forwarded_owner import OwnerDoor
from producer.log.sqlite import SqliteLogOptions, SqliteLogs
from producer.steps import no_step
from tests.support.appender import clock_ms, door_of, killer

__all__ = ["LogOwner"]


class LogOwner:
    """The process, seen from the test; it runs from the start on."""

    def __init__(self, path: Path, *, step: str = "") -> None:
        """Start it and wait until it listens."""
        command = [sys.executable, "-m", "tests.support.log_owner", str(path), *([step] if step else [])]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        """Kill it without warning and wait until it is gone."""
        self.process.kill()
        self._end()

    def stop(self) -> None:
        """Let it finish, and wait until it is gone."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0
        self._end()

    def _end(self) -> None:
        self.process.wait(30)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


async def _main(path: str, step: str = "") -> None:
    logs = SqliteLogs(Path(path), SqliteLogOptions(), clock_ms=clock_ms, step=killer(step) if step else no_step)
    await logs.start()
    door = OwnerDoor(logs)
    await door.start(door_of(Path(path)))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await door.close(5.0)
    await logs.close()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
