"""The filter language over metadata: JSON parsed to a frozen tree. Evaluation is `indexer.filtering`.

Source: https://docs.pinecone.io/guides/search/filter-by-metadata. Operators: a bare value, `$eq $ne $gt $gte $lt $lte
$in $nin $exists` on a field, `$and $or` over filters; several fields of an object, and several operators of a field,
must all hold. The tree is canonical: the JSON that it is written as parses to the same tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

import orjson

from schemas.errors import InvalidRequest
from schemas.limits import FILTER_DEPTH_MAX, FILTER_IN_MAX, FILTER_NODES_MAX
from schemas.metadata import exact_number, shown

__all__ = [
    "And",
    "Exists",
    "Filter",
    "OneOf",
    "Or",
    "Range",
    "RangeOperator",
    "fields_of",
    "filter_from_json",
    "filter_to_json",
    "parse_filter",
]


class RangeOperator(StrEnum):
    """Comparison of numbers; the values are the spelling in JSON."""

    GT = "$gt"
    GTE = "$gte"
    LT = "$lt"
    LTE = "$lte"


@dataclass(frozen=True, slots=True)
class OneOf:
    """The field equals one of the operands ($eq, $in), or none of them ($ne, $nin: `negated`).

    The operands are split by type, since 1, true and "1" are three different values. Each is distinct, in the order
    given.
    """

    field: str
    strings: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()
    booleans: tuple[bool, ...] = ()
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Range:
    """The field is a number on one side of `bound`."""

    field: str
    operator: RangeOperator
    bound: float


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is present, or absent where `present` is false."""

    field: str
    present: bool


@dataclass(frozen=True, slots=True)
class And:
    """All parts hold: two or more, none of them an `And`."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds: two or more, none of them an `Or`."""

    parts: tuple[Filter, ...]


Filter = OneOf | Range | Exists | And | Or
_RANGES = frozenset(operator.value for operator in RangeOperator)
_JUNCTIONS: dict[str, type[And | Or]] = {"$and": And, "$or": Or}


def parse_filter(value: object) -> Filter | None:
    """Return the filter that a JSON value means; None for `{}`, which filters nothing.

    Raises `InvalidRequest` with the field and the reason.
    """
    if value == {}:
        return None
    tree = _parse_object(value, where="Filter", level=0)
    # An object of several fields inside an $or is a level too: the canonical form spells it out.
    if _levels(tree) > FILTER_DEPTH_MAX:
        raise _too_deep()
    if sum(1 for _ in _leaves(tree)) > FILTER_NODES_MAX:
        raise InvalidRequest(
            f"Filter has more than {FILTER_NODES_MAX} conditions; use $in for many values of one field.",
            limit=FILTER_NODES_MAX,
        )
    return tree


