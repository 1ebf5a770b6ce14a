"""Every example of the "Upsert data" guide, in its own words: names, numbers and order are those of the page."""

import itertools
import random

from walk import API_KEY, Walk, float32, same_numbers, until, wait_for_counts

INDEX = "pinecone-index"
BATCHED = "example-index"
vector_dim = 128
vector_count = 10000
EIGHT = {name: [round(0.1 * place, 1)] * 8 for place, name in enumerate("ABCDEFGH", start=1)}


def make_indexes(client, spec) -> None:
    """Make what the guide takes for granted: its two indexes."""
    client.create_index(name=INDEX, dimension=8, metric="euclidean", spec=spec)
    client.create_index(name=BATCHED, dimension=vector_dim, metric="cosine", spec=spec)


def upsert_records_into_the_default_namespace(walk: Walk) -> None:
    index = walk.index
    answer = index.upsert(
        vectors=[
            {"id": "A", "values": [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]},
            {"id": "B", "values": [0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]},
            {"id": "C", "values": [0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]},
            {"id": "D", "values": [0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]},
        ]
    )
    assert answer.upserted_count == 4
    wait_for_counts(index, default=4)
    fetched = index.fetch(ids=list("ABCD"))
    assert fetched.namespace == ""
    for name in "ABCD":
        assert same_numbers(walk, fetched.vectors[name].values, EIGHT[name]), fetched


def upsert_records_into_non_default_namespaces(walk: Walk) -> None:
    index = walk.index
    first = index.upsert(
        vectors=[
            {"id": "A", "values": [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]},
            {"id": "B", "values": [0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]},
            {"id": "C", "values": [0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]},
            {"id": "D", "values": [0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]},
        ],
        namespace="ns1",
    )
    second = index.upsert(
        vectors=[
            {"id": "E", "values": [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]},
            {"id": "F", "values": [0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]},
            {"id": "G", "values": [0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]},
            {"id": "H", "values": [0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]},
        ],
        namespace="ns2",
    )
    assert (first.upserted_count, second.upserted_count) == (4, 4)


def check_data_freshness(walk: Walk) -> None:
    stats = wait_for_counts(walk.index, default=4, ns1=4, ns2=4)
    assert stats.dimension == 8
    assert stats.total_vector_count == 12
    assert 0 <= stats.index_fullness <= 1
    found = walk.index.query(namespace="ns2", vector=EIGHT["G"], top_k=4, include_values=True)
    assert sorted(match.id for match in found.matches) == list("EFGH")
    assert found.namespace == "ns2"


