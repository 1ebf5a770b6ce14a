"""The official Python client over gRPC against a live server, by index name and by host."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from pinecone import GrpcIndex, Pinecone, ServerlessSpec
from pinecone.exceptions import NotFoundException, PineconeException

from tests.support.api_server import ApiServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(params=["name", "host"])
def index(request: pytest.FixtureRequest, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[GrpcIndex]:
    """An index of its own for each test."""
    monkeypatch.setenv("PINECONE_GRPC_SCHEME", "http")
    name = f"{request.node.originalname.replace('_', '-')[-36:].strip('-')}-{request.param}"
    with Pinecone(api_key="any", host=server.url) as client:
        made = client.create_index(name, dimension=8, metric="cosine", spec=ServerlessSpec(cloud="aws", region="x"))
        if request.param == "name":
            opened = client.index(name=name, grpc=True)
        else:
            opened = GrpcIndex(host=made.host.removeprefix("http://"), api_key="any", secure=False)
        yield opened
        opened.close()
        client.delete_index(name)


def eventually(ask: Any, wanted: Any) -> Any:
    """Ask until the answer is the wanted one: this client has no way to ask for a position."""
    deadline = time.monotonic() + 20
    while (found := ask()) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def counts(index: GrpcIndex) -> dict[str, int]:
    return {name: one.vector_count for name, one in index.describe_index_stats().namespaces.items()}


def test_records_are_written_found_changed_and_deleted(index: GrpcIndex) -> None:
    vectors = [
        {"id": f"v{n}", "values": [1.0, n, *[0.5] * 6], "metadata": {"n": n, "even": n % 2 == 0, "tags": ["t", str(n)]}}
        for n in range(10)
    ]
    assert index.upsert(vectors=vectors, namespace="one").upserted_count == 10
    eventually(lambda: counts(index), {"one": 10})
    stats = index.describe_index_stats()
    assert (stats.dimension, stats.total_vector_count) == (8, 10)
    found = index.query(vector=vectors[3]["values"], top_k=3, namespace="one", include_metadata=True)
    assert found.matches[0].id == "v3"
    assert found.matches[0].score == pytest.approx(1.0)
    assert dict(found.matches[0].metadata) == vectors[3]["metadata"]
    where = {"n": {"$gte": 6}, "even": True}
    by_filter = index.query(vector=[1.0] * 8, top_k=9, namespace="one", filter=where, include_values=True)
    assert {match.id: list(match.values) for match in by_filter.matches} == {
        f"v{n}": vectors[n]["values"] for n in (6, 8)
    }
    assert index.query(id="v4", top_k=1, namespace="one").matches[0].id == "v4"
    fetched = index.fetch(ids=["v1", "nobody"], namespace="one")
    assert list(fetched.vectors) == ["v1"]
    assert list(fetched.vectors["v1"].values) == vectors[1]["values"]
    index.update(id="v1", set_metadata={"n": 100}, namespace="one")
    assert index.update(filter={"n": {"$lt": 5}}, set_metadata={"low": True}, namespace="one").matched_records == 4
    eventually(lambda: index.fetch(ids=["v1"], namespace="one").vectors["v1"].metadata["n"], 100)
    index.delete(ids=["v1"], namespace="one")
    index.delete(filter={"n": {"$gte": 8}}, namespace="one")
    eventually(lambda: counts(index), {"one": 7})
    index.delete(delete_all=True, namespace="one")
    eventually(lambda: counts(index), {"one": 0})


def test_batches_are_written_side_by_side(index: GrpcIndex) -> None:
    vectors = [(f"id-{n}", [float(n + 1), 1.0, *[0.25] * 6]) for n in range(1_000)]
    assert index.upsert(vectors=vectors, batch_size=50, show_progress=False).upserted_count == 1_000
    eventually(lambda: counts(index), {"__default__": 1_000})
    listed = [item.id for page in index.list(prefix="id-99") for item in page.vectors]
    assert listed == ["id-99", *(f"id-99{n}" for n in range(10))]
    first = index.list_paginated(limit=100)
    second = index.list_paginated(limit=100, pagination_token=first.pagination.next)
    assert len({item.id for item in (*first.vectors, *second.vectors)}) == 200


def test_namespaces_are_made_described_listed_and_deleted(index: GrpcIndex) -> None:
    made = index.create_namespace(name="made", schema={"fields": {"n": {"filterable": True}}})
    assert (made.name, int(made.record_count)) == ("made", 0)
    with pytest.raises(PineconeException, match="already exists"):
        index.create_namespace(name="made")
    assert int(index.describe_namespace(name="made").record_count) == 0
    assert [one.name for page in index.list_namespaces() for one in page.namespaces] == ["made"]
    index.delete_namespace(name="made")
    deadline = time.monotonic() + 20
    with pytest.raises(NotFoundException):
        while time.monotonic() < deadline:
            index.describe_namespace(name="made")


def test_mistakes_are_told_to_the_client(index: GrpcIndex) -> None:
    with pytest.raises(PineconeException, match="Vector dimension 3 does not match the dimension of the index 8"):
        index.upsert(vectors=[("a", [1.0, 2.0, 3.0])])
    with pytest.raises(PineconeException, match="regex"):
        index.query(vector=[1.0] * 8, top_k=1, filter={"n": {"$regex": "x"}})
    with pytest.raises(NotFoundException, match="Namespace nowhere not found"):
        index.delete(ids=["a"], namespace="nowhere")
