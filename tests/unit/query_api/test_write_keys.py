"""Writes with an idempotency key: sent as often as one likes, carried out once, answered as the first time."""

from __future__ import annotations

import pytest

from schemas.positions import PositionToken

KEY = "freshet-idempotency-key"
STRONG = {"x-freshet-consistency": "strong"}


@pytest.fixture
def call(http, host, space):
    """Call a route of the shared index under a key, with the namespace of the test in the body."""

    def send(method, path, key=None, **body):
        headers = {} if key is None else {KEY: key}
        return http.request(method, host + path, json={"namespace": space, **body}, headers=headers)

    return send


def record(name, number=0):
    return {"id": name, "values": [1, number, 0, 0], "metadata": {"n": number}}


def fetched(http, host, space, *ids):
    """Return the metadata of records as a strong read shows them."""
    answer = http.get(f"{host}/vectors/fetch", params={"ids": ids, "namespace": space}, headers=STRONG)
    return {name: one.get("metadata") for name, one in answer.json()["vectors"].items()}


def test_an_upsert_that_is_sent_again_does_not_undo_what_came_after_it(http, host, space, call):
    """The second answer is like the first, at its own position."""
    first = call("POST", "/vectors/upsert", "k", vectors=[record("a", 1), record("b", 1)])
    call("POST", "/vectors/update", id="a", setMetadata={"n": 2})
    call("POST", "/vectors/delete", ids=["b"])
    second = call("POST", "/vectors/upsert", "k", vectors=[record("a", 1), record("b", 1)])
    assert (second.status_code, second.json()) == (first.status_code, first.json()) == (200, {"upsertedCount": 2})
    assert fetched(http, host, space, "a", "b") == {"a": {"n": 2}}
    lsns = [int(answer.headers["x-pinecone-request-lsn"]) for answer in (first, second)]
    assert lsns[1] >= lsns[0] + 4
    token = PositionToken.parse(second.headers["x-freshet-position"])
    assert [position.next_offset for position in token.positions.values()] == [lsns[1]]
    third = call("POST", "/vectors/upsert", "other", vectors=[record("b", 3)])
    assert third.status_code == 200
    assert fetched(http, host, space, "a", "b") == {"a": {"n": 2}, "b": {"n": 3}}


def test_matched_records_are_those_of_the_first(http, host, space, call):
    """Although nothing matches any more."""
    call("POST", "/vectors/upsert", vectors=[record(name, 1) for name in "abc"])
    for _ in range(3):
        answer = call("POST", "/vectors/update", "k", filter={"n": 1}, setMetadata={"n": 2})
        assert (answer.status_code, answer.json()) == (200, {"matchedRecords": 3})
    call("POST", "/vectors/upsert", vectors=[record("d", 1)])
    assert call("POST", "/vectors/update", "k", filter={"n": 1}, setMetadata={"n": 2}).json() == {"matchedRecords": 3}
    assert fetched(http, host, space, "d") == {"d": {"n": 1}}


def test_a_namespace_that_is_created_again_under_its_key_is_no_conflict(http, host, space):
    """Under another key, or none, it is; and the conflict, too, is repeated."""

    def create(key):
        return http.post(f"{host}/namespaces", json={"name": space}, headers={KEY: key} if key else {})

    first = create("mine")
    assert first.status_code == 200, first.text
    assert create(None).status_code == 409
    assert create("theirs").status_code == 409
    again = create("mine")
    assert (again.status_code, again.json()) == (200, first.json())
    assert http.delete(f"{host}/namespaces/{space}").status_code == 200
    assert create("theirs").status_code == 409
    assert http.get(f"{host}/namespaces/{space}", headers=STRONG).status_code == 404


def test_a_namespace_that_is_deleted_again_under_its_key_is_no_404(http, host, space, call):
    """And what was written since stays."""

    def delete(key):
        return http.delete(f"{host}/namespaces/{space}", headers={KEY: key} if key else {})

    call("POST", "/vectors/upsert", vectors=[record("a")])
    assert delete("k").status_code == 200
    # From here on every snapshot knows that it is gone.
    assert http.get(f"{host}/namespaces/{space}", headers=STRONG).status_code == 404
    assert delete("k").status_code == 200
    assert delete(None).status_code == 404
    assert delete("other").status_code == 404
    call("POST", "/vectors/upsert", vectors=[record("b")])
    assert delete("k").status_code == 200
    assert fetched(http, host, space, "a", "b") == {"b": {"n": 0}}


def test_deletes_under_a_key_are_carried_out_once(http, host, space, call):
    """By id, by filter, and of all."""
    bodies = [{"ids": ["a"]}, {"filter": {"n": 0}}, {"deleteAll": True}]
    for number, body in enumerate(bodies):
        call("POST", "/vectors/upsert", vectors=[record("a")])
        assert call("POST", "/vectors/delete", f"k{number}", **body).status_code == 200
        assert fetched(http, host, space, "a") == {}
        call("POST", "/vectors/upsert", vectors=[record("a")])
        assert call("POST", "/vectors/delete", f"k{number}", **body).json() == {}
        assert fetched(http, host, space, "a") == {"a": {"n": 0}}


@pytest.mark.parametrize("key", ["x" * 65, "with space", "caf\u00e9"])
def test_a_key_that_cannot_be_one_is_refused(http, host, space, key):
    """400, and nothing is written."""
    headers = {KEY.encode(): key.encode("latin-1")}
    body = {"vectors": [record("a")], "namespace": space}
    answer = http.post(f"{host}/vectors/upsert", json=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert "1 to 64 printable ASCII" in answer.json()["message"]
    assert fetched(http, host, space, "a") == {}
