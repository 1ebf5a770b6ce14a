"""Bodies of records and documents, in the snake_case of the wire surface; the other door to pydantic."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "DOCUMENT_MODELS",
    "DeleteDocumentsBody",
    "FetchDocumentsBody",
    "ListDocumentsBody",
    "RecordsVectorBody",
    "SearchDocumentsBody",
    "SearchRecordsBody",
    "UpdateDocumentsBody",
    "UpsertDocumentsBody",
]


class _Body(BaseModel):
    """Strict about types, deaf to fields that it does not know."""

    model_config = ConfigDict(strict=True, extra="ignore", populate_by_name=True)


class RecordsVectorBody(_Body):
    """A vector to search by: dense, sparse, or both."""

    values: list[Any] | None = None
    sparse_values: list[Any] | None = None
    sparse_indices: list[Any] | None = None


class RecordsQueryBody(_Body):
    """What a search of records looks for: by `vector` or by `id`."""

    top_k: int
    vector: RecordsVectorBody | None = None
    id: str | None = None
    filter: dict[str, Any] | None = None
    inputs: Any = Field(None, description="Refused: no embedding model is configured.")
    match_terms: Any = Field(None, description="Refused.")


class SearchRecordsBody(_Body):
    """`POST /records/namespaces/{namespace}/search`."""

    query: RecordsQueryBody
    fields: list[str] | None = Field(None, description="Up to 100 fields of metadata; every one where absent or `*`.")
    rerank: Any = Field(None, description="Refused.")


class UnitsBody(_Body):
    """What the hosted service would charge."""

    read_units: int


class HitBody(_Body):
    """One record found."""

    id: str = Field(alias="_id")
    score: float = Field(alias="_score")
    fields: dict[str, Any]


class HitsBody(_Body):
    """Best first."""

    hits: list[HitBody]


class SearchRecordsAnswer(_Body):
    """The answer of a search of records."""

    result: HitsBody
    usage: UnitsBody


class UpsertDocumentsBody(_Body):
    """`POST /namespaces/{namespace}/documents/upsert`: 1 to 1,000 documents with distinct `_id`s."""

    documents: list[dict[str, Any]]


class UpsertDocumentsAnswer(_Body):
    """How many there were."""

    upserted_count: int


class SearchDocumentsBody(_Body):
    """`POST /namespaces/{namespace}/documents/search`.

    A clause of `score_by` is `{"type": "dense_vector", "field", "values"}` or
    `{"type": "sparse_vector", "field", "sparse_values": {"indices", "values"}}`, and stands alone.
    """

    score_by: list[dict[str, Any]]
    top_k: int
    include_fields: list[str] | None = Field(None, description="Only `_id` and `_score` where absent; `*`: all.")
    filter: dict[str, Any] | None = None


class SearchDocumentsAnswer(_Body):
    """Documents with `_id`, `_score` and the fields that were asked for, best first."""

    matches: list[dict[str, Any]]
    namespace: str
    usage: UnitsBody


class FetchDocumentsBody(_Body):
    """`POST /namespaces/{namespace}/documents/fetch`: by `ids`, or by `filter` in pages by id."""

    ids: list[str] | None = None
    filter: dict[str, Any] | None = None
    include_fields: list[str] | None = Field(None, description="All where absent, empty or `*`.")
    limit: int | None = Field(None, description="With a filter: 1 to 10,000; 100 where none is given.")
    pagination_token: str | None = None


class NextBody(_Body):
    """Present where more is left."""

    next: str


class FetchDocumentsAnswer(_Body):
    """Documents by id; missing ones are absent."""

    documents: dict[str, dict[str, Any]]
    namespace: str
    usage: UnitsBody
    pagination: NextBody | None = None


class ListDocumentsBody(_Body):
    """`POST /namespaces/{namespace}/documents/list`."""

    prefix: str | None = None
    limit: int | None = Field(None, description="1 to 100, which is the default.")
    pagination_token: str | None = None


class ListDocumentsAnswer(_Body):
    """Ids in byte order."""

    documents: list[dict[str, str]]
    namespace: str
    usage: UnitsBody
    pagination: NextBody | None = None


class DeleteDocumentsBody(_Body):
    """`POST /namespaces/{namespace}/documents/delete`: one of `ids`, `filter`, `delete_all`."""

    ids: list[str] | None = None
    filter: dict[str, Any] | None = None
    delete_all: bool | None = None


class UpdateDocumentsBody(_Body):
    """`POST /namespaces/{namespace}/documents/update`: patches of `documents`, or `set_fields` of all that match."""

    documents: list[dict[str, Any]] | None = None
    filter: dict[str, Any] | None = None
    set_fields: dict[str, Any] | None = None
    remove_fields: list[str] | None = Field(None, description="Refused: fields are set, and never removed.")


class MatchedDocumentsAnswer(_Body):
    """How many documents matched a filter as of the write's place in the log; absent where none was given."""

    matched_records: int | None = None


DOCUMENT_MODELS: tuple[type[BaseModel], ...] = (
    SearchRecordsBody,
    SearchRecordsAnswer,
    UpsertDocumentsBody,
    UpsertDocumentsAnswer,
    SearchDocumentsBody,
    SearchDocumentsAnswer,
    FetchDocumentsBody,
    FetchDocumentsAnswer,
    ListDocumentsBody,
    ListDocumentsAnswer,
    DeleteDocumentsBody,
    UpdateDocumentsBody,
    MatchedDocumentsAnswer,
)
