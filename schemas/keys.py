"""API keys as they are kept: an id to find one by, the digest of the key, what it may do and where. Never the key.

A key reads `fsk_<id>_<secret>`: 12 hexadecimal characters that name it, and 64 that are 256 random bits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from schemas.errors import InvalidRequest, NotFound
from schemas.indexes import check_index_name
from schemas.limits import KEY_LABEL_LENGTH_MAX, KEY_SCOPE_NAMES_MAX
from schemas.partitions import canonical_namespace
from schemas.records import check_namespace

__all__ = [
    "DIGEST_BYTES",
    "KEY_PREFIX",
    "ApiKey",
    "Role",
    "check_key",
    "check_key_id",
    "described_key",
    "key_not_found",
    "parse_role",
]

KEY_PREFIX = "fsk_"
# SHA-256.
DIGEST_BYTES = 32
_ID = re.compile(r"[0-9a-f]{12}")
# The end of the year 9999.
_CREATED_MS_MAX = 253_402_300_799_999


class Role(IntEnum):
    """What a key may do; each role may do what those below it may."""

    READ = 1
    WRITE = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """How it is spelled on the wire and in the log."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept. `digest` is the SHA-256 of the whole key; an empty scope means everywhere.

    `namespaces` are canonical names. `created_ms` is in milliseconds since 1970.
    """

    id: str
    digest: bytes
    role: Role
    indexes: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    label: str = ""
    created_ms: int = 0

    @property
    def is_full_admin(self) -> bool:
        """Whether it may do everything everywhere, keys included."""
        return self.role is Role.ADMIN and not self.indexes and not self.namespaces


def parse_role(word: str) -> Role:
    """Return the role of that name. Raises `InvalidRequest`."""
    for role in Role:
        if role.word == word:
            return role
    raise InvalidRequest(f"Role must be one of {', '.join(role.word for role in Role)}, got {word[:80]!r}")


def check_key_id(key_id: str) -> None:
    """Raise `InvalidRequest` unless `key_id` can name a key. What was sent is not repeated: it may be a whole key."""
    if not _ID.fullmatch(key_id):
        raise InvalidRequest("The id of a key is 12 characters of 0-9 and a-f, as `freshet keys list` shows it.")


def check_key(key: ApiKey) -> None:
    """Raise `InvalidRequest` where a key cannot be like that."""
    check_key_id(key.id)
    if len(key.digest) != DIGEST_BYTES:
        raise InvalidRequest(f"The digest of a key has {DIGEST_BYTES} bytes, got {len(key.digest)}.")
    if len(key.indexes) > KEY_SCOPE_NAMES_MAX or len(key.namespaces) > KEY_SCOPE_NAMES_MAX:
        raise InvalidRequest(
            f"A key can be scoped to {KEY_SCOPE_NAMES_MAX} indexes and {KEY_SCOPE_NAMES_MAX} namespaces at most",
            limit=KEY_SCOPE_NAMES_MAX,
        )
    for name in key.indexes:
        check_index_name(name)
    for name in key.namespaces:
        check_namespace(name)
        if canonical_namespace(name) != name:
            raise InvalidRequest("A key is scoped to the default namespace by its name, __default__")
    if key.role is Role.ADMIN and key.namespaces:
        raise InvalidRequest("A key with the role admin cannot be scoped to namespaces: it changes whole indexes")
    if not 0 <= key.created_ms <= _CREATED_MS_MAX:
        raise InvalidRequest(f"A key cannot have been made at {key.created_ms} ms")
    if len(key.label) > KEY_LABEL_LENGTH_MAX or not key.label.isprintable():
        raise InvalidRequest(
            f"The label of a key is up to {KEY_LABEL_LENGTH_MAX} printable characters", limit=KEY_LABEL_LENGTH_MAX
        )


def key_not_found(key_id: str) -> NotFound:
    """Return the error for a key that does not live."""
    return NotFound(f"There is no key {key_id}", id=key_id)


def described_key(key: ApiKey) -> dict[str, object]:
    """Return what may be shown of a key, as JSON values."""
    made = datetime.fromtimestamp(key.created_ms / 1000, UTC)
    return {
        "id": key.id,
        "role": key.role.word,
        "indexes": list(key.indexes),
        "namespaces": list(key.namespaces),
        "label": key.label,
        "created_at": made.isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
