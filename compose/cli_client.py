"""Commands that ask a running server: stats, query, indexes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compose.cli_target import AsJson, Target, Url, open_client, read_tags, targeted
from schemas.errors import ConfigError, FreshetError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


__all__ = ["register"]

RecallTarget = Annotated[
    float | None, typer.Option("--recall-target", help="Share of the nearest records to find, 0.5 to 0.999.")
]
Bounds = Annotated[
    list[str] | None,
    typer.Option(
        "--bound", help="records=N or bytes=N, from which on upserts are refused; 0 for no bound.", metavar="NAME=N"
    ),
]

indexes = typer.Typer(
    name="indexes",
    help="Create, list, describe, configure and delete indexes.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(stats)
    app.command()(query)
    app.add_typer(indexes)


def read_json(text: str, what: str) -> Any:
    """Parse JSON given on the command line, or `@file`. Raises `ConfigError`."""
    try:
        return json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{what} is not JSON: {error}.") from error


def stats(
    *,
    index: Annotated[str, typer.Option("--index", "-i", help="One index; all where not given.")] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again and again, until Ctrl-C.")] = False,
    seconds: Annotated[float, typer.Option("--seconds", help="Time between two looks.", min=0.05)] = 1.0,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Show records, freshness and graphs of one index or of all."""
    with open_client(url) as client:

        def look() -> dict[str, Any]:
            names = [index] if index else [each["name"] for each in client.call("GET", "/indexes")["indexes"]]
            return {name: client.index(name, "POST", "/describe_index_stats", {}) for name in names}

        if watch:
            _watch(look, seconds, as_json=as_json)
            return
        found = look()
        if as_json:
            print(json.dumps(found))
            return
        from rich.console import Console

        Console().print(_stats_table(found))


def _watch(look: Callable[[], dict[str, Any]], seconds: float, *, as_json: bool) -> None:
    """Look again and again; a server that does not answer now is shown as that, and looked for again."""
    from rich.live import Live

    def seen() -> tuple[dict[str, Any], str]:
        try:
            return look(), ""
        except FreshetError as error:
            return {}, error.message

    if as_json:
        while True:
            found, problem = seen()
            print(json.dumps({"error": problem} if problem else found), flush=True)
            time.sleep(seconds)
    with Live(auto_refresh=False) as live:
        while True:
            found, problem = seen()
            live.update(problem or _stats_table(found), refresh=True)
            time.sleep(seconds)


def _stats_table(found: dict[str, Any]) -> RenderableType:
    from rich.console import Group

    parts: list[RenderableType] = [_partitions_table(found)]
    if any(part.get("engine", {}).get("graphs") for _, part in _partitions(found)):
        parts += ["", _graphs_table(found)]
    log_bytes = next((each.get("freshness", {}).get("logBytes") for each in found.values()), None)
    if log_bytes is not None:
        parts += ["", f" the log of all indexes: {log_bytes / 1e6:,.1f} MB"]
    return Group(*parts)


