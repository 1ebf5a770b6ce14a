"""Steps over gRPC: the guide and the records again, as binary messages; futures instead of a pool of threads."""

import control
import data
import guide
import namespaces
from walk import Walk, float32, until, wait_for_counts


def chunker(seq, batch_size):
    return (seq[pos : pos + batch_size] for pos in range(0, len(seq), batch_size))


def send_upserts_in_parallel_by_grpc(walk: Walk) -> None:
    index = walk.open_index(guide.BATCHED)
    data = [*guide.example_data()]
    async_results = walk.upsert_in_background(index, chunker(data, batch_size=100))
    # Wait for and retrieve responses (in case of error)
    answers = [async_result.result() for async_result in async_results]
    assert sum(answer.upserted_count for answer in answers) == guide.vector_count
    wait_for_counts(index, default=guide.vector_count)
    name, values = data[1_234]
    assert index.query(vector=values, top_k=3).matches[0].id == name
    shown = index.fetch(ids=[name]).vectors[name].values
    assert list(shown) == [float32(number) for number in values]


def create_an_index_for_grpc(walk: Walk) -> None:
    walk.client.create_index(name=control.NAME, dimension=4, metric="cosine", spec=control.spec(walk))
    for metric in ("dotproduct", "euclidean"):
        walk.client.create_index(name=metric, dimension=2, metric=metric, spec=control.spec(walk))
    walk.index = walk.open_index(control.NAME)


def reach_the_index_in_the_other_way(walk: Walk) -> None:
    other = walk.open_otherwise(control.NAME)
    other.upsert(vectors=[("o", [1.0, 0.0, 0.0, 0.0])], namespace="other")
    until(lambda: list(walk.index.fetch(ids=["o"], namespace="other").vectors), lambda ids: ids == ["o"])
    other.delete(ids=["o"], namespace="other")
    other.delete_namespace(namespace="other")


GUIDE = (*guide.RECORDS, send_upserts_in_parallel_by_grpc)
RECORDS = (
    create_an_index_for_grpc,
    reach_the_index_in_the_other_way,
    *data.WRITE,
    *data.READ,
    *data.HYBRID,
    *data.BY_METADATA,
    *namespaces.SEVERAL,
    *data.CHANGE,
    *data.BY_FILTER,
    *data.DELETE,
    *namespaces.NAMESPACES,
    *namespaces.CREATE_NAMESPACE,
    control.delete_indexes,
)
