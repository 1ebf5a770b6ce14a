"""Queries of a well-behaved client while others attack the server over their own connections.

`python -m tests.bench.attack PORT` attacks the index that the benchmark serves until it is killed: 2,000 idle
connections, 200 half heads and half bodies, and each second five header floods, five JSON bombs of 4 MB and one body
of 100 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence

from tests.bench import work
from tests.bench.figures import Row, figure, note, percentiles
from tests.bench.harness import Bench, scenario
from tests.bench.probes import asking
from tests.bench.server import ROOT, Server

_MIB = 1024 * 1024
_RATE = 100
_IDLE, _HALF = 2_000, 100
_BODY_MIB, _BOMB = 100, b"[" * (4 * _MIB)


@scenario("attack", "attack_p99")
async def attacked(bench: Bench) -> Sequence[Row]:
    """Ask at a fixed rate, first alone and then while the server is attacked."""
    server = (await bench.loaded()).server
    await bench.rest(server)
    seconds = min(20.0, bench.options.seconds / 3)
    before = server.anonymous_bytes("serve")
    with asking(server.port, work.prefix_of(), bench.data.queries, per_second=_RATE) as idle:
        await asyncio.sleep(seconds)
    with _attacking(server), asking(server.port, work.prefix_of(), bench.data.queries, per_second=_RATE) as probe:
        grown = 0
        for _ in range(int(seconds)):
            await asyncio.sleep(1)
            grown = max(grown, server.anonymous_bytes("serve") - before)
    if probe.failures:
        raise RuntimeError(f"{len(probe.failures)} queries failed, first: {probe.failures[0]}")
    (_, quiet), (p50, p99) = percentiles(idle.latencies), percentiles(probe.latencies)
    said = f"{p99 / quiet:.1f} x ({p99:.1f} ms, p50 {p50:.1f}; alone {quiet:.1f})"
    found = await bench.recall(server)
    return [
        figure("attack_p99", p99 / quiet, said, recall=found, p50_ms=p50, p99_ms=p99, idle_p99_ms=quiet),
        note("attack_memory", "memory of the API that the attack added", f"{grown / _MIB:,.0f} MB", bytes=grown),
    ]


@contextlib.contextmanager
def _attacking(server: Server) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.attack", str(server.port)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()  # all that stand still are connected
        yield
    finally:
        process.kill()
        process.wait()


async def _attack(port: int) -> None:
    head = f"POST {work.prefix_of()}/query HTTP/1.1\r\nhost: x\r\n".encode()
    # Kept, else they would be closed.
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(_IDLE)]
    for begun in (head, head + b"content-length: 1000\r\n\r\n{"):
        for _ in range(_HALF):
            held.append(await asyncio.open_connection("127.0.0.1", port))
            held[-1][1].write(begun)
    print("begun", flush=True)
    sized = head + b"content-length: %d\r\n\r\n"

    async def flood(writer: asyncio.StreamWriter) -> None:
        writer.write(head + b"x: ")
        for _ in range(100):
            writer.write(b"y" * 65_536)
            await writer.drain()

    async def bomb(writer: asyncio.StreamWriter) -> None:
        writer.write(sized % len(_BOMB) + _BOMB)
        await writer.drain()

    async def large(writer: asyncio.StreamWriter) -> None:
        writer.write(sized % (_BODY_MIB * _MIB))
        for _ in range(_BODY_MIB):
            writer.write(b"x" * _MIB)
            await writer.drain()

    await asyncio.gather(_every(0.2, port, flood), _every(0.2, port, bomb), _every(1.0, port, large))


async def _every(seconds: float, port: int, send: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
    """Attack over a new connection every so often, one after the other."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # It is cut off in the middle: that is what the attack is for.
        with contextlib.suppress(ConnectionError):
            await send(writer)
            await reader.read(1)
        writer.close()
        await asyncio.sleep(seconds)


if __name__ == "__main__":
    asyncio.run(_attack(int(sys.argv[1])))
