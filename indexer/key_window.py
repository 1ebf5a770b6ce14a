"""The idempotency window of a partition at a position: which keys were used, and for what.

It is held as a log-structured merge holds rows: a few sorted arrays, each more than twice as large as the next newer
one, so that a publish costs what it adds and a look-up a binary search in each. Without keys it is empty and free.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from schemas.changes import Outcome
from schemas.idempotency import DIGEST_BYTES, ENTRY, Entries, Mark, joined_entries, within_window

__all__ = ["KeyFold", "KeyUse", "KeyWindow", "entries_of"]

# A run is joined with what comes on top of it as long as it is not larger than so many times that.
_RATIO = 2


class KeyUse(NamedTuple):
    """What was done under a key: where its batch began, how many ordinals were carried out, what came of the last."""

    offset: int
    ordinals: int
    code: int = 0
    matched_records: int = 0


class KeyWindow:
    """An immutable set of uses by digest. Safe to read from several threads."""

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        """Hold nothing."""
        # Newest first; the digests of each apart, since a binary search in a column of records copies it.
        self._runs: tuple[tuple[np.ndarray, Entries], ...] = ()

    def with_entries(self, lists: Iterable[Entries], *, next_offset: int) -> KeyWindow:
        """Return the window at `next_offset`, with `lists` on top; itself where there are none."""
        joined = joined_entries(lists, next_offset=next_offset)
        if not len(joined):
            return self
        made = KeyWindow()
        kept = self._runs
        while kept and len(kept[0][1]) <= _RATIO * len(joined):
            joined = joined_entries([kept[0][1], joined], next_offset=next_offset)
            kept = kept[1:]
        made._runs = ((np.ascontiguousarray(joined["digest"]), joined), *kept)
        return made

    def find(self, digests: Collection[bytes]) -> dict[bytes, KeyUse]:
        """Return the uses of those of `digests` that are known."""
        found: dict[bytes, KeyUse] = {}
        if not self._runs or not digests:
            return found
        wanted = list(digests)
        # Values of a fixed number of bytes compare by all of them, zeros at their ends included.
        values = np.array(wanted, f"S{DIGEST_BYTES}")
        for column, entries in self._runs:
            places = np.minimum(np.searchsorted(column, values), len(column) - 1)
            for at in np.flatnonzero(column[places] == values).tolist():
                _, offset, matched, ordinals, code = entries[places[at]].tolist()
                use = KeyUse(offset, ordinals, code, matched)
                # Lists may have come in any order.
                found[wanted[at]] = max(use, found.get(wanted[at], use))
        return found

    def __len__(self) -> int:
        """Return the number of entries held, those that are out of date or were replaced included."""
        return sum(len(entries) for _, entries in self._runs)


class KeyFold:
    """The keys that were used since a window. What it decides depends on offsets alone: every replay decides alike."""

    def __init__(self, window: KeyWindow) -> None:
        """Begin with nothing on top of `window`."""
        self._window = window
        self._older: dict[bytes, KeyUse] = {}
        self._uses: dict[bytes, KeyUse] = {}

    def locate(self, digests: Collection[bytes]) -> None:
        """Look up what the window knows of all keys of a batch of events, before they are asked for."""
        self._older.update(self._window.find(digests))

    def repeated(self, mark: Mark, offset: int) -> KeyUse | None:
        """Return what was done under the key where the event at `offset` was carried out already, else None."""
        known = self._known(mark, offset)
        return known if known is not None and mark.ordinal < known.ordinals else None

    def note(self, mark: Mark, offset: int, outcomes: Sequence[Outcome]) -> None:
        """Remember that the event at `offset` was carried out; what came of it may be the last of `outcomes`."""
        beginning = offset - mark.ordinal
        known = self._known(mark, offset) or KeyUse(beginning, 0)
        # An event that goes on where a batch was cut off belongs to the later one of both.
        use = known._replace(offset=max(known.offset, beginning), ordinals=mark.ordinal + 1)
        if outcomes and outcomes[-1].offset == offset:
            use = use._replace(code=outcomes[-1].code, matched_records=outcomes[-1].matched_records)
        self._uses[mark.digest] = use

    def entries(self) -> Entries:
        """Return what is to be remembered."""
        return entries_of(self._uses)

    def __bool__(self) -> bool:
        """Say whether any key was used."""
        return bool(self._uses)

    def _known(self, mark: Mark, offset: int) -> KeyUse | None:
        known = self._uses.get(mark.digest) or self._older.get(mark.digest)
        return known if known is not None and within_window(known.offset, offset - mark.ordinal) else None


def entries_of(uses: dict[bytes, KeyUse]) -> Entries:
    """Return `uses` as entries, in any order."""
    rows = [(digest, use.offset, use.matched_records, use.ordinals, use.code) for digest, use in uses.items()]
    return np.array(rows, ENTRY)
