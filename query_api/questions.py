"""A query: what it asks for, whether it fits the index, what it costs, and its answer from one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from indexer.segments.search import SliceReport
from indexer.snapshots.snapshot import Hit, SearchQuery, Snapshot
from schemas.errors import InvalidRequest
from schemas.filters import Filter
from schemas.indexes import IndexSpec, Metric, VectorType
from schemas.limits import CANDIDATES_MAX, SCAN_FACTOR_MAX, SCAN_FACTOR_MIN, SPARSE_NONZEROS_MAX, TOP_K_MAX
from schemas.records import Record, Sparse, check_id

__all__ = ["Match", "QueryResult", "Question", "check_question", "matches_of", "query_of", "search", "search_ns"]

# A filter multiplies what a search takes by about this much, by 3.5 where it leaves out what is near the query; what a
# row costs in a mask, and as a document.
_FILTERED, _MASK_ROW_NS, _DOCUMENT_NS = 2.5, 2, 1_000


@dataclass(frozen=True, slots=True)
class Question:
    """A query: by `vector` (float32 [d]), by `sparse`, by both, or by what the record `id` has of them.

    `alone` asks for one part of the records only, in any index whose records have it, whatever else they have: sparse
    values beside dense ones of any metric, or dense ones of an index that takes both. `explain` asks how each segment
    was searched, too. `scan_factor` and `max_candidates` are checked and change nothing: how much is looked at follows
    from the recall that the index is to have.
    """

    top_k: int
    vector: npt.NDArray[np.float32] | None = None
    id: str | None = None
    sparse: Sparse | None = None
    where: Filter | None = None
    include_values: bool = False
    include_metadata: bool = False
    explain: bool = False
    scan_factor: float | None = None
    max_candidates: int | None = None
    alone: VectorType | None = None


class Match(NamedTuple):
    """One answer to a query; `record` holds what was asked for, None where nothing beyond the id was."""

    id: str
    score: float
    record: Record | None


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Matches, best first, and how each segment was searched: empty where nothing was, None where nobody asked."""

    matches: list[Match]
    explain: Sequence[SliceReport] | None = None


def check_question(spec: IndexSpec, question: Question) -> None:
    """Raise `InvalidRequest` where a query does not fit the index."""
    if not 1 <= question.top_k <= TOP_K_MAX:
        raise InvalidRequest(f"Invalid top_k {question.top_k}: topK must be 1 to {TOP_K_MAX}", limit=TOP_K_MAX)
    _check_tuning(question)
    if question.id is not None:
        if question.vector is not None:
            raise InvalidRequest("Cannot provide both 'ID' and 'vector' at the same time")
        if question.sparse is not None:
            raise InvalidRequest("Cannot provide both 'ID' and 'sparse_vector' at the same time")
        check_id(question.id)
    if question.alone is None:
        _check_parts(question, spec)
    else:
        _check_alone(question, question.alone, spec)
    if question.vector is not None:
        if len(question.vector) != spec.dimension:
            raise InvalidRequest(
                f"Vector dimension {len(question.vector)} does not match the dimension of the index {spec.dimension}",
                dimension=spec.dimension,
            )
        # A sum of squares is finite where all numbers are; one that overflowed says nothing yet.
        if not (np.dot(question.vector, question.vector) < np.inf or np.isfinite(question.vector).all()):
            raise InvalidRequest("Query vector values must be finite float32 numbers")
    if question.sparse is not None:
        if len(question.sparse.indices) > SPARSE_NONZEROS_MAX:
            raise InvalidRequest(
                f"Query sparse vector has {len(question.sparse.indices)} non-zero values; "
                f"the limit is {SPARSE_NONZEROS_MAX}",
                limit=SPARSE_NONZEROS_MAX,
            )
        if not np.isfinite(question.sparse.values).all():
            raise InvalidRequest("Query sparse vector values must be finite float32 numbers")


