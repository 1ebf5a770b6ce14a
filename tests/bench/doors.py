"""The hot routes from socket to socket: `python -m tests.bench.doors [--rows N] [--kept FOLDER] [--only NAMES]`.

With `--kept` the loaded server's data stay in that folder, and the next run starts on them.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from tests.bench import data, scenarios, work
from tests.bench.server import running
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
    return table


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--kept", type=Path, help="folder that keeps the loaded data")
    parser.add_argument("--only", default="queries", help="which of queries")
    options = parser.parse_args()
    if options.kept is not None:
        options.kept.mkdir(parents=True, exist_ok=True)
    table = asyncio.run(measured(options.rows, options.seconds, options.kept, set(options.only.split(","))))
    for row in table:
        verdict = {True: "met", False: "MISSED", None: ""}[row.met]
        print(f"{row.name:<58} {row.figure:<58} {row.target:<16} {verdict}", flush=True)


if __name__ == "__main__":
    main()
