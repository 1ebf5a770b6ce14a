"""Steps on namespaces: made, listed, described, deleted, and several asked at once."""

from data import EXACT
from walk import Walk, counts, refused, until


def query_several_namespaces(walk: Walk) -> None:
    answer = walk.index.query_namespaces(
        vector=[1.0, 0.0, 0.0, 0.0], namespaces=["films", "objects", "never"], metric="cosine", top_k=3
    )
    assert [match.id for match in answer.matches] == ["f1", "f2", "v1"]
    assert answer.usage.read_units > 0


def create_and_describe_a_namespace(walk: Walk) -> None:
    made = walk.index.create_namespace(name="made")
    assert made.name == "made"
    assert int(made.record_count) == 0
    refused(lambda: walk.index.create_namespace(name="made"), "exist", status=409)
    assert walk.index.describe_namespace(namespace="made").name == "made"


def list_and_delete_namespaces(walk: Walk) -> None:
    index = walk.index
    index.upsert(vectors=[("n", EXACT)], namespace="gone")
    until(lambda: counts(index.describe_index_stats()), lambda shown: shown.get("gone") == 1)
    assert int(index.describe_namespace(namespace="gone").record_count) == 1
    names = [one.name for page in index.list_namespaces() for one in getattr(page, "namespaces", None) or [page]]
    assert {"films", "forms", "gone"} <= set(names)
    index.delete_namespace(namespace="gone")
    until(lambda: counts(index.describe_index_stats()), lambda shown: "gone" not in shown)
    refused(lambda: index.describe_namespace(namespace="gone"), "gone", status=404)


# Several namespaces at once came with 5, operations on them with 7, making one with 8.
SEVERAL = (query_several_namespaces,)
NAMESPACES = (list_and_delete_namespaces,)
CREATE_NAMESPACE = (create_and_describe_a_namespace,)
