"""The table of filters over REST: records in publishes that were not merged yet, and in a graph."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import httpx2
import pytest

from indexer.indexer import IndexerOptions
from indexer.merge_policy import MergeOptions
from indexer.partition import PartitionOptions
from tests.contract.api_contract import Api
from tests.contract.filter_contract import FilterContract
from tests.contract.test_api_rest import RestApi
from tests.support.api_server import ApiServer

_SPACES = itertools.count(1)
_NEVER = 10**9
_DELTAS = MergeOptions(rollup_deltas=63, rollup_rows=_NEVER, graph_rows_min=_NEVER, settle_seconds=_NEVER)
_GRAPHS = MergeOptions(rollup_deltas=1, graph_rows_min=16)


@pytest.fixture(scope="module")
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=60) as client:
        yield client


def serve(folder, http: httpx2.Client, merge: MergeOptions) -> Iterator[Callable[[], RestApi]]:
    """Run a server that merges like that; yield what opens a namespace of its own each time."""
    options = IndexerOptions(partition=PartitionOptions(merge=merge))
    with ApiServer(folder, indexer_options=options) as server:
        body = {"name": "filters", "dimension": 4, "metric": "euclidean"}
        host = http.post(f"{server.url}/indexes", json=body).json()["host"]
        yield lambda: RestApi(http, {"euclidean": host}, "euclidean", f"space-{next(_SPACES)}")


class TestFiltersOverDeltas(FilterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def apis(cls, tmp_path_factory, http) -> Iterator[Callable[[], RestApi]]:
        yield from serve(tmp_path_factory.mktemp("deltas"), http, _DELTAS)


class TestFiltersOverGraphs(FilterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def apis(cls, tmp_path_factory, http) -> Iterator[Callable[[], RestApi]]:
        yield from serve(tmp_path_factory.mktemp("graphs"), http, _GRAPHS)

    @classmethod
    def settled(cls, api: Api) -> None:
        """Wait until every row of the index is in a graph."""
        deadline = time.monotonic() + 60
        while any(one["tailRows"] for one in api.stats()["freshness"]["partitions"]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
