"""Documents: an index whose schema names its own vector fields, from create to delete."""

from __future__ import annotations

import pytest

DEPLOYMENT = {"deployment_type": "managed", "cloud": "aws", "region": "eu"}
FIELDS = {
    "embedding": {"type": "dense_vector", "dimension": 3, "metric": "cosine"},
    "terms": {"type": "sparse_vector"},
}
SPARSE = {"indices": [7, 3], "values": [0.5, 0.25]}
DOCUMENTS = [
    {"_id": "a", "embedding": [1, 0, 0], "terms": SPARSE, "title": "A", "year": 2001, "tags": ["x", "y"], "old": True},
    {"_id": "b", "embedding": [0.5, 0.5, 0], "title": "B", "year": 2002},
    {"_id": "c/1", "embedding": [0, 0.4, 1], "year": 2003, "gone": None},
]
WHOLE = [
    {**DOCUMENTS[0], "terms": {"indices": [3, 7], "values": [0.25, 0.5]}},
    DOCUMENTS[1],
    {"_id": "c/1", "embedding": [0, 0.4, 1], "year": 2003},
]


@pytest.fixture(scope="module")
def library(make_index):
    """An index of documents."""
    return make_index(schema={"fields": FIELDS}, deployment=DEPLOYMENT, dimension=None, metric=None)


@pytest.fixture
def call(http, library, space):
    """Call an operation of documents in a namespace of the test's own; reads wait for the last write."""
    seen = {}

    def called(operation, status=200, **body):
        answer = http.post(f"{library}/namespaces/{space}/documents/{operation}", json=body, headers=seen)
        assert answer.status_code == status, answer.text
        if "x-pinecone-request-lsn" in answer.headers:
            seen.update({"x-freshet-at-least": answer.headers["x-freshet-position"], "x-freshet-wait-ms": "20000"})
        return answer.json()

    return called


def dense(*values, **more):
    return {"score_by": [{"type": "dense_vector", "field": "embedding", "values": list(values)}], "top_k": 5, **more}


def refused(answer, says):
    assert (answer["status"], answer["error"]["code"]) == (400, "INVALID_ARGUMENT")
    assert says in answer["error"]["message"], answer


def test_documents_come_back_whole(call, space):
    """Vectors, typed fields and metadata; null fields are left out, missing ids are absent."""
    assert call("upsert", documents=DOCUMENTS) == {"upserted_count": 3}
    fetched = call("fetch", ids=["a", "b", "c/1", "nobody"])
    assert fetched["documents"] == {document["_id"]: document for document in WHOLE}
    assert (fetched["namespace"], fetched["usage"]) == (space, {"read_units": 1})
    for names in ([], ["*"], ["title", "*"], None):
        assert call("fetch", ids=["b"], include_fields=names)["documents"]["b"] == WHOLE[1]
    assert call("fetch", ids=["a"], include_fields=["year", "terms", "nobody"])["documents"] == {
        "a": {"_id": "a", "year": 2001, "terms": WHOLE[0]["terms"]}
    }


def test_an_upsert_replaces_the_whole_document(call):
    """Fields that it does not name are gone."""
    call("upsert", documents=DOCUMENTS[:1])
    call("upsert", documents=[{"_id": "a", "embedding": [0, 1, 0], "title": "new"}])
    assert call("fetch", ids=["a"])["documents"] == {"a": {"_id": "a", "embedding": [0, 1, 0], "title": "new"}}


def test_search_ranks_by_the_dense_field(call, space):
    """Only ids and scores unless fields are named; filters choose among the documents."""
    call("upsert", documents=DOCUMENTS)
    found = call("search", **dense(1, 0, 0))
    assert [match["_id"] for match in found["matches"]] == ["a", "b", "c/1"]
    assert found["matches"][0] == {"_id": "a", "_score": pytest.approx(1.0)}
    assert (found["namespace"], found["usage"]) == (space, {"read_units": 1})
    assert call("search", **dense(1, 0, 0, include_fields=[]))["matches"] == found["matches"]
    (best,) = call("search", **dense(0, 0, 1, top_k=1, include_fields=["year", "title"]))["matches"]
    assert best == {"_id": "c/1", "_score": pytest.approx(0.92848, abs=1e-5), "year": 2003}
    (whole,) = call("search", **dense(1, 0, 0, top_k=1, include_fields=["*"]))["matches"]
    assert whole == {**WHOLE[0], "_score": pytest.approx(1.0)}
    matches = call("search", **dense(1, 0, 0, filter={"year": {"$gt": 2001}}))["matches"]
    assert [match["_id"] for match in matches] == ["b", "c/1"]
    named = {"score_by": [{"type": "dense_vector", "fields": ["embedding"], "values": [1, 0, 0]}], "top_k": 1}
    assert call("search", **named)["matches"][0]["_id"] == "a"


