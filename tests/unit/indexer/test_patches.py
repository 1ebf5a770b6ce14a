"""Tiers of metadata changes say what the changes say one after another, and stay few."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from indexer.filtering import SliceColumns, matches
from indexer.segments import patches as patches_module
from indexer.segments.patches import NO_PATCHES, AppliedPatch, Patches
from schemas.filters import parse_filter
from schemas.metadata import canonical_metadata, merge_metadata, metadata_document
from tests.support.work import work_of
from tests.unit.indexer.test_filtering import DOCUMENTS, FILTERS

_ROWS = 40
_SET = DOCUMENTS.filter(bool)
_CHANGES = st.lists(
    st.tuples(st.sets(st.integers(0, _ROWS - 1), min_size=1, max_size=6) | st.just(set(range(3, 37))), _SET),
    max_size=25,
)


def patch(rows, document) -> AppliedPatch:
    return AppliedPatch(BitMap(rows), canonical_metadata(document))


@settings(deadline=None, max_examples=300)
@given(_CHANGES, st.lists(DOCUMENTS, min_size=1, max_size=4), st.lists(FILTERS, min_size=1, max_size=3), st.data())
def test_tiers_say_what_the_changes_say_one_after_another(changes, pool, filters, data):
    """Documents and masks agree with the metadata merged patch by patch, in however many batches it came."""
    with pytest.MonkeyPatch.context() as small:
        small.setattr(patches_module, "_FEW_ROWS", 3)
        small.setattr(patches_module, "_SMALL_PARTS", data.draw(st.sampled_from([0, 2, 16])))
        written = [canonical_metadata(pool[row % len(pool)]) for row in range(_ROWS)]
        merged = list(written)
        made = NO_PATCHES
        batch = data.draw(st.integers(1, 5))
        for begin in range(0, len(changes), batch):
            made = made.with_patches([patch(*change) for change in changes[begin : begin + batch]])
        for rows, document in changes:
            for row in rows:
                merged[row] = merge_metadata(merged[row], canonical_metadata(document))
        for carried in (made, pickle.loads(pickle.dumps(made))):
            told = [metadata_document(carried.metadata(row, written[row])) for row in range(_ROWS)]
            assert told == [metadata_document(document) for document in merged]
            start = data.draw(st.integers(0, _ROWS))
            for first, last in ((0, _ROWS), (start, data.draw(st.integers(start, _ROWS)))):
                clipped = carried.clipped(first, last, _ROWS)
                for where in filters:
                    expected = [matches(where, metadata_document(document)) for document in merged[first:last]]
                    # Twice: what is kept from the first time says the same.
                    for _ in range(2):
                        assert SliceColumns(written[first:last]).mask(where, clipped).tolist() == expected


def test_older_patches_are_as_they_were_after_newer_ones(monkeypatch):
    """A snapshot that is held shows what it showed."""
    monkeypatch.setattr(patches_module, "_FEW_ROWS", 3)
    older = NO_PATCHES.with_patches([patch([1, 2], {"a": 1}), patch(range(20), {"b": 1})])
    newer = older.with_patches([patch([2], {"a": 2}), patch(range(10), {"b": 2})])
    assert (older.metadata(2, b""), newer.metadata(2, b"")) == (b'{"a":1,"b":1}', b'{"a":2,"b":2}')
    assert older.with_patches([]) is older


def many(count: int) -> Patches:
    made = NO_PATCHES
    for number in range(count):
        made = made.with_patches([patch([number * 7 % (10 * count)], {"n": number})])
    return made


def test_stream_of_single_rows_stays_a_few_tiers():
    """As many tiers as the logarithm of the rows, each row once in each at most."""
    made = many(5_000)
    assert len(made.tiers) < 14
    assert made.single_rows == 5_000


def test_change_of_one_row_costs_as_much_as_before_after_fifty_times_as_many():
    """What is there already is not gone through; joins of tiers cost the logarithm of it, on average."""

    def hundred(made: Patches):
        def add() -> None:
            after = made
            for number in range(100):
                after = after.with_patches([patch([number * 11], {"n": number})])

        return add

    few, lot = many(100), many(5_000)
    assert work_of(hundred(lot)).steps <= 1.5 * work_of(hundred(few)).steps


def test_look_up_of_one_row_asks_each_tier_once():
    """No map over all rows is made, of a wide change or of many single ones."""
    made = many(3_000).with_patches([patch(range(100_000), {"seen": True})])
    assert work_of(lambda: made.metadata(77, b"")).steps < 200
    assert made.metadata(50_000, b"") == b'{"seen":true}'


def test_wide_changes_of_the_same_fields_leave_one_tier():
    """A change that sets again all that an older one set takes its rows over."""
    made = NO_PATCHES
    for number in range(50):
        made = made.with_patches([patch(range(1_000), {"round": number})])
    assert len(made.tiers) == 1
    made = made.with_patches([patch(range(500), {"round": 50}), patch(range(500, 700), {"round": 50})])
    assert [len(tier.rows) for tier in made.tiers] == [300, 700]
    mask = SliceColumns([b""] * 1_000).mask(parse_filter({"round": 49}), made.clipped(0, 1_000, 1_000))
    assert np.flatnonzero(mask).tolist() == list(range(700, 1_000))
