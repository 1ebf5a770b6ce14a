"""Commands for backups of indexes: `freshet backup create | list | describe | delete | restore`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compose.cli_target import AsJson, Url, open_client, read_tags
from schemas.errors import FreshetError

if TYPE_CHECKING:
    from compose.client import Client

__all__ = ["register"]

backups = typer.Typer(
    name="backup",
    help="Back up indexes, and make new ones from backups.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
BackupId = Annotated[str, typer.Argument(help="Id of the backup, as `freshet backup list` shows it.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is done.")]
_LOOK_SECONDS = 0.2
_PAGE = 100


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(backups)


@backups.command("create")
def create_backup(
    index: Annotated[str, typer.Argument(help="Name of the index.")],
    *,
    name: Annotated[str, typer.Option("--name", help="What to call it.")] = "",
    description: Annotated[str, typer.Option("--description", help="What to say of it.")] = "",
    no_wait: NoWait = False,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Back up an index as it is now."""
    body = {key: value for key, value in (("name", name), ("description", description)) if value}
    with open_client(url) as client:
        made = client.call("POST", f"/indexes/{index}/backups", body)
        if not no_wait:
            made = _wait(client, f"/backups/{made['backup_id']}", lambda found: bool(found["status"] == "Ready"))
    print(json.dumps(made) if as_json else _line(made))


@backups.command("list")
def list_backups(
    *,
    index: Annotated[str, typer.Option("--index", "-i", help="One index; all where not given.")] = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """List backups, oldest first."""
    path = f"/indexes/{index}/backups" if index else "/backups"
    found: list[dict[str, Any]] = []
    with open_client(url) as client:
        page = client.call("GET", f"{path}?limit={_PAGE}")
        found += page["data"]
        while "pagination" in page:
            page = client.call("GET", f"{path}?paginationToken={page['pagination']['next']}")
            found += page["data"]
    if as_json:
        print(json.dumps(found))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "index", "name", "status", "created", box=None, padding=(0, 1))
    table.columns[0].no_wrap = True
    for title in ("records", "MB"):
        table.add_column(title, justify="right", overflow="fold")
    for each in found:
        index_name = each["source_index_name"] + (" (deleted)" if "source_index_deleted_at" in each else "")
        numbers = (f"{each['record_count']:,}", f"{each['size_bytes'] / 1e6:,.1f}")
        table.add_row(each["backup_id"], index_name, each.get("name", ""), each["status"], each["created_at"], *numbers)
    Console().print(table)


@backups.command("describe")
def describe_backup(backup_id: BackupId, *, url: Url = "", as_json: AsJson = False) -> None:
    """Show one backup."""
    with open_client(url) as client:
        found = client.call("GET", f"/backups/{backup_id}")
    print(json.dumps(found) if as_json else "\n".join(f"{key:<24} {value}" for key, value in found.items()))


@backups.command("delete")
def delete_backup(backup_id: BackupId, *, url: Url = "", as_json: AsJson = False) -> None:
    """Delete a backup for good; indexes stay as they are."""
    with open_client(url) as client:
        client.call("DELETE", f"/backups/{backup_id}")
    print(json.dumps({"deleted": backup_id}) if as_json else f"deleted {backup_id}")


@backups.command("restore")
def restore_backup(
    backup_id: BackupId,
    name: Annotated[str, typer.Argument(help="Name of the new index.")],
    *,
    protect: Annotated[bool, typer.Option("--protect", help="Refuse to delete it.")] = False,
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", help="One tag; may be repeated; those of the backup where none is given.", metavar="K=V"),
    ] = None,
    no_wait: NoWait = False,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Make a new index from a backup."""
    body: dict[str, Any] = {"name": name, "deletion_protection": "enabled" if protect else "disabled"}
    if tags:
        body["tags"] = read_tags(tags)
    with open_client(url) as client:
        made = client.call("POST", f"/backups/{backup_id}/create-index", body)
        job = client.call("GET", f"/restore-jobs/{made['restore_job_id']}")
        if not no_wait:
            path = f"/restore-jobs/{made['restore_job_id']}"
            job = _wait(client, path, lambda found: bool(found["status"] != "Pending"))
    if as_json:
        print(json.dumps(job))
    else:
        print(f"{name}: {job['status'].lower()}, {job['percent_complete']:.0f} % (job {job['restore_job_id']})")
    if job["status"] in ("Failed", "Cancelled"):
        raise FreshetError(f"Index {name} was not restored: {job.get('error', job['status'])}")


def _wait(client: Client, path: str, is_done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Look again and again until it is done; Ctrl-C leaves it to the server."""
    while True:
        found: dict[str, Any] = client.call("GET", path)
        if is_done(found):
            return found
        time.sleep(_LOOK_SECONDS)


def _line(backup: dict[str, Any]) -> str:
    return (
        f"{backup['backup_id']}: {backup['status'].lower()}, {backup['record_count']:,} records of "
        f"{backup['source_index_name']}"
    )
