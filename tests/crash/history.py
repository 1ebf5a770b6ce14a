"""What one writer's records in one namespace may be: every state it has caused, in order, and what came of each write.

A `Track` belongs to one writer, who makes one write at a time, so its states form a line. A write whose answer was lost
makes two lines of one, until a read tells which of them is true. A write of several records passes through a state per
record: a reader may see the first few of them, but after a restart it is whole or not at all.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["Answered", "Row", "Seen", "State", "Step", "Track", "Violation"]


class Violation(AssertionError):
    """A promise was broken."""


class Answered(Enum):
    """What the writer knows of a write: it is durable, it never will be, or either."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Row:
    """A record as the checker sees it: the write that gave its values, the last mark set on it, and its tag."""

    stamp: int
    mark: int
    tag: int


State = Mapping[str, Row]
Step = Callable[[dict[str, Row]], None]
_Key = frozenset[tuple[str, Row]]
_STEPS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Seen:
    """What a read must show at least: states from number `floor` on, at the position `token`."""

    floor: int
    token: str | None


@dataclass(slots=True)
class Track:
    """The states of one writer's records in one namespace."""

    writer: int
    namespace: str
    branches: list[dict[str, Row]] = field(default_factory=lambda: [{}])
    token: str | None = None
    acknowledged: int = 0
    # Whether a read at `token` shows everything that will ever show: no write since then was left unknown.
    is_resolvable: bool = True
    _write: int = 0
    _floor: int = 0
    _after: list[dict[str, Row]] = field(default_factory=list)
    # When which floor was acknowledged, on the monotonic clock.
    _floors: deque[tuple[float, int]] = field(default_factory=lambda: deque([(0.0, 0)], maxlen=2_000))
    _numbers: dict[_Key, list[int]] = field(default_factory=lambda: {frozenset(): [0]})
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, steps: Sequence[Step]) -> None:
        """Note a write that is about to be sent, as the changes that its records make."""
        with self._lock:
            self._write += 1
            self._after = []
            for branch in self.branches:
                state = dict(branch)
                for number, step in enumerate(steps, start=1):
                    step(state)
                    self._numbers.setdefault(_key(state), []).append(self._write * _STEPS_MAX + number)
                self._after.append(state)

    def end(self, answered: Answered, token: str | None = None) -> None:
        """Note what came of the write; `token` is the position after it, where it was acknowledged."""
        with self._lock:
            match answered:
                case Answered.ACKNOWLEDGED:
                    self.branches = _distinct(self._after)
                    self.is_resolvable = token is not None
                    self.token = token or self.token
                    self.acknowledged += 1
                    self._floor = min(self._last(state) for state in self.branches)
                    self._floors.append((time.monotonic(), self._floor))
                case Answered.REFUSED:
                    self._forget(self._write)
                case Answered.UNKNOWN:
                    self.is_resolvable = False
                    self.branches = _distinct([*self.branches, *self._after])

    def seen(self) -> Seen:
        """Return what a read that begins now, and asks for the newest acknowledged position, must show."""
        with self._lock:
            return Seen(self._floor, self.token)

    def floor_at(self, moment: float) -> int:
        """Return the floor that was acknowledged at `moment` of the monotonic clock, at the latest."""
        with self._lock:
            return max((floor for at, floor in self._floors if at <= moment), default=0)

    def check(self, found: State, floor: int, what: str) -> int:
        """Return the first state from number `floor` on that equals `found`. Raises `Violation` where none does."""
        with self._lock:
            numbers = self._numbers.get(_key(found), [])
            later = [number for number in numbers if number >= floor]
            if later:
                return min(later)
            kind = f"an older state (number {numbers[-1]}, at least {floor} was due)" if numbers else "no state"
            raise Violation(
                f"{what}: writer {self.writer} in {self.namespace!r}: {kind} of {len(self._numbers)} ever caused. "
                f"Nearest: {_nearest(found, self.branches)}"
            )

    def settle(self, found: State, what: str) -> None:
        """Take `found`, read at `token` while no write is under way, for the truth.

        Raises `Violation` where it can't be. While an unknown write may still show, nothing is ruled out.
        """
        with self._lock:
            possible = [branch for branch in self.branches if branch == dict(found)]
            if not possible:
                raise Violation(
                    f"{what}: writer {self.writer} in {self.namespace!r}: none of {len(self.branches)} possible "
                    f"states after {self.acknowledged} acknowledged writes. {_nearest(found, self.branches)}"
                )
            if self.is_resolvable:
                self.branches = possible[:1]

    def only(self) -> dict[str, Row] | None:
        """Return the state, or None while there is more than one."""
        return self.branches[0] if len(self.branches) == 1 else None

    def _last(self, state: State) -> int:
        numbers = self._numbers[_key(state)]
        return numbers[-1]

    def _forget(self, write: int) -> None:
        for key in [key for key, numbers in self._numbers.items() if numbers[-1] >= write * _STEPS_MAX]:
            kept = [number for number in self._numbers[key] if number < write * _STEPS_MAX]
            if kept:
                self._numbers[key] = kept
            else:
                del self._numbers[key]


def _key(state: State) -> _Key:
    return frozenset(state.items())


def _distinct(states: Iterable[dict[str, Row]]) -> list[dict[str, Row]]:
    return list({_key(state): state for state in states}.values())


def _nearest(found: State, branches: Sequence[State]) -> str:
    """Say how `found` differs from the branch that is most like it."""

    def difference(branch: State) -> dict[str, tuple[Row | None, Row | None]]:
        ids = sorted(found.keys() | branch.keys())
        return {i: (branch.get(i), found.get(i)) for i in ids if branch.get(i) != found.get(i)}

    nearest = min((difference(branch) for branch in branches), key=len)
    shown = [f"{i}: expected {expected}, found {got}" for i, (expected, got) in list(nearest.items())[:6]]
    return f"{len(nearest)} records differ: {'; '.join(shown)}"
