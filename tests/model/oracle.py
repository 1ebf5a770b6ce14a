"""What the pipeline must show: a dictionary and exact search, folded from the meaning of the log's records.

Written apart from the product on purpose: its own merge of metadata, its own filters, its own arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import orjson

from schemas import idempotency
from schemas.indexes import Metric
from schemas.operations import (
    CreateNamespace,
    Delete,
    DeleteNamespace,
    DeleteWhere,
    Event,
    Update,
    UpdateWhere,
    Upsert,
)
from schemas.records import Sparse
from tests.support.driver import Book, Said

__all__ = ["Kept", "Oracle", "State", "matches", "score", "score_of_parts"]

_OK, _NOT_FOUND, _ALREADY_EXISTS = 0, 5, 6
# What comes of these depends on the state.
_DECIDED = (UpdateWhere, DeleteWhere, DeleteNamespace, CreateNamespace)
Document = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Kept:
    """A record; `sparse` is its indices and values."""

    values: bytes
    sparse: tuple[tuple[int, ...], tuple[float, ...]] | None
    metadata: Document


@dataclass(frozen=True, slots=True)
class Result:
    """What came of an event that depends on the state."""

    code: int
    matched: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Done:
    """What was carried out under an idempotency key: from where on, how many events, what came of the last."""

    beginning: int
    events: int
    result: tuple[int, int] = (_OK, 0)


@dataclass(slots=True)
class State:
    """Everything below `next_offset`. Namespaces that exist are keys of `records` and of `schemas`."""

    next_offset: int = 0
    time_ms: int = 0
    records: dict[str, dict[str, Kept]] = field(default_factory=dict)
    schemas: dict[str, bytes] = field(default_factory=dict)
    results: dict[int, Result] = field(default_factory=dict)
    dead_letters: list[Said] = field(default_factory=list)
    done: dict[tuple[str, bytes], Done] = field(default_factory=dict)
    # Events that were left out because they came again, and events that came again too late for that.
    repeated: int = 0
    forgotten: int = 0

    def copy(self) -> State:
        """Return a state that can be changed without changing this one."""
        return State(
            self.next_offset,
            self.time_ms,
            {name: dict(records) for name, records in self.records.items()},
            dict(self.schemas),
            dict(self.results),
            list(self.dead_letters),
            dict(self.done),
            self.repeated,
            self.forgotten,
        )

    def ids(self, name: str) -> list[str]:
        """Return the ids of a namespace in order."""
        return sorted(self.records.get(name, {}))

    def search(
        self,
        name: str,
        query: np.ndarray | None,
        metric: Metric,
        *,
        top_k: int,
        where: Document | None,
        sparse: Sparse | None = None,
    ) -> list[tuple[str, float]]:
        """Return the best records, exactly: id and score, best first, ties by id.

        By a sparse vector alone, only those that share an index with it.
        """
        scored = []
        for key, kept in self.records.get(name, {}).items():
            if where is not None and not matches(where, kept.metadata):
                continue
            number = score_of_parts(metric, kept, query, sparse)
            if number is not None:
                scored.append((key, number))
        sign = 1 if metric is Metric.EUCLIDEAN and query is not None else -1
        return sorted(scored, key=lambda item: (sign * item[1], item[0]))[:top_k]

    def fold(self, said: Said) -> None:
        """Take one record in."""
        self.next_offset = said.offset + 1
        self.time_ms = said.record.time_ms
        if said.event is None:
            self.dead_letters.append(said)
            return
        result = self._apply(said.namespace, said.event) if said.key is None else self._apply_once(said, said.key)
        if result is not None:
            self.results[said.offset] = Result(*result, said.record.time_ms)

    def _apply_once(self, said: Said, key: bytes) -> tuple[int, int] | None:
        assert said.event is not None
        beginning = said.offset - said.ordinal
        done = self.done.get((said.namespace, key))
        if done is not None and beginning - done.beginning >= idempotency.IDEMPOTENCY_EVENTS:
            done = None
            self.forgotten += 1
        if done is not None and said.ordinal < done.events:
            self.repeated += 1
            return done.result if isinstance(said.event, _DECIDED) else None
        result = self._apply(said.namespace, said.event)
        last = result or (done.result if done is not None else (_OK, 0))
        newest = max(beginning, done.beginning if done is not None else 0)
        self.done[said.namespace, key] = Done(newest, said.ordinal + 1, last)
        return result

    def _apply(self, name: str, event: Event) -> tuple[int, int] | None:
        known = self.records.get(name)
        match event:
            case Upsert(key, values, sparse, metadata):
                if known is None:
                    known = self._create(name, b"")
                pair = None if sparse is None else (tuple(sparse.indices.tolist()), tuple(sparse.values.tolist()))
                known[key] = Kept(values, pair, _document(metadata))
            case Update(key, values, sparse, set_metadata):
                if known is not None and key in known:
                    known[key] = _updated(known[key], values, sparse, set_metadata)
            case Delete(key):
                (known or {}).pop(key, None)
            case UpdateWhere(where, set_metadata):
                hit = [key for key, kept in (known or {}).items() if matches(orjson.loads(where), kept.metadata)]
                for key in hit:
                    known[key] = _updated(known[key], None, None, set_metadata)
                return _OK, len(hit)
            case DeleteWhere(where):
                hit = [key for key, kept in (known or {}).items() if matches(orjson.loads(where), kept.metadata)]
                for key in hit:
                    del known[key]
                return _OK, len(hit)
            case DeleteNamespace(keep):
                if known is None:
                    return _NOT_FOUND, 0
                schema = self.schemas.pop(name)
                del self.records[name]
                if keep:
                    self._create(name, schema)
                return _OK, 0
            case CreateNamespace(schema):
                if known is not None:
                    return _ALREADY_EXISTS, 0
                self._create(name, schema)
                return _OK, 0
        return None

    def _create(self, name: str, schema: bytes) -> dict[str, Kept]:
        self.schemas[name] = schema
        self.records[name] = {}
        return self.records[name]


class Oracle:
    """States of a log at any of its positions; each is kept, for followers that lag and workers that fall back."""

    def __init__(self, book: Book) -> None:
        """Follow `book`."""
        self._book = book
        self._states = {0: State()}

    def at(self, offset: int) -> State:
        """Return the state that shows exactly the records below `offset`. Must not be changed."""
        state = self._states.get(offset)
        if state is None:
            begin = max(known for known in self._states if known <= offset)
            state = self._states[begin].copy()
            for said in self._book.said:
                if begin <= said.offset < offset:
                    state.fold(said)
            state.next_offset = offset
            self._states[offset] = state
        return state

    def cut(self, end: int) -> None:
        """Forget what the log has lost."""
        self._states = {offset: state for offset, state in self._states.items() if offset <= end}


def score(metric: Metric, vector: np.ndarray, query: np.ndarray) -> float:
    """Return the score of a vector as a client sees it, in float64."""
    left, right = vector.astype(np.float64), query.astype(np.float64)
    if metric is Metric.EUCLIDEAN:
        return float(((left - right) ** 2).sum())
    product = float((left * right).sum())
    if metric is Metric.DOTPRODUCT:
        return product
    length = math.sqrt(float((left * left).sum()) * float((right * right).sum()))
    return max(-1.0, min(1.0, product / length)) if length else 0.0


def sparse_score(pair: tuple[tuple[int, ...], tuple[float, ...]] | None, query: Sparse) -> float | None:
    """Return the product of a record's sparse values with a query's; None where they share no index."""
    own = {} if pair is None else dict(zip(*pair, strict=True))
    asked = dict(zip(query.indices.tolist(), query.values.tolist(), strict=True))
    shared = own.keys() & asked.keys()
    return sum(own[index] * asked[index] for index in sorted(shared)) if shared else None


def score_of_parts(metric: Metric, kept: Kept, query: np.ndarray | None, sparse: Sparse | None) -> float | None:
    """Return the score of a record by both parts of a query; None where it is no match."""
    product = None if sparse is None else sparse_score(kept.sparse, sparse)
    if query is None:
        return product
    return score(metric, np.frombuffer(kept.values, "<f4"), query) + (product or 0.0)


def matches(where: Document, document: Document) -> bool:
    """Say whether metadata matches a filter in its JSON form."""
    for key, operand in where.items():
        if key == "$and":
            holds = all(matches(part, document) for part in operand)
        elif key == "$or":
            holds = any(matches(part, document) for part in operand)
        elif isinstance(operand, dict):
            holds = all(_holds(operator, value, key, document) for operator, value in operand.items())
        else:
            holds = _holds("$eq", operand, key, document)
        if not holds:
            return False
    return True


def _holds(operator: str, operand: object, key: str, document: Document) -> bool:
    if operator == "$exists":
        return (key in document) is operand
    if key not in document:
        return False
    value = document[key]
    values: Sequence[object] = value if isinstance(value, list) else [value]
    operands: Sequence[object] = operand if operator in ("$in", "$nin") else [operand]
    equal = any(_same(one, other) for one in values for other in operands)
    if operator in ("$eq", "$in"):
        return equal
    if operator in ("$ne", "$nin"):
        return not equal
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return {"$gt": value > operand, "$gte": value >= operand, "$lt": value < operand, "$lte": value <= operand}[
        operator
    ]


def _same(one: object, other: object) -> bool:
    return isinstance(one, bool) is isinstance(other, bool) and one == other


def _document(metadata: bytes | None) -> dict[str, object]:
    return orjson.loads(metadata) if metadata else {}


def _updated(kept: Kept, values: bytes | None, sparse: object, set_metadata: bytes | None) -> Kept:
    if values is not None:
        kept = replace(kept, values=values)
    if sparse is not None:
        kept = replace(kept, sparse=(tuple(sparse.indices.tolist()), tuple(sparse.values.tolist())))
    return replace(kept, metadata={**kept.metadata, **_document(set_metadata)})
