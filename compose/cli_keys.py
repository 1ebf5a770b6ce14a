"""Commands for API keys: `freshet keys create | list | revoke`.

While a server of these settings runs, they ask it, with the key of an administrator. Where none runs they read and
write the catalog themselves, holding the data directory as a server would, so that there is one writer: whoever may
write there needs no key. So the first key can be made before the first start, and a lost one replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compose.cli_target import AsJson, Url, open_client
from schemas.errors import ConfigError, FreshetError, Unavailable

if TYPE_CHECKING:
    from producer.catalog import Catalog

    AtRest = Callable[[Catalog], Awaitable[dict[str, Any]]]

__all__ = ["register"]

keys = typer.Typer(name="keys", help="Create, list and revoke API keys.", no_args_is_help=True, rich_markup_mode=None)
Role = Annotated[str, typer.Option("--role", "-r", help="read, write or admin; each includes those before it.")]
Indexes = Annotated[
    list[str] | None, typer.Option("--index", "-i", help="Reach this index only; may be repeated.", metavar="NAME")
]
Namespaces = Annotated[
    list[str] | None,
    typer.Option("--namespace", "-n", help="Reach this namespace only; may be repeated.", metavar="NAME"),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write the key to this file, for its owner alone.", metavar="FILE"),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(keys)


@keys.command("create")
def create_key(
    *,
    role: Role,
    indexes: Indexes = None,
    namespaces: Namespaces = None,
    label: Annotated[str, typer.Option("--label", help="What to call it in the list.")] = "",
    output: Output = None,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, once: it is not kept. The first one must be an admin's, without a scope."""
    body = {"role": role, "indexes": indexes or [], "namespaces": namespaces or [], "label": label}

    async def at_rest(catalog: Catalog) -> dict[str, Any]:
        from compose.wiring import clock_ms
        from producer.keys import create_key, new_key
        from schemas.keys import described_key, parse_role

        scope = {"indexes": tuple(indexes or ()), "namespaces": tuple(namespaces or ())}
        key, kept = new_key(parse_role(role), **scope, label=label, created_ms=clock_ms())
        return {"key": key, **described_key(await create_key(catalog, kept))}

    with _kept(output) as keep:
        made = _asked(url, "POST", "/keys", body, at_rest)
        keep(made)
    if as_json:
        print(json.dumps(made))
        return
    print(made.get("key") or f"written to {output}")
    sys.stderr.write(f"key {made['id']}: {_reach(made)}. " + ("" if output else "It is shown this once.") + "\n")


@keys.command("list")
def list_keys(*, url: Url = "", as_json: AsJson = False) -> None:
    """List the living keys by id, oldest first."""

    async def at_rest(catalog: Catalog) -> dict[str, Any]:
        from schemas.keys import described_key

        return {"keys": [described_key(key) for key in catalog.keys.values()]}

    found = _asked(url, "GET", "/keys", None, at_rest)
    if as_json:
        print(json.dumps(found))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "role", "indexes", "namespaces", "made", "label")
    for key in found["keys"]:
        reached = (", ".join(key[scope]) or "all" for scope in ("indexes", "namespaces"))
        table.add_row(key["id"], key["role"], *reached, key["created_at"], key["label"])
    Console().print(table)


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="Id of the key, as listed; never the key itself.")],
    *,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Let a key open nothing any more, at once and in all processes."""
    from schemas.keys import check_key_id

    async def at_rest(catalog: Catalog) -> dict[str, Any]:
        from producer.keys import revoke_key

        return {"revoked": (await revoke_key(catalog, key_id)).id}

    # It goes into an address, and should it be a whole key, no further than here.
    check_key_id(key_id)
    gone = _asked(url, "DELETE", f"/keys/{key_id}", None, at_rest)
    print(json.dumps(gone) if as_json else f"revoked {gone['revoked']}")


def _reach(key: dict[str, Any]) -> str:
    parts = [f"{scope} {', '.join(key[scope])}" for scope in ("indexes", "namespaces") if key[scope]]
    return f"role {key['role']}, " + (", ".join(parts) or "everywhere")


@contextlib.contextmanager
def _kept(output: Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield what takes the key out of an answer into the file `output`, for its owner alone; nothing without one.

    The file is made first, so that no key is made that cannot be written down; it goes where none was made.
    """
    if output is None:
        yield lambda _: None
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(f"Cannot make the file {output}: {error.strerror}.") from error
    try:
        with os.fdopen(descriptor, "w") as file:

            def keep(made: dict[str, Any]) -> None:
                file.write(made.pop("key") + "\n")
                made["file"] = str(output)

            yield keep
    except FreshetError:
        output.unlink()
        raise


def _asked(
    url: str,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    at_rest: Callable[[Catalog], Awaitable[dict[str, Any]]],
) -> dict[str, Any]:
    """Ask the running server; where none of these settings runs, let `at_rest` do the same on the catalog itself."""
    from compose.config import load_settings
    from compose.holding import hold
    from compose.wiring import catalog_at_rest, is_embedded

    settings = load_settings().settings

    async def alone() -> dict[str, Any]:
        async with catalog_at_rest(settings) as catalog:
            return await at_rest(catalog)

    if not url and is_embedded(settings):
        # Held as the process that writes the log holds it: a server that starts meanwhile waits for the end of this.
        try:
            with hold(settings.data_dir, "serve"):
                return asyncio.run(alone())
        except ConfigError as error:
            if "pid" not in error.facts:
                raise
    try:
        with open_client(url) as client:
            return dict(client.call(method, path, body))
    except Unavailable:
        # On Kafka there is no owner: what several write at a time its order decides.
        if url or is_embedded(settings):
            raise
        return asyncio.run(alone())
