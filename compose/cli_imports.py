"""Commands for bulk imports: `freshet import start | list | describe | cancel`."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from compose.cli_target import AsJson, IndexName, Url, open_client
from schemas.errors import FreshetError

if TYPE_CHECKING:
    from compose.client import Client

__all__ = ["register"]

_ENDED = ("Completed", "Failed", "Cancelled")
ImportId = Annotated[str, typer.Argument(help="Id of the import, as `start` says it.")]

imports = typer.Typer(
    name="import",
    help="Import Parquet files that the server can read.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(imports)


@imports.command("start")
def start_import(
    uri: Annotated[str, typer.Argument(help="Directory on the server, or s3://bucket/prefix.")],
    *,
    index: IndexName,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave bad rows out, instead of importing nothing if there is one.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Show how far it is, until it ends.")] = False,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Begin an import of the Parquet files in the folders of a directory, one folder per namespace."""
    body = {"uri": uri, "errorMode": {"onError": "continue" if skip_bad else "abort"}}
    with open_client(url) as client:
        made = client.index(index, "POST", "/bulk/imports", body)
        if not wait:
            print(json.dumps(made) if as_json else made["id"])
            return
        found = _wait(client, index, made["id"], is_shown=not as_json)
    print(json.dumps(found) if as_json else _text(found))
    if found["status"] != "Completed":
        raise FreshetError(f"Import {found['id']} ended as {found['status']}. {found.get('error', '')}".rstrip())


def _wait(client: Client, index: str, import_id: str, *, is_shown: bool) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not is_shown or not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task("import", total=100)
        while True:
            found: dict[str, Any] = client.index(index, "GET", f"/bulk/imports/{import_id}")
            shown = f"{found['status']}, {found['recordsImported']:,} records"
            bar.update(task, completed=found["percentComplete"], description=shown)
            if found["status"] in _ENDED:
                return found
            time.sleep(0.2)


@imports.command("list")
def list_imports(*, index: IndexName, url: Url = "", as_json: AsJson = False) -> None:
    """List the imports of an index, newest first."""
    found: list[dict[str, Any]] = []
    with open_client(url) as client:
        token = ""
        while True:
            following = f"?paginationToken={quote(token, safe='')}" if token else ""
            page = client.index(index, "GET", f"/bulk/imports{following}")
            found += page["data"]
            token = page.get("pagination", {}).get("next", "")
            if not token:
                break
    if as_json:
        print(json.dumps(found))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 1))
    for title in ("id", "status", "done", "records", "bad"):
        table.add_column(title, no_wrap=True)
    for title in ("created", "uri"):
        table.add_column(title, overflow="fold")
    for each in found:
        done, records, bad = (
            f"{each['percentComplete']:.0f} %",
            f"{each['recordsImported']:,}",
            f"{each['badRows']:,}",
        )
        table.add_row(each["id"], each["status"], done, records, bad, each["createdAt"], each["uri"])
    Console().print(table)


@imports.command("describe")
def describe_import(import_id: ImportId, *, index: IndexName, url: Url = "", as_json: AsJson = False) -> None:
    """Show how far an import is, and which rows it left out."""
    with open_client(url) as client:
        found = client.index(index, "GET", f"/bulk/imports/{quote(import_id, safe='')}")
    print(json.dumps(found) if as_json else _text(found))


@imports.command("cancel")
def cancel_import(import_id: ImportId, *, index: IndexName, url: Url = "", as_json: AsJson = False) -> None:
    """Stop an import; what it has imported stays."""
    with open_client(url) as client:
        client.index(index, "DELETE", f"/bulk/imports/{quote(import_id, safe='')}")
        found = client.index(index, "GET", f"/bulk/imports/{quote(import_id, safe='')}")
    print(json.dumps(found) if as_json else f"{found['id']}: {found['status']}")


def _text(found: dict[str, Any]) -> str:
    plain = {key: value for key, value in found.items() if key not in ("badRowSample", "validationResult")}
    lines = [f"{key:<20} {', '.join(value) if isinstance(value, list) else value}" for key, value in plain.items()]
    lines += [f"  {bad['file']} row {bad['row']}: {bad['reason']}" for bad in found.get("badRowSample", [])]
    return "\n".join(lines)
