"""Upserts that are larger than one append of the log: split into packs that it takes, one after the other."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from producer.admission import admit
from query_api.served import ServedIndex
from query_api.writes import WriteContext, Writes, Written
from schemas.limits import APPEND_BYTES_MAX, NAMESPACE_BYTES_MAX
from schemas.operations import Upsert

__all__ = ["append_in_packs", "packs_of"]

# What a record takes beside its own parts: key, headers, and the tags and lengths of its fields.
_BESIDE_BYTES = NAMESPACE_BYTES_MAX + 512
# An index of a sparse vector takes up to five bytes, and counts as four.
_MORE_PER_NONZERO = 1


async def append_in_packs(
    writes: Writes, index: ServedIndex, namespace: str, events: Sequence[Upsert], context: WriteContext
) -> Written:
    """Append `events`; return the position after the last one.

    One pack is whole or not at all. Of several a prefix may survive where one fails, but a mistake of the caller is
    found before the first. Raises as `Writes.append`.
    """
    packs = list(packs_of(events))
    if len(packs) > 1:
        await asyncio.to_thread(admit, index.spec, namespace, events)
    for number, pack in enumerate(packs[:-1]):
        # Only the last one waits until it is visible, which all others are by then.
        silent = replace(context, visible_ms=0, idempotency_key=_key_of(context.idempotency_key, number))
        await writes.append(index, namespace, pack, silent)
    last = replace(context, idempotency_key=_key_of(context.idempotency_key, len(packs) - 1))
    return await writes.append(index, namespace, packs[-1], last)


def packs_of(events: Sequence[Upsert], *, bytes_max: int = APPEND_BYTES_MAX) -> Iterator[Sequence[Upsert]]:
    """Yield `events` in runs that are surely no larger than `bytes_max` when encoded."""
    begin = size = 0
    for place, event in enumerate(events):
        each = _bytes_at_most(event)
        if place > begin and size + each > bytes_max:
            yield events[begin:place]
            begin, size = place, 0
        size += each
    yield events[begin:]


def _key_of(key: bytes | None, number: int) -> bytes | None:
    """Return the idempotency key of a pack: each has one of its own, since a key names one batch.

    A request that comes again is split in the same way, so its packs have the same keys again.
    """
    if key is None or number == 0:
        return key
    return hashlib.blake2b(b"%b\0%d" % (key, number), digest_size=16).hexdigest().encode()


def _bytes_at_most(event: Upsert) -> int:
    nonzeros = 0 if event.sparse is None else len(event.sparse.indices)
    return event.size_bytes + _MORE_PER_NONZERO * nonzeros + _BESIDE_BYTES
