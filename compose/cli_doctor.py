"""The command `freshet doctor`: look at a data directory, with the server running or not, and change nothing."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import FreshetError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from compose.config import Settings
    from compose.doctor import Checkup
    from indexer.checkup import PartitionCheckup

__all__ = ["register"]

_COULD_NOT_CHECK = 2


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    *,
    index: Annotated[str, typer.Option("--index", "-i", help="One index; all where not given.")] = "",
    queries: Annotated[int, typer.Option("--queries", help="Queries per graph to measure recall; 0 for none.")] = 50,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with settings.", metavar="FILE")] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where log and snapshots live.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Check digests, manifests, the log's end and recall; say what would be repaired. Changes nothing.

    Exit code: 0 sound, 1 something was found, 2 something could not be checked.
    """
    from compose.config import limit_native_threads, load_settings

    limit_native_threads()
    chosen = load_settings(config, {} if data_dir is None else {"data_dir": data_dir}).settings
    try:
        found = asyncio.run(_check(chosen, index, queries))
    except FreshetError as error:
        # The catalog itself could not be read, or there is nothing there.
        if as_json:
            print(json.dumps({"error": {"code": error.code.name, "message": error.message}}))
        else:
            sys.stderr.write(f"freshet: could not check: {error.message}\n")
        raise typer.Exit(_COULD_NOT_CHECK) from error
    if as_json:
        print(json.dumps(found.as_json()))
    else:
        from rich.console import Console

        _show(found, Console())
    raise typer.Exit(found.exit_code)


async def _check(settings: Settings, index: str, queries: int) -> Checkup:
    from compose.doctor import check_up
    from compose.wiring import doctor_parts

    async with doctor_parts(settings, queries=queries) as parts:
        return await check_up(parts, index=index)


def _show(found: Checkup, console: Console) -> None:
    console.print(_partitions(found.partitions))
    if any(segment.has_graph for part in found.partitions for segment in part.segments):
        console.print()
        console.print(_graphs(found.partitions))
    for finding in found.findings:
        console.print(f"{finding.level.value}: {finding.text}", markup=False, soft_wrap=True)
    for part in found.partitions:
        where = f"{part.index}/{part.partition}"
        for finding in part.findings:
            console.print(f"{finding.level.value}: {where}: {finding.text}", markup=False, soft_wrap=True)
        for repair in part.repairs:
            console.print(f"would repair: {where}: {repair}", markup=False, soft_wrap=True)
    for where, reason in found.unchecked.items():
        console.print(f"not checked: {where}: {reason}", markup=False, soft_wrap=True)
    verdict = {0: "sound", 1: "not sound: see above", _COULD_NOT_CHECK: "not everything could be checked"}
    console.print(verdict[found.exit_code])


def _partitions(partitions: list[PartitionCheckup]) -> Table:
    from rich.table import Table

    titles = ("end", "applied", "version", "rows", "tail", "MB", "orphans")
    table = Table("index", "part", "state", box=None, padding=(0, 1))
    table.columns[0].no_wrap = table.columns[2].no_wrap = True
    for title in titles:
        table.add_column(title, justify="right", overflow="fold")
    for part in partitions:
        if not part.log_end and not part.manifests:
            continue  # it never saw an event
        figures = (
            f"{part.log_end:,}",
            f"{part.next_offset:,}",
            f"{part.version:,}",
            f"{part.live_rows:,}",
            f"{part.tail_rows:,}",
            f"{part.objects_bytes / 1e6:,.1f}",
            f"{part.orphans:,}",
        )
        table.add_row(part.index, str(part.partition), part.worst.value if part.worst else "sound", *figures)
    return table


def _graphs(partitions: list[PartitionCheckup]) -> Table:
    from rich.table import Table

    table = Table("index", "part", "graph", "namespace", box=None, padding=(0, 1))
    for title in ("rows", "dead", "MB", "ef", "recall", "now", "target"):
        table.add_column(title, justify="right", overflow="fold")
    for part in partitions:
        for segment in part.segments:
            if segment.has_graph:
                table.add_row(
                    part.index,
                    str(part.partition),
                    str(segment.segment_id),
                    segment.namespace,
                    f"{segment.rows:,}",
                    f"{segment.dead_share:.1%}",
                    f"{segment.size_bytes / 1e6:,.1f}",
                    str(segment.ef_search or "-"),
                    f"{segment.recall_stored:.3f}" if segment.recall_stored else "-",
                    "-" if segment.recall is None else f"{segment.recall:.3f}",
                    f"{part.recall_target:.3f}",
                )
    return table