def _check_tuning(question: Question) -> None:
    factor, candidates = question.scan_factor, question.max_candidates
    # Written so that NaN fails.
    if factor is not None and not SCAN_FACTOR_MIN <= factor <= SCAN_FACTOR_MAX:
        raise InvalidRequest(f"scanFactor must be {SCAN_FACTOR_MIN:g} to {SCAN_FACTOR_MAX:g}, got {factor:g}")
    if candidates is not None and not question.top_k <= candidates <= CANDIDATES_MAX:
        raise InvalidRequest(
            f"maxCandidates must be topK ({question.top_k}) to {CANDIDATES_MAX}, got {candidates}",
            limit=CANDIDATES_MAX,
        )


def _check_parts(question: Question, spec: IndexSpec) -> None:
    if spec.vector_type is VectorType.SPARSE:
        if question.vector is not None and question.sparse is not None:
            raise InvalidRequest("Index configuration does not support dense values")
        if question.sparse is None and question.id is None:
            raise InvalidRequest("Either 'sparse_vector' or 'ID' must be provided")
        return
    if question.vector is None and question.id is None:
        if question.sparse is not None:
            raise InvalidRequest("Cannot query index with dense 'vector_type' with only sparse vector")
        raise InvalidRequest("Either 'vector' or 'ID' must be provided")
    if question.sparse is not None and spec.metric is not Metric.DOTPRODUCT:
        raise InvalidRequest("Index configuration does not support sparse values: the metric must be dotproduct")


def _check_alone(question: Question, part: VectorType, spec: IndexSpec) -> None:
    wanted, other = ("sparse", "vector") if part is VectorType.SPARSE else ("vector", "sparse")
    if part is VectorType.DENSE and spec.vector_type is VectorType.SPARSE:
        raise InvalidRequest("Index configuration does not support dense values")
    if getattr(question, other) is not None:
        raise InvalidRequest(f"A query by {part} values alone takes no other vector")
    if getattr(question, wanted) is None and question.id is None:
        raise InvalidRequest(f"A query by {part} values needs a {part} vector or an 'ID'")


def query_of(snapshot: Snapshot, name: str, spec: IndexSpec, question: Question) -> SearchQuery | None:
    """Return what a checked question looks for in a snapshot; `name` is a canonical namespace.

    None where it is by a record that is not there, or that has nothing to search by.
    """
    vector, sparse = question.vector, question.sparse
    if question.id is not None:
        record = snapshot.fetch(name, [question.id]).get(question.id)
        if record is None:
            return None
        vector, sparse = record.values, record.sparse
        # Sparse values beside dense ones that are compared otherwise are stored, and play no part.
        if question.alone is VectorType.SPARSE:
            vector = None
        elif question.alone is VectorType.DENSE or spec.metric is not Metric.DOTPRODUCT:
            sparse = None
    if vector is None and sparse is None:
        return None
    return SearchQuery(vector, question.top_k, question.where, sparse)


def search_ns(snapshot: Snapshot, name: str, query: SearchQuery) -> float:
    """Return about how many nanoseconds a search takes."""
    cost_ns = snapshot.plan(name, replace(query, where=None)).cost_ns
    if query.where is None:
        return cost_ns
    # Masks of all rows; and rows that were never rolled up have no columns: their documents are read.
    return _FILTERED * cost_ns + _MASK_ROW_NS * snapshot.live_rows + _DOCUMENT_NS * snapshot.tail_rows_of(name)


def search(snapshot: Snapshot, name: str, query: SearchQuery, question: Question) -> QueryResult:
    """Return the answer from one snapshot to a question that looks for `query`; `name` is a canonical namespace."""
    hits, reports = snapshot.search_explained(name, query)
    return QueryResult(matches_of(snapshot, hits, question), reports if question.explain else None)


def matches_of(snapshot: Snapshot, hits: Sequence[Hit], question: Question) -> list[Match]:
    """Return the matches of `hits`, in their order, with what the question asked for of their records."""
    if not (question.include_values or question.include_metadata):
        return [Match(hit.id, hit.score, None) for hit in hits]
    records = snapshot.records(hits, values=question.include_values, metadata=question.include_metadata)
    return [Match(hit.id, hit.score, record) for hit, record in zip(hits, records, strict=True)]
