"""Steps on the records of an index: every operation, and what comes back to the last digit."""

from control import NAME as RECORDS
from walk import Walk, close, counts, refused, same_numbers, until, wait_for_counts

# Numbers whose shortest float32 decimals are these, and whose float64 neighbours print longer.
EXACT = [0.1, -3.4e-05, 16777216.0, 0.33333334]
METADATA = {
    "text": 'Käse, 芝士 and "quotes"',
    "whole": 7,
    "part": 0.1,
    "large": 1732492800.0,
    "yes": True,
    "no": False,
    "words": ["a", "b"],
}
FILMS = {
    "f1": ([1.0, 0.0, 0.0, 0.0], {"genre": "comedy", "year": 2020, "tags": ["old", "fun"], "seen": True}),
    "f2": ([0.8, 0.6, 0.0, 0.0], {"genre": "documentary", "year": 2019, "seen": False}),
    "f3": ([0.0, 1.0, 0.0, 0.0], {"genre": "comedy", "year": 2019, "tags": ["fun"]}),
    "f4": ([-1.0, 0.0, 0.0, 0.0], {"genre": "drama"}),
}
FILTERS = (
    ({"genre": "comedy"}, {"f1", "f3"}),
    ({"genre": {"$eq": "drama"}}, {"f4"}),
    ({"genre": {"$ne": "comedy"}}, {"f2", "f4"}),
    ({"genre": {"$in": ["drama", "documentary"]}}, {"f2", "f4"}),
    ({"genre": {"$nin": ["drama", "documentary"]}}, {"f1", "f3"}),
    ({"year": {"$gt": 2019}}, {"f1"}),
    ({"year": {"$gte": 2019}}, {"f1", "f2", "f3"}),
    ({"year": {"$lt": 2020}}, {"f2", "f3"}),
    ({"year": {"$lte": 2019.5}}, {"f2", "f3"}),
    ({"year": {"$exists": False}}, {"f4"}),
    ({"tags": {"$exists": True}}, {"f1", "f3"}),
    ({"tags": "old"}, {"f1"}),
    ({"seen": True}, {"f1"}),
    ({"seen": {"$eq": False}}, {"f2"}),
    ({"$and": [{"genre": "comedy"}, {"year": 2019}]}, {"f3"}),
    ({"$or": [{"genre": "drama"}, {"year": {"$gt": 2019}}]}, {"f1", "f4"}),
    ({"genre": "comedy", "year": {"$gte": 2019, "$lt": 2020}}, {"f3"}),
)


def fetched(index, name, namespace=""):
    return index.fetch(ids=[name], namespace=namespace).vectors.get(name)


def upsert_tuples_and_dictionaries(walk: Walk) -> None:
    index = walk.index
    assert index.upsert(vectors=[("t1", [1.0, 0.0, 0.0, 0.5])], namespace="forms").upserted_count == 1
    assert index.upsert(vectors=[("t2", [1.0, 0.5, 0.0, 0.0], {"n": 2})], namespace="forms").upserted_count == 1
    assert index.upsert(vectors=[{"id": "d1", "values": EXACT, "metadata": METADATA}], namespace="forms")
    wait_for_counts(index, forms=3)


def upsert_vector_objects(walk: Walk) -> None:
    vector = walk.vector_class(id="v1", values=[0.25, 0.5, 0.75, 1.0], metadata={"n": 1})
    assert walk.index.upsert(vectors=[vector], namespace="objects").upserted_count == 1
    shown = until(lambda: fetched(walk.index, "v1", "objects"), lambda record: record is not None)
    assert list(shown.values) == [0.25, 0.5, 0.75, 1.0]


def upsert_in_batches_of_the_client(walk: Walk) -> None:
    vectors = [(f"id-{n:03}", [1.0, n / 256, 0.0, 0.0], {"n": n}) for n in range(250)]
    answer = walk.index.upsert(vectors=vectors, namespace="pages", batch_size=100, show_progress=False)
    assert answer.upserted_count == 250
    until(walk.index.describe_index_stats, lambda stats: counts(stats).get("pages") == 250)


def the_last_of_two_with_one_id_wins(walk: Walk) -> None:
    vectors = [("twice", [1.0, 0.0, 0.0, 0.0]), ("twice", [0.0, 1.0, 0.0, 0.0])]
    walk.index.upsert(vectors=vectors, namespace="twice")
    record = until(lambda: fetched(walk.index, "twice", "twice"), lambda record: record is not None)
    assert list(record.values) == [0.0, 1.0, 0.0, 0.0]


