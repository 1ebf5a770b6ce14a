"""Bodies of the wire surface, in its spelling; the only door to pydantic.

The hot routes decode by hand: their models only document them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.json_schema import models_json_schema

from schemas.errors import InvalidRequest, UnprocessableBody

__all__ = [
    "DOCUMENTED",
    "ConfigureIndexBody",
    "ConsistencyBody",
    "CreateBackupBody",
    "CreateCollectionBody",
    "CreateForModelBody",
    "CreateIndexBody",
    "CreateKeyBody",
    "CreateNamespaceBody",
    "DeleteBody",
    "DeploymentBody",
    "FetchByMetadataBody",
    "FieldBody",
    "RestoreBackupBody",
    "SchemaBody",
    "StartImportBody",
    "StatsBody",
    "UpdateBody",
    "component_schemas",
    "parsed",
]

_Numbers = Annotated[
    Any, WithJsonSchema({"type": "array", "items": {"type": "number"}, "description": "float32 numbers"})
]
_Object = Annotated[Any, WithJsonSchema({"type": "object"})]
_RECALL_TARGET = "Share of the true nearest records that a query is to find, 0.5 to 0.999; 0.95 where none is given."
_WRITE_WAIT = "How long a write is held until it is visible, 0 to 60,000 milliseconds; else as the server is set."
_BOUND = "{} from which on upserts are refused; 0 = no bound, the server's own where none is given."
_Model = TypeVar("_Model", bound=BaseModel)


class _Body(BaseModel):
    """Strict about types, deaf to fields it does not know, as the hosted service is."""

    model_config = ConfigDict(strict=True, extra="ignore", populate_by_name=True)


class SparseBody(_Body):
    """A sparse vector."""

    indices: list[int]
    values: _Numbers


class ConsistencyBody(_Body):
    """How fresh an answer must be: a level, and an LSN (one namespace) or a position token, within a wait.

    `maxStalenessMs` belongs to the level `bounded`.
    """

    level: Literal["eventual", "bounded", "strong"] | None = None
    max_staleness_ms: int | None = Field(None, alias="maxStalenessMs")
    at_least: int | str | None = Field(None, alias="atLeast")
    wait_ms: int | None = Field(None, alias="waitMs")


class VectorBody(_Body):
    """A record to upsert."""

    id: str
    values: _Numbers = None
    sparse_values: SparseBody | None = Field(None, alias="sparseValues")
    metadata: dict[str, Any] | None = None


class UpsertBody(_Body):
    """`POST /vectors/upsert`."""

    vectors: list[VectorBody]
    namespace: str = ""


class UpsertAnswer(_Body):
    """`visible` and its neighbours only where `x-freshet-wait-visible-ms` was sent."""

    upserted_count: int = Field(alias="upsertedCount")
    durable: bool | None = None
    visible: bool | None = None
    lsn: int | None = None
    applied_lsn: int | None = Field(None, alias="appliedLsn")


class QueryBody(_Body):
    """`POST /query`: by `vector`, by `sparseVector` (both in a dense index of metric dotproduct), or by `id`."""

    top_k: int = Field(alias="topK")
    vector: _Numbers = None
    id: str | None = None
    sparse_vector: SparseBody | None = Field(None, alias="sparseVector")
    filter: dict[str, Any] | None = None
    include_values: bool = Field(default=False, alias="includeValues")
    include_metadata: bool = Field(default=False, alias="includeMetadata")
    scan_factor: float | None = Field(
        None, alias="scanFactor", description="0.5 to 4; taken, and without effect: the index's recall target decides."
    )
    max_candidates: int | None = Field(
        None, alias="maxCandidates", description="topK to 100,000; taken, and without effect."
    )
    explain: bool = Field(default=False, description="Whether the answer says how each segment was searched.")
    namespace: str = ""
    consistency: ConsistencyBody | None = None


class UsageBody(_Body):
    """What the hosted service would charge."""

    read_units: int = Field(alias="readUnits")


class MatchBody(_Body):
    """One match of a query."""

    id: str
    score: float
    values: list[float]
    sparse_values: SparseBody | None = Field(None, alias="sparseValues")
    metadata: dict[str, Any] | None = None


class ExplainedBody(_Body):
    """How one segment was searched.

    `plan` is `scan` (all rows), `filter` (a scan of the rows that the filter and deletions leave) or `graph`. `sparse`
    looks at the rows that share an index with a sparse vector. For both parts it is `sparse+scan` or `sparse+filter`;
    with `sparse+graph` the rows that share an index were looked at, and the graph was walked for the others.
    `fellBack` says that a walk through the graph was begun and given up for the scan.
    """

    segment: int
    plan: Literal["scan", "filter", "graph", "sparse", "sparse+scan", "sparse+filter", "sparse+graph"]
    fell_back: bool = Field(alias="fellBack")
    rows: int = Field(description="Rows of the namespace in the segment.")
    allowed_rows: int = Field(alias="allowedRows", description="Those that may be matches.")
    candidates: int = Field(description="Rows looked at.")
    milliseconds: float


class QueryAnswer(_Body):
    """Best matches first; `explain` only where it was asked for, without the segments that had nothing to find."""

    matches: list[MatchBody]
    namespace: str
    usage: UsageBody
    explain: list[ExplainedBody] | None = None


class FetchAnswer(_Body):
    """Records by id; missing ones are absent."""

    vectors: dict[str, VectorBody]
    namespace: str
    usage: UsageBody


class FetchByMetadataBody(_Body):
    """`POST /vectors/fetch_by_metadata`: pages by id; a page with large records may have fewer than `limit`."""

    filter: Any = None
    limit: int | None = Field(None, description="1 to 10,000; 100 where none is given.")
    pagination_token: str | None = Field(None, alias="paginationToken")
    namespace: str | None = None
    consistency: Any = None


class PaginationBody(_Body):
    """Present where more is left."""

    next: str


class FetchByMetadataAnswer(FetchAnswer):
    """Records by id, in byte order."""

    pagination: PaginationBody | None = None


class UpdateBody(_Body):
    """`POST /vectors/update`: by `id`, or by `filter` (metadata only)."""

    id: str | None = None
    filter: Any = None
    values: _Numbers = None
    sparse_values: _Object = Field(None, alias="sparseValues")
    set_metadata: _Object = Field(None, alias="setMetadata")
    dry_run: bool | None = Field(None, alias="dryRun")
    namespace: str | None = None


class DeleteBody(_Body):
    """`POST /vectors/delete`: one of `ids`, `deleteAll`, `filter`."""

    ids: list[str] | None = None
    delete_all: bool | None = Field(None, alias="deleteAll")
    filter: Any = None
    namespace: str | None = None


class StatsBody(_Body):
    """`POST /describe_index_stats`; a filter is refused, as the hosted service refuses it."""

    filter: Any = None
    consistency: Any = None


class CreateNamespaceBody(_Body):
    """`POST /namespaces`."""

    name: str
    namespace_schema: Any = Field(None, alias="schema")


class CreateKeyBody(_Body):
    """`POST /keys`; a field that is not known is refused, since a scope that is misspelled must not be none."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["read", "write", "admin"]
    indexes: list[str] = Field(default_factory=list, description="Names of the indexes that it reaches; none = all.")
    namespaces: list[str] = Field(default_factory=list, description="Namespaces that it reaches; none = all.")
    label: str = ""


