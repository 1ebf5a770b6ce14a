"""Measure and print a table, each line with its target: `python -m tests.bench [--only NAMES] [--rows N] ...`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
import time
from pathlib import Path

from tests.bench import (
    attack,
    doors,
    filtered,
    footprint,
    freshness,
    imports,
    ingest,
    publish_cost,
    queries,
    sparse,
    transports,
    workers,
)
from tests.bench.figures import Row, keep, print_rows
from tests.bench.harness import SCENARIOS, Bench, Options, run

RESULTS = Path(__file__).parent / "results" / "results.jsonl"
THEMES = (
    attack,
    doors,
    imports,
    ingest,
    footprint,
    queries,
    freshness,
    filtered,
    sparse,
    publish_cost,
    transports,
    workers,
)
# In this order: what comes first leaves the shared server as it was.
ORDER = (
    "load",
    "swap",
    "queries",
    "workers",
    "doors",
    "transports",
    "start",
    "visible",
    "attack",
    "ingest_p99",
    "imports",
    "filters",
    "sparse",
    "hybrid",
    "log_to_graph",
    "replay",
    "publish_cost",
    "idle",
    "visible_kafka",
)
# What can be said of 20,000 rows in two or three minutes; of a replay or an idle server nothing can.
QUICK = ("load", "swap", "queries", "start", "visible", "ingest_p99", "publish_cost")


async def measure(options: Options, names: list[str], results: Path) -> list[Row]:
    """Run scenarios one after another, printing as they end; their lines are kept at once."""
    table: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="freshet-bench-") as folder:
        bench = Bench(options, Path(folder))
        print(f"data: {bench.data.name}, {options.rows:,} rows", flush=True)
        try:
            for name in names:
                began = time.perf_counter()
                rows = await run(bench, SCENARIOS[name])
                print_rows(rows)
                print(f"  -- {name}: {time.perf_counter() - began:.0f} s", flush=True)
                table += rows
                keep(results, rows, scenario=name, rows=options.rows, data=bench.data.name, scale=options.scale)
        finally:
            bench.close()
    return table


def main() -> int:
    """Parse, run, print; the exit code says whether every line has a figure, not whether it was reached."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--seconds", type=float, help="the longest window that is measured (default 60)")
    parser.add_argument("--threads", type=int, default=1, help="threads that build one graph, here and in the baseline")
    parser.add_argument("--ef", type=int, default=200, help="candidates where both sides are pinned to the same")
    parser.add_argument("--kafka", default="find", help="find (as the tests do), off, or host:port")
    parser.add_argument("--scale", type=float, help="of what has a size of its own: 1 is 1,000,000 rows")
    parser.add_argument("--only", default="", help=f"some of {','.join(ORDER)}")
    parser.add_argument(
        "--quick", action="store_true", help="20,000 rows and short windows: two or three minutes, coarse"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file that lines are appended to")
    asked = parser.parse_args()
    # So that what was started ends with a run that is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rows, seconds, scale, settle = (20_000, 10.0, 0.02, 3.0) if asked.quick else (100_000, 60.0, 1.0, None)
    names = [name for name in asked.only.split(",") if name] or list(QUICK if asked.quick else ORDER)
    unknown = set(names) - set(SCENARIOS)
    if unknown:
        parser.error(f"no scenario is called {', '.join(sorted(unknown))}; there are {', '.join(ORDER)}")
    options = Options(
        asked.rows or rows,
        asked.seconds or seconds,
        asked.threads,
        asked.ef,
        asked.kafka,
        asked.scale or scale,
        settle,
    )
    table = asyncio.run(measure(options, names, asked.results))
    judged = [row for row in table if row.target]
    missed = [row.key for row in judged if row.met is False]
    failed = [row.key for row in table if row.is_failure]
    print(f"{sum(row.met is True for row in judged)} of {len(judged)} targets met", end="")
    print(f"; missed: {', '.join(missed)}" if missed else "", end="")
    print(f"; without a valid figure: {', '.join(failed)}" if failed else "")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
