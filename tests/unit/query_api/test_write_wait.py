"""Waiting writes: a server, an index or a request says how long a write is held until it is visible."""

from __future__ import annotations

import time
from dataclasses import replace

import httpx2
import pytest

from query_api.writes import WriteOptions
from tests.support.api_server import PATIENT, ApiServer


def upsert(http, host, space, name="a", **headers):
    body = {"vectors": [{"id": name, "values": [1, 2, 3, 4]}], "namespace": space}
    return http.post(f"{host}/vectors/upsert", json=body, headers=headers)


def test_an_index_that_waits_answers_writes_when_they_are_visible(http, make_index, space):
    """The next read shows each, without asking; the body stays as the hosted service's."""
    host = make_index(write_wait_ms=20_000)
    for number in range(20):
        assert upsert(http, host, space, f"id-{number:02d}").json() == {"upsertedCount": 1}
        listed = http.get(f"{host}/vectors/list", params={"namespace": space}).json()["vectors"]
        assert len(listed) == number + 1
    body = {"id": "id-00", "setMetadata": {"n": 1}, "namespace": space}
    assert http.post(f"{host}/vectors/update", json=body).json() == {}
    fetched = http.get(f"{host}/vectors/fetch", params={"ids": "id-00", "namespace": space}).json()["vectors"]
    assert fetched["id-00"]["metadata"] == {"n": 1}


def test_the_header_overrides_the_index_and_has_the_answer_say_so(http, make_index, server, space):
    """Also to nothing; a write that is not visible in time is durable."""
    host = make_index(write_wait_ms=20_000)
    upsert(http, host, space)
    server.pause_indexing()
    try:
        began = time.monotonic()
        body = upsert(http, host, space, "b", **{"x-freshet-wait-visible-ms": "0"}).json()
        assert time.monotonic() - began < 15
        assert (body["durable"], body["visible"]) == (True, False)
    finally:
        server.resume_indexing()


def test_a_write_waits_no_longer_than_its_index_says(http, make_index, server, space):
    """Then it is answered as ever: it is durable."""
    host = make_index(write_wait_ms=300)
    server.pause_indexing()
    try:
        began = time.monotonic()
        answer = upsert(http, host, space)
        assert time.monotonic() - began >= 0.3
        assert (answer.status_code, answer.json()) == (200, {"upsertedCount": 1})
    finally:
        server.resume_indexing()


def test_the_wait_is_shown_and_can_be_changed(server, http, make_index):
    """Null where the server decides."""
    host = make_index()
    name = next(one["name"] for one in http.get(f"{server.url}/indexes").json()["indexes"] if one["host"] == host)
    assert http.get(f"{server.url}/indexes/{name}").json()["write_wait_ms"] is None
    for wait_ms in (250, 0):
        answer = http.patch(f"{server.url}/indexes/{name}", json={"write_wait_ms": wait_ms})
        assert answer.json()["write_wait_ms"] == wait_ms
        assert http.get(f"{server.url}/indexes/{name}").json()["write_wait_ms"] == wait_ms
    assert http.patch(f"{server.url}/indexes/{name}", json={"tags": {"a": "b"}}).json()["write_wait_ms"] == 0


@pytest.mark.parametrize(("wait_ms", "status"), [(-1, 400), (60_001, 400), ("1", 422), (1.5, 422)])
def test_a_wait_that_cannot_be_is_refused(server, http, make_index, wait_ms, status):
    """At create and at configure."""
    body = {"name": "never-made", "dimension": 4, "metric": "cosine", "write_wait_ms": wait_ms}
    answer = http.post(f"{server.url}/indexes", json=body)
    assert answer.status_code == status, answer.text
    assert "write_wait_ms" in answer.json()["error"]["message"]
    assert http.get(f"{server.url}/indexes/never-made").status_code == 404
    host = make_index()
    name = next(one["name"] for one in http.get(f"{server.url}/indexes").json()["indexes"] if one["host"] == host)
    answer = http.patch(f"{server.url}/indexes/{name}", json={"write_wait_ms": wait_ms})
    assert answer.status_code == status, answer.text


def test_the_server_decides_where_the_index_does_not(tmp_path):
    """An index that says 0 does not wait."""
    waiting = replace(PATIENT, writes=WriteOptions(write_wait_ms=8_000))
    with ApiServer(tmp_path, options=waiting) as server, httpx2.Client(timeout=30) as http:
        hosts = [
            http.post(f"{server.url}/indexes", json={"name": name, "dimension": 4, **more}).json()["host"]
            for name, more in (("asks", {}), ("does-not", {"write_wait_ms": 0}))
        ]
        assert upsert(http, hosts[0], "n").json() == {"upsertedCount": 1}
        assert len(http.get(f"{hosts[0]}/vectors/list?namespace=n").json()["vectors"]) == 1
        server.pause_indexing()
        took = []
        for host in hosts:
            began = time.monotonic()
            assert upsert(http, host, "n", "b").status_code == 200
            took.append(time.monotonic() - began)
        assert took[0] >= 8
        assert took[1] < 8
