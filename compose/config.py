"""Settings: from the environment and one TOML file to frozen values. The only reader of the environment.

Precedence: command line, `FRESHET_<NAME>`, the TOML file (`FRESHET_CONFIG`, else `./freshet.toml` where it exists),
defaults. Thresholds have their defaults beside the class that obeys them and are None here unless they are set. A name
that is not known is refused wherever it comes from: a setting that is misspelled must not be one that is ignored.
"""

from __future__ import annotations

import difflib
import importlib
import ipaddress
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from compose.limit_settings import LimitSettings
from compose.limit_settings import obeyed_by as _obeyed_by
from compose.places import parse_places
from compose.spelling import parse_ports
from schemas.errors import ConfigError

__all__ = ["Loaded", "Settings", "api_key", "limit_native_threads", "load_settings", "temporary_folder"]

PREFIX = "FRESHET_"
# Variables with our prefix that are no settings: the key of the commands, where the file is, what the tests ask for.
NOT_SETTINGS = frozenset(
    {"FRESHET_API_KEY", "FRESHET_API_KEY_FILE", "FRESHET_CONFIG", "FRESHET_REQUIRE_CLIENTS", "FRESHET_REQUIRE_KAFKA"}
)
DEFAULT_FILE = Path("freshet.toml")
_CRASH_AT = re.compile(r"[a-z_.]+(:[1-9]\d{0,8})?")


