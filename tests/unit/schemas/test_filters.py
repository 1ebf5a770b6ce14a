import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import InvalidRequest
from schemas.filters import (
    And,
    Exists,
    OneOf,
    Or,
    Range,
    RangeOperator,
    fields_of,
    filter_from_json,
    filter_to_json,
    parse_filter,
)
from schemas.limits import FILTER_DEPTH_MAX, FILTER_IN_MAX, FILTER_NODES_MAX

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["a", "b", "$and", "$or", "$eq", "$ne", "$in", "$nin", "$gt", "$exists", "$not"]), inner
        )
    ),
    max_leaves=30,
)


@pytest.mark.parametrize(
    ("value", "tree"),
    [
        ({"f": "x"}, OneOf("f", strings=("x",))),
        ({"f": 1}, OneOf("f", numbers=(1.0,))),
        ({"f": True}, OneOf("f", booleans=(True,))),
        ({"f": {"$eq": "x"}}, OneOf("f", strings=("x",))),
        ({"f": {"$ne": 1}}, OneOf("f", numbers=(1.0,), negated=True)),
        ({"f": {"$in": ["x", 1, "x", True, 1.0]}}, OneOf("f", ("x",), (1.0,), (True,))),
        ({"f": {"$nin": []}}, OneOf("f", negated=True)),
        ({"f": {"$gt": 1}}, Range("f", RangeOperator.GT, 1.0)),
        ({"f": {"$gte": 1}}, Range("f", RangeOperator.GTE, 1.0)),
        ({"f": {"$lt": 1}}, Range("f", RangeOperator.LT, 1.0)),
        ({"f": {"$lte": 2**53 + 1}}, Range("f", RangeOperator.LTE, 2.0**53)),
        ({"f": {"$exists": False}}, Exists("f", present=False)),
        ({"f": 1, "g": 2}, And((OneOf("f", numbers=(1.0,)), OneOf("g", numbers=(2.0,))))),
        (
            {"f": {"$gt": 1, "$lt": 2}},
            And((Range("f", RangeOperator.GT, 1.0), Range("f", RangeOperator.LT, 2.0))),
        ),
        (
            {"$or": [{"f": 1}, {"$or": [{"g": 2}, {"h": 3}]}]},
            Or((OneOf("f", numbers=(1.0,)), OneOf("g", numbers=(2.0,)), OneOf("h", numbers=(3.0,)))),
        ),
        ({"$and": [{"$or": [{"f": 1}]}]}, OneOf("f", numbers=(1.0,))),
        ({"": 1}, OneOf("", numbers=(1.0,))),
    ],
)
def test_every_operator_parses_to_its_tree(value, tree):
    """The whole operator table, and what several keys mean."""
    assert parse_filter(value) == tree
    assert filter_from_json(filter_to_json(tree)) == tree


def test_empty_filter_is_none():
    """An empty object filters nothing; as JSON of an event it is refused."""
    assert parse_filter({}) is None
    with pytest.raises(InvalidRequest, match="Filter must not be empty"):
        filter_from_json(b"{}")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, r"Filter must be a JSON object, got 'null'"),
        ([], r"Filter must be a JSON object, got '\[\]'"),
        ("f", r"Filter must be a JSON object"),
        ({"f": None}, r"'\$eq' for field 'f' compares with a string, number or boolean, got 'null'"),
        ({"f": ["x"]}, r"field 'f' is a list without an operator; use \$in"),
        ({"f": {}}, r"field 'f' has no operator"),
        ({"f": {"$eq": ["x"]}}, r"'\$eq' for field 'f' compares with .* got '\[\"x\"\]'"),
        ({"f": {"$eq": None}}, r"'\$eq' for field 'f'"),
        ({"f": {"$ne": {}}}, r"'\$ne' for field 'f'"),
        ({"f": {"$in": "x"}}, r"'\$in' for field 'f' must have a list, got '\"x\"'"),
        ({"f": {"$in": [None]}}, r"'\$in' for field 'f' compares with .* got 'null'"),
        ({"f": {"$nin": [["x"]]}}, r"'\$nin' for field 'f'"),
        ({"f": {"$gt": "x"}}, r"'\$gt' for field 'f' must be a number, got '\"x\"'"),
        ({"f": {"$gte": True}}, r"'\$gte' for field 'f' must be a number, got 'true'"),
        ({"f": {"$lt": None}}, r"'\$lt' for field 'f' must be a number, got 'null'"),
        ({"f": {"$lte": [1]}}, r"'\$lte' for field 'f' must be a number"),
        ({"f": {"$gt": float("nan")}}, r"'\$gt' for field 'f' must be a finite float64"),
        ({"f": float("inf")}, r"'\$eq' for field 'f' must be a finite float64"),
        ({"f": {"$eq": 10**400}}, r"'\$eq' for field 'f' must be a finite float64"),
        ({"f": {"$exists": 1}}, r"'\$exists' for field 'f' must be a boolean, got '1'"),
        ({"f": {"$not": {"$eq": 1}}}, r"'\$not' for field 'f' is not a filter operator"),
        ({"f": {"$regex": "x"}}, r"'\$regex' for field 'f' is not a filter operator"),
        ({"f": {"nested": 1}}, r"'nested' for field 'f' is not a filter operator"),
        ({"f": {"$and": [{"$eq": 1}]}}, r"'\$and' cannot stand inside field 'f'"),
        ({"$not": {"f": 1}}, r"'\$not' can be neither a metadata field"),
        ({"$eq": 1}, r"'\$eq' can be neither a metadata field"),
        ({"$f": 1}, r"'\$f' can be neither a metadata field"),
        ({"$and": {"f": 1}}, r"'\$and' must have a non-empty list of filters"),
        ({"$or": []}, r"'\$or' must have a non-empty list of filters, got '\[\]'"),
        ({"$or": [{}]}, r"Filter inside '\$or' must not be empty"),
        ({"$and": ["f"]}, r"Filter inside '\$and' must be a JSON object, got '\"f\"'"),
    ],
)
def test_bad_filter_is_refused_with_field_and_reason(value, reason):
    """Unknown operators, dollar fields, null, lists without operator, wrong operands and nesting are refused."""
    with pytest.raises(InvalidRequest, match=reason):
        parse_filter(value)


