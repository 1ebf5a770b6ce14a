"""Idempotency keys: how a record carries one, and what a snapshot remembers of it.

A key names one batch of one namespace. Every record of the batch carries it with its ordinal, the place of its event in
the batch, so that the events of a batch which comes again are recognised one by one. Where the first event lies, or
would lie, is the batch's *beginning*: offset minus ordinal.

What is remembered of a key is an entry of 40 bytes, whatever its length: a digest of namespace and key, where the last
batch began that was carried out under it, how many of its ordinals were, and what came of its last event. Of two
entries of one digest the one with the greater offset, then the greater number of ordinals, is the later one: so
entries can be joined in any order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.errors import CorruptData, InvalidRequest
from schemas.limits import BATCH_RECORDS_MAX, IDEMPOTENCY_EVENTS, IDEMPOTENCY_KEY_BYTES_MAX

__all__ = [
    "DIGEST_BYTES",
    "ENTRY",
    "KEY_HEADER",
    "NO_ENTRIES",
    "ORDINAL_HEADER",
    "Entries",
    "Mark",
    "check_key",
    "digest_of",
    "entries_from_bytes",
    "joined_entries",
    "mark_of",
    "within_window",
]

KEY_HEADER = "freshet-idempotency-key"
ORDINAL_HEADER = "freshet-idempotency-ordinal"
# Half of what a collision would need of a hash this long (2^64 tries) is out of reach, also for somebody who wants one:
# it would drop a write.
DIGEST_BYTES = 16
ENTRY = np.dtype(
    [
        ("digest", f"S{DIGEST_BYTES}"),
        ("offset", "<i8"),
        ("matched_records", "<i8"),
        ("ordinals", "<u4"),
        ("code", "<u4"),
    ]
)
# One-dimensional, of type `ENTRY`.
Entries = npt.NDArray[Any]
NO_ENTRIES: Entries = np.empty(0, ENTRY)

_KEY = re.compile(rb"[!-~]{1,%d}" % IDEMPOTENCY_KEY_BYTES_MAX)
_ORDINAL = re.compile(rb"0|[1-9][0-9]{0,8}")


class Mark(NamedTuple):
    """The key of a record, as the digest of namespace and key, and the place of its event in its batch."""

    digest: bytes
    ordinal: int


def check_key(key: bytes) -> None:
    """Raise `InvalidRequest` unless `key` is an idempotency key: 1 to 64 printable ASCII characters, no space."""
    if not _KEY.fullmatch(key):
        raise InvalidRequest(
            f"Header {KEY_HEADER} must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII characters without spaces, "
            f"got {len(key)}: {key[:80].decode('latin-1')!r}",
            limit=IDEMPOTENCY_KEY_BYTES_MAX,
        )


def digest_of(namespace: str, key: bytes) -> bytes:
    """Return what a key of a namespace is remembered by: 16 bytes."""
    # A namespace has no NUL, so no two pairs are spelt alike.
    return hashlib.blake2b(namespace.encode() + b"\0" + key, digest_size=DIGEST_BYTES).digest()


def mark_of(headers: Mapping[str, bytes], namespace: str) -> Mark | None:
    """Return the mark in a record's headers, None where it carries no key.

    Raises `CorruptData` for a key or an ordinal that is malformed: whoever sent it relies on its being obeyed.
    """
    key = headers.get(KEY_HEADER)
    if key is None:
        return None
    ordinal = headers.get(ORDINAL_HEADER, b"0")
    try:
        check_key(key)
    except InvalidRequest as error:
        raise CorruptData(error.message) from error
    if not _ORDINAL.fullmatch(ordinal) or int(ordinal) >= BATCH_RECORDS_MAX:
        raise CorruptData(
            f"Header {ORDINAL_HEADER} must be a whole number below {BATCH_RECORDS_MAX}, got {ordinal[:40]!r}."
        )
    return Mark(digest_of(namespace, key), int(ordinal))


def within_window(offset: int, beginning: int) -> bool:
    """Say whether a batch that began at `offset` is still remembered by one that begins at `beginning`."""
    return beginning - offset < IDEMPOTENCY_EVENTS


def joined_entries(lists: Iterable[Entries], *, next_offset: int) -> Entries:
    """Return the latest entry of every digest, ordered by digest, without those that no later event can need.

    All events from `next_offset` on are still to come.
    """
    entries = np.concatenate([NO_ENTRIES, *lists])
    # An event that comes may belong to a batch that began before.
    least = next_offset - IDEMPOTENCY_EVENTS - BATCH_RECORDS_MAX
    entries = entries[entries["offset"] >= least]
    entries = entries[np.lexsort((entries["ordinals"], entries["offset"], entries["digest"]))]
    is_last = np.ones(len(entries), np.bool_)
    is_last[:-1] = entries["digest"][1:] != entries["digest"][:-1]
    return entries[is_last]


def entries_from_bytes(data: bytes) -> Entries:
    """Read entries. Raises `CorruptData` for a torn one."""
    if len(data) % ENTRY.itemsize:
        raise CorruptData(f"A list of idempotency keys is torn: {len(data)} bytes.")
    return np.frombuffer(data, ENTRY)
