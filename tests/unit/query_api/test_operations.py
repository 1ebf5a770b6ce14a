"""Health, readiness, metrics, the document, and errors that are our own."""

from __future__ import annotations

import time

import pytest

from producer.log.sqlite import SqliteLog
from query_api.reads import Reads
from schemas.errors import LogUnavailable

DOCUMENT_OPERATIONS = ("upsert", "search", "fetch", "list", "delete", "update")
QUESTION = {"vector": [1, 0, 0, 0], "topK": 1}


def test_a_running_server_is_alive_and_ready(server, http, host):
    """Both answer 200; readiness shows every partition of every index."""
    assert http.get(f"{server.url}/healthz").json() == {"status": "ok"}
    assert http.post(f"{host}/query", json=QUESTION).status_code == 200
    deadline = time.monotonic() + 20
    while (body := http.get(f"{server.url}/readyz")).status_code != 200:
        # The query waited for one partition only.
        assert time.monotonic() < deadline, body.text
    assert body.json()["ready"] is True
    assert all(len(one["partitions"]) == 4 for one in body.json()["indexes"])


def test_metrics_count_requests_by_operation_and_status(server, http, host):
    """Hot routes and the framework's alike."""
    http.post(f"{host}/query", json=QUESTION)
    http.post(f"{host}/query", json={})
    http.get(f"{host}/vectors/list")
    text = http.get(f"{server.url}/metrics").text
    for line in (
        'freshet_requests_total{operation="query",status="200"}',
        'freshet_requests_total{operation="query",status="400"}',
        'freshet_requests_total{operation="list_ids",status="200"}',
        "freshet_applied_offset{index=",
    ):
        assert line in text, text


def test_one_document_covers_all_routes(server, http):
    """The hot ones with their bodies too, and every reference resolves."""
    document = http.get(f"{server.url}/openapi.json").json()
    assert {
        "/vectors/upsert", "/query", "/vectors/fetch", "/vectors/update", "/vectors/delete", "/vectors/list",
        "/describe_index_stats", "/namespaces", "/namespaces/{name}", "/indexes", "/indexes/{name}", "/collections",
        "/vectors/fetch_by_metadata", "/records/namespaces/{namespace}/search",
        "/records/namespaces/{namespace}/upsert",
        *(f"/namespaces/{{namespace}}/documents/{name}" for name in DOCUMENT_OPERATIONS),
        "/backups", "/healthz", "/readyz", "/metrics",
    } <= document["paths"].keys()  # fmt: skip
    body = document["paths"]["/query"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/QueryBody"}
    assert {"topK", "explain"} <= document["components"]["schemas"]["QueryBody"]["properties"].keys()
    assert "explain" in document["components"]["schemas"]["QueryAnswer"]["properties"]

    def references(node):
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    for reference in references(document):
        name = reference.removeprefix("#/components/schemas/")
        assert name in document["components"]["schemas"], reference


@pytest.mark.parametrize(("method", "path"), [("query", "/query"), ("stats", "/describe_index_stats")])
def test_a_mistake_of_our_own_is_answered_and_the_server_goes_on(http, host, monkeypatch, method, path):
    """500 with code 13 and without the traceback, from a hot route and from the framework's."""

    async def broken(*_, **__):
        raise RuntimeError("planted")

    with monkeypatch.context() as patched:
        patched.setattr(Reads, method, broken)
        answer = http.post(f"{host}{path}", json=QUESTION)
    assert answer.status_code == 500
    assert answer.json()["code"] == 13
    assert "planted" not in answer.text
    assert http.post(f"{host}{path}", json=QUESTION if method == "query" else {}).status_code == 200


def test_answers_carry_a_request_id(server, http, host):
    """Another one each time, on both planes."""
    seen = {
        http.get(url).headers["x-pinecone-request-id"]
        for url in (f"{host}/describe_index_stats", f"{server.url}/indexes", f"{host}/nothing")
    }
    assert len(seen) == 3


@pytest.mark.parametrize("outcome", ["refused", "unknown"])
def test_a_log_that_does_not_answer_says_whether_the_write_may_still_appear(http, host, space, monkeypatch, outcome):
    """503 with `refused` or `unknown` in the details, and when to try again; reads go on."""

    async def away(*_):
        raise LogUnavailable("The log does not answer.", outcome=outcome, retry_after_seconds=2)

    body = {"vectors": [{"id": "a", "values": [1, 2, 3, 4]}], "namespace": space}
    with monkeypatch.context() as patched:
        patched.setattr(SqliteLog, "append", away)
        answer = http.post(f"{host}/vectors/upsert", json=body)
    assert answer.status_code == 503
    assert answer.json()["code"] == 14
    assert answer.json()["details"][0]["outcome"] == outcome
    assert answer.headers["retry-after"] == "2"
    assert http.post(f"{host}/query", json={**QUESTION, "namespace": space}).json()["matches"] == []
    assert http.post(f"{host}/vectors/upsert", json=body).status_code == 200
