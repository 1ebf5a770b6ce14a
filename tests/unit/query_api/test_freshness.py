"""A reader knows how fresh its answer is, and can wait for what it needs."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import httpx2
import pytest

from query_api.freshness import Freshness
from query_api.writes import WriteOptions
from schemas.partitions import partition_of
from schemas.positions import PositionToken
from tests.support.api_server import PATIENT, ApiServer

QUESTION = {"vector": [1, 0, 0, 0], "topK": 10}


@pytest.fixture
def paused(server):
    """No snapshot is made while the test runs, unless it resumes."""
    server.pause_indexing()
    resumed = threading.Event()

    def resume():
        if not resumed.is_set():
            resumed.set()
            server.resume_indexing()

    yield resume
    resume()


def upsert(http, host, space, name="a", **headers):
    body = {"vectors": [{"id": name, "values": [1, 2, 3, 4]}], "namespace": space}
    answer = http.post(f"{host}/vectors/upsert", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def fetch(http, host, space, **headers):
    return http.get(f"{host}/vectors/fetch", params={"ids": "a", "namespace": space}, headers=headers)


def reads_of(http, host, space, headers):
    """Every read of one namespace, and every read of the whole index."""
    yield http.post(f"{host}/query", json={**QUESTION, "namespace": space}, headers=headers)
    yield fetch(http, host, space, **headers)
    yield http.get(f"{host}/vectors/list", params={"namespace": space}, headers=headers)
    yield http.get(f"{host}/namespaces/{space}", headers=headers)
    yield http.post(f"{host}/describe_index_stats", json={}, headers=headers)
    yield http.get(f"{host}/namespaces", headers=headers)


def test_every_write_says_its_position(http, host, space):
    """Both generations of LSN headers and the token agree, and rise."""
    first = upsert(http, host, space)
    writes = [
        http.post(f"{host}/vectors/update", json={"id": "a", "setMetadata": {"x": 1}, "namespace": space}),
        http.post(f"{host}/vectors/update", json={"filter": {"x": 1}, "setMetadata": {"y": 1}, "namespace": space}),
        http.post(f"{host}/vectors/delete", json={"ids": ["a"], "namespace": space}),
        http.delete(f"{host}/vectors/delete", params={"deleteAll": "true", "namespace": space}),
        http.delete(f"{host}/namespaces/{space}"),
        http.post(f"{host}/namespaces", json={"name": space}),
    ]
    lsns = []
    for answer in (first, *writes):
        assert answer.status_code == 200, answer.text
        lsn = answer.headers["x-pinecone-request-lsn"]
        assert answer.headers["x-pinecone-lsn-committed"] == lsn
        token = PositionToken.parse(answer.headers["x-freshet-position"])
        assert [position.next_offset for position in token.positions.values()] == [int(lsn)]
        lsns.append(int(lsn))
    assert lsns == sorted(set(lsns))


def test_every_read_says_what_it_shows(http, host, space):
    """A read of one namespace gives its LSN; a read of the whole index gives the token of all partitions."""
    written = upsert(http, host, space)
    lsn = int(written.headers["x-pinecone-request-lsn"])
    headers = {"x-freshet-at-least": written.headers["x-freshet-position"]}
    for answer in reads_of(http, host, space, headers):
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-freshet-staleness-ms"] == "0"
        token = PositionToken.parse(answer.headers["x-freshet-position"])
        if len(token.positions) == 1:
            assert int(answer.headers["x-pinecone-max-indexed-lsn"]) >= lsn
            assert answer.headers["x-pinecone-lsn-reconciled"] == answer.headers["x-pinecone-max-indexed-lsn"]
        else:
            assert len(token.positions) == 4
            assert "x-pinecone-max-indexed-lsn" not in answer.headers


def test_a_read_that_waits_is_answered_when_the_snapshot_arrives(http, host, space, paused):
    """All reads wait, whichever way they ask, and every one shows the write."""
    written = upsert(http, host, space)
    lsn, token = int(written.headers["x-pinecone-request-lsn"]), written.headers["x-freshet-position"]
    asks = [
        ({"consistency": {"atLeast": lsn, "waitMs": 20_000}}, {}),
        ({"consistency": {"atLeast": token, "waitMs": 20_000}}, {}),
        ({}, {"x-freshet-at-least": token, "x-freshet-wait-ms": "20000"}),
        ({}, {"x-freshet-at-least-lsn": str(lsn), "x-freshet-wait-ms": "20000"}),
    ]
    answers = []

    def ask(body, headers):
        with httpx2.Client(timeout=30) as client:
            question = {**QUESTION, **body, "namespace": space}
            answers.append(client.post(f"{host}/query", json=question, headers=headers))

    threads = [threading.Thread(target=ask, args=each) for each in asks]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    assert answers == []
    paused()
    for thread in threads:
        thread.join(30)
    assert [answer.status_code for answer in answers] == [200] * 4, answers[0].text
    assert all([match["id"] for match in answer.json()["matches"]] == ["a"] for answer in answers)


@pytest.mark.usefixtures("paused")
def test_a_position_not_reached_in_time_is_told_with_both_positions(http, host, space):
    """412 with code 9; the message and the details carry what was wanted and what is shown."""
    wanted = upsert(http, host, space).headers["x-freshet-position"]
    for answer in reads_of(http, host, space, {"x-freshet-at-least": wanted, "x-freshet-wait-ms": "30"}):
        assert answer.status_code == 412, answer.text
        body = answer.json()
        assert body["code"] == 9
        details = body["details"][0]
        assert details["wanted"] == wanted
        assert details["wanted"] in body["message"]
        assert details["applied"] in body["message"]
        applied = PositionToken.parse(details["applied"])
        assert applied.merge(PositionToken.parse(wanted)) == PositionToken.parse(wanted)
        assert applied != PositionToken.parse(wanted)


@pytest.mark.usefixtures("paused")
def test_a_read_that_does_not_wait_is_stale_and_says_by_how_much(http, make_index, space):
    """Staleness is the age of the oldest event that is not shown; stats say the lag of its partition."""
    host = make_index()
    upsert(http, host, space)
    time.sleep(0.15)
    answer = fetch(http, host, space)
    assert answer.json()["vectors"] == {}
    assert 150 <= int(answer.headers["x-freshet-staleness-ms"]) < 10_000
    upsert(http, host, space)
    assert int(fetch(http, host, space).headers["x-freshet-staleness-ms"]) >= 150
    stats = http.get(f"{host}/describe_index_stats").json()
    partition = stats["freshness"]["partitions"][partition_of(space, 4)]
    assert partition["lagEvents"] == 2
    assert partition["logEnd"] - partition["applied"] == 2
    assert partition["lagSeconds"] >= 0.15


def test_stats_say_how_fresh_every_partition_is(http, make_index):
    """The fields of the work of every partition, and the log they belong to."""
    host = make_index()
    body = {"vectors": [{"id": str(n), "values": [1, n, 0, 0]} for n in range(5)], "namespace": "s"}
    token = http.post(f"{host}/vectors/upsert", json=body).headers["x-freshet-position"]
    answer = http.post(f"{host}/describe_index_stats", json={"consistency": {"atLeast": token}})
    freshness = answer.json()["freshness"]
    assert freshness["logId"] == PositionToken.parse(token).log_id
    assert [one["partition"] for one in freshness["partitions"]] == [0, 1, 2, 3]
    mine = freshness["partitions"][partition_of("s", 4)]
    assert mine.pop("snapshotVersion") > 0
    engine = mine.pop("engine")
    assert (engine["rows"], engine["deadRows"], engine["graphs"]) == (5, 0, [])
    assert engine["snapshotBytes"] > 0
    assert (freshness["recallTarget"], freshness["logBytes"] is None or freshness["logBytes"] > 0) == (0.95, True)
    assert mine == {
        "partition": partition_of("s", 4),
        "logEnd": 5,
        "applied": 5,
        "lagEvents": 0,
        "lagSeconds": 0,
        "segments": 1,
        "tailRows": 5,
        "graphRowsPerSecond": None,
        "deadLetters": 0,
    }


def test_an_integer_means_nothing_over_the_whole_index(http, host):
    """Stats and the listing of namespaces take a token only."""
    answer = http.post(f"{host}/describe_index_stats", json={"consistency": {"atLeast": 1}})
    assert answer.status_code == 400
    assert "token" in answer.json()["message"]
    assert http.get(f"{host}/namespaces", headers={"x-freshet-at-least-lsn": "1"}).status_code == 400


def test_a_position_of_another_log_is_refused_at_once(http, host, make_index, space):
    """Whatever the wait: it will never be reached."""
    token = upsert(http, make_index(), space).headers["x-freshet-position"]
    for answer in reads_of(http, host, space, {"x-freshet-at-least": token, "x-freshet-wait-ms": "60000"}):
        assert answer.status_code == 400
        assert "another log" in answer.json()["message"]


def test_a_position_beyond_the_end_of_the_log_is_refused_at_once(http, host, space):
    """Decided after the end was read again from the log; the end is in the message."""
    lsn = int(upsert(http, host, space).headers["x-pinecone-request-lsn"])
    headers = {"x-freshet-at-least-lsn": str(lsn + 1_000), "x-freshet-wait-ms": "60000"}
    answer = fetch(http, host, space, **headers)
    assert answer.status_code == 400
    assert str(lsn) in answer.json()["message"]
    assert answer.json()["details"][0]["reason"] == "PositionBeyondEnd"


def test_a_position_of_a_partition_that_is_not_there_is_refused(http, host, space):
    """The log has four."""
    token = upsert(http, host, space).headers["x-freshet-position"]
    log_id = PositionToken.parse(token).log_id
    answer = fetch(http, host, space, **{"x-freshet-at-least": f"{log_id}:9=1"})
    assert answer.status_code == 400
    assert "partition 9" in answer.json()["message"]


@pytest.mark.usefixtures("paused")
def test_a_read_of_a_namespace_waits_only_for_its_own_partition(http, host, space):
    """A token that is ahead in other partitions does not hold it up."""
    lagging = upsert(http, host, space).headers["x-freshet-position"]
    mine = partition_of(space, 4)
    other = next(name for name in (f"{space}-{n}" for n in range(100)) if partition_of(name, 4) != mine)
    headers = {"x-freshet-at-least": lagging, "x-freshet-wait-ms": "50"}
    assert fetch(http, host, other, **headers).status_code == 200
    assert fetch(http, host, space, **headers).status_code == 412


def test_a_token_of_a_later_lineage_is_waited_for_and_of_an_earlier_one_refused(http, host, space):
    """Lineage 0 is shown: 1 has not come yet."""
    token = upsert(http, host, space).headers["x-freshet-position"]
    answer = fetch(http, host, space, **{"x-freshet-at-least": f"{token}~1", "x-freshet-wait-ms": "50"})
    assert answer.status_code == 412


def test_a_write_can_wait_until_it_is_visible(http, host, space):
    """Then the next read shows it without asking."""
    for name in "abcdefgh":
        body = upsert(http, host, space, name, **{"x-freshet-wait-visible-ms": "20000"}).json()
        assert body["upsertedCount"] == 1
        assert body["durable"] is body["visible"] is True
        assert body["appliedLsn"] >= body["lsn"]
        listed = http.get(f"{host}/vectors/list", params={"namespace": space}).json()["vectors"]
        assert listed[-1] == {"id": name}


@pytest.mark.usefixtures("paused")
def test_a_write_that_is_not_visible_in_time_says_so(http, host, space):
    """It is durable: the status is 200."""
    body = upsert(http, host, space, **{"x-freshet-wait-visible-ms": "20"}).json()
    assert body["durable"] is True
    assert body["visible"] is False
    assert body["appliedLsn"] < body["lsn"]


def test_what_is_not_decided_in_time_is_durable_all_the_same(tmp_path):
    """No worker runs: outcomes are not known (504), a delete is taken although its namespace is not known (200)."""
    quick = replace(PATIENT, freshness=Freshness(ready_wait_ms=50, outcome_wait_ms=50))
    with ApiServer(tmp_path, options=quick) as server, httpx2.Client(timeout=30) as http:
        host = http.post(f"{server.url}/indexes", json={"name": "i", "dimension": 4}).json()["host"]
        server.pause_indexing()
        answer = http.post(f"{host}/namespaces", json={"name": "n"})
        assert answer.status_code == 504, answer.text
        assert answer.json()["code"] == 4
        assert "durable" in answer.json()["message"]
        token = answer.headers["x-freshet-position"]
        update = {"filter": {"x": 1}, "setMetadata": {"y": 1}, "namespace": "n"}
        assert http.post(f"{host}/vectors/update", json=update).status_code == 504
        assert http.post(f"{host}/vectors/delete", json={"ids": ["a"], "namespace": "n"}).status_code == 200
        assert http.get(f"{host}/namespaces/n").status_code == 503
        server.resume_indexing()
        described = http.get(
            f"{host}/namespaces/n", headers={"x-freshet-at-least": token, "x-freshet-wait-ms": "20000"}
        )
        assert described.status_code == 200, described.text


def test_a_restarted_server_shows_what_it_showed_before(tmp_path):
    """Reads wait until the snapshot shows what the log held at start; before that 503, and the progress in /readyz."""
    quick = replace(PATIENT, freshness=Freshness(ready_wait_ms=50))
    with ApiServer(tmp_path, options=quick) as server, httpx2.Client(timeout=30) as http:
        host = http.post(f"{server.url}/indexes", json={"name": "i", "dimension": 4}).json()["host"]
        assert upsert(http, host, "n", **{"x-freshet-wait-visible-ms": "20000"}).json()["visible"]
        server.pause_indexing()
        upsert(http, host, "n", "b")
        ports = server.ports
    # Ports are kept over restarts, so clients' hosts stay right.
    with ApiServer(tmp_path, options=quick, ports=ports, indexing=False) as server, httpx2.Client(timeout=30) as http:
        deadline = time.monotonic() + 20
        while "nothing of 2" in (answer := fetch(http, host, "n")).text:
            assert time.monotonic() < deadline
        assert answer.status_code == 503, answer.text
        assert answer.json()["code"] == 14
        assert int(answer.headers["retry-after"]) >= 1
        assert "1 of 2" in answer.json()["message"]
        ready = http.get(f"{server.url}/readyz")
        assert ready.status_code == 503
        assert http.get(f"{server.url}/healthz").status_code == 200
        partition = ready.json()["indexes"][0]["partitions"][partition_of("n", 4)]
        assert partition == {
            "partition": partition_of("n", 4), "ready": False, "required": 2, "applied": 1, "problem": None
        }  # fmt: skip
        upsert(http, host, "n", "c")
        server.resume_indexing()
        deadline = time.monotonic() + 20
        while http.get(f"{server.url}/readyz").status_code != 200:
            assert time.monotonic() < deadline
        listed = http.get(f"{host}/vectors/list?namespace=n").json()["vectors"]
        assert [item["id"] for item in listed][:2] == ["a", "b"]


def test_writes_are_put_off_while_too_much_is_in_no_graph(tmp_path):
    """429 with Retry-After, for the namespace whose tail is over the limit only; nothing is written."""
    small = replace(PATIENT, writes=WriteOptions(tail_rows_max=5))
    with ApiServer(tmp_path, options=small) as server, httpx2.Client(timeout=30) as http:
        host = http.post(f"{server.url}/indexes", json={"name": "i", "dimension": 4}).json()["host"]
        waits = {"x-freshet-wait-visible-ms": "20000"}
        for name in "abcdef":
            upsert(http, host, "n", name, **waits)
        body = {"vectors": [{"id": "g", "values": [1, 2, 3, 4]}], "namespace": "n"}
        answer = http.post(f"{host}/vectors/upsert", json=body)
        assert answer.status_code == 429, answer.text
        assert answer.json()["code"] == 8
        assert int(answer.headers["retry-after"]) >= 1
        upsert(http, host, "other", **waits)
        listed = http.get(f"{host}/vectors/list?namespace=n").json()["vectors"]
        assert len(listed) == 6