def limit_native_threads() -> None:
    """Let numpy's BLAS use one thread a search, unless the environment says otherwise; before numpy is imported.

    Its threads spin while they wait for each other: on two busy cores a scan of 500 rows took 2.7 ms with two threads
    and 0.5 ms with one. Queries run beside each other instead.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")


# Nothing is written as "".
_PathOrNone = Annotated[Path | None, BeforeValidator(lambda value: None if value == "" else value)]


class Settings(LimitSettings):
    """Everything that can be set. Names are those of the TOML file; in the environment `FRESHET_` and upper case."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=False)

    port: int = Field(5080, ge=1, le=65_535, description="Port of the control plane and of path-addressed indexes.")
    bind: str = Field(
        "127.0.0.1", description="Address to listen on; anything but loopback needs API keys (`freshet keys create`)."
    )
    bind_without_keys: bool = Field(
        default=False, description="While there are no keys, let everybody who reaches such an address do anything."
    )
    data_dir: Path = Field(Path("freshet-data"), description="Where the embedded log and the snapshots live.")
    index_ports: Annotated[tuple[int, ...], NoDecode, BeforeValidator(parse_ports)] = Field(
        tuple(range(5081, 5181)), description="Ports given to indexes, such as `5081-5180`; empty for none."
    )
    host_template: str = Field(
        "http://localhost:{port}",
        description="What `describe_index` returns as host: `{port}`, `{name}`, `{control_port}` are filled in.",
    )
    portless_host_template: str = Field(
        "http://localhost:{control_port}/i/{name}", description="The same for an index that got no port."
    )
    tls_certificate: _PathOrNone = Field(
        None,
        description="PEM file of the certificate and its chain, which turns on TLS on all ports.",
    )
    tls_key: _PathOrNone = Field(None, description="PEM file of the certificate's key, unencrypted.")
    api_workers: int = Field(
        1, ge=1, le=64, description="API processes that share the ports; one of them writes the embedded log."
    )
    log: str = Field(
        "sqlite://", description="The log: `sqlite://` (in the data directory) or `kafka://host:port[,host:port]`."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="Form of log lines on stderr; `auto` means console on a terminal, else JSON."
    )
    stop_seconds: float = Field(10.0, gt=0, le=600, description="How long a stop may take before it is a kill.")
    indexer_port: int = Field(
        5079, ge=0, le=65_535, description="Port of the indexer's own `/metrics`, `/status` and `/healthz`; 0 for none."
    )
    crash_at: str = Field(
        "", description="For tests: `<step>[:n]` makes the process kill itself at the n-th passing of that step."
    )

    partitions: int | None = _obeyed_by(
        "query_api.app:ApiOptions.partitions", "Partitions of the log of a new index.", ge=1, le=1_024
    )
    write_wait_ms: int | None = _obeyed_by(
        "query_api.writes:WriteOptions.write_wait_ms",
        "How long a write is held until it is visible, in milliseconds, where neither its index nor its header says.",
        ge=0,
        le=60_000,
    )
    import_dirs: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(parse_places)] = _obeyed_by(
        "query_api.imports.service:ImportOptions.dirs",
        "Directories and `s3://bucket/prefix` below which bulk imports may read, such as `/data/a,s3://b/c`; empty "
        "refuses them all.",
    )
    log_synchronous: Literal["FULL", "NORMAL"] | None = _obeyed_by(
        "producer.log.sqlite_file:SqliteLogOptions.synchronous",
        "Syncing of the embedded log; `NORMAL` loses acknowledged writes at power loss.",
    )
    log_reserve_bytes: int | None = _obeyed_by(
        "producer.log.sqlite_file:SqliteLogOptions.reserve_bytes", "Free disk space below which writes get a 503.", ge=0
    )
    log_file_bytes_max: int | None = _obeyed_by(
        "producer.log.sqlite_file:SqliteLogOptions.file_bytes_max", "Largest embedded log; 0 for no bound.", ge=0
    )
    kafka_control: str | None = _obeyed_by(
        "producer.log.kafka_cluster:KafkaLogOptions.control",
        "Name that keeps the catalogs of several installations on one Kafka cluster apart.",
    )
    kafka_replication: int | None = _obeyed_by(
        "producer.log.kafka_cluster:KafkaLogOptions.replication",
        "Copies of each partition on Kafka; 0 means three, or as many as there are brokers.",
        ge=0,
    )
    publish_interval_seconds: float | None = _obeyed_by(
        "indexer.worker:WorkerOptions.publish_interval_seconds", "Least time between two publishes.", ge=0
    )
    checkpoint_seconds: float | None = _obeyed_by(
        "indexer.housekeeping:HousekeepingOptions.checkpoint_seconds", "Time between durable checkpoints.", gt=0
    )
    checkpoint_events: int | None = _obeyed_by(
        "indexer.housekeeping:HousekeepingOptions.checkpoint_events", "Events between durable checkpoints.", ge=1
    )
    collect_seconds: float | None = _obeyed_by(
        "indexer.housekeeping:HousekeepingOptions.collect_seconds", "Time between garbage collections.", gt=0
    )
    standby_seconds: float | None = _obeyed_by(
        "indexer.worker:WorkerOptions.standby_seconds",
        "How long another worker's manifests must stand still before its partition is taken over.",
        gt=0,
    )
    rollup_deltas: int | None = _obeyed_by(
        "indexer.merge_policy:MergeOptions.rollup_deltas", "Publishes that are rolled up into one segment.", ge=1, le=63
    )
    rollup_rows: int | None = _obeyed_by(
        "indexer.merge_policy:MergeOptions.rollup_rows", "Rows in recent publishes that start a roll-up.", ge=1
    )
    graph_rows_min: int | None = _obeyed_by(
        "indexer.merge_policy:MergeOptions.graph_rows_min", "Rows from which a namespace gets a graph.", ge=2
    )
    graph_rows_max: int | None = _obeyed_by(
        "indexer.merge_policy:MergeOptions.graph_rows_max", "Rows that one graph holds at most.", ge=2
    )
    dead_share_max: float | None = _obeyed_by(
        "indexer.merge_policy:MergeOptions.dead_share_max", "Share of dead rows that rewrites a segment.", gt=0, lt=1
    )
    settle_seconds: float | None = _obeyed_by(
        "indexer.merge_policy:MergeOptions.settle_seconds",
        "How long a partition must be quiet before the graphs of a namespace are joined.",
        gt=0,
    )
    manifests_kept: int | None = _obeyed_by(
        "indexer.gc:RetentionOptions.manifests_kept", "Newest snapshots that are always kept.", ge=2
    )
    grace_seconds: float | None = _obeyed_by(
        "indexer.gc:RetentionOptions.grace_seconds", "Age below which nothing is collected.", ge=0
    )
    builders: int | None = _obeyed_by("indexer.indexer:IndexerOptions.builders", "Processes that build graphs.", ge=1)
    graph_m: int | None = _obeyed_by("indexer.segments.graph:GraphOptions.m", "Links per row of a graph.", ge=2, le=128)
    graph_ef_construction: int | None = _obeyed_by(
        "indexer.segments.graph:GraphOptions.ef_construction", "Candidates while a graph is built.", ge=2
    )
    graph_ef_search: int | None = _obeyed_by(
        "indexer.segments.graph:GraphOptions.ef_search",
        "Candidates while a graph is searched; 0 = what the recall target needs, measured on each graph.",
        ge=0,
    )
    graph_threads: int | None = _obeyed_by(
        "indexer.segments.graph:GraphOptions.threads", "Threads that build one graph.", ge=1, le=256
    )
    graph_engine: Literal["auto", "native", "stock"] | None = _obeyed_by(
        "indexer.segments.graph:GraphOptions.engine",
        "What builds and searches graphs: the native engine, the stock module, or `auto`, the first that loads.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 # the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 # the signature is pydantic's
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 # the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 # the signature is pydantic's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what `load_settings` collected and nothing else, so that every value has a known source."""
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _name_the_scheme(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Let the default hosts say how the ports are served."""
        if not values.get("tls_certificate"):
            return values
        defaults = {name: cls.model_fields[name].default for name in ("host_template", "portless_host_template")}
        return {name: host.replace("http://", "https://") for name, host in defaults.items()} | values

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if not (self.log in ("sqlite", "sqlite://") or re.fullmatch(r"kafka://[^,\s]+:\d+(,[^,\s]+:\d+)*", self.log)):
            raise ValueError(f"log: {self.log!r} is neither sqlite:// nor kafka://host:port[,host:port]")
        for name in ("host_template", "portless_host_template"):
            _check_template(name, getattr(self, name))
        if self.crash_at and not _CRASH_AT.fullmatch(self.crash_at):
            raise ValueError(f"crash_at: {self.crash_at!r} is not <step> or <step>:<count>")
        if (self.tls_certificate is None) != (self.tls_key is None):
            there, missing = ("tls_certificate", "tls_key") if self.tls_key is None else ("tls_key", "tls_certificate")
            raise ValueError(f"{missing}: TLS needs it beside {there}")
        return self

    @property
    def is_open_without_keys(self) -> bool:
        """Whether everybody who reaches the server may do everything while there are no keys."""
        return self.bind_without_keys or _is_loopback(self.bind)

    def options_of(self, options_class: type) -> dict[str, Any]:
        """Return the fields of an options class that are set here, for `MergeOptions(**settings.options_of(...))`."""
        prefix = f"{options_class.__module__}:{options_class.__name__}."
        set_here = {
            target.removeprefix(prefix): getattr(self, name)
            for name, target in obeying().items()
            if target.startswith(prefix)
        }
        return {field: value for field, value in set_here.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with the source of each value: `command line`, a variable's name, a file's path or `default`."""

    settings: Settings
    sources: Mapping[str, str]

    def effective(self) -> dict[str, Any]:
        """Return every setting by name with the value that is obeyed, defaults of options classes included."""
        targets = obeying()
        return {
            name: default_of(targets[name])
            if name in targets and getattr(self.settings, name) is None
            else getattr(self.settings, name)
            for name in Settings.model_fields
        }


def obeying() -> dict[str, str]:
    """Return the settings whose default stands elsewhere, each with `module:Class.field` that obeys it."""
    found = {}
    for name, info in Settings.model_fields.items():
        if isinstance(info.json_schema_extra, dict):
            found[name] = str(info.json_schema_extra["obeyed_by"])
    return found


def default_of(target: str) -> Any:
    """Return the default of an options field named as `module:Class.field`."""
    module, _, path = target.partition(":")
    class_name, _, field_name = path.partition(".")
    options_class = getattr(importlib.import_module(module), class_name)
    return next(field.default for field in fields(options_class) if field.name == field_name)


def load_settings(file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Loaded:
    """Read environment, file and `overrides` (by setting name; they win).

    Raises `ConfigError` where a name is unknown, a value is wrong, or the file named can't be read.
    """
    named = os.environ.get("FRESHET_CONFIG")
    path = file or (Path(named) if named else DEFAULT_FILE)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, found in (
        (str(path), _from_file(path, is_required=file is not None or bool(named))),
        ("environment", _from_environment()),
        ("command line", dict(overrides or {})),
    ):
        for name, value in found.items():
            if name not in Settings.model_fields:
                raise ConfigError(f"Unknown setting {name!r} ({source}).{_nearest(name)}", setting=name)
            values[name] = value
            sources[name] = PREFIX + name.upper() if source == "environment" else source
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise ConfigError(_explain(error, sources)) from error
    for name in Settings.model_fields:
        sources.setdefault(name, "default")
    return Loaded(settings, sources)


def api_key() -> str:
    """Return the key that commands send: `FRESHET_API_KEY`, else the file that `FRESHET_API_KEY_FILE` names, else "".

    Never an option: the command line of a process is no secret. Raises `ConfigError`.
    """
    key = os.environ.get("FRESHET_API_KEY", "").strip()
    path = os.environ.get("FRESHET_API_KEY_FILE", "")
    if not key and path:
        try:
            key = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"Cannot read the API key in {path} (FRESHET_API_KEY_FILE): {error}.") from error
    if not key.isascii() or not key.isprintable():
        raise ConfigError("FRESHET_API_KEY is no API key: it has characters that a key never has.")
    return key


def temporary_folder() -> Path:
    """Return the folder for sockets: the user's runtime folder where there is one, else the temporary folder."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(runtime) if runtime and Path(runtime).is_dir() else Path(tempfile.gettempdir())


def _from_environment() -> dict[str, Any]:
    for name in os.environ:
        if name.startswith(PREFIX) and name not in NOT_SETTINGS:
            setting = name.removeprefix(PREFIX).lower()
            if setting not in Settings.model_fields:
                raise ConfigError(f"Unknown setting {name} in the environment.{_nearest(setting)}", setting=name)
    return EnvSettingsSource(Settings, env_prefix=PREFIX)()


def _from_file(path: Path, *, is_required: bool) -> dict[str, Any]:
    if not is_required and not path.exists():
        return {}
    try:
        return TomlConfigSettingsSource(Settings, path)() if path.is_file() else tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"Cannot read the settings file {path}: {error.strerror}.", file=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The settings file {path} is not TOML: {error}.", file=str(path)) from error


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, Settings.model_fields, n=1)
    return f" Did you mean {close[0]!r}?" if close else " `freshet config` lists all settings."


def _explain(error: ValidationError, sources: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        reason = problem["msg"].removeprefix("Value error, ")
        given = f" {problem['input']!r}" if name else ""
        where = f"{name} ({sources.get(name, 'default')}):" if name else ""
        lines.append(f"{where}{given} {reason}.".strip())
    return "Wrong setting. " + " ".join(lines)


def _check_template(name: str, template: str) -> None:
    """Raise `ValueError` where no host can be made of a template: `describe_index` could never be answered."""
    try:
        host = template.format(port=1, name="a", control_port=1)
    except (LookupError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{name}: {template!r} can have {{port}}, {{name}} and {{control_port}} filled in, nothing else ({error})"
        ) from error
    if not host or not host.isprintable() or " " in host:
        raise ValueError(f"{name}: {template!r} is no host")


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
