"""Make searches of small segments walk their graphs, and see that they did."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from indexer.segments import planner, search
from indexer.segments.search import Found, Part, Searcher, SearchQuery
from schemas.indexes import Metric

__all__ = ["ENGINES", "searched", "walks_always"]

ENGINES = ("native", "stock")


def walks_always(patch: pytest.MonkeyPatch) -> list[int]:
    """Walk every graph that there is, however few rows it has, with patience; return a list that grows with each."""
    walks: list[int] = []
    stock = planner.plan_slice

    def counted(**sizes):
        plan = stock(**sizes)
        if plan.walk:
            walks.append(sizes["rows"])
            plan = dataclasses.replace(plan, budget=1_000_000)
        return plan

    patch.setattr(planner, "_RISK", 0)
    patch.setattr(search, "plan_slice", counted)
    return walks


def searched(searcher: Searcher, parts: Sequence[Part], query: SearchQuery, metric: Metric) -> Found:
    """Plan a search of the slices `parts`, carry it out, and return what it found."""
    under_way = searcher.begin(searcher.prepare(parts, query), query, metric)
    under_way.run()
    return under_way.found()
