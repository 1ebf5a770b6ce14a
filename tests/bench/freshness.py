"""Write to visible: how long after a single upsert a read shows it, with merges and checkpoints forced meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence

from tests.bench import work
from tests.bench.figures import Row, figure, percentiles
from tests.bench.harness import Bench, scenario
from tests.bench.server import Server, running
from tests.support.broker import NoBroker, find_source

_PER_SECOND = 100
_MERGES_MIN = 2
# Enough for a graph of their own, written twice inside the window.
_BULK_ROWS = 2_500
_MERGES = 'freshet_indexer_merges_total{kind="graph"}'
_CHECKPOINTS = "freshet_indexer_checkpoints_total"


@scenario("visible", "visible_p50", "visible_p99")
async def embedded(bench: Bench) -> Sequence[Row]:
    """Upsert singly at 100/s over the loaded rows, on the embedded log."""
    server = (await bench.loaded()).server
    return await _measure(bench, server, ("visible_p50", "visible_p99"))


@scenario("visible_kafka", "visible_kafka_p50", "visible_kafka_p99")
async def on_kafka(bench: Bench) -> Sequence[Row]:
    """The same on a real broker."""
    with _broker(bench.options.kafka) as address, running(log=f"kafka://{address}", **bench.settings) as server:
        await work.create_index(server.port, bench.data.vectors.shape[1])
        await work.upsert_all(server.port, list(work.bodies(bench.data)))
        await work.settled(server.port, len(bench.data.vectors))
        return await _measure(bench, server, ("visible_kafka_p50", "visible_kafka_p99"))


async def _measure(bench: Bench, server: Server, keys: tuple[str, str]) -> list[Row]:
    seconds = bench.options.seconds
    await bench.rest(server)
    bulk = work.neighbour_namespace("bulk")
    rows = range(min(2 * _BULK_ROWS, len(bench.data.vectors)))
    made = list(work.bodies(bench.data, namespace=bulk, rows=rows))
    before = server.indexer_metrics()
    async with asyncio.TaskGroup() as group:
        forcing = group.create_task(_force_merges(server, made, seconds))
        writing = group.create_task(
            work.write_singly(server.port, bench.data.vectors, per_second=_PER_SECOND, seconds=seconds)
        )
        await writing
        after = server.indexer_metrics()
        await forcing
    writes = writing.result()
    await work.remove_probes(server.port, len(writes.visible))
    await work.remove_namespace(server.port, bulk)
    merges, checkpoints = (int(after.get(name, 0) - before.get(name, 0)) for name in (_MERGES, _CHECKPOINTS))
    found = await bench.recall(server)
    (p50, p99), (d50, d99) = percentiles(writes.visible), percentiles(writes.durable)
    facts = {"durable_p50_ms": d50, "durable_p99_ms": d99, "graph_merges": merges, "checkpoints": checkpoints}
    inside = f"{merges} graph merges, {checkpoints} checkpoints inside"
    table = [
        figure(keys[0], p50, f"{p50:.1f} ms (durable {d50:.1f}; {inside})", recall=found, **facts),
        figure(keys[1], p99, f"{p99:.1f} ms (durable {d99:.1f})", recall=found, **facts),
    ]
    if merges < _MERGES_MIN or not checkpoints:
        for row in table:
            row.met, row.is_failure = None, True
            row.figure = f"NOT VALID: {inside}; {row.figure}"
    return table


async def _force_merges(server: Server, made: list[bytes], seconds: float) -> None:
    """Write enough for a graph of another namespace of the same partition, then as much again."""
    for part in (made[: len(made) // 2], made[len(made) // 2 :]):
        await asyncio.sleep(seconds * 0.1)
        await work.upsert_all(server.port, part, writers=2)
        await asyncio.sleep(seconds * 0.25)


@contextlib.contextmanager
def _broker(kafka: str) -> Iterator[str]:
    """Yield the address of a broker; one that was started here ends here. Raises `NoBroker`."""
    if kafka == "off":
        raise NoBroker("not asked for (--kafka off)")
    if kafka != "find":
        yield kafka
        return
    broker = find_source().shared()
    try:
        broker.start()
        yield broker.bootstrap
    finally:
        broker.remove()
