"""The fields that an index was created with: its vector fields by name, its typed ones, and which can be filtered by.

They lie in the settings of the index as `{"schema": {"fields": {<name>: {...}}}}`. An index of vectors has no vector
field there: its two have reserved names. An index of documents has.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from schemas.indexes import IndexSpec
from schemas.namespaces import filterable_fields

__all__ = [
    "DENSE_TYPE",
    "FIELD_TYPES",
    "SPARSE_TYPE",
    "IndexFields",
    "filterable_in",
    "index_fields",
    "inherited_schema",
]

DENSE_TYPE = "dense_vector"
SPARSE_TYPE = "sparse_vector"
# What a field of metadata can be declared to hold.
FIELD_TYPES = ("string", "string_list", "boolean", "integer", "float")


@dataclass(frozen=True, slots=True)
class IndexFields:
    """`dense` and `sparse` name the vector fields of documents; `types` maps declared fields of metadata to their type.

    `filterable` are the fields that a filter may name, None for every field.
    """

    dense: str | None = None
    sparse: str | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    filterable: frozenset[str] | None = None

    @property
    def are_documents(self) -> bool:
        """Whether the index holds documents, and its records are reached as such only."""
        return self.dense is not None or self.sparse is not None


def index_fields(spec: IndexSpec) -> IndexFields:
    """Return the fields of an index. What has no sound shape, from a foreign producer, counts as not declared."""
    return _fields(spec.settings)


def filterable_in(spec: IndexSpec, schema: bytes) -> frozenset[str] | None:
    """Return the fields that a filter may name in a namespace with `schema` (canonical), None for every field.

    A namespace without a schema, `b""`, has that of its index.
    """
    return filterable_fields(schema) if schema else index_fields(spec).filterable


def inherited_schema(spec: IndexSpec) -> bytes:
    """Return the schema of namespaces that were made without one, in the form of a namespace's; `b""` = every field."""
    filterable = _fields(spec.settings).filterable
    if filterable is None:
        return b""
    return orjson.dumps({"fields": {name: {"filterable": True} for name in sorted(filterable)}})


@functools.lru_cache(maxsize=256)
def _fields(settings: bytes) -> IndexFields:
    schema = orjson.loads(settings).get("schema")
    declared = schema.get("fields") if isinstance(schema, dict) else None
    if not isinstance(declared, dict):
        return IndexFields()
    found: dict[str, str | None] = {}
    types: dict[str, str] = {}
    filterable: set[str] = set()
    for name, what in declared.items():
        kind = what.get("type") if isinstance(what, dict) else None
        if kind in (DENSE_TYPE, SPARSE_TYPE):
            found[kind] = name
        elif kind in FIELD_TYPES:
            types[name] = kind
        if isinstance(what, dict) and what.get("filterable") is True:
            filterable.add(name)
    return IndexFields(found.get(DENSE_TYPE), found.get(SPARSE_TYPE), types, frozenset(filterable) or None)
