"""Queries a second with one and with two API processes on the same data, by turns."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench import work
from tests.bench.figures import Row, note, percentiles
from tests.bench.harness import Bench, scenario

_COUNTS = (1, 2)
# By turns, so that a busy neighbour on the machine meets all of them.
_TURNS = 3
_CONNECTIONS = 16


@scenario("workers")
async def workers(bench: Bench) -> Sequence[Row]:
    """Start the loaded server with so many API processes; the first number is the base of the ratios."""
    server = (await bench.loaded()).server
    seconds = min(8.0, bench.options.seconds / 6)
    taken: dict[int, list[float]] = {count: [] for count in _COUNTS}
    window = {"connections": _CONNECTIONS, "prefix": work.prefix_of()}
    try:
        for _ in range(_TURNS):
            for count in _COUNTS:
                server.stop()
                server.start("up", api_workers=count)
                await work.ask(server.port, bench.questions, seconds=1, **window)
                taken[count] += await work.ask(server.port, bench.questions, seconds=seconds, **window)
    finally:
        server.stop()
        server.start("up")
    found = await bench.recall(server)
    rows = []
    for count, latencies in taken.items():
        ratio, (p50, p99) = len(latencies) / len(taken[_COUNTS[0]]), percentiles(latencies)
        rate = len(latencies) / (_TURNS * seconds)
        said = f"{ratio:.2f} ({rate:,.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms)"
        name = f"queries/s, {_CONNECTIONS} connections, {count} API process(es), against one"
        facts = {"ratio": ratio, "per_second": rate, "p50_ms": p50, "p99_ms": p99}
        rows.append(note(f"workers_{count}", name, said, recall=found, **facts))
    return rows
