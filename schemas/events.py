"""Events of a log: what may be said about a namespace, its bytes, and whether it fits an index.

Guarantees: `decode(encode(event), {})` equals `event` for every event that passes `validate`; `decode` of any bytes
returns an event in canonical form or raises `CorruptData` (a dead letter) or `UnsupportedFormat` (written by a newer
version).
The bytes are specified in docs/log-format.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import assert_never

import numpy as np
from google.protobuf.message import DecodeError

from schemas.errors import CorruptData, InvalidRequest, UnsupportedFormat
from schemas.event_json import event_from_json
from schemas.filters import filter_from_json, filter_to_json
from schemas.indexes import VectorType
from schemas.limits import SPARSE_NONZEROS_MAX
from schemas.metadata import canonical_metadata_json, check_metadata
from schemas.namespaces import canonical_schema_json
from schemas.operations import (
    CreateNamespace,
    Delete,
    DeleteNamespace,
    DeleteWhere,
    Event,
    Update,
    UpdateWhere,
    Upsert,
)
from schemas.partitions import canonical_namespace
from schemas.pb import event_pb2 as pb
from schemas.records import Sparse, check_id, check_namespace, dense_values, make_sparse

__all__ = [
    "CONTENT_TYPE_HEADER",
    "FORMAT",
    "FORMAT_HEADER",
    "JSON_CONTENT_TYPE",
    "CreateNamespace",
    "Delete",
    "DeleteNamespace",
    "DeleteWhere",
    "Event",
    "Update",
    "UpdateWhere",
    "Upsert",
    "check_format",
    "decode",
    "encode",
    "namespace_of",
    "sound_vectors",
    "validate",
]

FORMAT = 1
FORMAT_HEADER = "freshet-format"
CONTENT_TYPE_HEADER = "content-type"
JSON_CONTENT_TYPE = b"application/json"
_PROTOBUF_CONTENT_TYPES = frozenset({b"application/protobuf", b"application/x-protobuf"})
_FORMAT_NUMBER = re.compile(rb"[1-9][0-9]{0,8}")


def encode(event: Event) -> bytes:
    """Return the protobuf form (schemas/pb/event.proto) of `event`."""
    message = pb.Event()
    match event:
        case Upsert(name, values, sparse, metadata):
            message.upsert.id = name
            message.upsert.values = values
            message.upsert.metadata = metadata
            if sparse is not None:
                message.upsert.sparse.CopyFrom(_sparse_message(sparse))
        case Update(name, values_or_none, sparse, set_metadata):
            message.update.id = name
            if values_or_none is not None:
                message.update.values = values_or_none
            if sparse is not None:
                message.update.sparse.CopyFrom(_sparse_message(sparse))
            if set_metadata is not None:
                message.update.set_metadata = set_metadata
        case UpdateWhere(where, set_metadata_bytes):
            message.update_where.filter = where
            message.update_where.set_metadata = set_metadata_bytes
        case Delete(name):
            message.delete.id = name
        case DeleteWhere(where):
            message.delete_where.filter = where
        case DeleteNamespace(keep):
            message.delete_namespace.keep = keep
        case CreateNamespace(schema):
            message.create_namespace.schema = schema
        case _:
            assert_never(event)
    value: bytes = message.SerializeToString(deterministic=True)
    return value


def decode(value: bytes, headers: Mapping[str, bytes]) -> Event:
    """Return the event in a log record's value; protobuf, or JSON where the header `content-type` says so.

    Raises `CorruptData` for bytes that are no event of format 1; `UnsupportedFormat` for a format number above ours.
    """
    check_format(headers)
    content_type = headers.get(CONTENT_TYPE_HEADER, b"").partition(b";")[0].strip().lower()
    try:
        if content_type == JSON_CONTENT_TYPE:
            return event_from_json(value)
        if content_type and content_type not in _PROTOBUF_CONTENT_TYPES:
            raise CorruptData(f"Unknown content type {content_type[:80]!r}: known are application/json and protobuf.")
        return _from_message(pb.Event.FromString(value))
    except DecodeError as error:
        raise CorruptData(f"The record is not a protobuf event: {error}") from error
    except InvalidRequest as error:
        raise CorruptData(error.message) from error


def check_format(headers: Mapping[str, bytes]) -> None:
    """Check the header `freshet-format`; absent means 1.

    Raises `CorruptData` where it is not a number; `UnsupportedFormat` where it is above ours.
    """
    text = headers.get(FORMAT_HEADER, b"1")
    if not _FORMAT_NUMBER.fullmatch(text):
        raise CorruptData(f"Header {FORMAT_HEADER} is {text[:40]!r}, which is not a format number.")
    if int(text) > FORMAT:
        raise UnsupportedFormat(
            f"The record has format {int(text)}, this version knows {FORMAT}: upgrade, or skip the record.",
            format=int(text),
        )


def namespace_of(key: bytes | None) -> str:
    """Return the namespace that a record's key names; an empty key is the default one.

    Raises `CorruptData` for a key that is absent, above 512 characters, or not ASCII without NUL.
    """
    if key is None:
        raise CorruptData("The record has no key: the key is its namespace.")
    try:
        name = key.decode()
        check_namespace(name)
    except UnicodeDecodeError as error:
        raise CorruptData("The record's key is not UTF-8: the key is its namespace.") from error
    except InvalidRequest as error:
        raise CorruptData(error.message) from error
    return canonical_namespace(name)


def sound_vectors(events: Sequence[Event], *, dimension: int, vector_type: VectorType) -> list[bool]:
    """Say of each event whether it is an upsert with a dense vector that fits, looked at all at once.

    No says nothing: `validate` looks again, one by one.
    """
    sound = [False] * len(events)
    if vector_type is VectorType.SPARSE:
        return sound
    size = 4 * dimension
    found = [
        (at, event.values) for at, event in enumerate(events) if type(event) is Upsert and len(event.values) == size
    ]
    matrix = dense_values(b"".join([values for _, values in found])).reshape(-1, dimension)
    # A sum of squares is positive and finite only where no number is not, and not all are zero.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", matrix, matrix)
    for (at, _), is_sound in zip(found, ((squares > 0) & (squares < np.inf)).tolist(), strict=True):
        sound[at] = is_sound
    return sound


def validate(
    event: Event,
    *,
    dimension: int,
    vector_type: VectorType,
    is_vector_sound: bool = False,
    is_decoded: bool = False,
) -> None:
    """Raise `InvalidRequest` where `event` does not fit an index of that dimension and vector type.

    Asked before every append, and again by the fold, since foreign producers write to the log as well.
    `is_vector_sound`: what `sound_vectors` says of it. `is_decoded`: it comes from `decode`, so its parts are in their
    canonical forms.
    """
    match event:
        case Upsert(name, values, sparse, metadata):
            check_id(name)
            if not is_vector_sound or sparse is not None:
                _check_vectors(values, sparse, dimension=dimension, vector_type=vector_type)
            if vector_type is VectorType.DENSE and not values:
                raise InvalidRequest(f"Vector '{name}' has no dense values, which this index requires")
            if vector_type is VectorType.SPARSE and sparse is None:
                raise InvalidRequest(f"Vector '{name}' has no sparse values, which this index requires")
            check_metadata(metadata, is_canonical=is_decoded)
        case Update(name, values_or_none, sparse, set_metadata):
            check_id(name)
            if values_or_none == b"" or set_metadata == b"":
                raise InvalidRequest("A part of an update that is empty must be absent.")
            _check_vectors(values_or_none or b"", sparse, dimension=dimension, vector_type=vector_type)
            check_metadata(set_metadata or b"", is_canonical=is_decoded)
        case UpdateWhere(where, set_metadata_bytes):
            _check_filter(where)
            if not set_metadata_bytes:
                raise InvalidRequest("Update by metadata filter must set at least one metadata field")
            check_metadata(set_metadata_bytes)
        case Delete(name):
            check_id(name)
        case DeleteWhere(where):
            _check_filter(where)
        case DeleteNamespace():
            return
        case CreateNamespace(schema):
            if canonical_schema_json(schema) != schema:
                raise InvalidRequest("Namespace schema is not in its canonical form.")
        case _:
            assert_never(event)


def _check_vectors(values: bytes, sparse: Sparse | None, *, dimension: int, vector_type: VectorType) -> None:
    if values:
        if vector_type is VectorType.SPARSE:
            raise InvalidRequest("Index configuration does not support dense values")
        if len(values) != 4 * dimension:
            raise InvalidRequest(
                f"Vector dimension {len(values) // 4} does not match the dimension of the index {dimension}",
                dimension=dimension,
            )
        numbers = dense_values(values)
        if not np.isfinite(numbers).all():
            raise InvalidRequest("Vector values must be finite float32 numbers")
        if not numbers.any():
            raise InvalidRequest("Dense vectors must contain at least one non-zero value")
    if sparse is not None:
        if len(sparse.indices) > SPARSE_NONZEROS_MAX:
            raise InvalidRequest(
                f"Sparse vector has {len(sparse.indices)} values; the limit is {SPARSE_NONZEROS_MAX}",
                limit=SPARSE_NONZEROS_MAX,
            )
        if not np.isfinite(sparse.values).all():
            raise InvalidRequest("Sparse vector values must be finite float32 numbers")


def _check_filter(where: bytes) -> None:
    if filter_to_json(filter_from_json(where)) != where:
        raise InvalidRequest("Filter is not in its canonical form.")


def _sparse_message(sparse: Sparse) -> pb.Sparse:
    return pb.Sparse(indices=sparse.indices.tolist(), values=sparse.values.tobytes())


def _whole_floats(values: bytes) -> bytes:
    if len(values) % 4:
        raise CorruptData(f"Vector values are {len(values)} bytes long, which is not a multiple of 4.")
    return values


def _sparse(message: pb.Sparse) -> Sparse | None:
    indices = np.fromiter(message.indices, dtype=np.uint32, count=len(message.indices))
    return make_sparse(indices, dense_values(_whole_floats(message.values)))


def _from_message(message: pb.Event) -> Event:
    match message.WhichOneof("operation"):
        case "upsert":
            upsert = message.upsert
            sparse = _sparse(upsert.sparse) if upsert.HasField("sparse") else None
            return Upsert(upsert.id, _whole_floats(upsert.values), sparse, canonical_metadata_json(upsert.metadata))
        case "update":
            update = message.update
            sparse = _sparse(update.sparse) if update.HasField("sparse") else None
            # A part that is present and empty says nothing, as in the JSON surface.
            values = _whole_floats(update.values) or None
            return Update(update.id, values, sparse, canonical_metadata_json(update.set_metadata) or None)
        case "update_where":
            return UpdateWhere(
                _canonical_filter(message.update_where.filter),
                canonical_metadata_json(message.update_where.set_metadata),
            )
        case "delete":
            return Delete(message.delete.id)
        case "delete_where":
            return DeleteWhere(_canonical_filter(message.delete_where.filter))
        case "delete_namespace":
            return DeleteNamespace(keep=message.delete_namespace.keep)
        case "create_namespace":
            return CreateNamespace(canonical_schema_json(message.create_namespace.schema))
        case operation:
            raise CorruptData(f"The record holds no operation that format {FORMAT} knows ({operation}).")


def _canonical_filter(text: bytes) -> bytes:
    return filter_to_json(filter_from_json(text))
