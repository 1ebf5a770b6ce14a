"""The command `freshet`: parse, call, print. What a command needs is imported when it runs, so that help is instant."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compose import cli_backups, cli_client, cli_dead_letters, cli_doctor, cli_imports, cli_keys, cli_load
from schemas.errors import ConfigError, FreshetError

if TYPE_CHECKING:
    from compose.config import Loaded

__all__ = ["app", "main"]

app = typer.Typer(
    name="freshet",
    help="An event-sourced streaming ingestion pipeline for vectors.",
    no_args_is_help=True,
    add_completion=False,
    # rich would double the time that --help takes.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
cli_client.register(app)
cli_load.register(app)
cli_imports.register(app)
cli_dead_letters.register(app)
cli_doctor.register(app)
cli_backups.register(app)
cli_keys.register(app)

_EXIT_CONFIG = 78
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.", metavar="FILE")]
SetTo = Annotated[list[str] | None, typer.Option("--set", help="One setting; may be repeated.", metavar="NAME=VALUE")]
Port = Annotated[int | None, typer.Option("--port", help="Port of the control plane.")]
ApiWorkers = Annotated[int | None, typer.Option("--api-workers", help="API processes that share the ports.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where log and snapshots live.", metavar="DIR")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
SupervisedBy = Annotated[int, typer.Option("--supervised-by", hidden=True)]
# What a supervisor tells one of several API processes: its number, and the sockets that it inherits (`1:9,11`).
Worker = Annotated[str, typer.Option("--worker", hidden=True)]


def _load(
    config: Path | None,
    settings: list[str] | None,
    port: int | None,
    data_dir: Path | None,
    api_workers: int | None = None,
) -> Loaded:
    from compose.config import limit_native_threads, load_settings

    limit_native_threads()
    overrides: dict[str, Any] = {}
    for each in settings or []:
        name, equals, value = each.partition("=")
        if not equals:
            raise ConfigError(f"--set takes NAME=VALUE, not {each!r}.")
        overrides[name.strip().lower()] = value
    if port is not None:
        overrides["port"] = port
    if data_dir is not None:
        overrides["data_dir"] = data_dir
    if api_workers is not None:
        overrides["api_workers"] = api_workers
    return load_settings(config, overrides)


@app.command()
def up(
    *,
    config: ConfigFile = None,
    settings: SetTo = None,
    port: Port = None,
    data_dir: DataDir = None,
    api_workers: ApiWorkers = None,
    as_json: AsJson = False,
) -> None:
    """Run API and indexer here, until Ctrl-C."""
    from compose.log_lines import set_up_logging
    from compose.supervisor import supervise

    loaded = _load(config, settings, port, data_dir, api_workers)
    chosen = loaded.settings
    set_up_logging("up", level=chosen.log_level, form=chosen.log_format)

    def ready() -> None:
        scheme = "http" if chosen.tls_certificate is None else "https"
        url = f"{scheme}://{f'[{chosen.bind}]' if ':' in chosen.bind else chosen.bind}:{chosen.port}"
        told = {"ready": True, "url": url, "data_dir": str(chosen.data_dir.resolve()), "log": chosen.log}
        if as_json:
            print(json.dumps(told), flush=True)
            return
        ports = chosen.index_ports
        print(f"freshet is ready on {url}")
        print(f"  data   {told['data_dir']}")
        print(f"  log    {chosen.log}")
        print(f"  index  {url}/i/<name>" + (f", and a port of its own from {ports[0]} on" if ports else ""), flush=True)

    raise typer.Exit(supervise(chosen, _arguments(config, loaded), ready=ready))


def _arguments(config: Path | None, loaded: Loaded) -> list[str]:
    """Return the options that hand the settings of this command line on to a child."""
    from compose.spelling import spell

    arguments = ["--config", str(config)] if config is not None else []
    for name, source in loaded.sources.items():
        if source == "command line":
            arguments += ["--set", f"{name}={spell(getattr(loaded.settings, name))}"]
    return arguments


@app.command()
def serve(
    *,
    config: ConfigFile = None,
    settings: SetTo = None,
    port: Port = None,
    data_dir: DataDir = None,
    api_workers: ApiWorkers = None,
    supervised_by: SupervisedBy = 0,
    worker: Worker = "",
) -> None:
    """Run the API alone."""
    loaded = _load(config, settings, port, data_dir, api_workers)
    if loaded.settings.api_workers > 1 and not worker:
        from compose.supervisor import supervise

        chosen = _process("serve", loaded, supervised_by)
        arguments = _arguments(config, loaded)
        raise typer.Exit(supervise(chosen, arguments, ready=lambda: None, has_indexer=False))
    from compose.peers import api_name
    from compose.serve import run_api

    own, _, sockets = worker.partition(":")
    number = int(own or 0)
    chosen = _process(api_name(number), loaded, supervised_by)
    descriptors = [int(each) for each in sockets.split(",") if each]
    raise typer.Exit(run_api(chosen, is_supervised=bool(supervised_by), worker=number, descriptors=descriptors))


@app.command()
def index(
    *,
    config: ConfigFile = None,
    settings: SetTo = None,
    port: Port = None,
    data_dir: DataDir = None,
    supervised_by: SupervisedBy = 0,
) -> None:
    """Run the indexer alone."""
    chosen = _process("indexer", _load(config, settings, port, data_dir), supervised_by)
    from compose.index import run_indexer

    raise typer.Exit(run_indexer(chosen, is_supervised=bool(supervised_by)))


def _process(name: str, loaded: Loaded, supervised_by: int) -> Any:
    from compose.log_lines import set_up_logging
    from compose.supervisor import tie_to_parent

    if supervised_by:
        tie_to_parent(supervised_by)
    set_up_logging(name, level=loaded.settings.log_level, form=loaded.settings.log_format)
    return loaded.settings


@app.command("config")
def show_config(
    *,
    config: ConfigFile = None,
    settings: SetTo = None,
    port: Port = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show every setting with its value and where that came from."""
    loaded = _load(config, settings, port, data_dir)
    effective = loaded.effective()
    if as_json:
        told = {name: {"value": value, "source": loaded.sources[name]} for name, value in effective.items()}
        print(json.dumps(told, indent=2, default=str))
        return
    from compose.spelling import spell

    width = max(map(len, effective))
    for name, value in effective.items():
        print(f"{name:<{width}}  {spell(value):<40}  {loaded.sources[name]}")


def main() -> int:
    """Run one command; return its exit code: 78 for a wrong setting, 2 for wrong usage, 1 for other failures."""
    try:
        app()
    except FreshetError as error:
        if "--json" in sys.argv:
            sys.stderr.write(json.dumps({"error": {"code": error.code.name, "message": error.message}}) + "\n")
        else:
            sys.stderr.write(f"freshet: {error.message}\n")
        return _EXIT_CONFIG if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    return 0