def test_one_true_and_the_string_one_are_three_operands():
    """Types are strict, also where Python would call the values equal."""
    trees = [parse_filter({"f": value}) for value in (1, True, "1")]
    assert len(set(trees)) == 3
    assert len({filter_to_json(tree) for tree in trees if tree is not None}) == 3


def nested(levels, innermost):
    value = innermost
    for level in range(levels):
        value = {"$or" if level % 2 else "$and": [value, {"x": level}]}
    return value


def test_depth_limit_is_exact():
    """At the limit a filter passes and survives its own JSON; one level more is refused."""
    at_limit = parse_filter(nested(FILTER_DEPTH_MAX, {"f": 1}))
    assert at_limit is not None
    assert filter_from_json(filter_to_json(at_limit)) == at_limit
    with pytest.raises(InvalidRequest, match=f"nested more than {FILTER_DEPTH_MAX} levels"):
        parse_filter(nested(FILTER_DEPTH_MAX + 1, {"f": 1}))


def test_hidden_levels_count_as_well():
    """Several fields in an object are an $and: a filter that passes can be written down and read again."""
    value: object = {"f": 1, "g": 2}
    for _ in range(FILTER_DEPTH_MAX):
        value = {"x": 1, "$or": [value, {"y": 1}]}
    with pytest.raises(InvalidRequest, match="nested more than"):
        parse_filter(value)


def test_very_deep_json_does_not_exhaust_the_stack():
    """Depth is an ordinary error, however deep."""
    for depth in (500, 5_000, 100_000):
        with pytest.raises(InvalidRequest):
            filter_from_json(b'{"$and":[' * depth + b'{"f":1}' + b"]}" * depth)


def test_operand_and_condition_counts_are_limited():
    """$in takes so many operands, a filter so many conditions."""
    parse_filter({"f": {"$in": list(range(FILTER_IN_MAX))}})
    with pytest.raises(InvalidRequest, match=rf"has {FILTER_IN_MAX + 1} values; the limit is {FILTER_IN_MAX}"):
        parse_filter({"f": {"$in": list(range(FILTER_IN_MAX + 1))}})
    parse_filter({"$or": [{"f": n} for n in range(FILTER_NODES_MAX)]})
    with pytest.raises(InvalidRequest, match=f"more than {FILTER_NODES_MAX} conditions"):
        parse_filter({"$or": [{"f": n} for n in range(FILTER_NODES_MAX + 1)]})


@settings(deadline=None, max_examples=300)
@given(ANYTHING)
def test_any_json_parses_to_a_canonical_tree_or_is_refused(value):
    """What a filter is written as parses to the same tree; nothing but InvalidRequest is raised."""
    try:
        tree = parse_filter(value)
    except InvalidRequest:
        return
    if tree is not None:
        assert filter_from_json(filter_to_json(tree)) == tree
        assert fields_of(tree)


def test_fields_of_a_filter_are_all_its_leaves():
    """Every field that is looked at is named once."""
    tree = parse_filter({"$or": [{"a": 1}, {"b": {"$gt": 1, "$lt": 2}}], "c": {"$exists": True}})
    assert tree is not None
    assert fields_of(tree) == {"a", "b", "c"}
    assert orjson.loads(filter_to_json(tree)) == {
        "$and": [
            {"$or": [{"a": {"$eq": 1.0}}, {"$and": [{"b": {"$gt": 1.0}}, {"b": {"$lt": 2.0}}]}]},
            {"c": {"$exists": True}},
        ]
    }
