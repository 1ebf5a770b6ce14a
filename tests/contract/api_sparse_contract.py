"""What every transport promises of sparse values: queries by them alone, beside dense ones, and by id.

A subclass gives the fixture `api`, like one of `ApiContract`; `on_metric("sparse")` is an index of sparse vectors.
"""

from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import Code
from tests.contract.api_contract import Api, Refused, ids, vector

__all__ = ["ApiSparseContract"]


def sparse(**values: float) -> dict[str, Any]:
    """Return a sparse vector; an index is spelled `_7`."""
    return {"indices": [int(key[1:]) for key in values], "values": list(values.values())}


def word(name: str, parts: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"id": name, "sparseValues": parts, **({"metadata": metadata} if metadata else {})}


def scores(answer: dict[str, Any]) -> dict[str, float]:
    return {match["id"]: match["score"] for match in answer["matches"]}


class ApiSparseContract:
    """Run for every transport."""

    @pytest.fixture
    def words(self, api: Api) -> Api:
        """An index of sparse vectors with four records."""
        index = api.on_metric("sparse")
        index.upsert(
            word("a", sparse(_1=1, _4294967295=2), n=1),
            word("b", sparse(_0=3, _1=-1), n=2),
            word("c", sparse(_1=0.5), n=3),
            word("d", sparse(_9=9), n=4),
        )
        return index

    @pytest.fixture
    def mixed(self, api: Api) -> Api:
        """A dense index of metric dotproduct, two of whose three records have sparse values."""
        index = api.on_metric("dotproduct")
        index.upsert(
            vector("a", 1, n=1) | {"sparseValues": sparse(_7=1)},
            vector("b", 2, n=2) | {"sparseValues": sparse(_7=-2, _8=1)},
            vector("c", 3, n=3),
        )
        return index

    def test_sparse_index_is_asked_by_sparse_vector(self, words: Api) -> None:
        """The score is the sum over shared indices; what shares none is left out, however many are asked for."""
        found = words.query(sparseVector=sparse(_1=2, _4294967295=10, _5=1), topK=10)
        assert ids(found) == ["a", "c", "b"]
        assert scores(found) == {"a": 22, "c": 1, "b": -2}
        assert ids(words.query(sparseVector=sparse(_1=2), topK=1)) == ["a"]
        assert words.query(sparseVector=sparse(_77=1), topK=10)["matches"] == []

    def test_sparse_index_is_asked_by_id(self, words: Api) -> None:
        """By what the record has; it is a match itself; an unknown id gives none."""
        assert scores(words.query(id="b", topK=10)) == {"b": 10, "a": -1, "c": -0.5}
        assert words.query(id="nobody", topK=10)["matches"] == []

    def test_matches_of_a_sparse_index_have_sparse_values_and_metadata_on_request(self, words: Api) -> None:
        """Sparse values come back by ascending index."""
        question = {"sparseVector": sparse(_4294967295=1, _1=0), "topK": 1}
        (plain,) = words.query(**question)["matches"]
        assert plain.get("values", []) == []
        assert "sparseValues" not in plain
        (full,) = words.query(**question, includeValues=True, includeMetadata=True)["matches"]
        assert full["sparseValues"] == {"indices": [1, 4294967295], "values": [1, 2]}
        assert full["metadata"] == {"n": 1}

    def test_filters_updates_and_deletes_reach_sparse_queries(self, words: Api) -> None:
        """A filter chooses among the matches; new sparse values replace the old ones; a deleted record is gone."""
        question = {"sparseVector": sparse(_1=1), "topK": 10}
        assert ids(words.query(**question, filter={"n": {"$gte": 2}})) == ["c", "b"]
        words.update(id="c", sparseValues=sparse(_1=7, _2=1))
        words.delete(ids=["a"])
        assert scores(words.query(**question)) == {"c": 7, "b": -1}

    def test_equal_products_are_ordered_by_id(self, words: Api) -> None:
        """Ties are broken the same way every time."""
        words.upsert(*[word(name, sparse(_5=1)) for name in ("t3", "t1", "t2")])
        assert ids(words.query(sparseVector=sparse(_5=1), topK=2)) == ["t1", "t2"]

    def test_hybrid_score_is_the_sum_of_both_parts(self, mixed: Api) -> None:
        """A record without sparse values, or without an index in common, keeps its dense score."""
        found = mixed.query(vector=[1, 0, 0, 0], sparseVector=sparse(_7=5, _100=1), topK=10)
        assert ids(found) == ["a", "c", "b"]
        assert scores(found) == {"a": 6, "c": 3, "b": -8}
        assert ids(mixed.query(vector=[0, 0, 0, 0], sparseVector=sparse(_8=1), topK=3)) == ["b", "a", "c"]
        filtered = mixed.query(vector=[1, 0, 0, 0], sparseVector=sparse(_7=5), topK=10, filter={"n": {"$gt": 1}})
        assert ids(filtered) == ["c", "b"]

    def test_hybrid_record_is_asked_for_by_both_of_its_parts(self, mixed: Api) -> None:
        """A query by id takes what the record has; without sparse values that is the dense part alone."""
        assert scores(mixed.query(id="b", topK=10)) == {"b": 4 + 5, "c": 6, "a": 2 - 2}
        assert scores(mixed.query(id="c", topK=10)) == {"c": 9, "b": 6, "a": 3}

    def test_sparse_values_play_no_part_beside_another_metric(self, api: Api) -> None:
        """They may be stored in any dense index; a query by id compares by the metric alone."""
        index = api.on_metric("cosine")
        index.upsert(*[vector(name, 1, 1) | {"sparseValues": sparse(_1=9)} for name in ("a", "b")])
        assert scores(index.query(id="a", topK=2)) == pytest.approx({"a": 1, "b": 1})

    def test_report_names_the_parts_that_were_searched(self, words: Api, mixed: Api) -> None:
        """`explain` says `sparse` for one part, and what was done with the other one behind a plus."""
        (told, *_) = words.query(sparseVector=sparse(_1=1), topK=10, explain=True)["explain"]
        assert told["plan"] == "sparse"
        both = {"vector": [1, 0, 0, 0], "sparseVector": sparse(_7=1), "topK": 10, "explain": True}
        assert mixed.query(**both)["explain"][0]["plan"] == "sparse+scan"
        assert mixed.query(**both, filter={"n": {"$gt": 1}})["explain"][0]["plan"] == "sparse+filter"

    @pytest.mark.parametrize(
        ("metric", "question", "says"),
        [
            ("sparse", {"vector": [1, 0, 0, 0]}, "Either 'sparse_vector' or 'ID' must be provided"),
            ("sparse", {}, "Either 'sparse_vector' or 'ID' must be provided"),
            (
                "sparse",
                {"vector": [1, 0, 0, 0], "sparseVector": sparse(_1=1)},
                "Index configuration does not support dense values",
            ),
            (
                "sparse",
                {"id": "a", "sparseVector": sparse(_1=1)},
                "Cannot provide both 'ID' and 'sparse_vector' at the same time",
            ),
            (
                "dotproduct",
                {"sparseVector": sparse(_1=1)},
                "Cannot query index with dense 'vector_type' with only sparse vector",
            ),
            (
                "cosine",
                {"vector": [1, 0, 0, 0], "sparseVector": sparse(_1=1)},
                "Index configuration does not support sparse values",
            ),
            ("sparse", {"sparseVector": {"indices": [3, 3], "values": [1, 2]}}, "more than once"),
            ("sparse", {"sparseVector": {"indices": [3], "values": [1, 2]}}, "as many values as indices"),
            ("sparse", {"sparseVector": {"indices": list(range(2049)), "values": [1] * 2049}}, "2048"),
        ],
    )
    def test_question_that_does_not_fit_the_index_is_refused(
        self, api: Api, metric: str, question: dict[str, Any], says: str
    ) -> None:
        """In the words of the hosted service, where it has them."""
        with pytest.raises(Refused, match=says) as refused:
            api.on_metric(metric).query(**question, topK=3)
        assert refused.value.code is Code.INVALID_ARGUMENT

    def test_vector_of_as_many_values_as_may_be_is_taken(self, words: Api) -> None:
        """2,048 of them, written and asked for."""
        parts = {"indices": list(range(100, 2148)), "values": [1] * 2048}
        words.upsert(word("full", parts))
        assert scores(words.query(sparseVector=parts, topK=1)) == {"full": 2048}