def test_search_ranks_by_the_sparse_field(call):
    """By products over shared indices, beside a dense field of another metric; who shares none is no match."""
    documents = [
        {"_id": "a", "embedding": [1, 0, 0], "terms": SPARSE, "year": 1},
        {"_id": "b", "embedding": [1, 0, 0], "terms": {"indices": [3], "values": [4]}, "year": 2},
        {"_id": "c", "embedding": [1, 0, 0], "terms": {"indices": [9], "values": [1]}},
        {"_id": "d", "embedding": [1, 0, 0]},
    ]
    call("upsert", documents=documents)
    clause = {"type": "sparse_vector", "field": "terms", "sparse_values": {"indices": [3, 7], "values": [1, 2]}}
    found = call("search", score_by=[clause], top_k=5, include_fields=["year"])["matches"]
    assert found == [{"_id": "b", "_score": 4, "year": 2}, {"_id": "a", "_score": 1.25, "year": 1}]
    found = call("search", score_by=[clause], top_k=5, filter={"year": 1})["matches"]
    assert found == [{"_id": "a", "_score": 1.25}]


def test_documents_are_fetched_by_filter_in_pages(call):
    """In byte order of their ids, each once; the last page has no pagination."""
    call("upsert", documents=[{"_id": f"d{n}", "embedding": [1, n, 0], "kind": n % 2} for n in range(9)])
    seen, body = [], {"filter": {"kind": 0}, "limit": 2, "include_fields": ["kind"]}
    while True:
        page = call("fetch", **body)
        seen += page["documents"].values()
        if "pagination" not in page:
            break
        body["pagination_token"] = page["pagination"]["next"]
    assert seen == [{"_id": f"d{n}", "kind": 0} for n in (0, 2, 4, 6, 8)]


def test_ids_of_documents_are_listed_in_pages(call, space):
    """By prefix, in byte order."""
    call("upsert", documents=[{"_id": f"d{n}", "embedding": [1, n, 0]} for n in range(5)] + DOCUMENTS[:1])
    first = call("list", prefix="d", limit=3)
    assert first["documents"] == [{"_id": "d0"}, {"_id": "d1"}, {"_id": "d2"}]
    assert (first["namespace"], first["usage"]) == (space, {"read_units": 1})
    second = call("list", limit=3, pagination_token=first["pagination"]["next"])
    assert second["documents"] == [{"_id": "d3"}, {"_id": "d4"}]
    assert "pagination" not in second
    assert len(call("list")["documents"]) == 6


def test_documents_are_deleted_by_ids_by_filter_and_all(call):
    """A delete by filter says how many it matched; the others do not know."""
    call("upsert", documents=DOCUMENTS)
    assert call("delete", filter={"year": {"$gte": 2002}}) == {"matched_records": 2}
    assert [item["_id"] for item in call("list")["documents"]] == ["a"]
    call("upsert", documents=DOCUMENTS)
    assert call("delete", ids=["a", "nobody"]) == {}
    assert [item["_id"] for item in call("list")["documents"]] == ["b", "c/1"]
    assert call("delete", delete_all=True) == {}
    assert call("list")["documents"] == []


def test_delete_in_an_unknown_namespace_is_not_found(call):
    """In the control plane's words."""
    for body in ({"ids": ["a"]}, {"filter": {"x": 1}}, {"delete_all": True}):
        assert call("delete", status=404, **body)["error"]["code"] == "NOT_FOUND"


