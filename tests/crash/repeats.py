"""Writes that are sent again under their idempotency key, long after they were acknowledged and carried out."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

from tests.crash.client import Reply
from tests.crash.history import Violation
from tests.crash.writes import Write

__all__ = ["Keyed", "Repeats"]

_KEYED_SHARE = 0.6
_REPEATED_SHARE = 0.15
_REMEMBERED = 50


@dataclass(frozen=True, slots=True)
class Keyed:
    """An acknowledged write, its key, and how it was answered."""

    write: Write
    key: str
    reply: Reply

    def check(self, reply: Reply) -> None:
        """Raise `Violation` where a repetition is answered otherwise than the first time."""
        if reply.status in (429, 503, 504):
            return
        if reply.status not in (200, 202):
            raise Violation(f"{self.write.path} sent again under {self.key} was answered {reply.status}: {reply.body}")
        if self.reply.status == 200 and self.reply.body != reply.body:
            raise Violation(f"{self.write.path} under {self.key}: {self.reply.body} first, {reply.body} when repeated")


class Repeats:
    """The acknowledged keyed writes of one writer, the newest of them."""

    def __init__(self, writer: int) -> None:
        self._writer = writer
        self._known: deque[Keyed] = deque(maxlen=_REMEMBERED)

    def key(self, rng: random.Random, stamp: int) -> str | None:
        """Return a key for the writer's `stamp`-th write, or None."""
        return f"w{self._writer}-{stamp}" if rng.random() < _KEYED_SHARE else None

    def note(self, keyed: Keyed) -> None:
        """Remember an acknowledged write."""
        self._known.append(keyed)

    def pick(self, rng: random.Random) -> Keyed | None:
        """Return a write to send again now, or None."""
        return rng.choice(self._known) if self._known and rng.random() < _REPEATED_SHARE else None
