"""Metadata of a record: a flat JSON object, kept as the bytes of its one canonical form.

Canonical: UTF-8, no spaces, keys in the order given, no null values, every number exactly a float64. No metadata and an
empty object are both `b""`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import orjson

from schemas.errors import InvalidRequest
from schemas.limits import METADATA_BYTES_MAX

__all__ = [
    "MetadataValue",
    "canonical_metadata",
    "canonical_metadata_json",
    "check_metadata",
    "exact_number",
    "merge_metadata",
    "metadata_document",
    "shown",
]

MetadataValue = str | int | float | bool | list[str]
_SHOWN_CHARACTERS_MAX = 200
# Integers up to here are all exact in float64, so most need no further look.
_EXACT_INTEGER_MAX = 2**53


def shown(value: object) -> str:
    """Return `value` as JSON for a message, cut to 200 characters; its type's name where it is not JSON."""
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        text = type(value).__name__
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else text[:_SHOWN_CHARACTERS_MAX] + "..."


def exact_number(value: float) -> int | float | None:
    """Return `value` as a float64 carries it: integers as written where that is exact; None where it is not finite."""
    if type(value) is int and -_EXACT_INTEGER_MAX <= value <= _EXACT_INTEGER_MAX:
        return value
    try:
        number = float(value)
    except OverflowError:
        return None
    if not math.isfinite(number):
        return None
    in_64_bits = type(value) is int and -(2**63) <= value < 2**64
    return value if in_64_bits and int(number) == value else number


def _value(field: str, value: object) -> MetadataValue:
    kind = type(value)
    if kind is str or kind is bool:
        return value  # type: ignore[return-value]
    if isinstance(value, int | float):
        number = exact_number(value)
        if number is None:
            raise InvalidRequest(f"Metadata number for field '{field}' is not a finite float64.", field=field)
        return number
    if isinstance(value, list) and all(type(item) is str for item in value):
        return value
    raise InvalidRequest(
        "Metadata value must be a string, number, boolean or list of strings, "
        f"got '{shown(value)}' for field '{field}'",
        field=field,
    )


def canonical_metadata(document: object) -> bytes:
    """Return the canonical bytes of a metadata object (a mapping or None); keys whose value is null are dropped.

    Raises `InvalidRequest` for anything but a flat object of strings, finite numbers, booleans and lists of strings
    (https://docs.pinecone.io/guides/index-data/indexing-overview#metadata-format). The size is not checked here.
    """
    if document is None:
        return b""
    if not isinstance(document, Mapping):
        raise InvalidRequest(f"Metadata must be a JSON object, got '{shown(document)}'")
    flat: dict[str, MetadataValue] = {}
    for field, value in document.items():
        if type(field) is not str:
            raise InvalidRequest(f"Metadata field names must be strings, got '{shown(field)}'")
        if field.startswith("$"):
            raise InvalidRequest(f"Metadata field '{field}' cannot start with '$'", field=field)
        if value is not None:
            flat[field] = _value(field, value)
    if not flat:
        return b""
    try:
        return orjson.dumps(flat)
    except TypeError as error:
        raise InvalidRequest(f"Metadata cannot be written as JSON: {error}") from error


def canonical_metadata_json(text: bytes) -> bytes:
    """Return the canonical form of metadata that arrived as JSON text. Raises `InvalidRequest`."""
    if not text:
        return b""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"Metadata is not valid JSON: {error}") from error
    return canonical_metadata(document)


def check_metadata(metadata: bytes, *, is_canonical: bool = False) -> None:
    """Raise `InvalidRequest` where `metadata` is above 40 KB, or not canonical unless that is known."""
    if len(metadata) > METADATA_BYTES_MAX:
        raise InvalidRequest(
            f"Metadata size is {len(metadata)} bytes, which exceeds the limit of {METADATA_BYTES_MAX} bytes per vector",
            limit=METADATA_BYTES_MAX,
        )
    if not is_canonical and canonical_metadata_json(metadata) != metadata:
        raise InvalidRequest("Metadata is not in its canonical form.")


def metadata_document(metadata: bytes) -> dict[str, MetadataValue]:
    """Return canonical metadata as an object; a new one each time."""
    document: dict[str, MetadataValue] = orjson.loads(metadata) if metadata else {}
    return document


def merge_metadata(base: bytes, patch: bytes) -> bytes:
    """Return `base` with the keys of `patch` replaced or added (both canonical); no key is ever removed."""
    if not patch:
        return base
    if not base:
        return patch
    document = orjson.loads(base)
    document.update(orjson.loads(patch))
    return orjson.dumps(document)
