"""The official Python client's documents and records against a live server."""

from __future__ import annotations

import time

import pytest
from pinecone import (
    DenseVectorQuery,
    DocumentRecord,
    Pinecone,
    SchemaBuilder,
    ServerlessSpec,
    SparseVectorQuery,
    TextQuery,
)
from pinecone.exceptions import NotFoundException, PineconeApiException

from tests.support.api_server import ApiServer

_DEPLOYMENT = {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1"}
_ARTICLES = [
    {"_id": "article-1", "embedding": [1.0, 0.0, 0.0], "title": "Rome", "year": 2001, "tags": ["city"]},
    {"_id": "article-2", "embedding": [0.0, 1.0, 0.0], "title": "Paris", "year": 2002},
    {"_id": "article-3", "embedding": [0.0, 0.5, 1.0], "title": "Oslo", "year": 2003, "draft": True},
]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with ApiServer(tmp_path_factory.mktemp("api")) as server, Pinecone(api_key="any", host=server.url) as made:
        yield made


@pytest.fixture(scope="module")
def articles(client):
    """An index of documents, made with the client's own builder of schemas."""
    schema = (
        SchemaBuilder()
        .add_dense_vector_field("embedding", dimension=3, metric="cosine")
        .add_sparse_vector_field("terms")
        .build()
    )
    client.indexes.create(name="articles", schema=schema, deployment=_DEPLOYMENT)
    with client.index(name="articles") as index:
        yield index


def eventually(ask, wanted):
    """Ask until the answer is the wanted one, as the client's guides do after a write."""
    deadline = time.monotonic() + 10
    while (found := ask()) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def listed(index, namespace):
    return [item.id for page in index.documents.list(namespace=namespace).pages() for item in page.items]


def test_schema_of_a_document_index_is_described(client, articles):  # noqa: ARG001 - made by the fixture
    """The client reads the fields back by their types."""
    fields = client.indexes.describe("articles").schema.fields
    assert (fields["embedding"].dimension, fields["embedding"].metric) == (3, "cosine")
    assert type(fields["terms"]).__name__ == "SparseVectorField"


def test_documents_are_upserted_searched_and_fetched(articles):
    """By dense vector, with filter and fields; by ids, and by filter in pages."""
    records = [_ARTICLES[0], DocumentRecord(_ARTICLES[1]), {**_ARTICLES[2]}]
    assert articles.documents.upsert(namespace="news", documents=records).upserted_count == 3
    eventually(lambda: listed(articles, "news"), ["article-1", "article-2", "article-3"])
    query = DenseVectorQuery(field="embedding", values=[0.0, 1.0, 0.0])
    found = articles.documents.search(namespace="news", score_by=[query], top_k=2, include_fields=["title"])
    assert [(match.id, match.title) for match in found.matches] == [("article-2", "Paris"), ("article-3", "Oslo")]
    assert found.matches[0].score == pytest.approx(1.0)
    assert (found.namespace, found.usage.read_units) == ("news", 1)
    where = {"year": {"$lt": 2002}}
    found = articles.documents.search(namespace="news", score_by=[query], top_k=2, filter=where)
    assert [match.to_dict().keys() for match in found.matches] == [{"_id", "_score"}]
    fetched = articles.documents.fetch(namespace="news", ids=["article-1", "nobody"])
    assert {name: document.to_dict() for name, document in fetched.documents.items()} == {"article-1": _ARTICLES[0]}
    first = articles.documents.fetch(namespace="news", filter={"year": {"$gt": 0}}, limit=2)
    rest = articles.documents.fetch(
        namespace="news", filter={"year": {"$gt": 0}}, limit=2, pagination_token=first.pagination.next
    )
    assert [*first.documents, *rest.documents] == ["article-1", "article-2", "article-3"]
    assert rest.pagination is None


def test_documents_are_searched_by_their_sparse_field(articles):
    """Beside the dense one, of those that share an index."""
    documents = [
        {**_ARTICLES[0], "terms": {"indices": [3, 7], "values": [0.25, 0.5]}},
        {**_ARTICLES[1], "terms": {"indices": [3], "values": [4.0]}},
        _ARTICLES[2],
    ]
    articles.documents.upsert(namespace="terms", documents=documents)
    eventually(lambda: len(listed(articles, "terms")), 3)
    query = SparseVectorQuery(field="terms", sparse_values={"indices": [3, 7], "values": [1.0, 2.0]})
    found = articles.documents.search(namespace="terms", score_by=[query], top_k=5)
    assert [(match.id, match.score) for match in found.matches] == [("article-2", 4.0), ("article-1", 1.25)]


def test_documents_are_updated_and_deleted(articles):
    """By id and by filter, with the number that matched."""
    articles.documents.batch_upsert(namespace="old", documents=_ARTICLES, batch_size=2, show_progress=False)
    eventually(lambda: len(listed(articles, "old")), 3)
    assert articles.documents.update(namespace="old", documents=[{"_id": "article-1", "title": "Roma"}]) is not None
    counted = articles.documents.update(namespace="old", filter={"year": {"$gte": 2002}}, set_fields={"late": True})
    assert counted.matched_records == 2

    def title_and_marks():
        fetched = articles.documents.fetch(namespace="old", ids=[one["_id"] for one in _ARTICLES]).documents
        return fetched["article-1"].title, sorted(name for name, one in fetched.items() if one.get("late"))

    eventually(title_and_marks, ("Roma", ["article-2", "article-3"]))
    assert articles.documents.delete(namespace="old", filter={"draft": True}).matched_records == 1
    assert articles.documents.delete(namespace="old", ids=["article-1"]).matched_records is None
    eventually(lambda: listed(articles, "old"), ["article-2"])
    articles.documents.delete(namespace="old", delete_all=True)
    eventually(lambda: listed(articles, "old"), [])
    with pytest.raises(NotFoundException):
        articles.documents.delete(namespace="never", ids=["x"])


def test_what_documents_cannot_do_is_told_to_the_client(client, articles):
    """Text, removal of fields, vectors in an index of documents, missing vectors: each with its reason."""
    with pytest.raises(PineconeApiException, match="full-text search, which is not supported"):
        articles.documents.search(namespace="news", score_by=[TextQuery(fields=["title"], query="x")], top_k=1)
    with pytest.raises(PineconeApiException, match="can be set, not removed"):
        articles.documents.update(namespace="news", documents=[{"_id": "a", "_remove_fields": ["draft"]}])
    with pytest.raises(PineconeApiException, match="/documents/upsert"):
        articles.upsert(vectors=[{"id": "a", "values": [1.0, 2.0, 3.0]}])
    with pytest.raises(PineconeApiException, match="'embedding' of type dense_vector is required"):
        articles.documents.upsert(namespace="news", documents=[{"_id": "a", "title": "no vector"}])
    schema = SchemaBuilder().add_string_field("body", full_text_search=True).build()
    with pytest.raises(PineconeApiException, match="full-text search, which is not supported"):
        client.indexes.create(name="texts", schema=schema, deployment=_DEPLOYMENT)
    assert articles.query(vector=[1.0, 0.0, 0.0], top_k=3, namespace="news").matches == []


def test_records_are_searched_and_pages_fetched_by_metadata(client):
    """An index of vectors: records by vector and id, fetch by metadata, and text refused."""
    client.create_index("plain", dimension=3, spec=ServerlessSpec(cloud="aws", region="us-east-1"))
    with client.index(name="plain") as index:
        vectors = [
            {"id": f"v{n}", "values": [1.0, n, 0.0], "metadata": {"n": n, "kind": "even" if n % 2 == 0 else "odd"}}
            for n in range(7)
        ]
        index.upsert(vectors=vectors, namespace="ns")
        eventually(lambda: index.describe_index_stats().total_vector_count, 7)
        found = index.search(namespace="ns", top_k=2, vector={"values": [1.0, 0.0, 0.0]}, fields=["n"])
        assert [(hit.id, hit.fields) for hit in found.result.hits] == [("v0", {"n": 0}), ("v1", {"n": 1})]
        assert found.usage.read_units == 1
        found = index.search(namespace="ns", top_k=1, id="v3", filter={"kind": "odd"})
        assert found.result.hits[0].fields == {"n": 3, "kind": "odd"}
        with pytest.raises(PineconeApiException, match="no embedding model is configured"):
            index.search(namespace="ns", top_k=1, inputs={"text": "hello"})
        with pytest.raises(PineconeApiException, match="no embedding model is configured"):
            index.upsert_records(namespace="ns", records=[{"_id": "t", "text": "hello"}])
        seen, token = [], None
        while True:
            page = index.fetch_by_metadata(
                filter={"kind": "even"}, namespace="ns", limit=3, **({"pagination_token": token} if token else {})
            )
            seen += page.vectors
            token = page.pagination.next if page.pagination else None
            if not token:
                break
        assert seen == ["v0", "v2", "v4", "v6"]
