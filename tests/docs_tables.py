"""The tables of the README and the example settings, made from the code: `python -m tests.docs_tables [--write]`."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

import schemas.errors
from compose.config import Loaded, Settings
from compose.spelling import spell
from compose.wiring import api_parts
from indexer.metrics import IndexerMetrics
from query_api.app import create_app
from query_api.rest.errors import status_of
from schemas.errors import FreshetError

README = Path(__file__).resolve().parent.parent / "README.md"
EXAMPLE = README.parent / "compose" / "settings.example.toml"
_TABLE = re.compile(r"(<!-- table:(\w+) -->\n)(.*?)(<!-- end:\2 -->)", re.DOTALL)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def first_sentence(text: str | None) -> str:
    return " ".join((text or "").strip().partition("\n\n")[0].split())


def settings_table() -> str:
    # Not `load_settings`: the tables do not depend on the environment.
    effective = Loaded(Settings(), {}).effective()
    rows = []
    for name, info in Settings.model_fields.items():
        default = spell(effective[name])
        rows.append([f"`FRESHET_{name.upper()}`", f"`{default}`" if default else "", info.description or ""])
    return table(["variable (in TOML: the name without prefix, lower case)", "default", "meaning"], rows)


def errors_table() -> str:
    rows = []
    for name in schemas.errors.__all__:
        kind = getattr(schemas.errors, name)
        if not (inspect.isclass(kind) and issubclass(kind, FreshetError)):
            continue
        status = status_of(kind("x"))
        if status != 500:
            rows.append(
                [str(status), f"{kind.code.name} ({kind.code.value})", f"`{name}`", first_sentence(kind.__doc__)]
            )
    return table(["HTTP", "code", "reason", "meaning"], sorted(rows))


async def _api() -> tuple[dict[str, dict[str, dict[str, str]]], CollectorRegistry]:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder))
        async with api_parts(settings, index_ports=()) as parts:
            program = create_app(parts)
            return program.rest.rest.openapi()["paths"], parts.registry


def routes() -> list[tuple[str, str, str]]:
    """Return method, path and meaning of every route of the OpenAPI document."""
    paths, _ = asyncio.run(_api())
    return [
        (method.upper(), path, first_sentence(operation.get("description") or operation.get("summary")))
        for path, operations in paths.items()
        for method, operation in operations.items()
    ]


def routes_table() -> str:
    rows = [[f"`{method}`", f"`{path}`", meaning] for method, path, meaning in routes()]
    return table(["method", "path", "what it does"], rows)


def metrics_table() -> str:
    _, api = asyncio.run(_api())
    indexer = CollectorRegistry()
    IndexerMetrics(indexer)
    rows = []
    for process, registry in (("API", api), ("indexer", indexer)):
        for family in registry.collect():
            if family.name.startswith("freshet_"):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                rows.append([f"`{name}`", family.type, process, family.documentation])
    return table(["metric", "type", "process", "meaning"], sorted(rows))


def example_settings() -> str:
    """Return the example file: every setting with its meaning and default, commented out."""
    effective = Loaded(Settings(), {}).effective()
    lines = ["# Settings of freshet, with their defaults. `freshet config` shows what is obeyed, and why.\n"]
    for name, info in Settings.model_fields.items():
        value = effective[name]
        is_plain = isinstance(value, bool | int | float)
        lines.append(f"\n# {info.description}\n#{name} = {spell(value) if is_plain else json.dumps(spell(value))}\n")
    return "".join(lines)


TABLES = {"errors": errors_table, "metrics": metrics_table, "routes": routes_table, "settings": settings_table}


def filled(text: str) -> str:
    """Return `text` with every table made anew."""
    return _TABLE.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}{match[4]}", text)


def named_tables(text: str) -> list[str]:
    """Return the names of the tables that `text` has room for."""
    return sorted(match[2] for match in _TABLE.finditer(text))


if __name__ == "__main__":
    made = filled(README.read_text())
    if "--write" in sys.argv:
        README.write_text(made)
        EXAMPLE.write_text(example_settings())
    else:
        print(made)