def fetch_exact_values(walk: Walk) -> None:
    answer = walk.index.fetch(ids=["d1", "never"], namespace="forms")
    assert set(answer.vectors) == {"d1"}
    assert answer.vectors["d1"].id == "d1"
    assert answer.namespace == "forms"
    assert same_numbers(walk, answer.vectors["d1"].values, EXACT), list(answer.vectors["d1"].values)


def fetch_metadata_of_every_type(walk: Walk) -> None:
    shown = dict(fetched(walk.index, "d1", "forms").metadata)
    assert shown == METADATA, shown
    assert type(shown["yes"]) is bool
    assert type(shown["no"]) is bool
    assert type(shown["text"]) is str
    assert list(shown["words"]) == ["a", "b"]


def read_units(answer):
    usage = answer.usage
    return usage["read_units"] if isinstance(usage, dict) else usage.read_units


def fetch_and_query_tell_their_usage(walk: Walk) -> None:
    answer = walk.index.fetch(ids=["d1"], namespace="forms")
    assert read_units(answer) > 0
    query = walk.index.query(vector=[1.0, 0.0, 0.0, 0.0], top_k=1, namespace="forms")
    assert read_units(query) > 0


def query_by_vector_with_scores(walk: Walk) -> None:
    index = walk.index
    vectors = [{"id": name, "values": values, "metadata": about} for name, (values, about) in FILMS.items()]
    index.upsert(vectors=vectors, namespace="films")
    until(index.describe_index_stats, lambda stats: counts(stats).get("films") == 4)
    answer = index.query(vector=[2.0, 0.0, 0.0, 0.0], top_k=10, namespace="films")
    assert answer.namespace == "films"
    assert [match.id for match in answer.matches] == ["f1", "f2", "f3", "f4"]
    for match, score in zip(answer.matches, (1.0, 0.8, 0.0, -1.0), strict=True):
        assert close(match.score, score), answer
    assert not any(match.values for match in answer.matches)
    assert not any(match.metadata for match in answer.matches)


def query_with_values_and_metadata(walk: Walk) -> None:
    answer = walk.index.query(
        vector=[1.0, 0.0, 0.0, 0.0], top_k=2, namespace="films", include_values=True, include_metadata=True
    )
    for match, name in zip(answer.matches, ("f1", "f2"), strict=True):
        values, about = FILMS[name]
        assert match.id == name
        assert same_numbers(walk, match.values, values)
        assert dict(match.metadata) == about


def query_by_id(walk: Walk) -> None:
    answer = walk.index.query(id="f2", top_k=1, namespace="films")
    assert answer.matches[0].id == "f2"
    assert close(answer.matches[0].score, 1.0)
    assert list(walk.index.query(id="never", top_k=1, namespace="films").matches) == []


def query_with_every_filter(walk: Walk) -> None:
    for where, wanted in FILTERS:
        answer = walk.index.query(vector=[1.0, 0.0, 0.0, 0.0], top_k=10, namespace="films", filter=where)
        assert {match.id for match in answer.matches} == wanted, (where, answer)


def query_by_the_zero_vector(walk: Walk) -> None:
    answer = walk.index.query(vector=[0.0, 0.0, 0.0, 0.0], top_k=4, namespace="films")
    assert [match.score for match in answer.matches] == [0.0] * 4


def query_a_namespace_that_was_never_written(walk: Walk) -> None:
    answer = walk.index.query(vector=[1.0, 0.0, 0.0, 0.0], top_k=3, namespace="never")
    assert list(answer.matches) == []
    assert answer.namespace == "never"


def query_by_other_metrics(walk: Walk) -> None:
    # The raw inner product, greatest first; the squared distance, least first.
    for metric, question, scores in (("dotproduct", [2.0, 0.5], (6.0, 1.5)), ("euclidean", [3.0, 1.0], (1.0, 8.0))):
        index = walk.open_index(metric)
        index.upsert(vectors=[("long", [3.0, 0.0]), ("short", [1.0, -1.0])])
        wait_for_counts(index, default=2)
        matches = index.query(vector=question, top_k=2).matches
        assert [(match.id, match.score) for match in matches] == [("long", scores[0]), ("short", scores[1])]


def ids_of(page):
    """Return the ids of a page of `list`: generations up to 8 give ids, later ones items."""
    return [getattr(item, "id", item) for item in page]


def list_ids_in_pages(walk: Walk) -> None:
    pages = [ids_of(page) for page in walk.index.list(namespace="pages", limit=100)]
    assert [len(page) for page in pages] == [100, 100, 50]
    assert [name for page in pages for name in page] == [f"id-{n:03}" for n in range(250)]


def list_ids_by_prefix(walk: Walk) -> None:
    pages = [ids_of(page) for page in walk.index.list(prefix="id-02", namespace="pages")]
    assert pages == [[f"id-02{n}" for n in range(10)]]


