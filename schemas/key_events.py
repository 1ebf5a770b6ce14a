"""Events of the control log about API keys, and their place in a catalog event."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.keys import ApiKey, check_key, check_key_id, parse_role
from schemas.pb import event_pb2 as pb

__all__ = ["CreateKeyEvent", "RevokeKeyEvent", "read_created_key", "read_revoked_key", "write_key_event"]


@dataclass(frozen=True, slots=True)
class CreateKeyEvent:
    """A key is to open doors from here on."""

    key: ApiKey


@dataclass(frozen=True, slots=True)
class RevokeKeyEvent:
    """The living key of that id is to open none any more."""

    id: str


def write_key_event(message: pb.CatalogEvent, event: CreateKeyEvent | RevokeKeyEvent) -> None:
    """Write `event` into `message`."""
    if isinstance(event, RevokeKeyEvent):
        message.revoke_key.id = event.id
        return
    key = event.key
    message.create_key.key.CopyFrom(
        pb.ApiKey(
            id=key.id,
            digest=key.digest,
            role=key.role.word,
            indexes=key.indexes,
            namespaces=key.namespaces,
            label=key.label,
            created_ms=key.created_ms,
        )
    )


def read_created_key(message: pb.CreateKey) -> CreateKeyEvent:
    """Return the event. Raises `InvalidRequest` where no key can be like that."""
    written = message.key
    key = ApiKey(
        id=written.id,
        digest=written.digest,
        role=parse_role(written.role),
        indexes=tuple(written.indexes),
        namespaces=tuple(written.namespaces),
        label=written.label,
        created_ms=written.created_ms,
    )
    check_key(key)
    return CreateKeyEvent(key)


def read_revoked_key(message: pb.RevokeKey) -> RevokeKeyEvent:
    """Return the event. Raises `InvalidRequest` where no key has such an id."""
    check_key_id(message.id)
    return RevokeKeyEvent(message.id)