def filter_from_json(text: bytes) -> Filter:
    """Return the filter that is written as JSON. Raises `InvalidRequest`, also for `{}`."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"Filter is not valid JSON: {error}") from error
    tree = parse_filter(value)
    if tree is None:
        raise InvalidRequest("Filter must not be empty")
    return tree


def filter_to_json(tree: Filter) -> bytes:
    """Return the canonical JSON of a filter; `filter_from_json` of it gives the same tree."""
    return orjson.dumps(_to_value(tree))


def fields_of(tree: Filter) -> frozenset[str]:
    """Return the names of all fields that a filter looks at."""
    return frozenset(leaf.field for leaf in _leaves(tree))


def _too_deep() -> InvalidRequest:
    return InvalidRequest(
        f"Filter is nested more than {FILTER_DEPTH_MAX} levels of $and and $or deep.", limit=FILTER_DEPTH_MAX
    )


def _parse_object(value: object, *, where: str, level: int) -> Filter:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where} must be a JSON object, got '{shown(value)}'")
    if not value:
        raise InvalidRequest(f"{where} must not be empty")
    parts: list[Filter] = []
    for key, operand in value.items():
        if key in _JUNCTIONS:
            parts.append(_parse_junction(key, operand, level=level + 1))
        elif not isinstance(key, str) or key.startswith("$"):
            raise InvalidRequest(
                f"'{key}' can be neither a metadata field nor an operator over filters: only $and and $or stand there."
            )
        else:
            parts.extend(_parse_field(key, operand))
    return _join(And, parts)


def _parse_junction(operator: str, operand: object, *, level: int) -> Filter:
    if level > FILTER_DEPTH_MAX:
        raise _too_deep()
    if not isinstance(operand, list) or not operand:
        raise InvalidRequest(f"'{operator}' must have a non-empty list of filters, got '{shown(operand)}'")
    parts = [_parse_object(part, where=f"Filter inside '{operator}'", level=level) for part in operand]
    return _join(_JUNCTIONS[operator], parts)


def _join(junction: type[And | Or], parts: list[Filter]) -> Filter:
    flat: list[Filter] = []
    for part in parts:
        if isinstance(part, And | Or) and type(part) is junction:
            flat.extend(part.parts)
        else:
            flat.append(part)
    return flat[0] if len(flat) == 1 else junction(tuple(flat))


def _parse_field(field: str, operand: object) -> Iterator[Filter]:
    if not isinstance(operand, dict):
        if isinstance(operand, list):
            raise InvalidRequest(f"Filter for field '{field}' is a list without an operator; use $in.", field=field)
        yield _one_of(field, [operand], operator="$eq", negated=False)
        return
    if not operand:
        raise InvalidRequest(f"Filter for field '{field}' has no operator", field=field)
    for operator, value in operand.items():
        yield _parse_operator(field, operator, value)


def _parse_operator(field: str, operator: str, value: object) -> Filter:
    if operator in ("$eq", "$ne"):
        return _one_of(field, [value], operator=operator, negated=operator == "$ne")
    if operator in ("$in", "$nin"):
        if not isinstance(value, list):
            raise InvalidRequest(
                f"'{operator}' for field '{field}' must have a list, got '{shown(value)}'", field=field
            )
        if len(value) > FILTER_IN_MAX:
            raise InvalidRequest(
                f"'{operator}' for field '{field}' has {len(value)} values; the limit is {FILTER_IN_MAX}.",
                field=field,
                limit=FILTER_IN_MAX,
            )
        return _one_of(field, value, operator=operator, negated=operator == "$nin")
    if operator in _RANGES:
        return Range(field, RangeOperator(operator), _number(field, operator, value))
    if operator == "$exists":
        if not isinstance(value, bool):
            raise InvalidRequest(f"'$exists' for field '{field}' must be a boolean, got '{shown(value)}'", field=field)
        return Exists(field, present=value)
    if operator in _JUNCTIONS:
        raise InvalidRequest(
            f"'{operator}' cannot stand inside field '{field}'; it takes whole filters, beside or around fields.",
            field=field,
        )
    raise InvalidRequest(
        f"'{operator}' for field '{field}' is not a filter operator; "
        "known are $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin and $exists.",
        field=field,
    )


def _number(field: str, operator: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(f"'{operator}' for field '{field}' must be a number, got '{shown(value)}'", field=field)
    number = exact_number(value)
    if number is None:
        raise InvalidRequest(f"'{operator}' for field '{field}' must be a finite float64", field=field)
    return float(number)


def _one_of(field: str, operands: list[object], *, operator: str, negated: bool) -> OneOf:
    # Keys of dictionaries: distinct, in the order given.
    strings: dict[str, None] = {}
    numbers: dict[float, None] = {}
    booleans: dict[bool, None] = {}
    for operand in operands:
        if isinstance(operand, str):
            strings[operand] = None
        elif isinstance(operand, bool):
            booleans[operand] = None
        elif isinstance(operand, int | float):
            numbers[_number(field, operator, operand)] = None
        else:
            raise InvalidRequest(
                f"'{operator}' for field '{field}' compares with a string, number or boolean, got '{shown(operand)}'",
                field=field,
            )
    return OneOf(field, tuple(strings), tuple(numbers), tuple(booleans), negated=negated)


def _to_value(tree: Filter) -> dict[str, object]:
    match tree:
        case OneOf(field, strings, numbers, booleans, negated):
            operands = [*strings, *numbers, *booleans]
            if len(operands) == 1:
                return {field: {"$ne" if negated else "$eq": operands[0]}}
            return {field: {"$nin" if negated else "$in": operands}}
        case Range(field, operator, bound):
            return {field: {operator.value: bound}}
        case Exists(field, present):
            return {field: {"$exists": present}}
        case And(parts):
            return {"$and": [_to_value(part) for part in parts]}
        case Or(parts):
            return {"$or": [_to_value(part) for part in parts]}
        case _:
            assert_never(tree)


def _levels(tree: Filter) -> int:
    return 1 + max(map(_levels, tree.parts)) if isinstance(tree, And | Or) else 0


def _leaves(tree: Filter) -> Iterator[OneOf | Range | Exists]:
    if isinstance(tree, And | Or):
        for part in tree.parts:
            yield from _leaves(part)
    else:
        yield tree
