"""The shapes that data takes, each filled, churned and then measured: `python -m tests.bench.shapes [--scale S]`.

Rows are synthetic clusters of 96 dimensions, so that a million of them fit into the time; the churn takes the WordNet
set. Graphs are built with two threads, and an un-indexed tail does not put writes off.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson

from tests.bench import data, stored, work
from tests.bench.figures import Row, failure, keep, note, percentiles, print_rows
from tests.bench.server import running
from tests.bench.shape_report import Shape, report

RESULTS = Path(__file__).parent / "results" / "shapes.jsonl"
_DIMENSION = 96
_THREADS = 2
_LARGE, _NAMESPACES, _ROWS_EACH = 1_000_000, 100_000, 10
_MIDDLE, _CHURN_ROWS, _CHURN_ROUNDS, _CHURN_SHARE = 100_000, 50_000, 20, 0.2
_STREAM_PER_SECOND, _STREAM_SECONDS = 1_000, 60
_INDEXES, _INDEX_ROWS = 20, 5_000
_ACCEPTED = 202
# A look at small scale takes short windows, one start, and joins graphs sooner.
_QUICK_BELOW = 0.1

Step = Callable[[float], Awaitable[Sequence[Row]]]


def _is_quick(scale: float) -> bool:
    return scale < _QUICK_BELOW


def _settings(scale: float) -> dict[str, object]:
    quick = {"settle_seconds": 2.0} if _is_quick(scale) else {}
    return {"graph_threads": _THREADS, "tail_rows_max": 10_000_000, **quick}


def _scaled(count: int, scale: float, *, least: int = 1) -> int:
    return max(least, int(count * scale))


async def many_namespaces(scale: float) -> Sequence[Row]:
    """Fill 100,000 namespaces of 10 rows; one of them is asked."""
    count = _scaled(_NAMESPACES, scale, least=100)
    rows = data.clustered(_ROWS_EACH * 100, _DIMENSION)
    with running(**_settings(scale)) as server:
        await work.create_index(server.port, _DIMENSION)
        taken = await work.upsert_all(server.port, _tenants(rows, count))
        await work.settled(server.port, count * _ROWS_EACH, tail_rows_max=count * _ROWS_EACH)
        name = f"{count:,} namespaces of {_ROWS_EACH} rows"
        said = f"{count * _ROWS_EACH / taken:,.0f} rows/s, one request a namespace"
        shape = Shape(
            "namespaces",
            name,
            server,
            rows.vectors[:_ROWS_EACH],
            rows.queries,
            namespace="tenant-0",
            is_quick=_is_quick(scale),
        )
        shape.notes.append(note("namespaces.load", f"{name}: load, acknowledged", said, seconds=taken))
        shape.compares_recall = False
        return await report(shape)


async def large_and_mixed(scale: float) -> Sequence[Row]:
    """Fill one namespace of 1,000,000 rows; then 100,000 namespaces of 10 rows beside it in the same index."""
    count, others = _scaled(_LARGE, scale, least=5_000), _scaled(_NAMESPACES, scale, least=100)
    rows = data.clustered(count, _DIMENSION)
    with running(**_settings(scale)) as server:
        await work.create_index(server.port, _DIMENSION)
        began = time.perf_counter()
        taken = await work.upsert_all(server.port, work.bodies(rows, 200))
        await work.settled(server.port, count, seconds_max=3_000)
        graphed = time.perf_counter() - began
        name = f"{count:,} rows in a namespace, {_DIMENSION} dimensions"
        said = f"{count / taken:,.0f} rows/s acknowledged, {count / graphed:,.0f} rows/s until in graphs"
        large = Shape("large", name, server, rows.vectors, rows.queries, threads=_THREADS, is_quick=_is_quick(scale))
        large.notes.append(note("large.load", f"{name}: load", said, acknowledged=taken, graphed=graphed))
        first = await report(large)
        print_rows(first)
        await work.upsert_all(server.port, _tenants(rows, others))
        await work.settled(server.port, count + others * _ROWS_EACH, tail_rows_max=2 * others * _ROWS_EACH)
        name = f"one of each in one index ({count:,} rows, {others:,} namespaces)"
        mixed = Shape(
            "mixed", name, server, rows.vectors, rows.queries, compares_recall=False, is_quick=_is_quick(scale)
        )
        second = await report(mixed)
        print_rows(second)
        return [*first, *second]


async def many_indexes(scale: float) -> Sequence[Row]:
    """Fill 20 indexes of one server side by side; one of them is asked."""
    count = _scaled(_INDEX_ROWS, scale, least=200)
    rows = data.clustered(count, _DIMENSION)
    made = list(work.bodies(rows))
    with running(**_settings(scale)) as server:
        for number in range(_INDEXES):
            await work.create_index(server.port, _DIMENSION, f"many-{number}")
        loads = [work.upsert_all(server.port, made, writers=1, index=f"many-{number}") for number in range(_INDEXES)]
        await asyncio.gather(*loads)
        for number in range(_INDEXES):
            await work.settled(server.port, count, index=f"many-{number}")
        name = f"{_INDEXES} indexes of {count:,} rows in one process"
        shape = Shape("indexes", name, server, rows.vectors, rows.queries, index="many-7", is_quick=_is_quick(scale))
        return await report(shape)


async def churn(scale: float) -> Sequence[Row]:
    """Replace a fifth of 50,000 rows by others, twenty times."""
    count = _scaled(_CHURN_ROWS, scale, least=4_000)
    pool = data.load(min(2 * count, 110_000))
    rng = np.random.default_rng(11)
    held = np.arange(count)
    spare = np.arange(count, len(pool.vectors))
    with running(**_settings(scale)) as server:
        await work.create_index(server.port, pool.vectors.shape[1])
        await work.upsert_all(server.port, _placed(pool, np.arange(count), held))
        await work.settled(server.port, count)
        began = time.perf_counter()
        for _ in range(_CHURN_ROUNDS):
            places = rng.choice(count, int(count * _CHURN_SHARE), replace=False)
            drawn = rng.choice(len(spare), len(places), replace=False)
            held[places], spare[drawn] = spare[drawn], held[places]
            await work.upsert_all(server.port, _placed(pool, places, held[places]))
            await work.settled(server.port, count, tail_rows_max=2 * len(places))
        taken = time.perf_counter() - began
        name = f"{_CHURN_ROUNDS} rounds of {_CHURN_SHARE:.0%} of {count:,} rows replaced"
        said = f"{_CHURN_ROUNDS * _CHURN_SHARE * count / taken:,.0f} rows/s"
        shape = Shape("churn", name, server, pool.vectors[held], pool.queries, is_quick=_is_quick(scale))
        shape.notes.append(note("churn.load", f"{name}: replacing", said, seconds=taken))
        return await report(shape)


async def metadata_and_removal(scale: float) -> Sequence[Row]:
    """Change metadata of all rows at once and in a stream, then delete the namespace and make it again."""
    count = _scaled(_MIDDLE, scale, least=4_000)
    rows = data.clustered(count, _DIMENSION)
    with running(**_settings(scale)) as server:
        await work.create_index(server.port, _DIMENSION)
        await work.upsert_all(server.port, work.bodies(rows, 200))
        await work.settled(server.port, count)
        await work.calm(server, seconds=4 if _is_quick(scale) else 12)
        done: list[Row] = []
        async for shape in _changes(
            Shape("", "", server, rows.vectors, rows.queries, is_quick=_is_quick(scale)), rows, scale
        ):
            made = await report(shape)
            print_rows(made)
            done += made
        return done


async def _changes(plain: Shape, rows: data.DataSet, scale: float) -> AsyncIterator[Shape]:
    server, count = plain.server, len(rows.vectors)
    graphs = stored.look(server.data_dir).graph_names

    def shaped(key: str, name: str, said: str, **values: object) -> Shape:
        made = replace(plain, key=key, name=name, notes=[])
        made.notes.append(note(f"{key}.change", f"{name}: the change itself", said, **values))
        return made

    began = time.perf_counter()
    matched = await _update_everything(server.port)
    taken = time.perf_counter() - began
    if matched != count:
        raise RuntimeError(f"the update matched {matched} of {count} rows")
    kept = "kept" if graphs <= stored.look(server.data_dir).graph_names else "BUILT AGAIN"
    yield shaped("update_where", f"update-where over {count:,} rows", f"{taken:.2f} s, graphs {kept}", seconds=taken)

    seconds = max(5.0, _STREAM_SECONDS * scale)
    graphs = stored.look(server.data_dir).graph_names
    late, rate = await _stream(server.port, count, seconds)
    p50, p99 = percentiles(late)
    kept = "kept" if graphs <= stored.look(server.data_dir).graph_names else "BUILT AGAIN"
    said = f"{rate:,.0f}/s for {seconds:.0f} s, answered p50 {p50:.1f}, p99 {p99:.1f} ms, graphs {kept}"
    yield shaped("stream", f"metadata stream over {count:,} rows", said, per_second=rate, p50_ms=p50, p99_ms=p99)

    began = time.perf_counter()
    async with work.connected(server.port) as connection:
        answer = await connection.call("DELETE", "/namespaces/__default__")
        if answer.status not in (200, _ACCEPTED):
            work.checked(answer)
    await work.settled(server.port, 0, tail_rows_max=count)
    gone = time.perf_counter() - began
    again = await work.upsert_all(server.port, work.bodies(rows, 200))
    await work.settled(server.port, count)
    said = f"gone after {gone:.2f} s, {count / again:,.0f} rows/s acknowledged again"
    yield shaped("removed", f"namespace of {count:,} rows deleted and made again", said, gone_seconds=gone)


async def _update_everything(port: int) -> int:
    async with work.connected(port) as connection:
        body = {"filter": {"cluster": {"$gte": 0}}, "setMetadata": {"season": "autumn"}}
        return int(work.checked(await connection.call("POST", "/vectors/update", body)).json()["matchedRecords"])


async def _stream(port: int, count: int, seconds: float) -> tuple[list[float], float]:
    """Set metadata of single rows at a fixed rate; return how late each answer was, and the rate reached."""
    total = int(_STREAM_PER_SECOND * seconds)
    numbers = iter(range(total))
    late: list[float] = []
    began = time.perf_counter()

    async def write() -> None:
        async with work.connected(port) as connection:
            for number in numbers:
                due = began + number / _STREAM_PER_SECOND
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                body = {"id": f"row-{number * 7919 % count}", "setMetadata": {"seen": number}}
                work.checked(await connection.call("POST", "/vectors/update", body))
                late.append(time.perf_counter() - due)

    await asyncio.gather(*[write() for _ in range(32)])
    return late, total / (time.perf_counter() - began)


def _tenants(rows: data.DataSet, count: int) -> Iterator[bytes]:
    """Yield an upsert of 10 rows for each of `count` namespaces; the numbers in the bodies are encoded once."""
    groups = len(rows.vectors) // _ROWS_EACH
    encoded: dict[int, bytes] = {}
    for number in range(count):
        group = number % min(groups, 100)
        if group not in encoded:
            part = range(group * _ROWS_EACH, (group + 1) * _ROWS_EACH)
            vectors = [{"id": f"row-{at - part.start}", "values": rows.vectors[at]} for at in part]
            encoded[group] = orjson.dumps(vectors, option=orjson.OPT_SERIALIZE_NUMPY)
        yield b'{"namespace":"tenant-%d","vectors":%b}' % (number, encoded[group])


def _placed(pool: data.DataSet, places: np.ndarray, held: np.ndarray) -> Iterator[bytes]:
    """Yield upserts that put the vectors of the pool's rows `held` under the ids of `places`."""
    for begin in range(0, len(places), 100):
        pairs = zip(places[begin : begin + 100].tolist(), held[begin : begin + 100].tolist(), strict=True)
        vectors = [{"id": f"row-{at}", "values": pool.vectors[of], "metadata": pool.metadata[of]} for at, of in pairs]
        yield orjson.dumps({"vectors": vectors}, option=orjson.OPT_SERIALIZE_NUMPY)


