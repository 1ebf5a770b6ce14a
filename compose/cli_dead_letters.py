"""Commands for records that could not be folded: `freshet dead-letters list | skip`. They read and write the store."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compose.cli_target import AsJson, IndexName, Url, open_client
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from indexer.snapshots.store import Store
    from schemas.indexes import IndexSpec

__all__ = ["register"]

letters = typer.Typer(
    name="dead-letters", help="Show records that could not be folded.", no_args_is_help=True, rich_markup_mode=None
)
PartitionNumber = Annotated[int, typer.Option("--partition", "-p", help="Partition of the log.", min=0)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(letters)


def _opened(index: str, url: str, partition: int) -> tuple[Store, IndexSpec]:
    """Return the store of these settings and the index as the running server describes it."""
    from compose.config import load_settings
    from compose.wiring import open_store
    from schemas.indexes import IndexSpec, Metric, VectorType

    with open_client(url) as client:
        stats = client.index(index, "POST", "/describe_index_stats", {})
    freshness = stats["freshness"]
    count = len(freshness["partitions"])
    if partition >= count:
        raise ConfigError(f"Index {index} has {count} partitions, from 0; there is no {partition}.")
    spec = IndexSpec(
        index,
        freshness["logId"],
        count,
        stats.get("dimension", 0),
        Metric(stats["metric"]),
        VectorType(stats["vectorType"]),
    )
    return open_store(load_settings().settings), spec


@letters.command("list")
def list_letters(*, index: IndexName, partition: PartitionNumber = 0, url: Url = "", as_json: AsJson = False) -> None:
    """Show the dead letters of a partition, oldest first."""
    from indexer.dead_letters import read_dead_letters

    store, spec = _opened(index, url, partition)
    found: list[dict[str, Any]] = [
        {
            "offset": letter.offset,
            "timeMs": letter.time_ms,
            "reason": letter.reason,
            "key": None if letter.key is None else letter.key.decode("utf-8", "backslashreplace"),
            "value": base64.b64encode(letter.value).decode(),
        }
        for letter in read_dead_letters(store, spec, partition)
    ]
    if as_json:
        print(json.dumps(found))
        return
    for letter in found:
        print(f"{letter['offset']:>12}  {letter['key']}  {letter['reason']}")


@letters.command("skip")
def skip_letter(
    *,
    index: IndexName,
    partition: PartitionNumber,
    offset: Annotated[int, typer.Option("--offset", help="Offset of the record that stops the partition.", min=0)],
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Pass over a record whose format is newer than this version; it becomes a dead letter."""
    from indexer.dead_letters import skip_record

    store, spec = _opened(index, url, partition)
    skip_record(store, spec, partition, offset)
    told = {"index": index, "partition": partition, "offset": offset, "skipped": True}
    print(json.dumps(told) if as_json else f"partition {partition} of {index} will pass over offset {offset}")
