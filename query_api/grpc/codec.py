"""Messages of `VectorService` from bytes and to bytes; the only door to their protobuf classes.

Requests are parsed by protobuf, since a client may write a list of numbers in several ways; answers with vectors are
put together from the numbers' own bytes. Fields that are not known are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import orjson
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct, Value

from query_api.grpc import vector_service_pb2 as pb
from query_api.grpc.wire import joined, record_parts, sized, text, varint
from query_api.questions import QueryResult, Question
from query_api.reads import IdPage, IndexStats, NamespaceInfo, NamespacePage, units_of_fetch
from schemas.errors import InvalidRequest
from schemas.filters import Filter, parse_filter
from schemas.indexes import IndexSpec, VectorType
from schemas.limits import BATCH_RECORDS_MAX, FETCH_MATCHING_DEFAULT, LIST_LIMIT_MAX
from schemas.metadata import canonical_metadata
from schemas.namespaces import canonical_schema
from schemas.operations import Upsert
from schemas.records import Record, Sparse, make_sparse

__all__ = [
    "DESCRIPTOR",
    "DeleteCommand",
    "PageRequest",
    "UpdateCommand",
    "decode_delete",
    "decode_fetch",
    "decode_fetch_by_metadata",
    "decode_list",
    "decode_list_namespaces",
    "decode_namespace",
    "decode_new_namespace",
    "decode_query",
    "decode_stats",
    "decode_update",
    "decode_upsert",
    "encode_fetch",
    "encode_id_page",
    "encode_namespace",
    "encode_namespaces",
    "encode_query",
    "encode_stats",
    "encode_updated",
    "encode_upserted",
]

DESCRIPTOR = pb.DESCRIPTOR

_Message = TypeVar("_Message", bound=Message)
_FLOAT32 = np.dtype("<f4")
_EXACT_INTEGER_MAX = 2**53
_SHORT_BYTES = 120
# Tags of values, metadata and sparse values.
_OF_VECTOR = (b"\x12", b"\x1a", b"\x22")
_OF_MATCH = (b"\x1a", b"\x22", b"\x2a")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What a listing asks for; `prefix` and `token` are None where they are absent."""

    namespace: str
    prefix: str | None
    token: str | None
    limit: int


@dataclass(frozen=True, slots=True)
class UpdateCommand:
    """An update: `values` little-endian float32, `b""` = absent; `where` and `set_metadata` JSON, None = absent."""

    namespace: str
    id: str | None
    values: bytes
    sparse: Sparse | None
    set_metadata: dict[str, object] | None
    where: dict[str, object] | None
    dry_run: bool


@dataclass(frozen=True, slots=True)
class DeleteCommand:
    """A delete: `ids` and `where` (JSON) are None where they are absent."""

    namespace: str
    ids: list[str] | None
    is_all: bool
    where: dict[str, object] | None


def decode_upsert(message: bytes) -> tuple[str, list[Upsert]]:
    """Return the namespace and the events of an upsert, not checked against the index yet. Raises `InvalidRequest`."""
    request = _parsed(pb.UpsertRequest, message)
    if not request.vectors:
        raise InvalidRequest("Invalid request: 'vectors' must be a list of at least one vector")
    if len(request.vectors) > BATCH_RECORDS_MAX:
        raise InvalidRequest(
            f"Invalid request: {len(request.vectors)} vectors in one upsert; the limit is {BATCH_RECORDS_MAX}, "
            "send several",
            limit=BATCH_RECORDS_MAX,
        )
    events = []
    for place, vector in enumerate(request.vectors):
        try:
            events.append(
                Upsert(
                    vector.id,
                    _dense(vector.values),
                    _sparse(vector.sparse_values) if vector.HasField("sparse_values") else None,
                    canonical_metadata(_json(vector.metadata)) if vector.HasField("metadata") else b"",
                )
            )
        except InvalidRequest as error:
            error.facts["event"] = place
            raise
    return request.namespace, events