SHAPES: dict[str, Step] = {
    "namespaces": many_namespaces,
    "indexes": many_indexes,
    "churn": churn,
    "metadata": metadata_and_removal,
    "large": large_and_mixed,
}
# These print as they go.
_PRINTING = ("metadata", "large")


async def measure(names: Sequence[str], scale: float, results: Path) -> list[Row]:
    """Fill and measure shapes one after another; one that fails is a line, and the rest goes on."""
    table: list[Row] = []
    for name in names:
        began = time.perf_counter()
        try:
            rows = list(await SHAPES[name](scale))
        except Exception as error:  # noqa: BLE001 # printed as the shape's line
            rows = [failure(name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")]
            print_rows(rows)
        else:
            print_rows([] if name in _PRINTING else rows)
        print(f"  -- {name}: {time.perf_counter() - began:.0f} s", flush=True)
        keep(results, rows, shape=name, scale=scale)
        table += rows
    return table


def main() -> int:
    """Parse, run, print; the exit code says whether every shape was measured and every bound kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.shapes", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes; 0.02 is a quick look")
    parser.add_argument("--only", default=",".join(SHAPES), help=f"some of {','.join(SHAPES)}")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file that lines are appended to")
    asked = parser.parse_args()
    # So that what was started ends with a run that is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = asked.only.split(",")
    unknown = set(names) - set(SHAPES)
    if unknown:
        parser.error(f"no shape is called {', '.join(sorted(unknown))}; there are {', '.join(SHAPES)}")
    table = asyncio.run(measure(names, asked.scale, asked.results))
    bad = [row.key for row in table if row.is_failure or row.met is False]
    print(f"out of bounds or failed: {', '.join(bad)}" if bad else "all within bounds")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
