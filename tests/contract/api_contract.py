"""What every transport of the query API promises: the semantics of the vectors surface.

A subclass gives the fixture `api`; its `space` is a namespace of the test's own on an index of dimension 4. Every read
waits for the last write of the same object, or of the one that it was made from.
"""

from __future__ import annotations

from typing import Any, Protocol

import pytest

from schemas.errors import Code

__all__ = ["Api", "ApiContract", "Refused"]


class Refused(Exception):
    """The API answered with an error."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


class Api(Protocol):
    """One index and one namespace over some transport; JSON spelling of arguments and answers, errors as `Refused`."""

    space: str

    def on(self, space: str) -> Api: ...

    def on_metric(self, metric: str) -> Api: ...

    def upsert(self, *vectors: dict[str, Any]) -> int: ...

    def query(self, **question: Any) -> dict[str, Any]: ...

    def fetch(self, *ids: str) -> dict[str, Any]: ...

    def fetch_by_metadata(self, **body: Any) -> dict[str, Any]: ...

    def update(self, **body: Any) -> dict[str, Any]: ...

    def delete(self, **body: Any) -> None: ...

    def list_page(self, **parameters: Any) -> dict[str, Any]: ...

    def stats(self) -> dict[str, Any]: ...

    def create_namespace(self, name: str) -> None: ...

    def describe_namespace(self, name: str) -> dict[str, Any]: ...

    def delete_namespace(self, name: str) -> None: ...


def vector(name: str, *values: float, **metadata: Any) -> dict[str, Any]:
    padded = [*values, *[0.0] * (4 - len(values))]
    return {"id": name, "values": padded, **({"metadata": metadata} if metadata else {})}


def ids(answer: dict[str, Any]) -> list[str]:
    return [match["id"] for match in answer["matches"]]


class ApiContract:
    """Run for every transport."""

    def test_upsert_replaces_the_whole_record(self, api: Api) -> None:
        """Upsert of an existing id leaves nothing of the old record: values, sparse values nor metadata."""
        api.upsert(vector("a", 1, color="red") | {"sparseValues": {"indices": [3, 1], "values": [0.5, 0.25]}})
        first = api.fetch("a")["vectors"]["a"]
        assert first["sparseValues"] == {"indices": [1, 3], "values": [0.25, 0.5]}
        api.upsert(vector("a", 2))
        assert api.fetch("a")["vectors"]["a"] == {"id": "a", "values": [2, 0, 0, 0]}

    def test_last_of_two_records_with_one_id_wins(self, api: Api) -> None:
        """Duplicate ids in one batch: the last one wins, and every one counts as upserted."""
        assert api.upsert(vector("a", 1), vector("b", 1), vector("a", 3, n=2)) == 3
        assert api.fetch("a")["vectors"]["a"] == {"id": "a", "values": [3, 0, 0, 0], "metadata": {"n": 2}}
        assert api.stats()["namespaces"][api.space] == {"vectorCount": 2}

    def test_update_changes_only_the_parts_it_names(self, api: Api) -> None:
        """Values, sparse values and metadata are changed apart; metadata keys are merged and never removed."""
        api.upsert(vector("a", 1, x=1, y="keep") | {"sparseValues": {"indices": [7], "values": [2]}})
        api.update(id="a", setMetadata={"x": 2, "z": ["t"], "gone": None})
        api.update(id="a", values=[0, 5, 0, 0])
        assert api.fetch("a")["vectors"]["a"] == {
            "id": "a",
            "values": [0, 5, 0, 0],
            "sparseValues": {"indices": [7], "values": [2]},
            "metadata": {"x": 2, "y": "keep", "z": ["t"]},
        }
        api.update(id="a", sparseValues={"indices": [9], "values": [0.1]})
        assert api.fetch("a")["vectors"]["a"]["sparseValues"] == {"indices": [9], "values": [0.1]}
        assert ids(api.query(vector=[0, 1, 0, 0], topK=1)) == ["a"]

    def test_update_of_an_unknown_id_has_no_effect(self, api: Api) -> None:
        """It is answered like any other, and makes neither a record nor a namespace."""
        api.update(id="ghost", setMetadata={"x": 1})
        assert api.fetch("ghost")["vectors"] == {}
        assert api.space not in api.stats()["namespaces"]

    def test_update_by_filter_counts_and_changes_what_matches(self, api: Api) -> None:
        """`matchedRecords` is what the filter matched at the write's offset; `dryRun` counts and changes nothing."""
        api.upsert(vector("a", 1, n=1), vector("b", 2, n=2), vector("c", 3, n=3))
        where = {"n": {"$gte": 2}}
        assert api.update(filter=where, setMetadata={"seen": True}, dryRun=True) == {"matchedRecords": 2}
        assert api.fetch("b")["vectors"]["b"]["metadata"] == {"n": 2}
        assert api.update(filter=where, setMetadata={"seen": True}) == {"matchedRecords": 2}
        assert api.update(filter={"n": 99}, setMetadata={"seen": True}) == {"matchedRecords": 0}
        assert ids(api.query(vector=[1, 0, 0, 0], topK=5, filter={"seen": True})) == ["b", "c"]
        assert api.fetch("a")["vectors"]["a"]["metadata"] == {"n": 1}

    def test_update_by_empty_filter_is_refused(self, api: Api) -> None:
        """An empty filter would mean everything."""
        with pytest.raises(Refused, match="Update with empty metadata filter is not allowed"):
            api.update(filter={}, setMetadata={"x": 1})

    def test_delete_by_ids_by_filter_and_all(self, api: Api) -> None:
        """Each way deletes what it names; unknown ids are fine; the namespace outlives its last record."""
        api.upsert(*[vector(f"v{n}", n + 1, n=n) for n in range(6)])
        api.delete(ids=["v0", "nobody"])
        api.delete(filter={"n": {"$in": [1, 2]}})
        assert ids(api.query(vector=[1, 0, 0, 0], topK=9)) == ["v3", "v4", "v5"]
        api.delete(deleteAll=True)
        assert api.query(vector=[1, 0, 0, 0], topK=9)["matches"] == []
        assert api.stats()["namespaces"][api.space] == {"vectorCount": 0}

    @pytest.mark.parametrize("body", [{"ids": ["a"]}, {"filter": {"x": 1}}, {"deleteAll": True}])
    def test_delete_in_an_unknown_namespace_is_not_found(self, api: Api, body: dict[str, Any]) -> None:
        """Ids, filter and deleteAll alike."""
        with pytest.raises(Refused) as refused:
            api.delete(**body)
        assert refused.value.code is Code.NOT_FOUND

    def test_delete_right_after_the_first_write_is_not_refused(self, api: Api) -> None:
        """A namespace that the snapshot does not show yet exists nevertheless."""
        for attempt in range(10):
            young = api.on(f"{api.space}-{attempt}")
            young.upsert(vector("a", 1), vector("b", 1))
            young.delete(ids=["a"])
            assert list(young.fetch("a", "b")["vectors"]) == ["b"]

    def test_delete_takes_one_way_at_a_time(self, api: Api) -> None:
        """A deleteAll beside ids or a filter is refused, as is nothing at all, and an empty filter."""
        api.upsert(vector("a", 1))
        for body in ({"deleteAll": True, "ids": ["a"]}, {"deleteAll": True, "filter": {"x": 1}}, {}, {"ids": []}):
            with pytest.raises(Refused) as refused:
                api.delete(**body)
            assert refused.value.code is Code.INVALID_ARGUMENT
        with pytest.raises(Refused, match="Delete with empty metadata filter is not allowed"):
            api.delete(filter={})
        assert list(api.fetch("a")["vectors"]) == ["a"]

    def test_reads_of_an_unknown_namespace_are_empty(self, api: Api) -> None:
        """Query, fetch and list answer with nothing and repeat the namespace."""
        assert api.query(vector=[1, 0, 0, 0], topK=3)["matches"] == []
        assert api.query(id="a", topK=3)["namespace"] == api.space
        assert api.fetch("a")["vectors"] == {}
        assert api.list_page()["vectors"] == []
        found = api.fetch_by_metadata(filter={"x": 1})
        assert (found["vectors"], found["namespace"]) == ({}, api.space)
        assert "pagination" not in found

    def test_the_default_namespace_has_two_names(self, api: Api) -> None:
        """`""` and `__default__` are one namespace, repeated as it was spelled, and counted under the second."""
        empty = api.on("")
        empty.upsert(vector("shared", 1))
        named = empty.on("__default__")
        assert list(named.fetch("shared")["vectors"]) == ["shared"]
        assert empty.query(id="shared", topK=1)["namespace"] == ""
        assert named.query(id="shared", topK=1)["namespace"] == "__default__"
        assert "__default__" in named.stats()["namespaces"]
        assert "" not in named.stats()["namespaces"]

    def test_query_by_id_uses_the_stored_vector(self, api: Api) -> None:
        """The record itself is a match; an unknown id gives none."""
        api.upsert(vector("a", 1, 1), vector("b", 1, 0.5), vector("c", -1))
        assert ids(api.query(id="a", topK=2)) == ["a", "b"]
        assert api.query(id="zzz", topK=2)["matches"] == []

    def test_more_matches_asked_for_than_exist(self, api: Api) -> None:
        """All that exist come back."""
        api.upsert(vector("a", 1), vector("b", 2))
        assert sorted(ids(api.query(vector=[1, 1, 0, 0], topK=10_000))) == ["a", "b"]

    def test_query_gives_what_is_asked_for(self, api: Api) -> None:
        """Values and metadata come only on request; `values` is empty otherwise; readUnits are above zero."""
        api.upsert(vector("a", 0.1, 0.4, color="red"))
        plain = api.query(vector=[1, 0, 0, 0], topK=1)
        assert plain["matches"][0].get("values", []) == []
        assert "metadata" not in plain["matches"][0]
        assert plain["usage"]["readUnits"] > 0
        full = api.query(vector=[1, 0, 0, 0], topK=1, includeValues=True, includeMetadata=True)
        assert full["matches"][0]["values"] == pytest.approx([0.1, 0.4, 0, 0])
        assert full["matches"][0]["metadata"] == {"color": "red"}

    @pytest.mark.parametrize(
        ("metric", "order", "scores"),
        [
            ("cosine", ["near", "far", "other"], [1.0, 1.0, 0.0]),
            ("dotproduct", ["far", "near", "other"], [20.0, 2.0, 0.0]),
            ("euclidean", ["near", "other", "far"], [1.0, 5.0, 64.0 + 36.0 - 19.0]),
        ],
    )
    def test_scores_are_those_of_the_metric(self, api: Api, metric: str, order: list[str], scores: list[float]) -> None:
        """Cosine in [-1, 1] and dot product highest first; squared distance lowest first."""
        index = api.on_metric(metric)
        index.upsert(vector("near", 1), vector("far", 10 if metric != "euclidean" else 11), vector("other", 0, 1))
        question = {"vector": [2, 0, 0, 0], "topK": 3}
        found = index.query(**question)
        assert ids(found) == (order if metric != "cosine" else sorted(order, key=lambda n: (n == "other", n)))
        assert [match["score"] for match in found["matches"]] == pytest.approx(scores)

    def test_equal_scores_are_ordered_by_id(self, api: Api) -> None:
        """Ties are broken the same way every time."""
        api.upsert(*[vector(name, 1, 2) for name in ("d", "b", "c", "a")])
        assert ids(api.query(vector=[1, 2, 0, 0], topK=4)) == ["a", "b", "c", "d"]

    def test_zero_vector_on_a_cosine_index_gives_a_finite_score(self, api: Api) -> None:
        """Freshness polls of clients do this; the score is 0."""
        index = api.on_metric("cosine")
        index.upsert(vector("a", 1), vector("b", 0, 1))
        found = index.query(vector=[0, 0, 0, 0], topK=2)
        assert [match["score"] for match in found["matches"]] == [0, 0]

    def test_filters_choose_matches(self, api: Api) -> None:
        """The whole operator table is the filter language's own test; here it reaches the query."""
        api.upsert(*[vector(f"v{n}", n + 1, n=n, tags=[f"t{n % 2}"]) for n in range(6)])
        question = {"vector": [1, 0, 0, 0], "topK": 9}
        assert ids(api.query(**question, filter={"n": {"$gt": 3}})) == ["v4", "v5"]
        assert ids(api.query(**question, filter={"tags": "t1", "n": {"$lt": 4}})) == ["v1", "v3"]
        assert len(ids(api.query(**question, filter={}))) == 6
        with pytest.raises(Refused, match="regex"):
            api.query(**question, filter={"n": {"$regex": "x"}})

    def test_query_says_how_it_was_searched_where_that_is_asked_for(self, api: Api) -> None:
        """`explain` names every segment that was searched, with its plan and what was looked at; else it is absent."""
        api.upsert(*[vector(f"v{n}", 1, n, n=n) for n in range(6)])
        question = {"vector": [1, 0, 0, 0], "topK": 2}
        assert "explain" not in api.query(**question)
        assert "explain" not in api.query(**question, explain=False)
        (told,) = api.query(**question, explain=True)["explain"]
        assert told.pop("segment") > 0
        assert told.pop("milliseconds") > 0
        assert told == {"plan": "scan", "fellBack": False, "rows": 6, "allowedRows": 6, "candidates": 6}
        (told,) = api.query(**question, filter={"n": {"$lt": 3}}, explain=True)["explain"]
        assert (told["plan"], told["rows"], told["allowedRows"]) == ("filter", 6, 3)
        assert api.query(**question, filter={"n": 9}, explain=True)["explain"] == []
        assert api.query(id="nobody", topK=1, explain=True)["explain"] == []
        with pytest.raises(Refused, match="'explain' must be a boolean"):
            api.query(**question, explain=1)

    def test_pages_of_ids_are_in_byte_order_and_end(self, api: Api) -> None:
        """Every id comes once; the last page has no pagination."""
        names = [f"doc{n // 10}#{n}" for n in range(25)] + ["Z", "z", "~"]
        api.upsert(*[vector(name, 1) for name in names])
        seen: list[str] = []
        parameters: dict[str, Any] = {"limit": 10}
        while True:
            page = api.list_page(**parameters)
            seen += [item["id"] for item in page["vectors"]]
            if "pagination" not in page:
                break
            parameters["paginationToken"] = page["pagination"]["next"]
        assert seen == sorted(names)
        page = api.list_page(prefix="doc1#", limit=100)
        assert [item["id"] for item in page["vectors"]] == sorted(n for n in names if n.startswith("doc1#"))
        assert "pagination" not in page
        exactly = api.list_page(prefix="doc1#", limit=10)
        assert "pagination" not in exactly

    def test_fetch_by_metadata_gives_whole_records_in_pages_by_id(self, api: Api) -> None:
        """Every match comes once, in byte order, with all that it has; the last page has no pagination."""
        colors = ["red", "blue", "red", "red", "red", "red"]
        vectors = [vector(f"v{n}", n + 1, color=color) for n, color in enumerate(colors)]
        api.upsert(*vectors, vector("bare", 1))
        api.update(id="v3", sparseValues={"indices": [3], "values": [0.5]})
        seen: dict[str, Any] = {}
        sizes = []
        body: dict[str, Any] = {"filter": {"color": {"$eq": "red"}}, "limit": 2}
        while True:
            page = api.fetch_by_metadata(**body)
            assert page["namespace"] == api.space
            assert page["usage"]["readUnits"] > 0
            assert seen.keys().isdisjoint(page["vectors"])
            seen |= page["vectors"]
            sizes.append(len(page["vectors"]))
            if "pagination" not in page:
                break
            body["paginationToken"] = page["pagination"]["next"]
        assert sizes == [2, 2, 1]
        assert list(seen) == ["v0", "v2", "v3", "v4", "v5"]
        assert seen["v4"] == {"id": "v4", "values": [5, 0, 0, 0], "metadata": {"color": "red"}}
        assert seen["v3"]["sparseValues"] == {"indices": [3], "values": [0.5]}
        assert "pagination" not in api.fetch_by_metadata(filter={"color": "red"}, limit=5)
        assert "pagination" not in api.fetch_by_metadata(filter={"color": "red"})
        assert api.fetch_by_metadata(filter={"color": "green"})["vectors"] == {}

    def test_pages_by_metadata_miss_nothing_that_was_there_throughout(self, api: Api) -> None:
        """Writes between two pages move no other record: updated, deleted and new ones come once or not at all."""
        api.upsert(*[vector(f"v{n:02}", n + 1, kind="k", n=n) for n in range(30)])
        seen: list[str] = []
        body: dict[str, Any] = {"filter": {"kind": "k"}, "limit": 7}
        while True:
            page = api.fetch_by_metadata(**body)
            seen += page["vectors"]
            if "pagination" not in page:
                break
            body["paginationToken"] = page["pagination"]["next"]
            api.upsert(vector("v00", 9, kind="k"), vector("v29", 9, kind="k"), vector(f"v1{len(seen)}", 1, kind="k"))
            api.delete(ids=["v01", "v28"])
            api.update(id="v15", setMetadata={"n": -1})
        assert len(seen) == len(set(seen))
        stayed = {f"v{n:02}" for n in range(30)} - {"v01", "v28"}
        assert stayed <= set(seen)

    def test_fetch_by_metadata_pages_hold_a_hundred_unless_told_otherwise(self, api: Api) -> None:
        """The default limit is 100."""
        api.upsert(*[vector(f"v{n:03}", n + 1, kind="k") for n in range(101)])
        page = api.fetch_by_metadata(filter={"kind": "k"})
        assert len(page["vectors"]) == 100
        rest = api.fetch_by_metadata(filter={"kind": "k"}, paginationToken=page["pagination"]["next"])
        assert list(rest["vectors"]) == ["v100"]

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ({}, "Empty filter provided for fetch by metadata request"),
            ({"filter": {}}, "Empty filter provided for fetch by metadata request"),
            ({"filter": {"n": {"$regex": "x"}}}, "is not a filter operator"),
            ({"filter": {"n": 1}, "limit": 10_001}, "Limit must be 1 to 10000, got 10001"),
            ({"filter": {"n": 1}, "limit": 0}, "Limit must be 1 to 10000, got 0"),
            ({"filter": {"n": 1}, "paginationToken": "nonsense"}, "Invalid pagination token"),
        ],
    )
    def test_fetch_by_metadata_says_what_is_wrong(self, api: Api, body: dict[str, Any], message: str) -> None:
        """Without a filter, with a bad limit or a foreign token it is refused."""
        api.upsert(vector("a", 1, n=1))
        with pytest.raises(Refused, match=message) as refused:
            api.fetch_by_metadata(**body)
        assert refused.value.code is Code.INVALID_ARGUMENT

    def test_token_of_another_question_is_refused(self, api: Api) -> None:
        """A page goes on with the filter that it began with, and no listing's token means anything here."""
        api.upsert(*[vector(f"v{n}", n + 1, n=n) for n in range(3)])
        token = api.fetch_by_metadata(filter={"n": {"$gte": 0}}, limit=1)["pagination"]["next"]
        with pytest.raises(Refused, match="of another filter"):
            api.fetch_by_metadata(filter={"n": {"$gte": 1}}, limit=1, paginationToken=token)
        listed = api.list_page(limit=1)["pagination"]["next"]
        with pytest.raises(Refused, match="Invalid pagination token"):
            api.fetch_by_metadata(filter={"n": {"$gte": 0}}, paginationToken=listed)
        with pytest.raises(Refused, match="Invalid pagination token"):
            api.list_page(paginationToken=token)

    def test_namespaces_live_from_creation_or_first_write_to_deletion(self, api: Api) -> None:
        """A duplicate is refused, a deleted one is gone with its records, and can be made again."""
        name = api.space
        api.create_namespace(name)
        assert int(api.describe_namespace(name)["record_count"]) == 0
        with pytest.raises(Refused) as refused:
            api.create_namespace(name)
        assert refused.value.code is Code.ALREADY_EXISTS
        api.upsert(vector("a", 1))
        assert int(api.describe_namespace(name)["record_count"]) == 1
        api.delete_namespace(name)
        for gone in (api.describe_namespace, api.delete_namespace):
            with pytest.raises(Refused) as refused:
                gone(name)
            assert refused.value.code is Code.NOT_FOUND
        api.create_namespace(name)
        assert api.fetch("a")["vectors"] == {}

    def test_the_default_namespace_cannot_be_created(self, api: Api) -> None:
        """Under neither of its names."""
        for name in ("", "__default__"):
            with pytest.raises(Refused) as refused:
                api.create_namespace(name)
            assert refused.value.code is Code.INVALID_ARGUMENT

    def test_stats_add_up(self, api: Api) -> None:
        """The total is the sum of the namespaces; the fields of the hosted service are there."""
        api.upsert(vector("a", 1), vector("b", 1))
        stats = api.stats()
        assert stats["namespaces"][api.space] == {"vectorCount": 2}
        assert stats["totalVectorCount"] == sum(one["vectorCount"] for one in stats["namespaces"].values())
        assert stats["dimension"] == 4
        assert stats["indexFullness"] == 0
