"""The operations that an event can be: what may be said about the records of one namespace.

Their bytes are `schemas.events` (protobuf) and `schemas.event_json`.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.records import Sparse

__all__ = ["CreateNamespace", "Delete", "DeleteNamespace", "DeleteWhere", "Event", "Update", "UpdateWhere", "Upsert"]


@dataclass(frozen=True, slots=True)
class Upsert:
    """Replaces the whole record. `values`: little-endian float32, `b""` = no dense vector; `metadata`: canonical."""

    id: str
    values: bytes
    sparse: Sparse | None
    metadata: bytes

    @property
    def size_bytes(self) -> int:
        """About the bytes of the record: its parts, without what surrounds them in a log."""
        return _size_bytes(self.id, self.values, self.sparse, self.metadata)


@dataclass(frozen=True, slots=True)
class Update:
    """Changes the parts that are not None; the keys of `set_metadata` replace those of the record."""

    id: str
    values: bytes | None
    sparse: Sparse | None
    set_metadata: bytes | None

    @property
    def size_bytes(self) -> int:
        """As that of an upsert."""
        return _size_bytes(self.id, self.values or b"", self.sparse, self.set_metadata or b"")


@dataclass(frozen=True, slots=True)
class UpdateWhere:
    """Merges `set_metadata` into every record that matches `filter` (canonical JSON) as of this event's offset."""

    filter: bytes
    set_metadata: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes one record; an unknown one is no effect."""

    id: str


@dataclass(frozen=True, slots=True)
class DeleteWhere:
    """Deletes every record that matches `filter` (canonical JSON) as of this event's offset."""

    filter: bytes


@dataclass(frozen=True, slots=True)
class DeleteNamespace:
    """Deletes every record of the namespace; the empty namespace stays where `keep` is true."""

    keep: bool


@dataclass(frozen=True, slots=True)
class CreateNamespace:
    """Makes an empty namespace. `schema`: JSON object of the filterable fields, `b""` = all."""

    schema: bytes


Event = Upsert | Update | UpdateWhere | Delete | DeleteWhere | DeleteNamespace | CreateNamespace


def _size_bytes(name: str, values: bytes, sparse: Sparse | None, metadata: bytes) -> int:
    numbers = 0 if sparse is None else sparse.indices.nbytes + sparse.values.nbytes
    return len(name) + len(values) + numbers + len(metadata)
