"""The table of filters, asked of every operation that takes one, over any transport.

A subclass gives the class-scoped fixture `apis`, a function that opens a new namespace of an index of dimension 4 each
time, and may let `settled` wait for a kind of segment.
"""

from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import Code
from tests.contract.api_contract import Api, Refused, ids, vector
from tests.contract.filter_cases import CASES, RECORDS, REFUSED

__all__ = ["NUMBERED", "REFUSALS", "FilterContract"]

NUMBERED = [pytest.param(where, matching, id=f"{n}-{str(where)[:60]}") for n, (where, matching) in enumerate(CASES)]
REFUSALS = [pytest.param(where, message, id=f"{n}-{str(where)[:60]}") for n, (where, message) in enumerate(REFUSED)]


def fill(api: Api) -> None:
    """Write the records of the table."""
    api.upsert(*[vector(name, n + 1, 1, **metadata) for n, (name, metadata) in enumerate(RECORDS.items())])


class FilterContract:
    """Run for every transport and kind of segment."""

    @classmethod
    def settled(cls, api: Api) -> None:
        """Wait until the records of a namespace lie in a segment of the kind in question."""

    @pytest.fixture(scope="class")
    @classmethod
    def filled(cls, apis: Any) -> Api:
        """The records of the table, which no test changes."""
        api: Api = apis()
        fill(api)
        cls.settled(api)
        return api

    @pytest.mark.parametrize(("where", "matching"), NUMBERED)
    def test_reads_find_what_matches(self, filled: Api, where: dict[str, Any], matching: tuple[str, ...]) -> None:
        """Query, fetch by metadata and a counted update give the records that the table names, and no others."""
        found = filled.query(vector=[1, 0, 0, 0], topK=100, filter=where)
        assert sorted(ids(found)) == sorted(matching)
        page = filled.fetch_by_metadata(filter=where)
        assert list(page["vectors"]) == sorted(matching)
        for name, record in page["vectors"].items():
            assert record.get("metadata", {}) == RECORDS[name]
        counted = filled.update(filter=where, setMetadata={"hit": True}, dryRun=True)
        assert counted == {"matchedRecords": len(matching)}

    @pytest.mark.parametrize(("where", "matching"), NUMBERED)
    def test_writes_change_what_matches(self, apis: Any, where: dict[str, Any], matching: tuple[str, ...]) -> None:
        """An update by filter says how many it changed, and changes them; a delete leaves the others."""
        api: Api = apis()
        fill(api)
        self.settled(api)
        assert api.update(filter=where, setMetadata={"hit": True}) == {"matchedRecords": len(matching)}
        assert list(api.fetch_by_metadata(filter={"hit": True})["vectors"]) == sorted(matching)
        api.delete(filter=where)
        assert [item["id"] for item in api.list_page()["vectors"]] == sorted(RECORDS.keys() - set(matching))
        # What is left would wait in vain for the kind of segment.
        api.delete_namespace(api.space)

    @pytest.mark.parametrize(("where", "message"), REFUSALS)
    def test_what_is_no_filter_is_refused_everywhere(self, filled: Api, where: Any, message: str) -> None:
        """With one message, by every operation that takes a filter; nothing is changed."""
        asked = (
            lambda: filled.query(vector=[1, 0, 0, 0], topK=1, filter=where),
            lambda: filled.fetch_by_metadata(filter=where),
            lambda: filled.update(filter=where, setMetadata={"hit": True}, dryRun=True),
            lambda: filled.update(filter=where, setMetadata={"hit": True}),
            lambda: filled.delete(filter=where),
        )
        for ask in asked:
            with pytest.raises(Refused) as refused:
                ask()
            assert refused.value.code is Code.INVALID_ARGUMENT
            assert message in refused.value.message
        assert filled.stats()["namespaces"][filled.space] == {"vectorCount": len(RECORDS)}