def upsert_records_with_metadata(walk: Walk) -> None:
    index = walk.index
    index.upsert(
        vectors=[
            {
                "id": "A",
                "values": [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
                "metadata": {"genre": "comedy", "year": 2020},
            },
            {
                "id": "B",
                "values": [0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2],
                "metadata": {"genre": "documentary", "year": 2019},
            },
            {
                "id": "C",
                "values": [0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3],
                "metadata": {"genre": "comedy", "year": 2019},
            },
            {
                "id": "D",
                "values": [0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4],
                "metadata": {"genre": "drama"},
            },
        ]
    )
    until(lambda: index.fetch(ids=["D"]).vectors["D"].metadata, lambda shown: shown == {"genre": "drama"})
    comedies = index.query(vector=EIGHT["A"], top_k=10, filter={"genre": {"$eq": "comedy"}}, include_metadata=True)
    found = {match.id: match.metadata for match in comedies.matches}
    assert found == {"A": {"genre": "comedy", "year": 2020}, "C": {"genre": "comedy", "year": 2019}}


def upsert_overwrites_the_entire_record(walk: Walk) -> None:
    index = walk.index
    index.upsert(vectors=[{"id": "A", "values": EIGHT["B"]}])

    def shown():
        record = index.fetch(ids=["A"]).vectors["A"]
        return list(record.values), record.metadata

    values, _ = until(shown, lambda record: not record[1])
    assert same_numbers(walk, values, EIGHT["B"])


def update_only_part_of_a_record(walk: Walk) -> None:
    index = walk.index
    index.update(id="A", set_metadata={"genre": "drama"})
    until(lambda: index.fetch(ids=["A"]).vectors["A"].metadata, lambda shown: shown == {"genre": "drama"})
    assert same_numbers(walk, index.fetch(ids=["A"]).vectors["A"].values, EIGHT["B"])


def upsert_records_with_sparse_values(walk: Walk) -> None:
    index = walk.index
    sparse = {"indices": [10, 16, 45], "values": [0.5, 0.2, 0.25]}
    index.upsert(vectors=[{"id": "S", "values": EIGHT["A"], "sparse_values": sparse}], namespace="sparse")
    wait_for_counts(index, default=4, ns1=4, ns2=4, sparse=1)
    record = index.fetch(ids=["S"], namespace="sparse").vectors["S"]
    assert list(record.sparse_values.indices) == [10, 16, 45]
    assert same_numbers(walk, record.sparse_values.values, [0.5, 0.2, 0.25])
    assert same_numbers(walk, record.values, EIGHT["A"])


def prefix_ids_with_their_document(walk: Walk) -> None:
    index = walk.index
    chunks_of_a_document = [{"id": f"doc1#chunk{n}", "values": EIGHT["A"]} for n in range(1, 4)]
    index.upsert(vectors=[*chunks_of_a_document, {"id": "doc2#chunk1", "values": EIGHT["B"]}], namespace="docs")
    wait_for_counts(index, default=4, ns1=4, ns2=4, sparse=1, docs=4)
    page = index.list_paginated(prefix="doc1#", namespace="docs")
    assert [item.id for item in page.vectors] == ["doc1#chunk1", "doc1#chunk2", "doc1#chunk3"]


def chunks(iterable, batch_size=100):
    """A helper function to break an iterable into chunks of size batch_size."""
    it = iter(iterable)
    chunk = tuple(itertools.islice(it, batch_size))
    while chunk:
        yield chunk
        chunk = tuple(itertools.islice(it, batch_size))


def example_data():
    # Example generator that generates many (id, vector) pairs
    return map(lambda i: (f"id-{i}", [random.random() for _ in range(vector_dim)]), range(vector_count))  # noqa: C417


def upsert_records_in_batches(walk: Walk) -> None:
    index = walk.client.Index(BATCHED)
    # Upsert data with 100 vectors per upsert request
    for ids_vectors_chunk in chunks(example_data(), batch_size=100):
        index.upsert(vectors=ids_vectors_chunk)
    wait_for_counts(index, default=vector_count)


def send_upserts_in_parallel(walk: Walk) -> None:
    # Initialize the client with pool_threads=30 (limits to 30 simultaneous requests)
    pc = walk.module.Pinecone(api_key=API_KEY, pool_threads=30)
    last = [random.random() for _ in range(vector_dim)]
    data = itertools.chain(itertools.islice(example_data(), vector_count - 1), [(f"id-{vector_count - 1}", last)])
    # Upsert data with 100 vectors per upsert request asynchronously
    # - Pass async_req=True to index.upsert()
    with pc.Index(BATCHED, pool_threads=30) as index:
        # Send requests in parallel
        async_results = [
            index.upsert(vectors=ids_vectors_chunk, async_req=True)
            for ids_vectors_chunk in chunks(data, batch_size=100)
        ]
        # Wait for and retrieve responses (this raises in case of error)
        answers = [async_result.get() for async_result in async_results]
    assert sum(answer.upserted_count for answer in answers) == vector_count

    # The same ids again: the records are replaced, and there are no more of them.
    index = walk.client.Index(BATCHED)
    name = f"id-{vector_count - 1}"
    wanted = [float32(number) for number in last]

    def shown():
        return [float32(number) for number in index.fetch(ids=[name]).vectors[name].values]

    until(shown, lambda got: got == wanted)
    wait_for_counts(index, default=vector_count)
    assert index.query(vector=last, top_k=3).matches[0].id == name


RECORDS = (
    upsert_records_into_the_default_namespace,
    upsert_records_into_non_default_namespaces,
    check_data_freshness,
    upsert_records_with_metadata,
    upsert_overwrites_the_entire_record,
    update_only_part_of_a_record,
    upsert_records_with_sparse_values,
    prefix_ids_with_their_document,
)
BATCHES = (upsert_records_in_batches, send_upserts_in_parallel)
