"""What official clients need of an answer and a plain server easily misses: each detail is pinned once."""

from __future__ import annotations

import pytest

VECTOR = [0.5, 0.25, 0.125, 1.0]
QUESTION = {"vector": VECTOR, "topK": 5}


@pytest.fixture
def filled(http, host, space):
    """A namespace with one record, visible; returns what a read of it says in its parameters."""
    record = {"id": "a", "values": VECTOR, "metadata": {"n": 1}}
    body = {"vectors": [record], "namespace": space}
    written = http.post(f"{host}/vectors/upsert", json=body, headers={"x-freshet-wait-visible-ms": "20000"})
    assert written.json()["visible"] is True
    return {"namespace": space}


def reads(http, host, named):
    """Every read of one namespace, by name."""
    return {
        "query": http.post(f"{host}/query", json={**QUESTION, **named}),
        "fetch": http.get(f"{host}/vectors/fetch", params={"ids": "a", **named}),
        "list": http.get(f"{host}/vectors/list", params=named),
        "fetch_by_metadata": http.post(f"{host}/vectors/fetch_by_metadata", json={"filter": {"n": 1}, **named}),
    }


def test_every_read_says_what_it_cost_and_how_fresh_it_is(http, host, filled):
    """`usage.readUnits` above zero, and the LSN that the answer shows."""
    for name, answer in reads(http, host, filled).items():
        assert answer.json()["usage"]["readUnits"] > 0, name
        assert int(answer.headers["x-pinecone-max-indexed-lsn"]) > 0, name


@pytest.mark.parametrize("named", [{"namespace": ""}, {"namespace": "__default__"}, {"namespace": "never-written"}])
def test_every_read_repeats_the_namespace_as_it_was_spelled(http, host, named):
    """Also one that does not exist."""
    for name, answer in reads(http, host, named).items():
        assert answer.json()["namespace"] == named["namespace"], name


def test_namespace_that_was_not_sent_is_empty_and_not_null(http, host):
    """Typed clients cannot take a null."""
    for name, answer in reads(http, host, {}).items():
        assert answer.json()["namespace"] == "", name


def test_match_without_values_has_an_empty_list(http, host, filled):
    """Present and empty where values were not asked for; metadata and sparse values are left out."""
    (match,) = http.post(f"{host}/query", json={**QUESTION, **filled}).json()["matches"]
    assert match == {"id": "a", "score": pytest.approx(1.0), "values": []}


def test_query_of_dedicated_nodes_is_answered_as_any_other(http, host, filled):
    """`scanFactor` and `maxCandidates` are taken within their bounds; null says nothing."""
    plain = http.post(f"{host}/query", json={**QUESTION, **filled}).json()
    for tuned in (
        {"scanFactor": 0.5, "maxCandidates": 5},
        {"scanFactor": 4, "maxCandidates": 100_000},
        {"scanFactor": None, "maxCandidates": None},
    ):
        answer = http.post(f"{host}/query", json={**QUESTION, **filled, **tuned})
        assert answer.status_code == 200, answer.text
        assert answer.json() == plain


@pytest.mark.parametrize(
    ("version", "queries", "status"),
    [
        (None, [], 200),
        ("2026-04", [], 200),
        ("2026-04", None, 200),
        ("2026-04", [{"values": VECTOR, "topK": 1}], 400),
        (None, [{"values": VECTOR, "topK": 1}], 400),
        ("2026-07", [{"values": VECTOR, "topK": 1}], 400),
        ("2026-07", [], 400),
        ("2026-10", [], 400),
        ("2026-07", None, 200),
    ],
)
def test_queries_in_one_request_are_refused_rather_than_passed_over(http, host, version, queries, status):
    """In every API version, since an answer to another question would be a lie; from 2026-07 on an empty list too."""
    headers = {} if version is None else {"X-Pinecone-Api-Version": version}
    answer = http.post(f"{host}/query", json={**QUESTION, "queries": queries}, headers=headers)
    assert answer.status_code == status, answer.text
    if status == 400:
        assert "'queries' is not supported" in answer.json()["message"]


def test_delete_by_query_parameters_does_the_same(http, host, filled):
    """The older way to delete."""
    answer = http.delete(f"{host}/vectors/delete", params={"ids": "a", **filled})
    assert (answer.status_code, answer.json()) == (200, {})
    seen = {"x-freshet-at-least": answer.headers["x-freshet-position"]}
    fetched = http.get(f"{host}/vectors/fetch", params={"ids": "a", **filled}, headers=seen)
    assert fetched.json()["vectors"] == {}


def test_page_of_records_ends_where_its_bytes_are_enough(http, make_index):
    """A page of large records has fewer than the limit, and a token for the rest."""
    host = make_index(dimension=20_000)
    names = [f"v{n:03}" for n in range(220)]
    for start in range(0, len(names), 55):
        vectors = [{"id": name, "values": [1] * 20_000, "metadata": {"k": 1}} for name in names[start : start + 55]]
        answer = http.post(
            f"{host}/vectors/upsert", json={"vectors": vectors}, headers={"x-freshet-wait-visible-ms": "20000"}
        )
        assert answer.json()["visible"] is True
    body = {"filter": {"k": 1}, "limit": 10_000}
    first = http.post(f"{host}/vectors/fetch_by_metadata", json=body).json()
    body["paginationToken"] = first["pagination"]["next"]
    second = http.post(f"{host}/vectors/fetch_by_metadata", json=body).json()
    assert "pagination" not in second
    assert [*first["vectors"], *second["vectors"]] == names
