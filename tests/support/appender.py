"""A process that appends to a log until it is done or killed, and says on its output what was acknowledged.

Run as `python -m tests.support.appender <spec> <log id> <partitions> <partition> <tag> <batches> <records> [<step>]`;
`spec` is `sqlite:<path>`, `forwarded:<path>` (see `log_owner`) or `kafka:<host:port>`. With a step it kills itself,
without warning, where that step is reached in the fifth batch. Values are
`<tag>/<batch>/<number>/<records>`, so that a reader can tell wholes from pieces.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from producer.log.forwarded import ForwardedLogs
from producer.log.kafka import KafkaLogOptions, KafkaLogs
from producer.log.protocol import LogRecord, Logs, StoredRecord
from producer.log.sqlite import SqliteLogOptions, SqliteLogs
from producer.pokes import socket_path
from producer.steps import Step, no_step

__all__ = ["Appender", "assert_whole", "batch", "clock_ms", "door_of", "killer", "make_logs"]

_KILL_IN_BATCH = 5


def clock_ms() -> int:
    """Return the milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def door_of(path: Path) -> str:
    """Return where the owner of an embedded log listens."""
    return socket_path(path.parent, "log")


def make_logs(spec: str, *, step: Step = no_step, control: str = "tests") -> Logs:
    """Make the logs that `spec` names, with small numbers where a test would otherwise wait."""
    kind, _, where = spec.partition(":")
    if kind == "sqlite":
        return SqliteLogs(Path(where), SqliteLogOptions(busy_seconds=30.0), clock_ms=clock_ms, step=step)
    if kind == "forwarded":
        return ForwardedLogs(Path(where), SqliteLogOptions(), door=door_of(Path(where)), step=step)
    # A busy machine may take its time; what happens when a broker is away has tests of its own.
    return KafkaLogs(where, KafkaLogOptions(control=control, answer_seconds=20.0), step=step)


def batch(tag: str, number: int, count: int) -> list[LogRecord]:
    """Make the records of one append."""
    return [LogRecord(tag.encode(), f"{tag}/{number}/{i}/{count}".encode()) for i in range(count)]


@dataclass
class Appender:
    """The child process, seen from the test."""

    process: asyncio.subprocess.Process

    @classmethod
    async def start(cls, spec: str, log_id: str, partitions: int, *arguments: object) -> Appender:
        """Start it; `arguments` are partition, tag, batches, records and the step to die at."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.support.appender",
            spec,
            log_id,
            str(partitions),
            *(str(argument) for argument in arguments),
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        return cls(process)

    async def acknowledged(self, count: int | None = None) -> dict[int, int]:
        """Return the first offset of each acknowledged batch: of the next `count`, or of all until the end."""
        assert self.process.stdout is not None
        found: dict[int, int] = {}
        while count is None or len(found) < count:
            line = await self.process.stdout.readline()
            if not line.endswith(b"\n"):
                break
            said = json.loads(line)
            found[said["batch"]] = said["begin"]
        return found

    async def kill(self) -> None:
        """Kill it without warning and wait until it is gone."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


def assert_whole(records: Sequence[StoredRecord], acknowledged: Mapping[tuple[str, int], int]) -> None:
    """Check that every batch is there whole, in order, once; and every acknowledged one, where it was said to be."""
    found: dict[tuple[str, int], int] = {}
    at = 0
    while at < len(records):
        tag, number, first, count = records[at].value.decode().split("/")
        run = records[at : at + int(count)]
        expected = [f"{tag}/{number}/{i}/{count}".encode() for i in range(int(count))]
        assert first == "0", f"batch {tag}/{number} starts in its middle at offset {records[at].offset}"
        assert [record.value for record in run] == expected, f"batch {tag}/{number} is not whole"
        assert [record.offset - run[0].offset for record in run] == list(range(int(count)))
        assert (tag, int(number)) not in found, f"batch {tag}/{number} is there twice"
        found[tag, int(number)] = run[0].offset
        at += int(count)
    for key, begin in acknowledged.items():
        assert found.get(key) == begin, f"acknowledged batch {key} is not at {begin}"


def killer(name: str) -> Callable[[str], None]:
    """Return the step that ends this process where `name` is reached the fifth time."""
    seen = 0

    def step(reached: str) -> None:
        nonlocal seen
        seen += reached == name
        if seen == _KILL_IN_BATCH:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


async def _main(spec: str, log_id: str, partitions: str, partition: str, tag: str, *rest: str) -> None:
    batches, records = int(rest[0]), int(rest[1])
    logs = make_logs(spec, step=killer(rest[2]) if len(rest) > 2 else no_step)
    await logs.start()
    log = await logs.open("contract", log_id, int(partitions))
    for number in range(batches):
        appended = await log.append(int(partition), batch(tag, number, records))
        sys.stdout.write(json.dumps({"batch": number, "begin": appended.begin_offset}) + "\n")
        sys.stdout.flush()
    await logs.close()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
