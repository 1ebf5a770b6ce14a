"""The bytes of an object: magic | sections, each aligned to 64 bytes | footer | footer size | footer CRC-32 | magic.

Every section is a typed column or a blob, readable in place from a map. `CorruptData` and `UnsupportedFormat` are
different errors: the first is damage, the second is a file of a newer version.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.changes import Footer, Section, decode_footer, encode_footer
from schemas.errors import CorruptData

__all__ = ["Container", "pack"]

_MAGIC = b"FRSHT\x00\x00\x01"
_TAIL = struct.Struct("<II8s")
_ALIGNMENT = 64


def pack(
    sections: Mapping[str, bytes | npt.NDArray[Any]], *, rows: int = 0, dimension: int = 0
) -> Iterator[bytes | memoryview]:
    """Yield the bytes of an object with `sections`, in order. Arrays are written little-endian, C order."""
    yield _MAGIC
    at = len(_MAGIC)
    described: list[Section] = []
    for name, content in sections.items():
        data = content if isinstance(content, bytes) else _array_bytes(content)
        padding = -at % _ALIGNMENT
        if padding:
            yield bytes(padding)
        at += padding
        described.append(Section(name, at, len(data), zlib.crc32(data)))
        if len(data):
            yield data
        at += len(data)
    footer = encode_footer(Footer(tuple(described), rows, dimension))
    yield footer + _TAIL.pack(len(footer), zlib.crc32(footer), _MAGIC)


class Container:
    """An opened object. Columns are views of the mapped bytes: nothing is copied until it is used."""

    def __init__(self, data: memoryview, *, name: str = "object", verify: bool = False) -> None:
        """Read the footer of `data`.

        Raises `CorruptData` where magic, footer or (with `verify`) a section's CRC does not hold; `UnsupportedFormat`.
        """
        self._data = data
        self._name = name
        if len(data) < len(_MAGIC) + _TAIL.size or bytes(data[: len(_MAGIC)]) != _MAGIC:
            raise CorruptData(f"{name} is not an object of this product: it does not begin with its magic.", name=name)
        size, crc, magic = _TAIL.unpack(data[-_TAIL.size :])
        end = len(data) - _TAIL.size
        if magic != _MAGIC or size > end - len(_MAGIC) or zlib.crc32(data[end - size : end]) != crc:
            raise CorruptData(f"{name} has a damaged footer.", name=name)
        footer = decode_footer(bytes(data[end - size : end]))
        self.rows = footer.rows
        self.dimension = footer.dimension
        self._sections = {section.name: section for section in footer.sections}
        for section in footer.sections:
            if section.offset + section.size_bytes > end - size:
                raise CorruptData(f"{name}: section {section.name} lies outside of it.", name=name)
            if section.offset % _ALIGNMENT:
                raise CorruptData(f"{name}: section {section.name} is not aligned.", name=name)
            if verify and zlib.crc32(self.blob(section.name)) != section.crc32:
                raise CorruptData(f"{name}: section {section.name} does not match its CRC.", name=name)

    def __contains__(self, name: str) -> bool:
        """Say whether there is a section of that name."""
        return name in self._sections

    def __iter__(self) -> Iterator[str]:
        """Yield the names of all sections, in the order in which they were written."""
        return iter(self._sections)

    def blob(self, name: str) -> memoryview:
        """Return the bytes of a section; an absent one is empty."""
        section = self._sections.get(name)
        if section is None:
            return memoryview(b"")
        return self._data[section.offset : section.offset + section.size_bytes]

    def column(self, name: str, dtype: str) -> npt.NDArray[Any]:
        """Return a section as a one-dimensional array of `dtype`, read-only, in place. Raises `CorruptData`."""
        data = self.blob(name)
        if len(data) % np.dtype(dtype).itemsize:
            raise CorruptData(f"{self._name}: section {name} does not hold whole numbers.", name=self._name)
        return np.frombuffer(data, dtype)


def _array_bytes(array: npt.NDArray[Any]) -> memoryview:
    contiguous = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return contiguous.reshape(-1).view(np.uint8).data if contiguous.size else memoryview(b"")
