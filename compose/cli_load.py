"""The command `load`: a file through the API, with a progress bar."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from compose.cli_target import Target, default_trust, default_url, targeted

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(load)


@targeted
def load(
    target: Target,
    file: Annotated[Path, typer.Argument(help="jsonl (also .gz), npy with a jsonl beside it, or parquet.")],
    *,
    records: Annotated[Path | None, typer.Option("--records", help="jsonl with ids and metadata for an npy.")] = None,
    writers: Annotated[int, typer.Option("--writers", "-w", help="Requests at a time.", min=1, max=64)] = 4,
    batch: Annotated[int, typer.Option("--batch", help="Rows of one request.", min=1, max=1_000)] = 100,
    restart: Annotated[bool, typer.Option("--restart", help="Begin at the first row.")] = False,
) -> None:
    """Load a file through the API; a load that was broken off goes on where it stopped."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from compose.config import api_key
    from compose.load import Loader, LoadOptions
    from compose.load_files import open_rows

    source = open_rows(file, records)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} rows/s"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=target.as_json or not sys.stderr.isatty(),
    )
    task = bar.add_task(file.name, total=source.total, rate="-")

    def moved(rows: int) -> None:
        speed = bar.tasks[task].finished_speed or bar.tasks[task].speed
        bar.update(task, advance=rows, rate=f"{speed:,.0f}" if speed else "-")

    options = LoadOptions(writers=writers, batch_rows=batch, trust=default_trust(target.url), key=api_key())
    loader = Loader(
        source,
        url=target.url or default_url(),
        index=target.index,
        namespace=target.namespace,
        options=options,
        moved=moved,
    )
    start = 0 if restart else loader.resume()
    with bar:
        bar.update(task, completed=start)
        done = asyncio.run(loader.run())
    if target.as_json:
        print(json.dumps(dataclasses.asdict(done)))
        return
    print(f"{done.accepted:,} of {done.rows:,} rows loaded" + (f", resumed at row {start:,}" if start else ""))
    print(f"position {done.position}")
    if done.bad:
        print(f"{done.bad:,} bad rows are set aside in {done.rejected}")
