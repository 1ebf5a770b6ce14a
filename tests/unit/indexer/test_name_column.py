"""The names of a segment read in place are the list that was written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.segments.names import NameColumn

_NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6).map(str.encode)


def column_of(names: list[bytes]) -> NameColumn:
    ends = np.cumsum([0, *map(len, names)], dtype="<u8")
    ends.flags.writeable = False
    return NameColumn(ends, memoryview(b"".join(names)))


@given(st.sets(_NAMES, max_size=300), st.lists(_NAMES, max_size=20))
def test_every_name_is_found_where_it_lies_and_no_other(names, others):
    """A look-up is a binary search; names sort by their bytes."""
    expected = sorted(names)
    column = column_of(expected)
    assert list(column) == expected
    assert [column[at] for at in range(len(column))] == expected
    assert [column.find(name) for name in expected] == list(range(len(expected)))
    for name in others:
        assert column.find(name) == (expected.index(name) if name in names else -1)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 127, 128, 129, 1000])
def test_names_at_the_edges_of_what_is_held_in_memory_are_found(count):
    """Every sixty-fourth name is held: one more or one less changes nothing."""
    names = [f"{number:04d}".encode() for number in range(0, 2 * count, 2)]
    column = column_of(names)
    assert [column.find(name) for name in names] == list(range(count))
    assert all(column.find(f"{number:04d}".encode()) == -1 for number in range(1, 2 * count + 2, 2))
    assert column.find(b"") == column.find(b"~") == -1
    assert list(column[3:70:3]) == names[3:70:3]
    with pytest.raises(IndexError):
        column[count]
