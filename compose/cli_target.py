"""The options that commands share which ask a server about an index: which server, which index, which namespace."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Concatenate, ParamSpec, get_type_hints

import typer

from schemas.errors import ConfigError

if TYPE_CHECKING:
    import ssl

    from compose.client import Client

__all__ = [
    "AsJson",
    "IndexName",
    "Target",
    "Url",
    "default_trust",
    "default_url",
    "open_client",
    "read_tags",
    "targeted",
]

Url = Annotated[str, typer.Option("--url", help="Address of the server; from the settings where it is not given.")]
IndexName = Annotated[str, typer.Option("--index", "-i", help="Name of the index.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace; the default one where not given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

_P = ParamSpec("_P")
# As they stand in the help, after the options of the command's own.
_SHARED = {"index": IndexName, "namespace": Namespace, "url": Url, "as_json": AsJson}
_DEFAULTS = {"index": inspect.Parameter.empty, "namespace": "", "url": "", "as_json": False}


@dataclass(frozen=True, slots=True)
class Target:
    """What a command is asked to work on, and whether it answers in JSON."""

    index: str
    namespace: str
    url: str
    as_json: bool

    def open(self) -> Client:
        """Return a client of the server."""
        return open_client(self.url)


def read_tags(given: Sequence[str] | None) -> dict[str, str]:
    """Return the tags of options `--tag K=V`. Raises `ConfigError`."""
    pairs = [each.partition("=") for each in given or []]
    for key, equals, _ in pairs:
        if not equals:
            raise ConfigError(f"--tag takes KEY=VALUE, not {key!r}.")
    return {key: value for key, _, value in pairs}


def open_client(url: str) -> Client:
    """Return a client of the server at `url`, or of the one that the settings name."""
    from compose.client import Client
    from compose.config import api_key

    return Client(url or default_url(), default_trust(url), key=api_key())


def default_trust(url: str) -> ssl.SSLContext | None:
    """Return what the server of these settings is trusted by; None for what this machine trusts."""
    if url:
        return None
    from compose.config import load_settings
    from compose.tls import client_context

    return client_context(load_settings().settings)


def default_url() -> str:
    """Return where the server of these settings is."""
    from compose.config import load_settings

    chosen = load_settings().settings
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(chosen.bind, chosen.bind)  # noqa: S104 # it is asked, not bound
    scheme = "http" if chosen.tls_certificate is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{chosen.port}"


def targeted(command: Callable[Concatenate[Target, _P], None]) -> Callable[..., None]:
    """Give a command the shared options, and hand them to it as its first argument, a `Target`."""
    hints = get_type_hints(command, include_extras=True)
    own = list(inspect.signature(command).parameters.values())[1:]
    kinds = inspect.Parameter.KEYWORD_ONLY
    shared = [inspect.Parameter(name, kinds, default=_DEFAULTS[name], annotation=_SHARED[name]) for name in _SHARED]

    @functools.wraps(command)
    def run(*arguments: _P.args, **options: _P.kwargs) -> None:
        values = {name: options.pop(name) for name in _SHARED}
        command(Target(**values), *arguments, **options)  # type: ignore[arg-type] # by the annotations above

    described = [parameter.replace(annotation=hints[parameter.name]) for parameter in own]
    run.__signature__ = inspect.Signature([*described, *shared])  # type: ignore[attr-defined] # what typer reads
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*described, *shared)}
    return run
