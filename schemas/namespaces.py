"""The schema that a namespace is made with: which metadata fields can be filtered by. Without one, all can."""

from __future__ import annotations

import functools

import orjson

from schemas.errors import InvalidRequest
from schemas.limits import METADATA_BYTES_MAX
from schemas.metadata import shown

__all__ = ["canonical_schema", "canonical_schema_json", "filterable_fields"]


def canonical_schema(schema: object) -> bytes:
    """Return the bytes of `{"fields": {<field>: {"filterable": true}}}`; `b""` where it names no field, meaning all.

    Raises `InvalidRequest` (https://docs.pinecone.io/reference/api/latest/data-plane/createnamespace).
    """
    if schema is None or schema == {}:
        return b""
    if not isinstance(schema, dict) or set(schema) != {"fields"} or not isinstance(schema["fields"], dict):
        raise InvalidRequest(f"Namespace schema must be an object with 'fields', got '{shown(schema)}'")
    fields: dict[str, object] = schema["fields"]
    for field, what in fields.items():
        if field.startswith("$"):
            raise InvalidRequest(f"Metadata field '{field}' cannot start with '$'", field=field)
        if what != {"filterable": True} or type(what["filterable"]) is not bool:
            raise InvalidRequest(
                f"Namespace schema field '{field}' must be {{\"filterable\": true}}, got '{shown(what)}'", field=field
            )
    text = orjson.dumps(schema) if fields else b""
    if len(text) > METADATA_BYTES_MAX:
        raise InvalidRequest(
            f"Namespace schema is {len(text)} bytes; the limit is {METADATA_BYTES_MAX}", limit=METADATA_BYTES_MAX
        )
    return text


def canonical_schema_json(text: bytes) -> bytes:
    """Return the canonical form of a schema that arrived as JSON text. Raises `InvalidRequest`."""
    if not text:
        return b""
    try:
        schema = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"Namespace schema is not valid JSON: {error}") from error
    return canonical_schema(schema)


@functools.lru_cache(maxsize=1024)
def filterable_fields(schema: bytes) -> frozenset[str]:
    """Return the names of the fields in a canonical schema that is not empty."""
    return frozenset(orjson.loads(schema)["fields"])
