"""Steps on indexes: made, described, listed, changed, protected, deleted; and what is refused."""

import os

from walk import API_KEY, URL, Walk, refused, until

NAME = "records"


def spec(walk: Walk):
    return walk.module.ServerlessSpec(cloud="aws", region="us-east-1")


def create_an_index(walk: Walk) -> None:
    walk.client.create_index(name=NAME, dimension=4, metric="cosine", spec=spec(walk))
    walk.index = walk.client.Index(NAME)


def describe_the_index(walk: Walk) -> None:
    described = walk.client.describe_index(NAME)
    assert described.name == NAME
    assert described.dimension == 4
    assert described.metric == "cosine"
    assert described.status.ready
    assert described.status.state == "Ready"
    assert described.host.startswith(URL.partition("//")[0]), described.host
    assert described.spec.serverless.region == "us-east-1"
    assert described.spec.serverless.cloud == "aws"


def list_indexes(walk: Walk) -> None:
    names = walk.client.list_indexes().names()
    assert NAME in names, names
    assert {one.name: one.dimension for one in walk.client.list_indexes()}[NAME] == 4


def ask_whether_an_index_exists(walk: Walk) -> None:
    assert walk.client.has_index(NAME)
    assert not walk.client.has_index("never")


def reach_an_index_by_its_host(walk: Walk) -> None:
    index = walk.client.Index(host=walk.client.describe_index(NAME).host)
    assert index.describe_index_stats().dimension == 4


def find_the_server_by_the_environment(walk: Walk) -> None:
    assert os.environ["PINECONE_CONTROLLER_HOST"] == URL
    pc = walk.module.Pinecone(api_key=API_KEY)
    assert pc.Index(NAME).describe_index_stats().dimension == 4


def refuse_a_second_index_of_the_name(walk: Walk) -> None:
    refused(lambda: walk.client.create_index(name=NAME, dimension=4, spec=spec(walk)), "exists", status=409)


def refuse_a_bad_name(walk: Walk) -> None:
    refused(lambda: walk.client.create_index(name="Bad_Name", dimension=4, spec=spec(walk)), "name")


def refuse_to_describe_an_unknown_index(walk: Walk) -> None:
    refused(lambda: walk.client.describe_index("never"), "never", status=404)


def create_an_index_of_each_metric(walk: Walk) -> None:
    for metric in ("dotproduct", "euclidean"):
        walk.client.create_index(name=metric, dimension=2, metric=metric, spec=spec(walk))
        assert walk.client.describe_index(metric).metric == metric


def create_a_pod_index(walk: Walk) -> None:
    pods = walk.module.PodSpec(environment="us-east1-gcp", pod_type="p1.x1", pods=1)
    walk.client.create_index(name="pods", dimension=2, spec=pods)
    assert walk.client.describe_index("pods").spec.pod.environment == "us-east1-gcp"
    walk.client.delete_index("pods")


def create_a_sparse_index(walk: Walk) -> None:
    walk.client.create_index(name="sparse", metric="dotproduct", vector_type="sparse", spec=spec(walk))
    described = walk.client.describe_index("sparse")
    assert described.vector_type == "sparse"
    assert not described.dimension
    index = walk.client.Index("sparse")
    vector = {"id": "s1", "sparse_values": {"indices": [3, 70_000], "values": [0.5, 1.25]}}
    index.upsert(vectors=[{**vector, "metadata": {"n": 1}}])
    shown = until(lambda: index.fetch(ids=["s1"]).vectors, lambda vectors: "s1" in vectors)["s1"]
    assert list(shown.sparse_values.indices) == [3, 70_000]
    assert list(shown.sparse_values.values) == [0.5, 1.25]
    found = index.query(sparse_vector={"indices": [70_000, 80_000], "values": [2.0, 1.0]}, top_k=3)
    assert [(match.id, match.score) for match in found.matches] == [("s1", 2.5)]
    assert "sparse" in walk.client.list_indexes().names()
    walk.client.delete_index("sparse")


def refuse_a_sparse_index_with_another_metric(walk: Walk) -> None:
    refused(
        lambda: walk.client.create_index(name="sparse", metric="cosine", vector_type="sparse", spec=spec(walk)),
        "dotproduct",
    )


def create_an_index_with_tags(walk: Walk) -> None:
    walk.client.create_index(name="tagged", dimension=2, spec=spec(walk), tags={"team": "a", "old": "x"})
    assert walk.client.describe_index("tagged").tags.to_dict() == {"team": "a", "old": "x"}


def change_and_remove_tags(walk: Walk) -> None:
    walk.client.configure_index("tagged", tags={"old": "", "stage": "live"})
    assert walk.client.describe_index("tagged").tags.to_dict() == {"team": "a", "stage": "live"}
    walk.client.delete_index("tagged")


def protect_an_index_from_deletion(walk: Walk) -> None:
    walk.client.configure_index(NAME, deletion_protection="enabled")
    assert walk.client.describe_index(NAME).deletion_protection == "enabled"
    refused(lambda: walk.client.delete_index(NAME), "deletion protection is enabled", status=403)
    walk.client.configure_index(NAME, deletion_protection="disabled")
    assert walk.client.describe_index(NAME).deletion_protection == "disabled"


def list_collections_where_there_are_none(walk: Walk) -> None:
    assert list(walk.client.list_collections().names()) == []


def delete_indexes(walk: Walk) -> None:
    for name in walk.client.list_indexes().names():
        walk.client.delete_index(name)
    assert list(walk.client.list_indexes().names()) == []


CREATE = (
    create_an_index,
    describe_the_index,
    list_indexes,
    reach_an_index_by_its_host,
    find_the_server_by_the_environment,
    refuse_a_second_index_of_the_name,
    refuse_a_bad_name,
    refuse_to_describe_an_unknown_index,
    create_an_index_of_each_metric,
    list_collections_where_there_are_none,
)
# What came later: deletion protection with 5, tags and sparse indexes with 6; pods went with 9.
PODS = (create_a_pod_index,)
PROTECTION = (ask_whether_an_index_exists, protect_an_index_from_deletion)
TAGS = (create_an_index_with_tags, change_and_remove_tags)
SPARSE = (create_a_sparse_index,)
# Generation 10 sends no metric for a sparse index.
SPARSE_METRIC = (refuse_a_sparse_index_with_another_metric,)
