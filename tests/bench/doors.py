"""The hot routes from socket to socket: `python -m tests.bench.doors [--rows N] [--kept FOLDER] [--only NAMES]`.

With `--kept` the loaded server's data stay in that folder, and the next run starts on them.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path

import numpy as np
import orjson

from tests.bench import data, paused, scenarios, work
from tests.bench.client import Connection
from tests.bench.server import Server, running
from tests.bench.work import Row

EF = 200


async def measured(rows: int, seconds: float, kept: Path | None, only: set[str]) -> list[Row]:
    """Load unless loaded, then run what is asked for."""
    loaded = data.load(rows)
    table: list[Row] = []
    with running(kept, graph_ef_search=EF) as server:
        if kept is None or not (kept / "loaded").exists():
            await work.create_index(server.port, loaded.vectors.shape[1])
            await work.load(server.port, loaded)
            await work.settled(server.port, rows, tail_rows_max=rows // 10)
            await work.quiet(server.port)
            if kept is not None:
                (kept / "loaded").touch()
        if "queries" in only:
            table += await scenarios.queries(server, loaded, seconds=seconds, ef=EF, kept=kept)
        if "records" in only:
            table += await records(server, loaded, seconds=seconds)
    return table


async def records(server: Server, loaded: data.DataSet, *, seconds: float) -> list[Row]:
    """Measure answers with many numbers in them: a fetch of 100 ids, and the best 100 with values and metadata."""
    connection = Connection(server.port, work.PREFIX)
    ids = "&".join(f"ids=row-{at}" for at in range(100))
    wide = {"topK": 100, "includeValues": True, "includeMetadata": True}
    bodies = [
        orjson.dumps({"vector": query, **wide}, option=orjson.OPT_SERIALIZE_NUMPY) for query in loaded.queries[:50]
    ]
    rows = []
    for name, method, path, sent in (
        ("fetch of 100 ids", "GET", f"/vectors/fetch?{ids}", [b""]),
        ("topK 100 with values and metadata", "POST", "/query", bodies),
    ):
        taken: list[float] = []
        end = time.perf_counter() + seconds / 4
        while time.perf_counter() < end:
            began = time.perf_counter()
            answer = await connection.call(method, path, sent[len(taken) % len(sent)])
            taken.append(time.perf_counter() - began)
            assert answer.status == 200, answer.body
        # The same answer printed by the JSON library alone, here and now.
        document = answer.json()
        found = document.get("vectors", document.get("matches"))
        items = list(found.values()) if isinstance(found, dict) else found
        arrays = {"v": [{**item, "values": np.array(item["values"], np.float32)} for item in items]}
        printed = min(_seconds(arrays) for _ in range(20))
        p50, p99 = work.percentiles(taken)
        rows.append(
            Row(
                f"{name}, against printing it",
                f"{p50 / printed / 1000:.2f} (p50 {p50:.2f} ms, p99 {p99:.2f} ms; printing {printed * 1000:.2f} ms)",
                values={"p50_ms": p50, "p99_ms": p99, "printing_ms": printed * 1000},
            )
        )
    await connection.close()
    return rows


def _seconds(document: object) -> float:
    began = time.perf_counter()
    orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return time.perf_counter() - began


async def upserts() -> list[Row]:
    """Measure how long upserts hold the event loop, against parsing and checking them on it."""
    return [
        await paused.holds(100, 384, limit_ms=5),
        await paused.holds(1_000, 384, limit_ms=15),
        await paused.holds(250, 1_536, limit_ms=15),
    ]


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--kept", type=Path, help="folder that keeps the loaded data")
    parser.add_argument("--only", default="queries,upserts,records", help="which of queries,upserts,records")
    options = parser.parse_args()
    if options.kept is not None:
        options.kept.mkdir(parents=True, exist_ok=True)
    only = set(options.only.split(","))
    table = asyncio.run(upserts()) if "upserts" in only else []
    if only & {"queries", "records"}:
        table += asyncio.run(measured(options.rows, options.seconds, options.kept, only))
    for row in table:
        verdict = {True: "met", False: "MISSED", None: ""}[row.met]
        print(f"{row.name:<58} {row.figure:<58} {row.target:<16} {verdict}", flush=True)


if __name__ == "__main__":
    main()
