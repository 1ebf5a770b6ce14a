"""The official Python client against a live server: the "Upsert data" guide, step by step."""

from __future__ import annotations

import itertools
import random
import time

import httpx2
import pytest
from pinecone import Pinecone, ServerlessSpec
from pinecone.exceptions import NotFoundException, PineconeApiException

from tests.support.api_server import ApiServer

EIGHT = {name: [round(0.1 * place, 1)] * 8 for place, name in enumerate("ABCDEFGH", start=1)}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ApiServer(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with Pinecone(api_key="any", host=server.url) as made:
        yield made


@pytest.fixture(scope="module")
def index(client):
    """Index "pinecone-index" of the guide: dimension 8. Dot product, so that sparse values belong to it as well."""
    made = client.create_index(
        "pinecone-index", dimension=8, metric="euclidean", spec=ServerlessSpec(cloud="aws", region="us-east-1")
    )
    assert made.status.ready
    with client.Index("pinecone-index") as opened:
        yield opened


def records(names, **extra):
    return [{"id": name, "values": EIGHT[name], **extra} for name in names]


def wait_for_counts(index, **counts):
    """Check data freshness as the guide does: ask for the counts until they are the expected ones."""
    wanted = {name or "__default__": count for name, count in counts.items()}
    deadline = time.monotonic() + 10
    while True:
        stats = index.describe_index_stats()
        if {name: one.vector_count for name, one in stats.namespaces.items()} == wanted:
            return stats
        assert time.monotonic() < deadline, stats
        time.sleep(0.01)


def test_guide_upsert_namespaces_and_freshness(index):
    """Records go to the default namespace, to others beside it, and the counts arrive at what was written."""
    assert index.upsert(vectors=records("ABCD")).upserted_count == 4
    wait_for_counts(index, __default__=4)
    assert index.upsert(vectors=records("ABCD"), namespace="ns1").upserted_count == 4
    assert index.upsert(vectors=records("EFGH"), namespace="ns2").upserted_count == 4
    stats = wait_for_counts(index, __default__=4, ns1=4, ns2=4)
    assert stats.dimension == 8
    assert stats.total_vector_count == 12
    fetched = index.fetch(ids=["D"])
    assert list(fetched.vectors["D"].values) == EIGHT["D"]
    found = index.query(namespace="ns2", vector=EIGHT["G"], top_k=2, include_values=True)
    assert next(match.id for match in found.matches) == "G"
    assert found.matches[0].score == 0
    assert found.namespace == "ns2"
    assert index.query(vector=EIGHT["A"], top_k=10).namespace == ""


def test_guide_upsert_overwrites_the_whole_record(index):
    """If a record id exists, upsert overwrites the entire record; update changes only a part."""
    index.upsert(vectors=[{"id": "A", "values": EIGHT["A"], "metadata": {"old": True}}], namespace="over")
    index.upsert(vectors=[{"id": "A", "values": EIGHT["B"]}], namespace="over")
    index.update(id="A", set_metadata={"genre": "drama"}, namespace="over")
    wait_for_counts(index, __default__=4, ns1=4, ns2=4, over=1)
    deadline = time.monotonic() + 10
    while True:
        record = index.fetch(ids=["A"], namespace="over").vectors["A"]
        if record.metadata == {"genre": "drama"}:
            break
        assert time.monotonic() < deadline, record
    assert list(record.values) == EIGHT["B"]
    index.delete(delete_all=True, namespace="over")
    wait_for_counts(index, __default__=4, ns1=4, ns2=4, over=0)


def test_guide_upsert_with_metadata(client):
    """Metadata comes back with matches, and filters choose records by it."""
    client.create_index("metadata", dimension=8, metric="dotproduct", spec=ServerlessSpec(cloud="aws", region="eu"))
    documents = [
        {"genre": "comedy", "year": 2020},
        {"genre": "documentary", "year": 2019},
        {"genre": "comedy", "year": 2019},
        {"genre": "drama"},
    ]
    vectors = [{"id": name, "values": EIGHT[name], "metadata": m} for name, m in zip("ABCD", documents, strict=True)]
    with client.Index("metadata") as index:
        assert index.upsert(vectors=vectors).upserted_count == 4
        wait_for_counts(index, __default__=4)
        comedies = index.query(vector=EIGHT["A"], top_k=10, filter={"genre": "comedy"}, include_metadata=True)
        assert [(match.id, match.metadata) for match in comedies.matches] == [("C", documents[2]), ("A", documents[0])]
        where = {"year": {"$lt": 2020}, "genre": {"$in": ["documentary", "x"]}}
        assert [match.id for match in index.query(vector=EIGHT["A"], top_k=10, filter=where).matches] == ["B"]
    client.delete_index("metadata")
    assert not client.has_index("metadata")


def test_guide_upsert_with_sparse_values(index):
    """Sparse values are stored beside dense ones and come back with the record."""
    sparse = {"indices": [10, 45, 16], "values": [0.5, 0.25, 0.2]}
    index.upsert(vectors=[{"id": "S", "values": EIGHT["A"], "sparse_values": sparse}], namespace="sparse")
    wait_for_counts(index, __default__=4, ns1=4, ns2=4, over=0, sparse=1)
    found = index.fetch(ids=["S"], namespace="sparse").vectors["S"].sparse_values
    assert list(found.indices) == [10, 16, 45]
    assert list(found.values) == [0.5, 0.2, 0.25]


def chunks(iterable, batch_size):
    """Break an iterable into tuples of at most `batch_size`."""
    iterator = iter(iterable)
    while chunk := tuple(itertools.islice(iterator, batch_size)):
        yield chunk


def test_guide_batches_in_sequence_and_in_parallel(client):
    """Batches of 100 arrive whole, one after the other and by thirty threads at once."""
    client.create_index("example-index", dimension=128, spec=ServerlessSpec(cloud="aws", region="us-east-1"))
    rng = random.Random(7)
    data = [(f"id-{i}", [rng.random() for _ in range(128)]) for i in range(3_000)]
    with client.Index("example-index") as one_by_one:
        for chunk in chunks(data[:1_000], 100):
            assert one_by_one.upsert(vectors=chunk).upserted_count == 100
    with client.Index("example-index", pool_threads=30) as index:
        results = [index.upsert(vectors=chunk, async_req=True) for chunk in chunks(data[1_000:], 100)]
        assert sum(result.get().upserted_count for result in results) == 2_000
        wait_for_counts(index, __default__=3_000)
        name, values = data[1_234]
        found = index.query(vector=values, top_k=3)
        assert found.matches[0].id == name
        assert found.matches[0].score == pytest.approx(1.0, abs=1e-6)
        listed = [item.id for page in index.list(prefix="id-299") for item in page]
        assert listed == ["id-299", *(f"id-299{i}" for i in range(10))]


def test_a_read_can_wait_for_a_write_of_the_client(client, index):
    """The position in a write's answer, sent along with a read, makes the read show the write."""
    for attempt in range(20):
        answer = index.upsert(vectors=[{"id": "fresh", "values": [float(attempt + 1)] * 8}], namespace="fresh")
        headers = answer.response_info.raw_headers
        lsn = headers["x-pinecone-request-lsn"]
        read = httpx2.get(
            f"{client.describe_index('pinecone-index').host}/vectors/fetch",
            params={"ids": "fresh", "namespace": "fresh"},
            headers={"x-freshet-at-least": headers["x-freshet-position"], "x-freshet-wait-ms": "20000"},
            timeout=60,
        )
        assert read.status_code == 200, read.text
        assert read.json()["vectors"]["fresh"]["values"] == [attempt + 1] * 8
        assert int(read.headers["x-pinecone-max-indexed-lsn"]) >= int(lsn)


def test_namespaces_of_the_client(index):
    """Namespaces are made, described, listed and deleted; a second one of the same name is refused."""
    made = index.create_namespace(name="made")
    assert made.name == "made"
    assert int(made.record_count) == 0
    with pytest.raises(PineconeApiException) as refused:
        index.create_namespace(name="made")
    assert refused.value.status_code == 409
    assert int(index.describe_namespace(namespace="made").record_count) == 0
    assert "made" in [one.name for page in index.list_namespaces() for one in page.namespaces]
    index.delete_namespace(namespace="made")
    deadline = time.monotonic() + 10
    with pytest.raises(NotFoundException):
        while time.monotonic() < deadline:
            index.describe_namespace(namespace="made")
    with pytest.raises(NotFoundException):
        index.delete(ids=["x"], namespace="never")


def test_a_wrong_dimension_is_told_to_the_client(index):
    """A mistake is an answer with its reason, not a retry."""
    with pytest.raises(PineconeApiException, match="Vector dimension 3 does not match the dimension of the index 8"):
        index.upsert(vectors=[{"id": "A", "values": [1.0, 2.0, 3.0]}])


def test_index_is_configured(client):
    """`configure_index` merges tags and switches the deletion protection, which keeps the index from being deleted."""
    client.create_index(
        "configured", dimension=8, spec=ServerlessSpec(cloud="aws", region="us-east-1"), tags={"team": "a", "old": "x"}
    )
    client.configure_index("configured", deletion_protection="enabled", tags={"old": "", "stage": "live"})
    described = client.describe_index("configured")
    assert described.deletion_protection == "enabled"
    assert dict(described.tags) == {"team": "a", "stage": "live"}
    with pytest.raises(PineconeApiException, match="Deletion protection is enabled"):
        client.delete_index("configured")
    client.configure_index("configured", deletion_protection="disabled")
    assert dict(client.describe_index("configured").tags) == {"team": "a", "stage": "live"}
    with pytest.raises(PineconeApiException, match="cannot be changed"):
        client.indexes.configure("configured", deployment={"replicas": 3})
    client.delete_index("configured")
    assert not client.has_index("configured")
