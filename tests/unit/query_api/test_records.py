"""Searches of records: the surface of integrated embedding, by vectors that the client brings."""

from __future__ import annotations

import pytest

VECTOR = [1.0, 2.0, 3.0, 4.0]
OTHER = [4.0, 1.0, -3.0, 0.5]


@pytest.fixture
def records(http, host, space):
    """Two records of a namespace, visible; returns the path of its search."""
    vectors = [
        {"id": "a", "values": VECTOR, "metadata": {"title": "A", "n": 1, "tags": ["x"]}},
        {"id": "b", "values": OTHER, "metadata": {"title": "B", "n": 2}},
        {"id": "c", "values": [-1, -2, -3, -4]},
    ]
    answer = http.post(
        f"{host}/vectors/upsert",
        json={"vectors": vectors, "namespace": space},
        headers={"x-freshet-wait-visible-ms": "20000"},
    )
    assert answer.json()["visible"] is True
    return f"{host}/records/namespaces/{space}/search"


def hits(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]["hits"]


def test_search_by_vector_gives_hits_with_their_fields(http, records):
    """Best first, with `_id`, `_score`, all metadata as fields, and what it cost."""
    answer = http.post(records, json={"query": {"top_k": 2, "vector": {"values": VECTOR}}})
    first, second = hits(answer)
    assert first == {"_id": "a", "_score": pytest.approx(1.0), "fields": {"title": "A", "n": 1, "tags": ["x"]}}
    assert second["_id"] == "b"
    assert answer.json()["usage"] == {"read_units": 1}
    assert int(answer.headers["x-pinecone-max-indexed-lsn"]) > 0


def test_search_by_id_and_filter(http, records):
    """The record itself is a hit; an unknown id gives none."""
    query = {"top_k": 5, "id": "a"}
    assert [hit["_id"] for hit in hits(http.post(records, json={"query": query}))] == ["a", "b", "c"]
    found = hits(http.post(records, json={"query": {**query, "filter": {"n": {"$gte": 2}}}}))
    assert [hit["_id"] for hit in found] == ["b"]
    assert hits(http.post(records, json={"query": {"top_k": 5, "id": "nobody"}})) == []


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        (None, {"title": "A", "n": 1, "tags": ["x"]}),
        (["*"], {"title": "A", "n": 1, "tags": ["x"]}),
        (["title", "*"], {"title": "A", "n": 1, "tags": ["x"]}),
        (["n", "nobody"], {"n": 1}),
        ([], {}),
        ([f"f{n}" for n in range(99)] + ["title"], {"title": "A"}),
    ],
)
def test_hits_have_the_fields_that_were_asked_for(http, records, fields, shown):
    """All where none are named, and with `*`."""
    body = {"query": {"top_k": 1, "id": "a"}, "fields": fields}
    assert hits(http.post(records, json=body))[0]["fields"] == shown


def test_default_namespace_is_spelled_out_in_the_path(http, make_index):
    """`__default__` is where records without a namespace lie."""
    host = make_index()
    body = {"vectors": [{"id": "d", "values": VECTOR}]}
    http.post(f"{host}/vectors/upsert", json=body, headers={"x-freshet-wait-visible-ms": "20000"})
    answer = http.post(f"{host}/records/namespaces/__default__/search", json={"query": {"top_k": 1, "id": "d"}})
    assert [hit["_id"] for hit in hits(answer)] == ["d"]


def test_records_of_an_unknown_namespace_are_none(http, host):
    """200 and empty, as every read."""
    answer = http.post(f"{host}/records/namespaces/nobody-wrote/search", json={"query": {"top_k": 1, "id": "a"}})
    assert hits(answer) == []


QUERY = {"top_k": 1, "vector": {"values": VECTOR}}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"query": {"top_k": 1, "inputs": {"text": "hello"}}}, "no embedding model is configured"),
        ({"query": {**QUERY, "match_terms": {"terms": ["x"]}}}, "no embedding model is configured"),
        ({"query": QUERY, "rerank": {"model": "m", "rank_fields": ["t"]}}, "no reranking model is configured"),
        ({"query": QUERY, "fields": [f"f{n}" for n in range(101)]}, "the limit is 100"),
        ({"query": QUERY, "fields": "title"}, "fields"),
        ({"query": {"vector": {"values": VECTOR}}}, "query.top_k"),
        ({"query": {"top_k": 0, "id": "a"}}, "top_k"),
        ({"query": {"top_k": 10_001, "id": "a"}}, "10000"),
        ({"query": {"top_k": True, "id": "a"}}, "top_k"),
        ({"query": {"top_k": 1}}, "Either 'vector' or 'ID' must be provided"),
        ({"query": {"top_k": 1, "vector": {}}}, "Either 'vector' or 'ID' must be provided"),
        ({"query": {**QUERY, "id": "a"}}, "Cannot provide both 'ID' and 'vector'"),
        ({"query": {"top_k": 1, "vector": {"values": [1, 2]}}}, "dimension"),
        ({"query": {"top_k": 1, "vector": {"values": ["1"] * 4}}}, "numbers"),
        ({"query": {"top_k": 1, "vector": VECTOR}}, "query.vector"),
        ({"query": {"top_k": 1, "vector": {"sparse_indices": [1], "sparse_values": [1, 2]}}}, "as many values"),
        ({"query": {**QUERY, "filter": {"a": {"$not": 1}}}}, "$not"),
        ({"query": {**QUERY, "filter": []}}, "query.filter"),
        ({}, "query"),
    ],
)
def test_a_bad_search_is_refused_in_the_control_planes_words(http, records, body, says):
    """400 with `status` and `error`."""
    answer = http.post(records, json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()
    assert (error["status"], error["error"]["code"]) == (400, "INVALID_ARGUMENT")
    assert says in error["error"]["message"]


@pytest.mark.parametrize("content", [b'{"_id": "a", "text": "hello"}\n', b"", b"not json"])
def test_records_of_text_cannot_be_upserted(http, host, space, content):
    """There is no model to embed them; the answer says what to do instead."""
    answer = http.post(
        f"{host}/records/namespaces/{space}/upsert", content=content, headers={"content-type": "application/x-ndjson"}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "INVALID_ARGUMENT"
    assert "no embedding model is configured" in answer.json()["error"]["message"]


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 100_000])
def test_a_search_that_is_no_object_is_refused(http, records, content):
    """In the control plane's words too."""
    answer = http.post(records, content=content)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "INVALID_ARGUMENT"
