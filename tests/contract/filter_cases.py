"""The filter language as a table that a person can read: metadata, filters, and the records that match."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ALMOST", "CASES", "RECORDS", "REFUSED"]

# 2**53 + 1, the first integer that no float64 holds: it is 2**53.
ALMOST = 9007199254740993

RECORDS: dict[str, dict[str, Any]] = {
    "str-one": {"v": "1"},
    "num-one": {"v": 1},
    "num-two": {"v": 2, "w": "x"},
    "num-half": {"v": 2.5, "w": "y"},
    "num-minus": {"v": -3},
    "num-zero": {"v": 0},
    "num-exact": {"v": 9007199254740992},
    "num-next": {"v": 9007199254740994},
    "num-huge": {"v": 1e300},
    "num-tiny": {"v": 5e-324},
    "yes": {"v": True, "w": "x"},
    "no": {"v": False},
    "str-true": {"v": "true"},
    "str-empty": {"v": ""},
    "str-text": {"v": "Ünïcode 'quoted' \"text\""},
    "list": {"v": ["red", "blue"], "w": "x"},
    "list-one": {"v": ["1"]},
    "list-empty": {"v": []},
    "dotted": {"v.x": 1, "a b": "spaced"},
    "bare": {},
}

_ALL = tuple(RECORDS)
_HAVE_V = tuple(name for name, metadata in RECORDS.items() if "v" in metadata)
_BIG = ("num-exact", "num-next", "num-huge")


def _without(*names: str) -> tuple[str, ...]:
    """All records that have the field `v`, but these."""
    return tuple(name for name in _HAVE_V if name not in names)


# Filter -> ids that match. `v` is absent in "dotted" and "bare".
MATCHES: tuple[tuple[Mapping[str, Any], tuple[str, ...]], ...] = (
    # A bare value is $eq; 1, true and "1" are three values; 1 and 1.0 are one.
    ({"v": "1"}, ("str-one", "list-one")),
    ({"v": {"$eq": "1"}}, ("str-one", "list-one")),
    ({"v": 1}, ("num-one",)),
    ({"v": {"$eq": 1.0}}, ("num-one",)),
    ({"v": True}, ("yes",)),
    ({"v": {"$eq": False}}, ("no",)),
    ({"v": 0}, ("num-zero",)),
    ({"v": -0.0}, ("num-zero",)),
    ({"v": "true"}, ("str-true",)),
    ({"v": ""}, ("str-empty",)),
    ({"v": "Ünïcode 'quoted' \"text\""}, ("str-text",)),
    ({"v": "ünïcode 'quoted' \"text\""}, ()),
    ({"v": "RED"}, ()),
    ({"v": "re"}, ()),
    # Numbers are float64.
    ({"v": 2.5}, ("num-half",)),
    ({"v": ALMOST}, ("num-exact",)),
    ({"v": 9007199254740994}, ("num-next",)),
    ({"v": {"$gt": ALMOST}}, ("num-next", "num-huge")),
    ({"v": {"$gte": ALMOST}}, _BIG),
    ({"v": 1e300}, ("num-huge",)),
    ({"v": 5e-324}, ("num-tiny",)),
    ({"v": {"$gt": 0, "$lt": 1e-300}}, ("num-tiny",)),
    # $ne: whoever has the field and is not equal, of whatever type.
    ({"v": {"$ne": 1}}, _without("num-one")),
    ({"v": {"$ne": "1"}}, _without("str-one", "list-one")),
    ({"v": {"$ne": True}}, _without("yes")),
    ({"v": {"$ne": "nobody"}}, _HAVE_V),
    # Comparisons look at numbers only.
    ({"v": {"$gt": 1}}, ("num-two", "num-half", *_BIG)),
    ({"v": {"$gte": 1}}, ("num-one", "num-two", "num-half", *_BIG)),
    ({"v": {"$lt": 0}}, ("num-minus",)),
    ({"v": {"$lte": 0}}, ("num-minus", "num-zero")),
    ({"v": {"$gte": 1, "$lt": 2.5}}, ("num-one", "num-two")),
    ({"v": {"$gt": 1, "$lt": 1}}, ()),
    ({"v": {"$gt": -1e308}}, ("num-one", "num-two", "num-half", "num-minus", "num-zero", "num-tiny", *_BIG)),
    # $in and $nin take any of the three types beside each other.
    ({"v": {"$in": [1, "1", True]}}, ("str-one", "num-one", "yes", "list-one")),
    ({"v": {"$in": ["red"]}}, ("list",)),
    ({"v": {"$in": [2, 2, 2.0]}}, ("num-two",)),
    ({"v": {"$in": []}}, ()),
    ({"v": {"$nin": [1, "1", True]}}, _without("str-one", "num-one", "yes", "list-one")),
    ({"v": {"$nin": []}}, _HAVE_V),
    ({"v": {"$nin": ["red", "nobody"]}}, _without("list")),
    # A list of strings matches where any element does; a negation, where no element is an operand.
    ({"v": "red"}, ("list",)),
    ({"v": {"$ne": "red"}}, _without("list")),
    ({"$and": [{"v": "red"}, {"v": "blue"}]}, ("list",)),
    ({"$and": [{"v": "red"}, {"v": "green"}]}, ()),
    ({"v": {"$in": ["green", "blue"]}}, ("list",)),
    ({"v": {"$gt": 0}, "w": "x"}, ("num-two",)),
    # $exists looks at presence only; an empty list is present.
    ({"v": {"$exists": True}}, _HAVE_V),
    ({"v": {"$exists": False}}, ("dotted", "bare")),
    ({"w": {"$exists": False}, "v": {"$exists": True}}, _without("num-two", "num-half", "yes", "list")),
    # A field that nobody has: only $exists false matches.
    ({"nobody": 1}, ()),
    ({"nobody": {"$ne": 1}}, ()),
    ({"nobody": {"$nin": [1]}}, ()),
    ({"nobody": {"$nin": []}}, ()),
    ({"nobody": {"$lt": 1e300}}, ()),
    ({"nobody": {"$in": [1, "1"]}}, ()),
    ({"nobody": {"$exists": True}}, ()),
    ({"nobody": {"$exists": False}}, _ALL),
    # Names of fields are taken as they are: a dot is no path.
    ({"v.x": 1}, ("dotted",)),
    ({"a b": "spaced"}, ("dotted",)),
    # Several fields, and several operators of a field, must all hold.
    ({"v": {"$gte": 2}, "w": "x"}, ("num-two",)),
    ({"v": {"$exists": True, "$ne": 1}, "w": {"$in": ["x", "y"]}}, ("num-two", "num-half", "yes", "list")),
    # Junctions nest.
    ({"$or": [{"v": 1}, {"v": "1"}]}, ("str-one", "num-one", "list-one")),
    ({"$or": [{"v": {"$lt": 0}}, {"w": "y"}]}, ("num-half", "num-minus")),
    ({"$or": [{"v": 2, "w": "y"}, {"v": 2.5, "w": "y"}]}, ("num-half",)),
    ({"$and": [{"$or": [{"v": 2}, {"v": True}, {"v": "red"}]}, {"$or": [{"w": "x"}, {"w": "y"}]}]},
     ("num-two", "yes", "list")),
    ({"$or": [{"$and": [{"v": {"$gt": 2}}, {"v": {"$lt": 3}}]}, {"$and": [{"w": "x"}, {"v": True}]}]},
     ("num-half", "yes")),
    ({"w": "x", "$or": [{"v": 2}, {"v": 2.5}]}, ("num-two",)),
    ({"$and": [{"v": 1}]}, ("num-one",)),
    ({"$or": [{"v": {"$exists": False}}, {"v": {"$ne": "red"}}]}, tuple(name for name in _ALL if name != "list")),
)  # fmt: skip


def _nested(levels: int) -> dict[str, Any]:
    """`v` is 1 or `w` exists, under so many levels of $and and $or in turn."""
    tree: dict[str, Any] = {"v": 1}
    for level in range(levels):
        junction, field = ("$or", "w") if level % 2 else ("$and", "v")
        tree = {junction: [tree, {field: {"$exists": True}}]}
    return tree


# At the limits: 32 levels, 10,000 operands, 10,000 conditions.
LIMITS: tuple[tuple[Mapping[str, Any], tuple[str, ...]], ...] = (
    (_nested(32), ("num-one", "num-two", "num-half", "yes", "list")),
    ({"v": {"$in": list(range(1, 10_001))}}, ("num-one", "num-two")),
    ({"v": {"$nin": [f"s{n}" for n in range(10_000)]}}, _HAVE_V),
    ({"$or": [{"v": n} for n in range(1, 10_001)]}, ("num-one", "num-two")),
)

CASES = (*MATCHES, *LIMITS)

# Filter -> what the refusal says. All are 400.
REFUSED: tuple[tuple[Any, str], ...] = (
    ({"v": ["red"]}, "Filter for field 'v' is a list without an operator; use $in."),
    ({"v": {"$eq": ["red"]}}, "'$eq' for field 'v' compares with a string, number or boolean, got '[\"red\"]'"),
    ({"v": {"$ne": ["red"]}}, "'$ne' for field 'v' compares with a string, number or boolean"),
    ({"v": {"$eq": {"x": 1}}}, "'$eq' for field 'v' compares with a string, number or boolean"),
    ({"v": None}, "'$eq' for field 'v' compares with a string, number or boolean, got 'null'"),
    ({"v": {"$ne": None}}, "'$ne' for field 'v' compares with a string, number or boolean, got 'null'"),
    ({"v": {"$in": [None]}}, "'$in' for field 'v' compares with a string, number or boolean, got 'null'"),
    ({"v": {"$in": [["red"]]}}, "'$in' for field 'v' compares with a string, number or boolean"),
    ({"v": {"$in": "red"}}, "'$in' for field 'v' must have a list, got '\"red\"'"),
    ({"v": {"$nin": 1}}, "'$nin' for field 'v' must have a list, got '1'"),
    ({"v": {"$gt": "1"}}, "'$gt' for field 'v' must be a number, got '\"1\"'"),
    ({"v": {"$gte": True}}, "'$gte' for field 'v' must be a number, got 'true'"),
    ({"v": {"$lt": None}}, "'$lt' for field 'v' must be a number, got 'null'"),
    ({"v": {"$lte": [1]}}, "'$lte' for field 'v' must be a number, got '[1]'"),
    ({"v": {"$exists": 1}}, "'$exists' for field 'v' must be a boolean, got '1'"),
    ({"v": {"$exists": None}}, "'$exists' for field 'v' must be a boolean, got 'null'"),
    ({"v": {"$not": {"$eq": 1}}}, "'$not' for field 'v' is not a filter operator; known are $eq, $ne, $gt, $gte,"),
    ({"v": {"$regex": "x"}}, "'$regex' for field 'v' is not a filter operator"),
    ({"v": {"nested": 1}}, "'nested' for field 'v' is not a filter operator"),
    ({"v": {"$and": [{"$gt": 1}]}}, "'$and' cannot stand inside field 'v'"),
    ({"v": {}}, "Filter for field 'v' has no operator"),
    ({"$not": {"v": 1}}, "'$not' can be neither a metadata field nor an operator over filters"),
    ({"$v": 1}, "'$v' can be neither a metadata field nor an operator over filters"),
    ({"$and": {"v": 1}}, "'$and' must have a non-empty list of filters"),
    ({"$or": []}, "'$or' must have a non-empty list of filters, got '[]'"),
    ({"$or": [{}]}, "Filter inside '$or' must not be empty"),
    ({"$and": ["v"]}, "Filter inside '$and' must be a JSON object"),
    (_nested(33), "nested more than 32 levels"),
    ({"v": {"$in": list(range(10_001))}}, "'$in' for field 'v' has 10001 values; the limit is 10000."),
    ({"$or": [{"v": n} for n in range(10_001)]}, "Filter has more than 10000 conditions"),
)