def _partitions(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the partitions with the name of their index; of those that never saw an event at most the first."""
    for name, each in found.items():
        partitions = each.get("freshness", {}).get("partitions", [])
        for partition in [one for one in partitions if one.get("logEnd") != 0] or partitions[:1]:
            yield name, partition


def _partitions_table(found: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table("index", "records", "namespaces", "partition", box=None, padding=(0, 1))
    table.columns[0].no_wrap = True
    columns = {
        "logEnd": "end",
        "lagEvents": "lag",
        "lagSeconds": "lag s",
        "snapshotVersion": "version",
        "segments": "segments",
        "tailRows": "tail",
        "deadLetters": "letters",
    }
    for title in columns.values():
        table.add_column(title, justify="right", overflow="fold")
    for title in ("MB", "dead rows"):
        table.add_column(title, justify="right", overflow="fold")
    for name, partition in _partitions(found):
        each, engine = found[name], partition.get("engine", {})
        first = (name, f"{each.get('totalVectorCount', 0):,}", f"{len(each.get('namespaces', {})):,}")
        cells = [_number(partition.get(key)) for key in columns]
        size, dead = engine.get("snapshotBytes", 0) / 1e6, engine.get("deadShare", 0.0)
        table.add_row(*first, str(partition.get("partition")), *cells, f"{size:,.1f}", f"{dead:.1%}")
    return table


def _graphs_table(found: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table("index", "part", "namespace", box=None, padding=(0, 1))
    for title in ("graph", "rows", "dead", "MB", "ef", "recall", "target"):
        table.add_column(title, justify="right", overflow="fold")
    for name, partition in _partitions(found):
        engine = partition.get("engine", {})
        target = found[name]["freshness"].get("recallTarget")
        for graph in engine.get("graphs", []):
            table.add_row(
                name,
                str(partition.get("partition")),
                graph["namespace"],
                str(graph["segment"]),
                f"{graph['rows']:,}",
                f"{graph['deadShare']:.1%}",
                f"{graph['bytes'] / 1e6:,.1f}",
                str(graph["efSearch"] or "-"),
                f"{graph['recall']:.3f}" if graph["recall"] else "-",
                f"{target:.3f}" if target else "-",
            )
        left = engine.get("graphsTotal", 0) - len(engine.get("graphs", []))
        if left > 0:
            table.add_row(name, str(partition.get("partition")), f"and {left:,} smaller ones")
    return table


def _number(value: object) -> str:
    if value is None:
        return "?"
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


@targeted
def query(
    target: Target,
    *,
    vector: Annotated[str, typer.Option("--vector", help="JSON array, or @file with one.")] = "",
    record: Annotated[str, typer.Option("--id", help="Id of the record to compare with.")] = "",
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="How many matches.")] = 10,
    where: Annotated[str, typer.Option("--filter", help="Filter as JSON, or @file with one.")] = "",
    with_values: Annotated[bool, typer.Option("--values", help="Show the vectors.")] = False,
) -> None:
    """Find the records nearest to a vector, or to a record."""
    if bool(vector) == bool(record):
        raise ConfigError("Give either --vector or --id.")
    body: dict[str, Any] = {
        "namespace": target.namespace,
        "topK": top_k,
        "includeMetadata": True,
        "includeValues": with_values,
    }
    body |= {"id": record} if record else {"vector": read_json(vector, "--vector")}
    if where:
        body["filter"] = read_json(where, "--filter")
    with target.open() as client:
        found = client.index(target.index, "POST", "/query", body)
    if target.as_json:
        print(json.dumps(found))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "score", "metadata", *(["values"] if with_values else []))
    for match in found.get("matches", []):
        values = [json.dumps(match.get("values"))] if with_values else []
        table.add_row(match["id"], f"{match['score']:.6f}", json.dumps(match.get("metadata", {})), *values)
    Console().print(table)


def _bounds(given: list[str] | None) -> dict[str, int]:
    """Return the bounds of an index in the words of the wire. Raises `ConfigError`."""
    found = {}
    for each in given or []:
        name, _, bound = each.partition("=")
        if name not in ("records", "bytes") or not bound.isdecimal():
            raise ConfigError(f"--bound takes records=N or bytes=N, not {each!r}.")
        found[f"max_{name}"] = int(bound)
    return found


@indexes.command("create")
def create_index(
    name: Annotated[str, typer.Argument(help="1 to 45 of a-z, 0-9 and -.")],
    *,
    dimension: Annotated[int, typer.Option("--dimension", "-d", help="Numbers in a vector.")],
    metric: Annotated[str, typer.Option("--metric", "-m", help="cosine, dotproduct or euclidean.")] = "cosine",
    recall_target: RecallTarget = None,
    bounds: Bounds = None,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Make an index."""
    spec = {"serverless": {"cloud": "aws", "region": "us-east-1"}}
    body = {"name": name, "dimension": dimension, "metric": metric, "spec": spec, "recall_target": recall_target}
    body |= _bounds(bounds)
    with open_client(url) as client:
        made = client.call("POST", "/indexes", body)
    print(json.dumps(made) if as_json else f"{name}: {dimension} dimensions, {metric}, at {made.get('host')}")


@indexes.command("list")
def list_indexes(*, url: Url = "", as_json: AsJson = False) -> None:
    """List all indexes."""
    with open_client(url) as client:
        found = client.call("GET", "/indexes")
    if as_json:
        print(json.dumps(found))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "dimension", "metric", "host")
    for each in found["indexes"]:
        table.add_row(each["name"], str(each.get("dimension", "")), each.get("metric", ""), each.get("host", ""))
    Console().print(table)


@indexes.command("describe")
def describe_index(name: str, *, url: Url = "", as_json: AsJson = False) -> None:
    """Show one index."""
    with open_client(url) as client:
        found = client.call("GET", f"/indexes/{name}")
    print(json.dumps(found) if as_json else "\n".join(f"{key:<20} {value}" for key, value in found.items()))


@indexes.command("configure")
def configure_index(
    name: str,
    *,
    recall_target: RecallTarget = None,
    bounds: Bounds = None,
    protect: Annotated[bool | None, typer.Option("--protect/--no-protect", help="Refuse to delete it.")] = None,
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", help="One tag; may be repeated; K= removes it.", metavar="K=V"),
    ] = None,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Change the recall target, the deletion protection or the tags of an index."""
    body: dict[str, Any] = {"tags": read_tags(tags)} if tags else {}
    if recall_target is not None:
        body["recall_target"] = recall_target
    body |= _bounds(bounds)
    if protect is not None:
        body["deletion_protection"] = "enabled" if protect else "disabled"
    if not body:
        raise ConfigError("Say what to change: --recall-target, --bound, --protect, --no-protect or --tag.")
    with open_client(url) as client:
        made = client.call("PATCH", f"/indexes/{name}", body)
    if as_json:
        print(json.dumps(made))
        return
    shown = ", ".join(f"{key}={value}" for key, value in (made.get("tags") or {}).items())
    protection = made.get("deletion_protection")
    print(
        f"{name}: recall target {made.get('recall_target')}, deletion protection {protection}, tags {shown or 'none'}"
    )


@indexes.command("delete")
def delete_index(name: str, *, url: Url = "", as_json: AsJson = False) -> None:
    """Delete an index with its log and all its records, for good."""
    with open_client(url) as client:
        client.call("DELETE", f"/indexes/{name}")
    print(json.dumps({"deleted": name}) if as_json else f"deleted {name}")
