"""Bytes of protobuf messages, put together by hand: answers carry vectors and metadata without an object per number.

Source: https://protobuf.dev/programming-guides/encoding. Field numbers are those of `vector_service.proto`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from struct import Struct

import numpy as np
import orjson

from schemas.records import Record, Sparse

__all__ = ["floats", "joined", "record_parts", "sized", "sparse_values", "struct_of_json", "text", "varint"]

_SMALL = tuple(bytes((number,)) for number in range(128))
_DOUBLE = Struct("<d")
_FALSE, _TRUE = b"\x20\x00", b"\x20\x01"


def varint(number: int) -> bytes:
    """Return a number of 0 and more, seven bits a byte."""
    if number < 128:
        return _SMALL[number]
    encoded = bytearray()
    while number >= 128:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def sized(tag: bytes, data: bytes) -> bytes:
    """Return a field whose bytes are preceded by their number."""
    return tag + varint(len(data)) + data


def text(tag: bytes, value: str) -> bytes:
    """Return a field of a string, nothing for an empty one."""
    return sized(tag, value.encode()) if value else b""


def floats(tag: bytes, values: object) -> bytes:
    """Return a packed field of float32 numbers [n], nothing for none."""
    data = np.asarray(values, dtype=np.dtype("<f4")).tobytes()
    return sized(tag, data) if data else b""


def sparse_values(tag: bytes, sparse: Sparse) -> bytes:
    """Return a field of the message `SparseValues`."""
    indices = b"".join(map(varint, sparse.indices.tolist()))
    return sized(tag, sized(b"\x0a", indices) + floats(b"\x12", sparse.values))


def record_parts(record: Record, tags: tuple[bytes, bytes, bytes]) -> bytes:
    """Return the fields of a record beside its id: values, metadata, sparse values, by their tags."""
    values, metadata, sparse = tags
    parts = []
    if record.values is not None:
        parts.append(floats(values, record.values))
    if record.metadata:
        parts.append(sized(metadata, struct_of_json(record.metadata)))
    if record.sparse is not None:
        parts.append(sparse_values(sparse, record.sparse))
    return b"".join(parts)


def joined(tag: bytes, messages: Iterable[bytes]) -> bytes:
    """Return a repeated field of messages."""
    parts: list[bytes] = []
    for message in messages:
        parts += (tag, varint(len(message)), message)
    return b"".join(parts)


def struct_of_json(metadata: bytes) -> bytes:
    """Return canonical metadata as the bytes of a `google.protobuf.Struct`."""
    document: Mapping[str, object] = orjson.loads(metadata)
    parts: list[bytes] = []
    for name, value in document.items():
        key, data = _key(name), _value(value)
        field = key + sized(b"\x12", data)
        parts += (b"\x0a", varint(len(field)), field)
    return b"".join(parts)


@lru_cache(maxsize=4_096)
def _key(name: str) -> bytes:
    # Names of fields come again in every record; an empty one is a key all the same.
    return sized(b"\x0a", name.encode())


def _value(value: object) -> bytes:
    """Return a `google.protobuf.Value`: a string, number, boolean or list of strings."""
    if isinstance(value, str):
        return sized(b"\x1a", value.encode())
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    if isinstance(value, int | float):
        return b"\x11" + _DOUBLE.pack(value)
    assert isinstance(value, list)
    return sized(b"\x32", joined(b"\x0a", map(_value, value)))