class FieldBody(_Body):
    """One field of an index schema (API 2026-07): a vector, or metadata that is `filterable`."""

    type: str | None = Field(
        None, description="dense_vector, sparse_vector, string, string_list, boolean, integer or float."
    )
    dimension: int | None = None
    metric: str | None = None
    description: str | None = None
    filterable: bool | None = None
    full_text_search: Any = Field(None, description="Refused.")
    embed: Any = Field(None, description="Refused.")
    sparse_embed: Any = Field(None, description="Refused.")


class SchemaBody(_Body):
    """The schema of an index (API 2026-07)."""

    fields: dict[str, FieldBody]


class DeploymentBody(_Body):
    """Where the hosted service would run the index (API 2026-07); kept and given back."""

    deployment_type: str
    cloud: str | None = None
    region: str | None = None
    environment: str | None = None


class CreateIndexBody(_Body):
    """`POST /indexes`: `schema` and `deployment` (API 2026-07), or `dimension`, `metric` and `spec` (before)."""

    name: str
    index_schema: SchemaBody | None = Field(None, alias="schema")
    deployment: DeploymentBody | None = None
    dimension: int | None = None
    metric: str | None = None
    vector_type: str | None = None
    spec: dict[str, Any] | None = None
    deletion_protection: Literal["enabled", "disabled"] | None = None
    tags: dict[str, str] | None = None
    read_capacity: dict[str, Any] | None = None
    recall_target: float | None = Field(None, description=_RECALL_TARGET)
    write_wait_ms: int | None = Field(None, description=_WRITE_WAIT)
    max_records: int | None = Field(None, description=_BOUND.format("Records"))
    max_bytes: int | None = Field(None, description=_BOUND.format("Bytes of the snapshots"))


