"""A bulk import of Parquet files against `freshet load` of the same rows, and what it does to queries meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import orjson
import pyarrow as pa
from pyarrow import parquet

from compose.load import Loader, LoadOptions
from compose.load_files import open_rows
from tests.bench import work
from tests.bench.data import DataSet
from tests.bench.figures import Row, figure, note, percentiles
from tests.bench.harness import Bench, scenario
from tests.bench.probes import asking
from tests.bench.server import Server, running

_SECONDS_MAX = 600.0
_PER_SECOND = 50
_IMPORT, _LOAD, _ASKED = "imported", "loaded", "asked"


@scenario("imports", "import_rate")
async def imports(bench: Bench) -> Sequence[Row]:
    """Import and load the same rows into two indexes of one server, one after the other, until all are acknowledged."""
    folder = bench.folder / "imports"
    file = await asyncio.to_thread(_written, folder, bench.data)
    count = len(bench.data.vectors)
    with running(import_dirs=folder) as server:
        loaded = [await _load(server, file, bench), 0.0]
        imported = [await _import(server, folder, bench, mode) for mode in ("abort", "continue")]
        await work.create_index(server.port, bench.data.vectors.shape[1], _ASKED)
        await work.upsert_all(server.port, list(work.bodies(bench.data, rows=range(2_000))), index=_ASKED)
        await work.calm(server, seconds=3)
        idle = await _asked(server, bench, None)
        beside = await _asked(server, bench, folder)
        loaded[1] = await _load(server, file, bench)
    rate = count / min(loaded)
    ratios = [count / seconds / rate for seconds in imported]
    said = f"{ratios[0]:.2f} ({count / imported[0]:,.0f} rows/s; load {rate:,.0f}; without the check {ratios[1]:.2f})"
    facts = {"import_seconds": imported[0], "unchecked_seconds": imported[1], "load_seconds": min(loaded)}
    quiet, busy = percentiles(idle), percentiles(beside)
    told = f"p50 {busy[0]:.1f}, p99 {busy[1]:.1f} ms (idle {quiet[0]:.1f}, {quiet[1]:.1f})"
    return [
        figure("import_rate", ratios[0], said, **facts),
        note("import_p99", f"queries at {_PER_SECOND}/s during an import", told, p50_ms=busy[0], p99_ms=busy[1]),
    ]


def _written(folder: Path, data: DataSet) -> Path:
    """Write the rows as one file in a namespace's folder."""
    file = folder / "tenant" / "rows.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    vectors = data.vectors
    table = pa.table(
        {
            "id": [f"row-{number}" for number in range(len(vectors))],
            "values": pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), vectors.shape[1]),
            "metadata": [orjson.dumps(document).decode() for document in data.metadata],
        }
    )
    parquet.write_table(table, file)
    return file


async def _load(server: Server, file: Path, bench: Bench) -> float:
    """Return the seconds of a `freshet load` into a new index, with the options that it has by default."""
    await work.create_index(server.port, bench.data.vectors.shape[1], _LOAD)
    rows = await asyncio.to_thread(open_rows, file, None)
    url = f"http://127.0.0.1:{server.port}"
    loader = Loader(rows, url=url, index=_LOAD, namespace="tenant", options=LoadOptions())
    began = time.perf_counter()
    done = await loader.run()
    seconds = time.perf_counter() - began
    assert done.accepted == len(bench.data.vectors), done
    await _removed(server, _LOAD)
    return seconds


async def _import(server: Server, folder: Path, bench: Bench, mode: str) -> float:
    """Return the seconds of an import into a new index."""
    await work.create_index(server.port, bench.data.vectors.shape[1], _IMPORT)
    began = time.perf_counter()
    await _imported(server, folder, len(bench.data.vectors), mode)
    seconds = time.perf_counter() - began
    await _removed(server, _IMPORT)
    return seconds


async def _imported(server: Server, folder: Path, count: int, mode: str) -> None:
    body = orjson.dumps({"uri": str(folder), "errorMode": {"onError": mode}})
    async with work.connected(server.port, None) as control:
        path = f"/i/{_IMPORT}/bulk/imports"
        made = work.checked(await control.call("POST", path, body)).json()["id"]
        end = time.perf_counter() + _SECONDS_MAX
        while time.perf_counter() < end:
            found = work.checked(await control.call("GET", f"{path}/{made}")).json()
            if found["status"] not in ("Pending", "InProgress"):
                assert (found["status"], found["recordsImported"]) == ("Completed", count), found
                return
            await asyncio.sleep(0.02)
    raise TimeoutError(f"the import did not end within {_SECONDS_MAX} s")


async def _asked(server: Server, bench: Bench, folder: Path | None) -> list[float]:
    """Return the latencies of queries to another index, while an import runs or for some seconds without one."""
    if folder is not None:
        await work.create_index(server.port, bench.data.vectors.shape[1], _IMPORT)
    with asking(server.port, work.prefix_of(_ASKED), bench.data.queries, per_second=_PER_SECOND) as probe:
        if folder is None:
            await asyncio.sleep(min(10.0, bench.options.seconds))
        else:
            await _imported(server, folder, len(bench.data.vectors), "abort")
    if folder is not None:
        await _removed(server, _IMPORT)
    if probe.failures:
        raise RuntimeError(f"{len(probe.failures)} queries failed, first: {probe.failures[0]}")
    return probe.latencies


async def _removed(server: Server, name: str) -> None:
    async with work.connected(server.port, None) as control:
        work.checked(await control.call("DELETE", f"/indexes/{name}"), 202)
    await work.calm(server, seconds=1)
