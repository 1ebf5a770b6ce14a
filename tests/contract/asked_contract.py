"""What every transport promises of freshness, waiting and idempotency keys, asked for in headers of the same names.

A subclass gives the fixture `door`: one namespace of an index of dimension 4, whose indexer can be stopped.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

import pytest

from schemas.errors import Code
from tests.contract.api_contract import Refused, vector

__all__ = ["AskedContract", "Door"]

KEY = "freshet-idempotency-key"
STRONG = {"x-freshet-consistency": "strong", "x-freshet-wait-ms": "20000"}


class Door(Protocol):
    """One namespace over some transport; every call takes headers, and raises `Refused`."""

    def upsert(self, *vectors: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]: ...

    def update(self, body: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]: ...

    def fetch(self, *ids: str, headers: dict[str, str] | None = None) -> dict[str, Any]: ...

    def query(self, headers: dict[str, str]) -> list[str]: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


def bounded(milliseconds: int, wait_ms: int = 30) -> dict[str, str]:
    return {
        "x-freshet-consistency": "bounded",
        "x-freshet-max-staleness-ms": str(milliseconds),
        "x-freshet-wait-ms": str(wait_ms),
    }


class AskedContract:
    """Run for every transport."""

    def test_a_strong_read_shows_the_write_before_it(self, door: Door) -> None:
        """Without a position, by every kind of read."""
        for number in range(10):
            door.upsert(vector(f"id-{number}", 1))
            assert len(door.query(STRONG)) == number + 1
            assert list(door.fetch(f"id-{number}", headers=STRONG)) == [f"id-{number}"]

    def test_strong_and_bounded_reads_fail_rather_than_show_older_state(self, door: Door) -> None:
        """FAILED_PRECONDITION; within the bound they are answered."""
        door.upsert(vector("a", 1), headers={"x-freshet-wait-visible-ms": "20000"})
        door.pause()
        try:
            door.upsert(vector("b", 1))
            time.sleep(0.2)
            for headers in ({**STRONG, "x-freshet-wait-ms": "30"}, bounded(0), bounded(150)):
                with pytest.raises(Refused) as refused:
                    door.query(headers)
                assert refused.value.code == Code.FAILED_PRECONDITION
                with pytest.raises(Refused):
                    door.fetch("b", headers=headers)
            assert door.query(bounded(600_000, wait_ms=20_000)) == ["a"]
        finally:
            door.resume()
        assert sorted(door.query(bounded(0, wait_ms=20_000))) == ["a", "b"]

    @pytest.mark.parametrize(
        "headers",
        [
            {"x-freshet-consistency": "linear"},
            {"x-freshet-consistency": "bounded"},
            {"x-freshet-max-staleness-ms": "5"},
            {"x-freshet-consistency": "strong", "x-freshet-max-staleness-ms": "5"},
        ],
    )
    def test_a_level_that_is_unknown_or_contradicts_itself_is_refused(
        self, door: Door, headers: dict[str, str]
    ) -> None:
        """INVALID_ARGUMENT."""
        with pytest.raises(Refused) as refused:
            door.query(headers)
        assert refused.value.code == Code.INVALID_ARGUMENT

    def test_a_write_that_is_repeated_under_its_key_is_carried_out_once(self, door: Door) -> None:
        """The update between survives; without a key it would not."""
        for headers, shown in (({KEY: "k"}, 2), (None, 1)):
            answers = [door.upsert(vector("a", 1, n=1), headers=headers)]
            door.update({"id": "a", "setMetadata": {"n": 2}})
            answers.append(door.upsert(vector("a", 1, n=1), headers=headers))
            assert answers[0] == answers[1] == {"upsertedCount": 1}
            assert door.fetch("a", headers=STRONG)["a"]["metadata"] == {"n": shown}

    def test_a_malformed_key_is_refused(self, door: Door) -> None:
        """INVALID_ARGUMENT, and nothing is written."""
        with pytest.raises(Refused) as refused:
            door.upsert(vector("a", 1), headers={KEY: "x" * 65})
        assert refused.value.code == Code.INVALID_ARGUMENT
        assert door.fetch("a", headers=STRONG) == {}