def list_a_page_by_its_token(walk: Walk) -> None:
    first = walk.index.list_paginated(namespace="pages", limit=99)
    assert first.namespace == "pages"
    second = walk.index.list_paginated(namespace="pages", limit=99, pagination_token=first.pagination.next)
    third = walk.index.list_paginated(namespace="pages", limit=99, pagination_token=second.pagination.next)
    assert [len(page.vectors) for page in (first, second, third)] == [99, 99, 52]
    assert third.vectors[-1].id == "id-249"
    # The last page names no next one; generations show that in three ways.
    assert not getattr(getattr(third, "pagination", None), "next", None)


def update_values(walk: Walk) -> None:
    walk.index.update(id="t1", values=[0.1, 0.2, 0.3, 0.4], namespace="forms")
    until(
        lambda: list(fetched(walk.index, "t1", "forms").values),
        lambda got: same_numbers(walk, got, [0.1, 0.2, 0.3, 0.4]),
    )


def update_merges_metadata(walk: Walk) -> None:
    walk.index.update(id="t2", set_metadata={"m": "new"}, namespace="forms")
    until(lambda: dict(fetched(walk.index, "t2", "forms").metadata), lambda got: got == {"n": 2, "m": "new"})
    assert list(fetched(walk.index, "t2", "forms").values) == [1.0, 0.5, 0.0, 0.0]


def update_by_filter(walk: Walk) -> None:
    index = walk.index
    where = {"genre": {"$eq": "comedy"}}
    counted = index.update(filter=where, set_metadata={"funny": True}, namespace="films", dry_run=True)
    assert counted.matched_records == 2
    assert "funny" not in fetched(index, "f1", "films").metadata
    done = index.update(filter=where, set_metadata={"funny": True}, namespace="films")
    assert done.matched_records == 2
    until(lambda: fetched(index, "f3", "films").metadata.get("funny"), lambda funny: funny is True)
    assert "funny" not in fetched(index, "f2", "films").metadata


def fetch_by_metadata(walk: Walk) -> None:
    index = walk.index
    found = index.fetch_by_metadata(filter={"genre": {"$eq": "comedy"}}, namespace="films")
    assert set(found.vectors) == {"f1", "f3"}
    assert same_numbers(walk, found.vectors["f3"].values, FILMS["f3"][0])
    assert found.vectors["f1"].metadata["year"] == 2020
    assert found.namespace == "films"
    first = index.fetch_by_metadata(filter={"n": {"$gte": 0}}, namespace="pages", limit=200)
    second = index.fetch_by_metadata(
        filter={"n": {"$gte": 0}}, namespace="pages", limit=200, pagination_token=first.pagination.next
    )
    # A map of protobuf has no order within a page.
    assert [*sorted(first.vectors), *sorted(second.vectors)] == [f"id-{n:03}" for n in range(250)]
    assert not getattr(second.pagination, "next", None)


def query_dense_and_sparse_values(walk: Walk) -> None:
    index = walk.open_index("dotproduct")
    texts = {"both": ([1.0, 0.0], [0.5, 2.0]), "dense": ([2.0, 0.0], [0.25]), "sparse": ([0.5, 0.5], [4.0])}
    indices = {"both": [7, 9], "dense": [8], "sparse": [9]}
    vectors = [
        {"id": name, "values": values, "sparse_values": {"indices": indices[name], "values": weights}}
        for name, (values, weights) in texts.items()
    ]
    index.upsert(vectors=vectors, namespace="hybrid")
    until(index.describe_index_stats, lambda stats: counts(stats).get("hybrid") == 3)
    answer = index.query(
        vector=[1.0, 0.0], sparse_vector={"indices": [7, 9], "values": [2.0, 0.5]}, top_k=3, namespace="hybrid"
    )
    # The dense product and the sparse one, added as they are.
    scores = {match.id: match.score for match in answer.matches}
    assert scores == {"both": 3.0, "sparse": 2.5, "dense": 2.0}, scores
    assert answer.matches[0].id == "both"


def refuse_sparse_values_where_only_dense_ones_are_asked(walk: Walk) -> None:
    question = {"indices": [7], "values": [1.0]}
    refused(lambda: walk.index.query(vector=EXACT, sparse_vector=question, top_k=1), "sparse values", status=400)


def delete_by_id(walk: Walk) -> None:
    walk.index.delete(ids=["t1", "unknown"], namespace="forms")
    until(lambda: fetched(walk.index, "t1", "forms"), lambda record: record is None)
    assert fetched(walk.index, "t2", "forms") is not None


