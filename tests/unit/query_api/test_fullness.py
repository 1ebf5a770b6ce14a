"""Bounds of an index, rates, and requests at a time, over REST."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import httpx2
import numpy as np
import pytest

from query_api.fullness import BoundOptions, Fullness
from query_api.served import ServedIndex
from query_api.shedding import RateOptions
from schemas.errors import IndexFull, TooManyRequests
from schemas.operations import Delete, DeleteNamespace, Upsert
from tests.support.api_server import PATIENT, ApiServer

OPTIONS = replace(PATIENT, bounds=BoundOptions(wait_seconds=20))
FULL = "Index is full, cannot accept data."


def vectors(*names):
    return [{"id": name, "values": [1.0, 2.0, 3.0, float(len(name))]} for name in names]


class Index:
    """One index of a running server."""

    def __init__(self, http, server, **body):
        self.http = http
        made = http.post(f"{server.url}/indexes", json={"dimension": 4, "metric": "cosine", **body})
        assert made.status_code == 201, made.text
        self.made = made.json()
        self.host = self.made["host"]

    def upsert(self, *names, space="", visible=True):
        headers = {"x-freshet-wait-visible-ms": "20000"} if visible else {}
        body = {"vectors": vectors(*names), "namespace": space}
        return self.http.post(f"{self.host}/vectors/upsert", json=body, headers=headers)

    def post(self, path, **body):
        return self.http.post(self.host + path, json=body)

    def fullness(self):
        return self.post("/describe_index_stats").json()["indexFullness"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ApiServer(tmp_path_factory.mktemp("bounded"), OPTIONS, index_ports=16) as running:
        yield running


@pytest.fixture(scope="module")
def http():
    with httpx2.Client(timeout=30) as client:
        yield client


def test_index_at_its_bound_refuses_upserts_and_nothing_else(server, http):
    """403 with the words that clients look for; updates, deletes and reads pass, and room made is room."""
    index = Index(http, server, name="small", max_records=4)
    assert index.made["max_records"] == 4
    assert index.made["max_bytes"] is None
    assert index.fullness() == 0
    assert index.upsert("a", "b").status_code == 200
    assert index.fullness() == 0.5
    assert index.upsert("c", "d", space="other").status_code == 200
    assert index.fullness() == 1.0
    for names in (("e",), ("a",)):
        refused = index.upsert(*names)
        assert refused.status_code == 403
        assert refused.json()["code"] == 7
        assert FULL in refused.json()["message"]
        assert "max_records) is 4" in refused.json()["message"]
    assert index.post("/vectors/update", id="a", setMetadata={"n": 1}).status_code == 200
    assert index.post("/query", topK=1, vector=[1, 2, 3, 1]).status_code == 200
    deleted = index.http.post(
        f"{index.host}/vectors/delete", json={"ids": ["a"]}, headers={"x-freshet-wait-visible-ms": "20000"}
    )
    assert deleted.status_code == 200
    assert index.fullness() == 0.75
    assert index.upsert("e").status_code == 200
    assert index.upsert("f").status_code == 403


def test_bound_is_configured_and_taken_away(server, http):
    """A larger bound, or none, is obeyed from the next upsert on; 0 is no bound."""
    index = Index(http, server, name="grows", max_records=1)
    assert index.upsert("a").status_code == 200
    assert index.upsert("b").status_code == 403
    for bound, names in ((2, "b"), (0, "cdef")):
        changed = http.patch(f"{server.url}/indexes/grows", json={"max_records": bound})
        assert changed.json()["max_records"] == bound
        deadline = time.monotonic() + 10
        while (answer := index.upsert(*names)).status_code != 200:
            # The index follows the catalog in a task of its own.
            assert time.monotonic() < deadline, answer.text
    assert index.fullness() == 0
    for wrong in ({"max_records": -1}, {"max_bytes": 2**53}):
        assert http.patch(f"{server.url}/indexes/grows", json=wrong).status_code == 400
    assert http.patch(f"{server.url}/indexes/grows", json={"max_bytes": "1"}).status_code == 422
    assert http.post(f"{server.url}/indexes", json={"name": "x", "dimension": 4, "max_records": -1}).status_code == 400


def test_bytes_are_bounded_too(server, http):
    """Bytes are those of the snapshots: the first publish of a record is more than a few of them."""
    index = Index(http, server, name="bytes", max_bytes=100)
    assert index.upsert("a").status_code == 200
    refused = index.upsert("b")
    assert refused.status_code == 403
    assert "max_bytes) is 100" in refused.json()["message"]
    assert index.fullness() == 1.0


def test_upserts_that_replace_records_do_not_fill_an_index(server, http):
    """What no snapshot shows yet is waited for before it is counted as more."""
    index = Index(http, server, name="same", max_records=10)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: index.upsert(*"abcdefghi", visible=False).status_code, range(40)))
    assert answers == [200] * 40
    assert index.upsert("j").status_code == 200
    assert index.upsert("j").status_code == 403


class Follower:
    """Shows what it is asked to reach, and lets something happen just before."""

    is_open = True

    def __init__(self, before):
        self.snapshot = SimpleNamespace(lineage=0, next_offset=0, live_rows=0)
        self._before = before

    async def opened(self, *, until):
        return True

    async def reach(self, offset, *, until):
        self._before()
        self.snapshot = SimpleNamespace(lineage=0, next_offset=offset, live_rows=9)
        return self.snapshot


def index_of_ten(follower):
    index = ServedIndex.__new__(ServedIndex)
    index.spec = SimpleNamespace(name="i", partitions=1, settings=b'{"max_records":10}')
    index.followers = (follower,)
    return index


@pytest.mark.asyncio
async def test_what_others_append_while_an_upsert_waits_is_waited_for_too():
    """Nine records, replaced again and again, are nine: who comes while that is on its way is not sent away."""
    nine = [Upsert(name, np.ones(4, "<f4").tobytes(), None, b"{}") for name in "abcdefghi"]
    others = iter([27])

    def appended_meanwhile():
        if (end := next(others, None)) is not None:
            fullness.appended(index, 0, end, nine)

    index = index_of_ten(Follower(appended_meanwhile))
    fullness = Fullness(BoundOptions(wait_seconds=20))
    for end in (9, 18):
        fullness.appended(index, 0, end, nine)
    await fullness.check(index)
    assert index.followers[0].snapshot.next_offset == 27


class StandingStill(Follower):
    """Shows ten records, and nothing new for a moment."""

    def __init__(self):
        super().__init__(None)
        self.snapshot.live_rows = 10

    async def reach(self, offset, *, until):
        await asyncio.sleep(0.01)
        return self.snapshot


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("event", "error"),
    [
        (Upsert("a", b"", None, b"{}"), IndexFull),
        (Delete("a"), TooManyRequests),
        (DeleteNamespace(False), TooManyRequests),
    ],
)
async def test_index_that_is_shown_full_is_full_unless_a_delete_is_on_its_way(event, error):
    """No upsert makes less of what is shown; what a delete leaves is known when it is shown."""
    index, fullness = index_of_ten(StandingStill()), Fullness(BoundOptions(wait_seconds=0.1))
    fullness.appended(index, 0, 1, [event])
    with pytest.raises(error):
        await fullness.check(index)
    index.followers[0].snapshot = SimpleNamespace(lineage=0, next_offset=1, live_rows=9)
    await fullness.check(index)


def test_bound_holds_but_for_what_is_on_its_way_at_a_time(server, http):
    """Single upserts from eight writers end at the bound or at most seven above it."""
    index = Index(http, server, name="race", max_records=50)

    def written(number):
        # Asked to come again later, as everybody is while what was written is not shown yet.
        while (status := index.upsert(f"id-{number}", visible=False).status_code) == 429:
            time.sleep(0.05)
        return status

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(written, range(200)))
    assert set(answers) == {200, 403}
    assert 50 <= answers.count(200) <= 57


def test_while_nothing_is_indexed_an_index_that_may_be_full_is_asked_again_later(tmp_path, http):
    """Whether what is not shown yet is new is not known: a 429, not a 403 that clients would take for final."""
    options = replace(OPTIONS, bounds=BoundOptions(max_records=3, wait_seconds=0.2))
    with ApiServer(tmp_path, options) as server:
        index = Index(http, server, name="paused")
        assert index.upsert("a").status_code == 200
        server.pause_indexing()
        assert index.upsert("a", "b", visible=False).status_code == 200
        later = index.upsert("a", visible=False)
        assert later.status_code == 429
        assert later.headers["retry-after"] == "1"
        assert "may be full" in later.json()["message"]
        server.resume_indexing()
        deadline = time.monotonic() + 20
        while (answer := index.upsert("c")).status_code != 200:
            assert answer.status_code == 429, answer.text
            assert time.monotonic() < deadline
        assert index.upsert("d").status_code == 403
        # A bound of the server's own holds where an index names none.
        unbounded = Index(http, server, name="unbounded", max_records=0)
        assert unbounded.upsert(*"abcdefg").status_code == 200


def test_rates_are_per_namespace_and_say_when_to_come_again(tmp_path, http):
    """429 with Retry-After and the rate in words, at the namespace that is too busy only."""
    # So slow that nothing comes in again while this test runs.
    options = replace(OPTIONS, rates=RateOptions(query=0.01, upsert=0.01, stats=0.01, delete=0.01))
    with ApiServer(tmp_path, options) as server:
        index = Index(http, server, name="busy")
        upserts = [index.upsert("a", visible=False) for _ in range(3)]
        assert [answer.status_code for answer in upserts] == [200, 429, 429]
        refused = upserts[-1]
        assert refused.json()["code"] == 8
        assert (
            "Too many upsert requests to namespace '__default__' of index 'busy': max 0.01 per second" in refused.text
        )
        assert 1 <= int(refused.headers["retry-after"]) <= 100
        assert index.upsert("a", space="other", visible=False).status_code == 200
        for _ in range(3):
            assert index.post("/vectors/update", id="a", setMetadata={"n": 1}).status_code == 200
        assert [index.post("/vectors/delete", ids=["a"]).status_code for _ in range(2)][1] == 429
        assert [index.post("/describe_index_stats").status_code for _ in range(2)] == [200, 429]
        asked = {"topK": 1, "vector": [1, 2, 3, 4]}
        assert [index.post("/query", **asked).status_code for _ in range(2)] == [200, 429]


def test_requests_beyond_the_bound_are_shed_at_once(tmp_path, http):
    """While one request waits, another is refused instead of queued; health is answered all the same."""
    with ApiServer(tmp_path, replace(OPTIONS, requests_in_flight_max=1)) as server:
        index = Index(http, server, name="crowded")
        server.pause_indexing()

        def write() -> None:
            body, headers = {"vectors": vectors("a")}, {"x-freshet-wait-visible-ms": "30000"}
            # It may itself meet one of the requests below.
            while (
                httpx2.post(f"{index.host}/vectors/upsert", json=body, headers=headers, timeout=30).status_code == 429
            ):
                time.sleep(0.01)

        waiting = threading.Thread(target=write)
        waiting.start()
        deadline = time.monotonic() + 20
        while (answer := http.get(f"{server.url}/indexes")).status_code == 200:
            assert time.monotonic() < deadline, "the other request should be waiting by now"
            time.sleep(0.05)
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "RESOURCE_EXHAUSTED"
        assert answer.headers["retry-after"] == "1"
        assert http.get(f"{server.url}/healthz").status_code == 200
        server.resume_indexing()
        waiting.join()
        assert http.get(f"{server.url}/indexes").status_code == 200