def decode_query(message: bytes, *, explain: bool = False) -> tuple[str, Question]:
    """Return the namespace and the question of a query. Raises `InvalidRequest`."""
    request = _parsed(pb.QueryRequest, message)
    if request.queries:
        raise InvalidRequest("'queries' is not supported any more; send one 'vector' or 'id' a request")
    vector: npt.NDArray[np.float32] | None = None
    if request.vector:
        vector = np.array(request.vector, dtype=_FLOAT32)
    return request.namespace, Question(
        top_k=request.top_k,
        vector=vector,
        id=request.id or None,
        sparse=_sparse(request.sparse_vector) if request.HasField("sparse_vector") else None,
        where=parse_filter(_json(request.filter)) if request.HasField("filter") else None,
        include_values=request.include_values,
        include_metadata=request.include_metadata,
        explain=explain,
        scan_factor=request.scan_factor if request.HasField("scan_factor") else None,
        max_candidates=request.max_candidates if request.HasField("max_candidates") else None,
    )


def decode_fetch(message: bytes) -> tuple[str, list[str]]:
    """Return the namespace and the ids of a fetch. Raises `InvalidRequest`."""
    request = _parsed(pb.FetchRequest, message)
    return request.namespace, list(request.ids)


def decode_fetch_by_metadata(message: bytes) -> tuple[PageRequest, Filter | None]:
    """Return the page that is asked for, and the filter, None for none. Raises `InvalidRequest`."""
    request = _parsed(pb.FetchByMetadataRequest, message)
    where = parse_filter(_json(request.filter)) if request.HasField("filter") else None
    limit = request.limit if request.HasField("limit") else FETCH_MATCHING_DEFAULT
    return PageRequest(request.namespace, None, request.pagination_token or None, limit), where


def decode_update(message: bytes) -> UpdateCommand:
    """Raise `InvalidRequest` for what is no update."""
    request = _parsed(pb.UpdateRequest, message)
    return UpdateCommand(
        request.namespace,
        request.id or None,
        _dense(request.values),
        _sparse(request.sparse_values) if request.HasField("sparse_values") else None,
        _json(request.set_metadata) if request.HasField("set_metadata") else None,
        _json(request.filter) if request.HasField("filter") else None,
        request.dry_run,
    )


def decode_delete(message: bytes) -> DeleteCommand:
    """Raise `InvalidRequest` for what is no delete."""
    request = _parsed(pb.DeleteRequest, message)
    where = _json(request.filter) if request.HasField("filter") else None
    return DeleteCommand(request.namespace, list(request.ids) or None, request.delete_all, where)


def decode_list(message: bytes) -> PageRequest:
    """Raise `InvalidRequest` for what is no listing of ids."""
    request = _parsed(pb.ListRequest, message)
    return _page_request(request, request.namespace)


def decode_list_namespaces(message: bytes) -> PageRequest:
    """Raise `InvalidRequest` for what is no listing of namespaces."""
    return _page_request(_parsed(pb.ListNamespacesRequest, message), "")


def decode_stats(message: bytes) -> None:
    """Raise `InvalidRequest` where the statistics are asked for with a filter."""
    request = _parsed(pb.DescribeIndexStatsRequest, message)
    if request.filter.fields:
        raise InvalidRequest("Describing index statistics with a metadata filter is not supported")


def decode_namespace(message: bytes) -> str:
    """Return the namespace to describe or delete: both requests are alike. Raises `InvalidRequest`."""
    return _parsed(pb.DescribeNamespaceRequest, message).namespace


def decode_new_namespace(message: bytes) -> tuple[str, bytes]:
    """Return the name and the canonical schema of a namespace to make. Raises `InvalidRequest`."""
    request = _parsed(pb.CreateNamespaceRequest, message)
    fields = {name: {"filterable": what.filterable} for name, what in request.schema.fields.items()}
    return request.name, canonical_schema({"fields": fields} if request.HasField("schema") else None)


def encode_upserted(count: int) -> bytes:
    """Return the answer to an upsert."""
    return b"\x08" + varint(count)


def encode_query(result: QueryResult, namespace: str) -> bytes:
    """Return the answer to a query."""
    scores = np.array([match.score for match in result.matches], dtype=_FLOAT32).tobytes()
    parts = []
    for place, (name, _, record) in enumerate(result.matches):
        key, score = name.encode(), scores[4 * place : 4 * place + 4]
        if record is None and len(key) <= _SHORT_BYTES:
            # Nearly all matches: id and score, with lengths that are one byte each.
            parts.append(b"\x12%c\x0a%c%b\x15%b" % (len(key) + 7, len(key), key, score))
        else:
            rest = b"" if record is None else record_parts(record, _OF_MATCH)
            parts.append(sized(b"\x12", sized(b"\x0a", key) + b"\x15" + score + rest))
    parts += (text(b"\x1a", namespace), _usage(b"\x22", 1))
    return b"".join(parts)


