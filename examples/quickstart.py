"""The upsert guide, step by step, with the official client: `python examples/quickstart.py [http://localhost:5080]`.

Every step prints what it did and how fresh the answer was: the position of the write, the position that the read shows.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pinecone import Pinecone, ServerlessSpec

HOST = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:5080"
INDEX, WIDE_INDEX = "pinecone-index", "example-index"


def show(step: str, response: Any) -> None:
    """Print a step and the freshness headers of its answer."""
    headers: Mapping[str, str] = response.response_info.raw_headers if response is not None else {}
    position = headers.get("x-freshet-position", "-")
    staleness = headers.get("x-freshet-staleness-ms")
    told = f"position {position}" + (f", staleness {staleness} ms" if staleness is not None else "")
    print(f"- {step}\n    {told}")


def chunks(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Yield `items` in tuples of `size`."""
    iterator = iter(items)
    while chunk := tuple(itertools.islice(iterator, size)):
        yield chunk


def create(client: Pinecone, name: str, dimension: int) -> Any:
    """Make an index anew and return it."""
    if client.has_index(name):
        client.delete_index(name)
    client.create_index(
        name=name, dimension=dimension, metric="cosine", spec=ServerlessSpec(cloud="aws", region="us-east-1")
    )
    print(f"- index {name} at {client.describe_index(name).host}")
    return client.Index(name)


def wait_for_count(index: Any, wanted: int) -> Any:
    """Look at the stats until they count `wanted` records, as the guide does it."""
    while True:
        stats = index.describe_index_stats()
        if stats.total_vector_count == wanted:
            return stats
        time.sleep(0.01)


def wait_for_position(index: Any, write: Any, namespace: str) -> Any:
    """Query until the answer shows `write`, by positions: no sleeping, no counting."""
    target = write.response_info.lsn_committed
    while True:
        found = index.query(vector=[0.3] * 8, top_k=3, namespace=namespace, include_metadata=True)
        if found.response_info.is_reconciled(target):
            return found


def main() -> None:
    """Walk through the guide."""
    client = Pinecone(api_key="any-key", host=HOST)
    index = create(client, INDEX, 8)
    records = [{"id": key, "values": [value] * 8} for key, value in zip("ABCD", (0.1, 0.2, 0.3, 0.4), strict=True)]
    more = [{"id": key, "values": [value] * 8} for key, value in zip("EFGH", (0.5, 0.6, 0.7, 0.8), strict=True)]
    show("upsert into the default namespace", index.upsert(vectors=records))
    show("upsert into ns1", index.upsert(vectors=records, namespace="ns1"))
    show("upsert into ns2", index.upsert(vectors=more, namespace="ns2"))
    stats = wait_for_count(index, 12)
    show(f"stats count {stats.total_vector_count} records: {sorted(stats.namespaces)}", stats)

    described = [
        {**record, "metadata": metadata}
        for record, metadata in zip(
            records,
            (
                {"genre": "comedy", "year": 2020},
                {"genre": "documentary", "year": 2019},
                {"genre": "comedy", "year": 2019},
                {"genre": "drama"},
            ),
            strict=True,
        )
    ]
    write = index.upsert(vectors=described, namespace="ns1")
    show("upsert with metadata", write)
    show("query that shows this write", wait_for_position(index, write, "ns1"))
    found = index.query(vector=[0.3] * 8, top_k=10, namespace="ns1", filter={"genre": {"$eq": "comedy"}})
    show(f"query with a filter finds {sorted(match.id for match in found.matches)}", found)

    sparse = {"id": "S", "values": [0.9] * 8, "sparse_values": {"indices": [3, 17], "values": [0.5, 0.25]}}
    write = index.upsert(vectors=[sparse], namespace="ns2")
    wait_for_position(index, write, "ns2")
    fetched = index.fetch(ids=["S"], namespace="ns2")
    show(f"fetch keeps sparse values {list(fetched.vectors['S'].sparse_values.indices)}", fetched)

    wide = create(client, WIDE_INDEX, 128)
    vectors = ((f"id-{number}", [random.random() for _ in range(128)]) for number in range(2_000))  # noqa: S311
    for chunk in chunks(vectors, 100):
        written = wide.upsert(vectors=chunk, show_progress=False)
    show("2,000 records in batches of 100", written)
    data = [(f"parallel-{number}", [random.random() for _ in range(128)]) for number in range(2_000)]  # noqa: S311
    written = wide.upsert(vectors=data, batch_size=100, max_concurrency=8, show_progress=False)
    print(f"- 2,000 records in parallel: {written.upserted_count} upserted")
    stats = wait_for_count(wide, 4_000)
    show(f"stats count {stats.total_vector_count} records", stats)


if __name__ == "__main__":
    main()
