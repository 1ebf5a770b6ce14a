"""API keys: how one is made, the fold of their events, and the changes that go through the catalog."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from schemas.errors import AlreadyExists, Forbidden, FreshetError
from schemas.key_events import CreateKeyEvent, RevokeKeyEvent
from schemas.keys import KEY_PREFIX, ApiKey, Role, check_key, check_key_id, key_not_found
from schemas.partitions import canonical_namespace

if TYPE_CHECKING:
    from producer.catalog import Catalog

__all__ = ["KEY_RECORDS", "KeyRing", "create_key", "digest_of", "id_of", "new_key", "revoke_key"]

# How the keys of control records begin that are about an API key.
KEY_RECORDS = "keys/"
_ID_CHARACTERS = 12
_SECRET_BYTES = 32
_SECRET_AT = len(KEY_PREFIX) + _ID_CHARACTERS + 1
_KEY_LENGTH = _SECRET_AT + 2 * _SECRET_BYTES


def digest_of(key: bytes) -> bytes:
    """Return what is kept of a key.

    One SHA-256 is enough: slow hashes make guesses at passwords expensive, and 256 random bits cannot be guessed at any
    speed. It is also computed for every request.
    """
    return hashlib.sha256(key).digest()


def id_of(key: bytes) -> str | None:
    """Return the id in a key, None where it has not the form of one."""
    if len(key) != _KEY_LENGTH or not key.startswith(KEY_PREFIX.encode()) or key[_SECRET_AT - 1 : _SECRET_AT] != b"_":
        return None
    return key[len(KEY_PREFIX) : _SECRET_AT - 1].decode("latin-1")


def new_key(
    role: Role, *, indexes: tuple[str, ...] = (), namespaces: tuple[str, ...] = (), label: str = "", created_ms: int
) -> tuple[str, ApiKey]:
    """Return a key, to be shown once, and what is kept of it. Raises `InvalidRequest`."""
    key_id = secrets.token_hex(_ID_CHARACTERS // 2)
    key = f"{KEY_PREFIX}{key_id}_{secrets.token_hex(_SECRET_BYTES)}"
    reached = tuple(dict.fromkeys(map(canonical_namespace, namespaces)))
    kept = ApiKey(key_id, digest_of(key.encode()), role, tuple(dict.fromkeys(indexes)), reached, label, created_ms)
    check_key(kept)
    return key, kept


class KeyRing:
    """The living keys: the state that a sequence of key events leads to."""

    def __init__(self) -> None:
        self._keys: dict[str, ApiKey] = {}
        # An event of a key could not be read: there may be keys that are not known here.
        self.is_torn = False
        self._seen: set[str] = set()

    @property
    def living(self) -> Mapping[str, ApiKey]:
        """The keys by id, oldest first."""
        return self._keys

    def apply(self, event: CreateKeyEvent | RevokeKeyEvent) -> ApiKey | FreshetError:
        """Apply `event`; return the key that it made or took away, or the error that its author gets.

        From the first key on there is always one that may do everything: without it nobody could make another.
        """
        if isinstance(event, CreateKeyEvent):
            if event.key.id in self._seen:
                return AlreadyExists(f"There is a key {event.key.id} already, or was: make another one")
            if not self._keys and not event.key.is_full_admin:
                return first_must_be_admin()
            self._keys[event.key.id] = event.key
            self._seen.add(event.key.id)
            return event.key
        key = self._keys.get(event.id)
        if key is None:
            return key_not_found(event.id)
        if key.is_full_admin and sum(one.is_full_admin for one in self._keys.values()) == 1:
            return Forbidden(
                "This is the last key with the role admin and without a scope: make another one before it is revoked.",
                id=event.id,
            )
        del self._keys[event.id]
        return key


def first_must_be_admin() -> Forbidden:
    """Return the error for a first key that could not make another."""
    return Forbidden(
        "The first key must have the role admin and no scope: from then on every request needs a key, and only such a "
        "key can make others."
    )


async def create_key(catalog: Catalog, key: ApiKey) -> ApiKey:
    """Keep a key; return it once every later request of this process knows it.

    Raises `InvalidRequest`, `Forbidden` for a first key that is no admin's; `LogUnavailable`, `OutcomeUnknown`.
    """
    check_key(key)
    await catalog.refresh()
    if not catalog.keys and not key.is_full_admin:
        raise first_must_be_admin()
    return _kept(await catalog.decide(f"{KEY_RECORDS}{key.id}", CreateKeyEvent(key)))


async def revoke_key(catalog: Catalog, key_id: str) -> ApiKey:
    """Let a key open nothing any more, from the next request of this process on; return it.

    Other processes follow when they read the control log: at once where they are poked, within a second else.
    Raises `InvalidRequest`, `NotFound`, `Forbidden` for the last key that may make others; `LogUnavailable`,
    `OutcomeUnknown`.
    """
    check_key_id(key_id)
    await catalog.refresh()
    if key_id not in catalog.keys:
        raise key_not_found(key_id)
    return _kept(await catalog.decide(f"{KEY_RECORDS}{key_id}", RevokeKeyEvent(key_id)))


def _kept(outcome: object) -> ApiKey:
    assert isinstance(outcome, ApiKey), "an event of a key leads to a key"
    return outcome
