"""Measure and print a table: `python -m tests.bench [--rows N] [--seconds S] [--only NAMES] [--kafka HOST]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

from tests.bench import data, filters, scenarios, work
from tests.bench.server import ROOT, running
from tests.bench.work import Row

RESULTS = Path(__file__).parent / "results" / "results.jsonl"
EF = 200


async def embedded(rows: int, seconds: float, only: set[str]) -> list[Row]:
    """Run what is asked for on the embedded log."""
    loaded = data.load(rows)
    if "filters" in only:
        loaded = filters.with_ranks(loaded)
    print(f"data: {loaded.name}, {rows:,} rows", flush=True)
    table: list[Row] = []
    with running(graph_ef_search=EF) as server:
        await work.create_index(server.port, loaded.vectors.shape[1])
        steps = {
            "load": lambda: scenarios.full_load(server, loaded),
            "queries": lambda: scenarios.queries(server, loaded, seconds=seconds, ef=EF),
            "filters": lambda: _filters(server.port, loaded),
            "visible": lambda: scenarios.write_to_visible(server, loaded, seconds=seconds, target=(15, 60)),
            "idle": lambda: scenarios.idle(server, seconds=seconds / 2),
        }
        if "load" not in only:
            await work.load(server.port, loaded)
            await work.settled(server.port, rows, tail_rows_max=rows // 10)
        for name, step in steps.items():
            if name in only:
                table += _printed(await step())
    if "idle" in only:
        table += _printed(await scenarios.twenty_indexes(seconds=seconds / 2))
    return table


async def _filters(port: int, loaded: data.DataSet) -> list[Row]:
    await work.quiet(port)
    return await filters.filtered_queries(port, loaded)


async def on_kafka(bootstrap: str, rows: int, seconds: float) -> list[Row]:
    """Measure write to visible with a Kafka broker."""
    loaded = data.load(rows)
    with running(log=f"kafka://{bootstrap}") as server:
        await work.create_index(server.port, loaded.vectors.shape[1])
        await work.load(server.port, loaded)
        await work.settled(server.port, rows, tail_rows_max=rows)
        table = await scenarios.write_to_visible(server, loaded, seconds=seconds, target=(30, 120))
    for row in table:
        row.name += ", Kafka"
    return _printed(table)


def _printed(rows: list[Row]) -> list[Row]:
    for row in rows:
        verdict = {True: "met", False: "MISSED", None: ""}[row.met]
        print(f"{row.name:<58} {row.figure:<58} {row.target:<16} {verdict}", flush=True)
    return rows


def main() -> None:
    """Parse, run, print, append the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument(
        "--only", default="load,queries,visible,idle", help="which of load,queries,filters,visible,idle"
    )
    parser.add_argument("--kafka", default="", help="bootstrap address; measures only write to visible on it")
    options = parser.parse_args()
    began = time.time()
    if options.kafka:
        table = asyncio.run(on_kafka(options.kafka, options.rows, options.seconds))
    else:
        table = asyncio.run(embedded(options.rows, options.seconds, set(options.only.split(","))))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        for row in table:
            line = {
                "time": int(began),
                "commit": commit,
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "rows": options.rows,
                **asdict(row),
            }
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