def test_updates_set_fields_and_keep_the_others(call):
    """Of single documents, vectors too; of all that match a filter, metadata."""
    call("upsert", documents=DOCUMENTS)
    patch = [{"_id": "a", "title": "AA", "new": 1}, {"_id": "b", "embedding": [0, 0, 1]}, {"_id": "nobody", "x": 1}]
    assert call("update", documents=patch) == {}
    documents = call("fetch", ids=["a", "b", "nobody"])["documents"]
    assert documents == {
        "a": {**WHOLE[0], "title": "AA", "new": 1},
        "b": {**WHOLE[1], "embedding": [0, 0, 1]},
    }
    assert call("update", filter={"year": {"$gte": 2002}}, set_fields={"late": True}) == {"matched_records": 2}
    assert call("fetch", filter={"late": True}, include_fields=["year"])["documents"].keys() == {"b", "c/1"}


@pytest.mark.parametrize(
    ("operation", "body", "says"),
    [
        ("upsert", {"documents": []}, "1 to 1000 documents"),
        ("upsert", {"documents": [{"_id": str(n), "embedding": [1, 0, 0]} for n in range(1_001)]}, "got 1001"),
        ("upsert", {}, "documents"),
        ("upsert", {"documents": [1]}, "documents.0"),
        ("upsert", {"documents": [{"embedding": [1, 0, 0]}]}, "position 0: '_id' must be a string"),
        ("upsert", {"documents": [{"_id": 1, "embedding": [1, 0, 0]}]}, "'_id' must be a string"),
        ("upsert", {"documents": [{"_id": "é", "embedding": [1, 0, 0]}]}, "ASCII"),
        ("upsert", {"documents": [*DOCUMENTS, DOCUMENTS[1]]}, "position 3 has the '_id' of another"),
        ("upsert", {"documents": [*DOCUMENTS, {"_id": "z", "title": "z"}]},
         "Document at position 3 ('z'): field 'embedding' of type dense_vector is required"),
        ("upsert", {"documents": [{"_id": "a", "embedding": [1, 0]}]}, "dimension 2 does not match"),
        ("upsert", {"documents": [{"_id": "a", "embedding": "x"}]}, "list of numbers"),
        ("upsert", {"documents": [{"_id": "a", "embedding": [0, 0, 0]}]}, "non-zero"),
        ("upsert", {"documents": [{"_id": "a", "embedding": [1, 0, 0], "terms": [1]}]}, "'terms' must be an object"),
        ("upsert", {"documents": [{"_id": "a", "embedding": [1, 0, 0], "m": {"x": 1}}]}, "for field 'm'"),
        ("upsert", {"documents": [{"_id": "a", "embedding": [1, 0, 0], "_x": 1}]}, "'_x' begins with '_'"),
        ("upsert", {"documents": [{"_id": "a", "embedding": [1, 0, 0], "$x": 1}]}, "cannot start with '$'"),
        ("upsert", {"documents": [{"_id": "a", "embedding": [1, 0, 0], "_remove_fields": ["x"]}]}, "an update"),
        ("search", {"score_by": [], "top_k": 1}, "1 to 100 clauses, got 0"),
        ("search", {"top_k": 1}, "score_by"),
        ("search", {"score_by": [{"type": "text", "fields": ["t"], "query": "x"}], "top_k": 1}, "full-text search"),
        ("search", {"score_by": [{"type": "query_string", "query": "x"}], "top_k": 1}, "full-text search"),
        ("search", {"score_by": [{"type": "embed", "field": "t", "query": "x"}], "top_k": 1}, "no embedding model"),
        ("search", {"score_by": [{"type": "sparse_embed", "field": "t", "query": "x"}], "top_k": 1}, "no embedding"),
        ("search", {"score_by": [{"type": "odd"}], "top_k": 1}, "must have the type dense_vector or sparse_vector"),
        ("search", {"score_by": [{}], "top_k": 1}, "must have the type dense_vector or sparse_vector, got 'null'"),
        ("search", dense(1, 0, 0, score_by=dense(1, 0, 0)["score_by"] * 2), "must stand alone"),
        ("search", dense(1, 0, 0, score_by=[{"type": "dense_vector", "field": "terms", "values": [1, 0, 0]}]),
         "'terms' is not a dense_vector field"),
        ("search", dense(1, 0, 0, score_by=[{"type": "dense_vector", "values": [1, 0, 0]}]), "names a field"),
        ("search", dense(1, 0, 0, score_by=[{"type": "dense_vector", "fields": ["a", "b"]}]), "exactly one field"),
        ("search", dense(), "needs 'values'"),
        ("search", dense(1, 0), "dimension 2 does not match"),
        ("search", {"score_by": [{"type": "sparse_vector", "field": "terms"}], "top_k": 1}, "needs 'sparse_values'"),
        ("search", {"score_by": [{"type": "sparse_vector", "field": "embedding", "sparse_values": SPARSE}], "top_k": 1},
         "'embedding' is not a sparse_vector field"),
        ("search", dense(1, 0, 0, top_k=0), "top_k"),
        ("search", dense(1, 0, 0, top_k=10_001), "10000"),
        ("search", dense(1, 0, 0, filter={"t": {"$match_phrase": "x"}}), "'$match_phrase' for field 't'"),
        ("fetch", {}, "one of 'ids' and 'filter'"),
        ("fetch", {"ids": ["a"], "filter": {"x": 1}}, "one of 'ids' and 'filter'"),
        ("fetch", {"ids": []}, "at least one id"),
        ("fetch", {"ids": [str(n) for n in range(1_001)]}, "1000"),
        ("fetch", {"ids": ["a"], "pagination_token": "x"}, "goes with a 'filter'"),
        ("fetch", {"filter": {}}, "Empty filter"),
        ("fetch", {"filter": {"x": 1}, "limit": 10_001}, "1 to 10000"),
        ("fetch", {"filter": {"x": 1}, "pagination_token": "x"}, "Invalid pagination token"),
        ("list", {"limit": 101}, "1 to 100"),
        ("list", {"prefix": "x" * 513}, "513"),
        ("list", {"pagination_token": "x"}, "Invalid pagination token"),
        ("delete", {}, "exactly one of"),
        ("delete", {"ids": ["a"], "delete_all": True}, "exactly one of"),
        ("delete", {"ids": []}, "exactly one of"),
        ("delete", {"filter": {}}, "empty metadata filter"),
        ("delete", {"ids": [str(n) for n in range(1_001)]}, "1000"),
        ("update", {}, "needs 'documents', or a 'filter'"),
        ("update", {"filter": {}, "set_fields": {"x": 1}}, "needs 'documents', or a 'filter'"),
        ("update", {"filter": {"x": 1}}, "'set_fields'"),
        ("update", {"filter": {"x": 1}, "set_fields": {"embedding": [1, 0, 0]}}, "is a vector"),
        ("update", {"filter": {"x": 1}, "set_fields": {"y": 1}, "remove_fields": ["z"]}, "can be set, not removed"),
        ("update", {"documents": [{"_id": "a", "_remove_fields": ["title"]}]}, "can be set, not removed"),
        ("update", {"documents": [{"_id": "a", "title": None}]}, "field 'title' is null"),
        ("update", {"documents": [{"_id": "a"}]}, "changes no field"),
        ("update", {"documents": [{"_id": "a", "x": 1}], "filter": {"x": 1}}, "cannot be combined"),
        ("update", {"documents": [{"_id": "a", "x": 1}, {"_id": "a", "x": 2}]}, "another one in the request"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_with_its_reason(call, operation, body, says):
    """In the control plane's words, and nothing is written."""
    refused(call(operation, status=400, **body), says)


@pytest.mark.parametrize("operation", ["upsert", "search", "fetch", "list", "delete", "update"])
@pytest.mark.parametrize("content", [b"", b"[1]", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(http, library, space, operation, content):
    """Whatever the bytes are."""
    answer = http.post(f"{library}/namespaces/{space}/documents/{operation}", content=content)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/vectors/upsert", {"vectors": [{"id": "a", "values": [1, 0, 0]}]}),
        ("/vectors/update", {"id": "a", "setMetadata": {"x": 1}}),
        ("/vectors/update", {"filter": {"x": 1}, "setMetadata": {"x": 1}}),
        ("/vectors/delete", {"ids": ["a"]}),
        ("/vectors/delete", {"deleteAll": True}),
    ],
)
def test_vectors_cannot_be_written_to_an_index_of_documents(http, library, space, path, body):
    """400 that points at the documents' endpoints, in the data plane's words."""
    answer = http.post(f"{library}{path}", json={**body, "namespace": space})
    assert answer.status_code == 400
    assert answer.json()["code"] == 3
    assert "/documents/upsert" in answer.json()["message"]


def test_vectors_read_from_an_index_of_documents_are_none(http, library, call, space):
    """Query, fetch, list, fetch by metadata and records succeed and are empty; counts are of documents."""
    call("upsert", documents=DOCUMENTS)
    call("fetch", ids=["a"])
    named = {"namespace": space}
    found = http.post(f"{library}/query", json={"vector": [1, 0, 0], "topK": 5, **named})
    assert (found.status_code, found.json()["matches"]) == (200, [])
    assert http.get(f"{library}/vectors/fetch", params={"ids": "a", **named}).json()["vectors"] == {}
    listed = http.get(f"{library}/vectors/list", params={"limit": 1, **named}).json()
    assert listed["vectors"] == []
    assert "pagination" not in listed
    paged = http.post(f"{library}/vectors/fetch_by_metadata", json={"filter": {"year": 2001}, **named}).json()
    assert paged["vectors"] == {}
    records = http.post(f"{library}/records/namespaces/{space}/search", json={"query": {"top_k": 5, "id": "a"}})
    assert records.json()["result"]["hits"] == []
    assert http.get(f"{library}/describe_index_stats").json()["namespaces"][space] == {"vectorCount": 3}


@pytest.mark.parametrize("operation", ["upsert", "search", "fetch", "list", "delete", "update"])
def test_documents_of_an_index_of_vectors_are_refused(http, host, space, operation):
    """With what to use instead."""
    bodies = {
        "upsert": {"documents": [{"_id": "a"}]},
        "search": dense(1, 0, 0),
        "fetch": {"ids": ["a"]},
        "list": {},
        "delete": {"ids": ["a"]},
        "update": {"documents": [{"_id": "a", "x": 1}]},
    }
    answer = http.post(f"{host}/namespaces/{space}/documents/{operation}", json=bodies[operation])
    assert answer.status_code == 400
    refused(answer.json(), "holds vectors, not documents")


def test_declared_fields_are_checked_and_alone_filterable(http, make_index, space):
    """A value of another type is refused with the field, and a filter on a field that is not declared too."""
    types = {"title": "string", "tags": "string_list", "old": "boolean", "year": "integer", "price": "float"}
    fields = {name: {"type": kind, "filterable": True} for name, kind in types.items()}
    schema = {"fields": {"embedding": FIELDS["embedding"], **fields}}
    path = make_index(schema=schema, deployment=DEPLOYMENT, dimension=None, metric=None)
    path += f"/namespaces/{space}/documents"
    good = {"title": "t", "tags": ["x"], "old": False, "year": 2001, "price": 2.5, "free": {"a": 1}["a"]}
    document = {"_id": "a", "embedding": [1, 0, 0], **good}
    assert http.post(f"{path}/upsert", json={"documents": [document]}).status_code == 200
    assert http.post(f"{path}/upsert", json={"documents": [{**document, "year": 2e3, "price": 3}]}).status_code == 200
    bad = {"title": 1, "tags": "x", "old": 0, "year": 1.5, "price": "2"}
    for name, value in bad.items():
        for operation, body in (
            ("upsert", {"documents": [{**document, name: value}]}),
            ("update", {"documents": [{"_id": "a", name: value}]}),
            ("update", {"filter": {"title": "t"}, "set_fields": {name: value}}),
        ):
            answer = http.post(f"{path}/{operation}", json=body)
            assert answer.status_code == 400, (operation, name)
            assert f"field '{name}' is declared as {types[name]}" in answer.json()["error"]["message"]
    answer = http.post(f"{path}/fetch", json={"filter": {"free": 1}})
    refused(answer.json(), "Metadata field 'free' is not filterable")


def test_an_index_of_documents_describes_its_fields(server, http, make_index):
    """As they were declared, beside what older clients read."""
    make_index(name="shelf", schema={"fields": FIELDS}, deployment=DEPLOYMENT, dimension=None, metric=None)
    model = http.get(f"{server.url}/indexes/shelf").json()
    assert model["schema"] == {"fields": FIELDS}
    assert (model["dimension"], model["metric"], model["vector_type"]) == (3, "cosine", "dense")


def test_an_index_of_sparse_documents_needs_its_sparse_field(http, make_index, space):
    """A document without it is refused; with it, it comes back."""
    path = make_index(
        schema={"fields": {"terms": {"type": "sparse_vector"}}}, deployment=DEPLOYMENT, dimension=None, metric=None
    )
    path += f"/namespaces/{space}/documents"
    answer = http.post(f"{path}/upsert", json={"documents": [{"_id": "a", "title": "x"}]})
    refused(answer.json(), "field 'terms' of type sparse_vector is required")
    written = http.post(f"{path}/upsert", json={"documents": [{"_id": "a", "terms": SPARSE}]})
    seen = {"x-freshet-at-least": written.headers["x-freshet-position"], "x-freshet-wait-ms": "20000"}
    fetched = http.post(f"{path}/fetch", json={"ids": ["a"]}, headers=seen).json()["documents"]
    assert fetched == {"a": {"_id": "a", "terms": WHOLE[0]["terms"]}}
    clause = {"type": "sparse_vector", "field": "terms", "sparse_values": {"indices": [7], "values": [2]}}
    answer = http.post(f"{path}/search", json={"score_by": [clause], "top_k": 1}, headers=seen)
    assert answer.json()["matches"] == [{"_id": "a", "_score": 1}]


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"title": {"type": "string", "filterable": True}}, 400, "no vector field, only 'title'"),
        ({**FIELDS, "other": FIELDS["embedding"]}, 400, "'embedding' and 'other' are both of type dense_vector"),
        ({**FIELDS, "other": {"type": "sparse_vector"}}, 400, "'terms' and 'other' are both of type sparse_vector"),
        ({**FIELDS, "_values": {"type": "dense_vector", "dimension": 3}}, 400, "are both of type dense_vector"),
        ({"e": FIELDS["embedding"], "_sparse_values": {"type": "sparse_vector"}}, 400, "reserved names"),
        ({"e": {"type": "dense_vector"}}, 400, "'e' needs a dimension"),
        ({"e": {"type": "dense_vector", "dimension": 0}}, 400, "Dimension"),
        ({"e": {"type": "dense_vector", "dimension": 3, "metric": "odd"}}, 400, "Metric"),
        ({"e": {"type": "sparse_vector", "dimension": 3}}, 400, "dimension should not be specified"),
        ({"_e": FIELDS["embedding"]}, 400, "begins with neither '_' nor '$'"),
        ({"e" * 65: FIELDS["embedding"]}, 400, "1 to 64 bytes"),
        ({**FIELDS, "t": {"type": "string", "full_text_search": {}}}, 400, "full-text search, which is not supported"),
        ({**FIELDS, "t": {"type": "string", "embed": {}}}, 400, "no embedding model is configured"),
        ({**FIELDS, "t": {"type": "string", "sparse_embed": {}}}, 400, "no embedding model is configured"),
        ({**FIELDS, "t": {"type": "semantic_text", "model": "m"}}, 400, "no embedding model is configured"),
        ({**FIELDS, "t": {"type": "string"}}, 400, "'t' must say 'filterable': true"),
        ({**FIELDS, "t": {"type": "string", "filterable": False}}, 400, "'t' must say 'filterable': true"),
        ({**FIELDS, "t": {"type": "date", "filterable": True}}, 400, "unknown type 'date'"),
        ({**FIELDS, "t": {}}, 400, "'t' must say 'filterable': true"),
        ({**FIELDS, "t": []}, 422, "schema.fields.t"),
    ],
)
def test_a_schema_that_cannot_be_is_refused_at_create(server, http, fields, status, says):
    """With the field and the reason."""
    answer = http.post(
        f"{server.url}/indexes", json={"name": "never", "schema": {"fields": fields}, "deployment": DEPLOYMENT}
    )
    assert answer.status_code == status, answer.text
    assert says in answer.json()["error"]["message"]
