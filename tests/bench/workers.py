"""Queries a second with one and with two API processes, in one run: `python -m tests.bench.workers [--rows N]`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib

from tests.bench import data, work
from tests.bench.data import DataSet
from tests.bench.server import Server, running
from tests.bench.work import Row, percentiles

_ROUNDS = 4


async def queries_by_workers(
    loaded: DataSet, *, seconds: float, connections: int = 16, counts: tuple[int, ...] = (1, 2), tail_rows_max: int = 0
) -> list[Row]:
    """Ask servers that differ in their number of API processes only, by turns; the first is the base of the ratios."""
    with contextlib.ExitStack() as stack:
        servers: list[Server] = []
        for count in counts:
            servers.append(stack.enter_context(running(api_workers=count)))
            await work.create_index(servers[-1].port, loaded.vectors.shape[1])
            await work.load(servers[-1].port, loaded)
            await work.settled(servers[-1].port, len(loaded.vectors), tail_rows_max=tail_rows_max)
        await asyncio.gather(*[work.quiet(server.port) for server in servers])
        latencies: list[list[float]] = [[] for _ in servers]
        # By turns, so that a busy neighbour on the machine meets all of them.
        for _ in range(_ROUNDS):
            for server, found in zip(servers, latencies, strict=True):
                share = seconds / _ROUNDS
                found.extend(await work.ask(server.port, loaded.queries, connections=connections, seconds=share))
    rows = []
    for count, found in zip(counts, latencies, strict=True):
        p50, p99 = percentiles(found)
        ratio = len(found) / len(latencies[0])
        values = {"ratio": ratio, "per_second": len(found) / seconds, "p50_ms": p50, "p99_ms": p99}
        figure = f"{ratio:.2f} ({values['per_second']:,.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms)"
        rows.append(Row(f"queries/s, {connections} connections, {count} API processes", figure, values=values))
    return rows


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    loaded = data.load(options.rows)
    print(f"data: {loaded.name}, {options.rows:,} rows", flush=True)
    made = queries_by_workers(loaded, seconds=options.seconds, tail_rows_max=options.rows // 10)
    for row in asyncio.run(made):
        print(f"{row.name:<58} {row.figure}", flush=True)


if __name__ == "__main__":
    main()