class ConfigureIndexBody(_Body):
    """`PATCH /indexes/{name}`; tags are merged, an empty one is taken away. The other fields can't change anything."""

    deletion_protection: Literal["enabled", "disabled"] | None = None
    tags: dict[str, str] | None = None
    recall_target: float | None = Field(None, description=_RECALL_TARGET)
    write_wait_ms: int | None = Field(None, description=_WRITE_WAIT)
    max_records: int | None = Field(None, description=_BOUND.format("Records"))
    max_bytes: int | None = Field(None, description=_BOUND.format("Bytes of the snapshots"))
    read_capacity: dict[str, Any] | None = None
    spec: dict[str, Any] | None = None
    deployment: dict[str, Any] | None = None
    index_schema: Any = Field(None, alias="schema")
    embed: Any = None


class EmbedBody(_Body):
    """The embedding model of an index with integrated embedding."""

    model: str
    field_map: dict[str, Any]


class CreateForModelBody(_Body):
    """`POST /indexes/create-for-model`: refused, since no embedding model is configured."""

    name: str
    cloud: str
    region: str
    embed: EmbedBody


class CreateCollectionBody(_Body):
    """`POST /collections`: refused, since there are no pods."""

    name: str
    source: str


class CreateBackupBody(_Body):
    """`POST /indexes/{name}/backups`."""

    name: str | None = None
    description: str | None = None


class RestoreBackupBody(_Body):
    """`POST /backups/{backup_id}/create-index`; the new index has the tags of the backup where none are given."""

    name: str
    tags: dict[str, str] | None = None
    deletion_protection: Literal["enabled", "disabled"] | None = None
    read_capacity: dict[str, Any] | None = None


class ErrorModeBody(_Body):
    """What a row that cannot be imported does."""

    on_error: Literal["abort", "continue"] = Field(alias="onError")


class StartImportBody(_Body):
    """`POST /bulk/imports`: `uri` names a folder with one folder per namespace."""

    uri: str
    error_mode: ErrorModeBody | None = Field(None, alias="errorMode")
    integration_id: str | None = Field(None, alias="integrationId")


DOCUMENTED: tuple[type[BaseModel], ...] = (
    UpsertBody,
    UpsertAnswer,
    QueryBody,
    QueryAnswer,
    FetchAnswer,
    FetchByMetadataBody,
    FetchByMetadataAnswer,
    UpdateBody,
    DeleteBody,
    StatsBody,
    CreateNamespaceBody,
    CreateIndexBody,
    ConfigureIndexBody,
    CreateForModelBody,
    CreateCollectionBody,
    CreateBackupBody,
    RestoreBackupBody,
    StartImportBody,
    CreateKeyBody,
)


def component_schemas(models: Sequence[type[BaseModel]]) -> dict[str, Any]:
    """Return the JSON schemas of bodies, by name, as components of an OpenAPI document."""
    pairs: list[tuple[type[BaseModel], Literal["validation"]]] = [(model, "validation") for model in models]
    _, document = models_json_schema(pairs, ref_template="#/components/schemas/{model}", by_alias=True)
    definitions: dict[str, Any] = document["$defs"]
    return definitions


def parsed(model: type[_Model], document: dict[str, object], *, is_control: bool = False) -> _Model:
    """Return `document` as a model.

    Raises `InvalidRequest`, `UnprocessableBody` in the control plane, with the first field that is wrong.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "body"
        kind = UnprocessableBody if is_control else InvalidRequest
        raise kind(f"Invalid request: field '{place}': {first['msg']}", field=place) from error