def encode_fetch(records: Mapping[str, Record], namespace: str, *, asked: int, token: str | None = None) -> bytes:
    """Return the answer to a fetch, or a page of one by metadata that `token` continues."""
    usage = _usage(b"\x1a", units_of_fetch(asked))
    return _records(records) + text(b"\x12", namespace) + usage + _pagination(b"\x22", token)


def encode_updated(matched: int | None) -> bytes:
    """Return the answer to an update; `matched` of one by filter."""
    return b"" if matched is None else _bytes(pb.UpdateResponse(matched_records=min(matched, 2**31 - 1)))


def encode_id_page(page: IdPage, namespace: str, token: str | None) -> bytes:
    """Return a page of ids; `token` continues it."""
    ids = joined(b"\x0a", (text(b"\x0a", name) for name in page.ids))
    return ids + _pagination(b"\x12", token) + text(b"\x1a", namespace) + _usage(b"\x22", 1)


def encode_stats(spec: IndexSpec, stats: IndexStats) -> bytes:
    """Return the answer with the records of each namespace."""
    counts = stats.namespaces
    answer = pb.DescribeIndexStatsResponse(
        dimension=spec.dimension if spec.vector_type is VectorType.DENSE else None,
        index_fullness=stats.fullness,
        total_vector_count=sum(counts.values()),
        metric=spec.metric.value,
        vector_type=spec.vector_type.value,
        memory_fullness=0.0,
        storage_fullness=0.0,
    )
    for name, count in sorted(counts.items()):
        answer.namespaces[name].vector_count = count
    return _bytes(answer)


def encode_namespace(info: NamespaceInfo) -> bytes:
    """Return the description of a namespace."""
    return _bytes(_described(info))


def encode_namespaces(page: NamespacePage, token: str | None) -> bytes:
    """Return a page of namespaces; `token` continues it."""
    answer = pb.ListNamespacesResponse(
        namespaces=[_described(info) for info in page.namespaces],
        total_count=page.total,
        pagination=None if token is None else pb.Pagination(next=token),
    )
    return _bytes(answer)


def _parsed(kind: type[_Message], message: bytes) -> _Message:
    try:
        parsed: _Message = kind.FromString(message)
    except DecodeError as error:
        raise InvalidRequest(f"Invalid request: the message is no {kind.DESCRIPTOR.name}: {error}") from error
    return parsed


def _bytes(message: Message) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _dense(values: object) -> bytes:
    return np.array(values, dtype=_FLOAT32).tobytes() if values else b""


def _sparse(message: pb.SparseValues) -> Sparse | None:
    return make_sparse(np.array(message.indices, dtype=np.uint32), np.array(message.values, dtype=_FLOAT32))


def _json(document: Struct) -> dict[str, object]:
    return {name: _json_value(value) for name, value in document.fields.items()}


def _json_value(value: Value) -> object:
    """Return a value of a `Struct` as JSON has it; whole numbers, which a `Struct` can't tell apart, as integers."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= _EXACT_INTEGER_MAX else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "list_value":
        return [_json_value(item) for item in value.list_value.values]
    return _json(value.struct_value) if kind == "struct_value" else None


def _page_request(request: pb.ListRequest | pb.ListNamespacesRequest, namespace: str) -> PageRequest:
    return PageRequest(
        namespace,
        request.prefix if request.HasField("prefix") else None,
        request.pagination_token or None,
        request.limit if request.HasField("limit") else LIST_LIMIT_MAX,
    )


def _records(records: Mapping[str, Record]) -> bytes:
    """Return the field `vectors` of a fetch: a map is a list of pairs."""
    return joined(
        b"\x0a",
        (
            text(b"\x0a", name) + sized(b"\x12", text(b"\x0a", name) + record_parts(record, _OF_VECTOR))
            for name, record in records.items()
        ),
    )


def _usage(tag: bytes, units: int) -> bytes:
    return sized(tag, b"\x08" + varint(units))


def _pagination(tag: bytes, token: str | None) -> bytes:
    return b"" if token is None else sized(tag, text(b"\x0a", token))


def _described(info: NamespaceInfo) -> pb.NamespaceDescription:
    described = pb.NamespaceDescription(name=info.name, record_count=info.records)
    if info.schema:
        for name in orjson.loads(info.schema)["fields"]:
            described.schema.fields[name].filterable = True
            described.indexed_fields.fields.append(name)
    return described
