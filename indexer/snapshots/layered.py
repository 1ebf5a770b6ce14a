"""A mapping that never changes, and of which a changed copy costs what changed.

It is a few dictionaries on top of each other, as a log-structured merge keeps them: each more than twice as large as
the next newer one, so there are at most log2(n) of them, and an item is copied O(log n) times until it lies in the
largest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

__all__ = ["Layered"]

_K = TypeVar("_K")
_V = TypeVar("_V")

# A layer is joined with what comes on top of it as long as it is not larger than so many times that.
_RATIO = 2


class Layered(Mapping[_K, _V]):
    """An immutable mapping that shares its items with those made from it. Safe to read from several threads."""

    __slots__ = ("_layers", "_length")

    def __init__(self, items: Mapping[_K, _V] | None = None) -> None:
        """Hold `items`, which must not be changed afterwards."""
        # Newest first.
        self._layers: tuple[Mapping[_K, _V], ...] = (items,) if items else ()
        self._length = len(items) if items else 0

    def with_items(self, items: Mapping[_K, _V]) -> Layered[_K, _V]:
        """Return a mapping with `items` on top of this one's; itself where there are none."""
        if not items:
            return self
        made: Layered[_K, _V] = Layered()
        made._length = self._length + sum(1 for key in items if key not in self)
        joined = dict(items)
        kept = self._layers
        while kept and len(kept[0]) <= _RATIO * len(joined):
            joined = {**kept[0], **joined}
            kept = kept[1:]
        made._layers = (joined, *kept)
        return made

    def joined(self) -> dict[_K, _V]:
        """Return all items in one dictionary, at the cost of a copy."""
        every: dict[_K, _V] = {}
        for layer in reversed(self._layers):
            every.update(layer)
        return every

    @property
    def layers(self) -> tuple[int, ...]:
        """Sizes of the dictionaries, newest first: what a look-up that finds nothing asks one after another."""
        return tuple(map(len, self._layers))

    def __getitem__(self, key: _K) -> _V:
        """Return the newest item of a key. Raises `KeyError`."""
        for layer in self._layers:
            if key in layer:
                return layer[key]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        """Say whether there is an item of that key."""
        return any(key in layer for layer in self._layers)

    def __iter__(self) -> Iterator[_K]:
        """Yield every key once."""
        return iter(self.joined())

    def __len__(self) -> int:
        """Return the number of keys."""
        return self._length
