"""May this request do that? The one decision about API keys, free of any transport.

A door hands over the key that came with a request; what it gets is a grant, which it asks about the right and the index
that the request needs. The namespace is asked about where every request for one passes (`ServedIndex.follower_of`), by
the grant that the door leaves behind for the length of the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass

from producer.catalog import Catalog
from producer.keys import digest_of, id_of
from schemas.errors import Forbidden, LogUnavailable, OutcomeUnknown, Unauthenticated
from schemas.keys import DIGEST_BYTES, ApiKey, Role

__all__ = ["EVERYTHING", "NOTHING", "Access", "Grant", "granted", "key_of_headers", "leave"]

_BEARER = b"bearer "
_NO_DIGEST = bytes(DIGEST_BYTES)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a request may do. An empty scope reaches everything; `key_id` is empty where no key was needed."""

    role: Role
    indexes: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    key_id: str = ""

    @property
    def is_scoped(self) -> bool:
        """Whether there is anything that it does not reach."""
        return bool(self.indexes or self.namespaces)

    def check_role(self, wanted: Role) -> None:
        """Raise `Forbidden` where the key has not the right."""
        if self.role < wanted:
            raise Forbidden(
                f"This needs a key with the role {wanted.word}; the role of key {self.key_id} is {self.role.word}.",
                wanted=wanted.word,
                role=self.role.word,
            )

    def check_index(self, name: str | None) -> None:
        """Raise `Forbidden` where the key does not reach the index, which may not exist; None is one without a name."""
        if self.indexes and name not in self.indexes:
            raise Forbidden(f"Key {self.key_id} is scoped to other indexes.")

    def check_namespace(self, name: str) -> None:
        """Raise `Forbidden` where the key does not reach the namespace, given by its canonical name."""
        if self.namespaces and name not in self.namespaces:
            raise Forbidden(f"Key {self.key_id} is scoped to other namespaces.")

    def check_whole_index(self) -> None:
        """Raise `Forbidden` where the key reaches only some namespaces."""
        if self.namespaces:
            raise Forbidden(f"This shows all namespaces of an index; key {self.key_id} is scoped to some.")

    def check_unscoped(self) -> None:
        """Raise `Forbidden` where the key does not reach everything."""
        if self.is_scoped:
            raise Forbidden(f"This needs a key that reaches everything; key {self.key_id} is scoped.")

    def reaches(self, index: str) -> bool:
        """Say whether an index is in its scope."""
        return not self.indexes or index in self.indexes

    def reaches_namespace(self, name: str) -> bool:
        """Say whether a namespace, given by its canonical name, is in its scope."""
        return not self.namespaces or name in self.namespaces


EVERYTHING = Grant(Role.ADMIN)
# Of somebody without a key where none is needed: no index has an empty name.
NOTHING = Grant(Role.READ, frozenset({""}))
_granted: ContextVar[Grant] = ContextVar("granted", default=EVERYTHING)


def granted() -> Grant:
    """Return the grant of the request that is being served; everything where none is."""
    return _granted.get()


def leave(grant: Grant) -> None:
    """Let `granted` return `grant` for the rest of this task, which serves one request."""
    _granted.set(grant)


def key_of_headers(headers: Mapping[bytes, bytes]) -> bytes | None:
    """Return the key in `api-key`, else in `authorization: Bearer`; None without one. Names are lower case."""
    key = headers.get(b"api-key")
    if key is not None:
        return key
    authorization = headers.get(b"authorization", b"")
    if authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip()
    return None


class Access:
    """Knows the keys of the catalog as of now, so that a revoked one opens nothing from the next request on."""

    def __init__(self, catalog: Catalog, *, is_open_without_keys: bool) -> None:
        """`is_open_without_keys`: whether everybody may do everything while there is no key at all."""
        self._catalog = catalog
        self._is_open_without_keys = is_open_without_keys
        self._looking = asyncio.Lock()
        self._grants: dict[str, tuple[ApiKey, Grant]] = {}

    def known(self, key: bytes | None) -> Grant | None:
        """Return what `key` grants as far as this process has read the catalog; None where that is nothing.

        No key is remembered between requests: a digest and a look-up cost little, and what is not remembered need not
        be forgotten.
        """
        keys = self._catalog.keys
        if not keys and self._is_open_without_keys and not self._catalog.may_have_other_keys:
            return EVERYTHING
        if key is None:
            return None
        key_id = id_of(key)
        if key_id is None:
            return None
        kept = keys.get(key_id)
        # Compared also where there is no such key, and in constant time: how long it takes tells nothing.
        is_same = hmac.compare_digest(digest_of(key), _NO_DIGEST if kept is None else kept.digest)
        return self._grant_of(kept) if kept is not None and is_same else None

    async def grant(self, key: bytes | None) -> Grant:
        """Return what `key` grants. Raises `Unauthenticated` where it is missing or opens nothing.

        A key that is not known here may have been made by another process a moment ago: the catalog is read on first.
        """
        grant = self.known(key)
        if grant is not None:
            return grant
        if key is None:
            raise Unauthenticated("An API key is needed: send it in the header Api-Key.")
        key_id = id_of(key)
        if key_id is not None and key_id not in self._catalog.keys:
            # One at a time: a flood of invented keys is none of the log's.
            async with self._looking:
                if key_id not in self._catalog.keys:
                    # Where the log does not answer, what is known decides.
                    with contextlib.suppress(LogUnavailable, OutcomeUnknown):
                        await self._catalog.refresh()
            grant = self.known(key)
            if grant is not None:
                return grant
        raise Unauthenticated("Wrong API key: it is unknown, or was revoked.")

    async def admit(self, key: bytes | None, *, is_open: bool) -> Grant:
        """Return what `key` grants, and leave it for those who ask later; nothing where everybody may ask (`is_open`).

        Raises `Unauthenticated`.
        """
        grant = self.known(key)
        if grant is None:
            grant = NOTHING if is_open else await self.grant(key)
        # Always: a pipelined request may run in what the one before it has left behind.
        leave(grant)
        return grant

    def _grant_of(self, key: ApiKey) -> Grant:
        found = self._grants.get(key.id)
        # A catalog that was folded again has other objects, and perhaps another key of that id.
        if found is None or found[0] is not key:
            found = (key, Grant(key.role, frozenset(key.indexes), frozenset(key.namespaces), key.id))
            self._grants[key.id] = found
        return found[1]