def delete_by_filter(walk: Walk) -> None:
    walk.index.delete(filter={"year": {"$lt": 2020}}, namespace="films")
    until(lambda: set(walk.index.fetch(ids=list(FILMS), namespace="films").vectors), lambda left: left == {"f1", "f4"})


def delete_all_of_a_namespace(walk: Walk) -> None:
    walk.index.delete(delete_all=True, namespace="pages")
    until(walk.index.describe_index_stats, lambda stats: counts(stats).get("pages") == 0)
    assert counts(walk.index.describe_index_stats())["films"] == 2


def refuse_to_delete_in_an_unknown_namespace(walk: Walk) -> None:
    refused(lambda: walk.index.delete(ids=["x"], namespace="never"), "not found", status=404)


def describe_index_stats(walk: Walk) -> None:
    stats = wait_for_counts(walk.index, films=2, forms=2, objects=1, pages=0, twice=1)
    assert stats.dimension == 4
    assert stats.total_vector_count == 6


def refuse_stats_with_a_filter(walk: Walk) -> None:
    refused(lambda: walk.index.describe_index_stats(filter={"genre": "comedy"}), "filter", status=400)


def refuse_a_wrong_dimension(walk: Walk) -> None:
    text = "Vector dimension 3 does not match the dimension of the index 4"
    refused(lambda: walk.index.upsert(vectors=[("x", [1.0, 2.0, 3.0])]), text, status=400)
    refused(lambda: walk.index.query(vector=[1.0, 2.0, 3.0], top_k=1), "dimension", status=400)


def refuse_nested_metadata(walk: Walk) -> None:
    vector = {"id": "x", "values": EXACT, "metadata": {"inner": {"a": 1}}}
    refused(lambda: walk.index.upsert(vectors=[vector]), "inner")


def refuse_a_zero_vector(walk: Walk) -> None:
    refused(lambda: walk.index.upsert(vectors=[("x", [0.0] * 4)]), "zero", status=400)


def refuse_an_unknown_operator(walk: Walk) -> None:
    refused(lambda: walk.index.query(vector=EXACT, top_k=1, filter={"year": {"$near": 1}}), "$near", status=400)


def answers_carry_positions(walk: Walk) -> None:
    written = walk.index.upsert(vectors=[("t1", EXACT)], namespace="forms")
    lsn = int(headers_of(written)["x-pinecone-request-lsn"])
    assert lsn > 0
    question = {"vector": EXACT, "top_k": 1, "namespace": "forms"}
    until(
        lambda: int(headers_of(walk.index.query(**question))["x-pinecone-max-indexed-lsn"]),
        lambda shown: shown >= lsn,
    )
    assert fetched(walk.index, "t1", "forms") is not None
    walk.index.delete(ids=["t1"], namespace="forms")


def headers_of(answer):
    # From 9 on an attribute of the public model, in 8 one beside the generated model.
    info = answer.response_info if hasattr(answer, "response_info") else answer._response_info
    headers = info["raw_headers"] if isinstance(info, dict) else info.raw_headers
    return {name.lower(): value for name, value in headers.items()}


def ask_in_parallel(walk: Walk) -> None:
    with walk.client.Index(RECORDS, pool_threads=8) as index:
        asked = [index.query(id="f1", top_k=1, namespace="films", async_req=True) for _ in range(40)]
        assert [answer.get().matches[0].id for answer in asked] == ["f1"] * 40


WRITE = (
    upsert_tuples_and_dictionaries,
    upsert_vector_objects,
    upsert_in_batches_of_the_client,
    the_last_of_two_with_one_id_wins,
)
READ = (
    fetch_exact_values,
    fetch_metadata_of_every_type,
    fetch_and_query_tell_their_usage,
    query_by_vector_with_scores,
    query_with_values_and_metadata,
    query_by_id,
    query_with_every_filter,
    query_by_the_zero_vector,
    query_a_namespace_that_was_never_written,
    query_by_other_metrics,
    list_ids_in_pages,
    list_ids_by_prefix,
    list_a_page_by_its_token,
)
CHANGE = (update_values, update_merges_metadata)
DELETE = (
    delete_by_id,
    delete_by_filter,
    delete_all_of_a_namespace,
    refuse_to_delete_in_an_unknown_namespace,
    describe_index_stats,
    refuse_stats_with_a_filter,
    refuse_a_wrong_dimension,
    refuse_nested_metadata,
    refuse_a_zero_vector,
    refuse_an_unknown_operator,
)
# What came later, with 8.
BY_FILTER = (update_by_filter,)
POSITIONS = (answers_carry_positions,)
BY_METADATA = (fetch_by_metadata,)
HYBRID = (query_dense_and_sparse_values, refuse_sparse_values_where_only_dense_ones_are_asked)
