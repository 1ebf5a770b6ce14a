"""What a question means for an index, free of any transport: its parts, and one part of the records alone."""

from __future__ import annotations

import numpy as np
import pytest

from query_api.questions import Question, check_question, query_of, search, search_ns
from schemas.errors import InvalidRequest
from schemas.indexes import Metric, VectorType
from schemas.operations import Upsert
from schemas.records import make_sparse
from tests.support.builders import dense, spec_of, words
from tests.support.driver import Pipeline

_DENSE = np.ones(4, np.float32)
_SPARSE = make_sparse([1], [1.0])


@pytest.fixture
def snapshot(tmp_path):
    """Four records, the last of which has no sparse values."""
    pipeline = Pipeline(tmp_path, spec_of(Metric.EUCLIDEAN))
    worker = pipeline.worker()
    sparse = [make_sparse([1, 2], [1.0, 2.0]), make_sparse([2], [3.0]), make_sparse([5], [1.0]), None]
    pipeline.book.append_all(
        "films", [Upsert(f"r{number}", dense(number).tobytes(), one, b"") for number, one in enumerate(sparse)]
    )
    worker.publish()
    return worker.snapshot


def answer(snapshot, spec, **asked):
    question = Question(10, **asked)
    check_question(spec, question)
    query = query_of(snapshot, "films", spec, question)
    return [] if query is None else [(m.id, m.score) for m in search(snapshot, "films", query, question).matches]


def test_sparse_values_alone_are_compared_in_an_index_of_any_metric(snapshot):
    """By their inner product, highest first, whatever the dense ones are compared by."""
    spec = spec_of(Metric.EUCLIDEAN)
    found = answer(snapshot, spec, sparse=make_sparse([2], [2.0]), alone=VectorType.SPARSE)
    assert found == [("r1", 6.0), ("r0", 4.0)]
    assert answer(snapshot, spec, id="r0", alone=VectorType.SPARSE) == [("r1", 6.0), ("r0", 5.0)]
    assert answer(snapshot, spec, id="r3", alone=VectorType.SPARSE) == []
    assert answer(snapshot, spec, id="nobody", alone=VectorType.SPARSE) == []


@pytest.mark.parametrize("alone", [None, VectorType.DENSE])
def test_query_by_id_takes_the_parts_that_are_asked_for(tmp_path, alone):
    """Both of a dotproduct index; the dense one alone where that is asked for."""
    spec = spec_of(Metric.DOTPRODUCT)
    pipeline = Pipeline(tmp_path, spec)
    worker = pipeline.worker()
    pipeline.book.append("films", Upsert("a", _DENSE.tobytes(), make_sparse([1], [3.0]), b""))
    worker.publish()
    assert answer(worker.snapshot, spec, id="a", alone=alone) == [("a", 4.0 if alone else 13.0)]


_DOT, _EUCLIDEAN, _ONLY_SPARSE = spec_of(Metric.DOTPRODUCT), spec_of(Metric.EUCLIDEAN), spec_of(dimension=0)


@pytest.mark.parametrize(
    ("spec", "asked", "says"),
    [
        (_EUCLIDEAN, {"sparse": _SPARSE}, "with only sparse vector"),
        (_EUCLIDEAN, {"sparse": _SPARSE, "vector": _DENSE}, "does not support sparse values"),
        (_DOT, {"sparse": _SPARSE, "vector": _DENSE, "alone": VectorType.SPARSE}, "takes no other vector"),
        (_DOT, {"sparse": _SPARSE, "vector": _DENSE, "alone": VectorType.DENSE}, "takes no other vector"),
        (_DOT, {"alone": VectorType.SPARSE}, "needs a sparse vector or an 'ID'"),
        (_DOT, {"alone": VectorType.DENSE}, "needs a dense vector or an 'ID'"),
        (_ONLY_SPARSE, {"vector": _DENSE, "alone": VectorType.DENSE}, "does not support dense values"),
        (_ONLY_SPARSE, {"id": "a", "sparse": _SPARSE, "alone": VectorType.SPARSE}, "at the same time"),
        (_ONLY_SPARSE, {"sparse": make_sparse([1, 2], [1.0, np.inf])}, "finite"),
        (_ONLY_SPARSE, {"sparse": make_sparse(np.arange(2049), np.ones(2049))}, "2048"),
    ],
)
def test_question_that_does_not_fit_is_refused(spec, asked, says):
    """Before anything is looked for."""
    with pytest.raises(InvalidRequest, match=says):
        check_question(spec, Question(3, **asked))


@pytest.mark.parametrize("alone", [None, VectorType.SPARSE])
def test_sparse_index_is_asked_the_same_with_and_without_a_wish_for_its_only_part(alone):
    """What an index has one part of needs no word."""
    check_question(_ONLY_SPARSE, Question(3, sparse=_SPARSE, alone=alone))
    check_question(_ONLY_SPARSE, Question(3, id="a", alone=alone))


def test_cost_of_a_sparse_search_grows_with_what_it_looks_at(tmp_path):
    """An estimate, so that a long search leaves the event loop: more values to look at, and both parts, cost more."""
    spec = spec_of(Metric.DOTPRODUCT)
    pipeline = Pipeline(tmp_path, spec)
    worker = pipeline.worker()
    events = [Upsert(f"r{number}", dense(number).tobytes(), words(number), b"") for number in range(120)]
    for first in range(0, 120, 40):
        pipeline.book.append_all("films", events[first : first + 40])
        worker.publish()
    worker.merge_all()

    def cost(vector, count):
        question = Question(10, vector=vector, sparse=words(3, count))
        return search_ns(worker.snapshot, "films", query_of(worker.snapshot, "films", spec, question))

    assert 0 < cost(None, 1) < cost(None, 20) < cost(dense(1), 20)
