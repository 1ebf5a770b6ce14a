"""A mapping of layers is a dictionary to whoever reads it, and shares what did not change."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.snapshots.layered import Layered

_BATCHES = st.lists(st.dictionaries(st.integers(0, 40), st.integers(), max_size=12), max_size=30)


@given(_BATCHES)
def test_reads_as_a_dictionary_that_was_updated_with_the_same_items(batches):
    """The newest item of a key counts, and older mappings stay what they were."""
    expected: dict[int, int] = {}
    made: list[tuple[Layered[int, int], dict[int, int]]] = [(Layered(), {})]
    for batch in batches:
        expected = expected | batch
        made.append((made[-1][0].with_items(batch), expected))
    for layered, items in made:
        assert layered == items
        assert layered.joined() == items
        assert len(layered) == len(items)
        assert sorted(layered) == sorted(items)
        assert [layered.get(key) for key in range(41)] == [items.get(key) for key in range(41)]
        assert [key in layered for key in range(41)] == [key in items for key in range(41)]


def test_nothing_on_top_is_the_same_mapping():
    """A publish that says nothing of a kind costs nothing."""
    layered = Layered({1: 2})
    assert layered.with_items({}) is layered
    with pytest.raises(KeyError):
        layered[3]


def test_one_item_at_a_time_is_copied_a_logarithm_of_times():
    """However many there are, an item more costs little, and a look-up asks few dictionaries."""
    source = random.Random(1)
    layered: Layered[int, int] = Layered(dict.fromkeys(range(10_000), 0))
    copied = 0
    rounds = 5_000
    for _ in range(rounds):
        before = layered.layers
        layered = layered.with_items({source.randrange(1_000_000): 1})
        after = layered.layers
        # The layers that were not joined are at the end of both.
        copied += after[0] if after[1:] else len(layered)
        assert before[len(before) - len(after[1:]) :] == after[1:]
        assert len(after) <= math.log2(len(layered)) + 1
    assert copied <= rounds * 2 * math.log2(rounds)
