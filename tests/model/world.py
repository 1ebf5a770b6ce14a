"""What the state machine writes, damages and asks: a small world, so that overwrites and matches are common."""

from __future__ import annotations

import hypothesis.strategies as st

from indexer import merging
from schemas.events import FORMAT_HEADER, encode
from schemas.operations import CreateNamespace, Delete, DeleteNamespace, Event, Update, Upsert
from schemas.records import dense_bytes
from tests.support.builders import delete_where, dense, metadata, names_in, update_where, upsert, words

__all__ = [
    "CUTS",
    "DOCUMENTS",
    "FILTERS",
    "IDS",
    "LANES",
    "NAMES",
    "PARTITIONS",
    "POISON",
    "QUERIES",
    "WRITES",
    "event_of",
    "poison_of",
]

PARTITIONS = 2
NAMES = [*names_in(0, PARTITIONS, 2), "__default__"]
FOREIGN = names_in(1, PARTITIONS, 1)[0]
IDS = [f"id-{number:02d}" for number in range(56)]
LANES = st.sampled_from(merging.LANES)
DOCUMENTS = [
    {},
    *({"g": "xyz"[n % 3], "n": n % 5} for n in range(9)),
    {"g": "x", "tags": ["a", "b"]},
    {"n": 2.5, "tags": []},
    {"n": "2", "seen": True},
]
FILTERS = [
    {"g": "x"},
    {"g": {"$in": ["x", "y"]}},
    {"g": {"$ne": "x"}},
    {"n": {"$gte": 2, "$lt": 4}},
    {"n": 2},
    {"$or": [{"g": "z"}, {"n": {"$gt": 3}}]},
    {"g": "y", "n": {"$lte": 1}},
    {"tags": {"$in": ["a", "c"]}},
    {"tags": {"$exists": False}, "g": {"$exists": True}},
    {"seen": True},
    {"g": "nobody"},
]
# Few of these are few on purpose: a namespace must live long enough to be merged into a graph.
KINDS = (
    ["upsert"] * 10
    + ["update_metadata"] * 6
    + ["delete"] * 4
    + ["update_where"] * 3
    + ["update_values"] * 2
    + ["update_sparse", "update_all", "update_nothing", "upsert_bare", "upsert_sparse"]
    + ["delete_where"] * 2
    + ["delete_namespace", "empty_namespace", "create_namespace"]
)
WRITES = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from(NAMES),
        st.sampled_from(IDS),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=8,
)
QUERIES = st.tuples(st.integers(0, 255), st.sampled_from([1, 3, 10, 100]), st.sampled_from(FILTERS))
POISON = st.sampled_from(["null key", "key", "protobuf", "dimension", "not a number", "partition", "format", "newer"])
CUTS = st.sampled_from(["empty", "first byte", "half", "last byte off", "gone"])


def event_of(write: tuple[str, str, str, int]) -> Event:
    """Return the event that a drawn write means; its namespace is the second of the four."""
    kind, _, key, number = write
    document = DOCUMENTS[number % len(DOCUMENTS)]
    where = FILTERS[number % len(FILTERS)]
    change = {"n": number % 5} if number % 2 else {"g": "xyz"[number % 3], "seen": True}
    match kind:
        case "upsert":
            return upsert(key, number, document)
        case "upsert_bare":
            return upsert(key, number)
        case "upsert_sparse":
            return Upsert(key, dense_bytes(dense(number)), words(number), metadata(document))
        case "update_metadata":
            return Update(key, None, None, metadata(change))
        case "update_values":
            return Update(key, dense_bytes(dense(number)), None, None)
        case "update_sparse":
            return Update(key, None, words(number), None)
        case "update_all":
            return Update(key, dense_bytes(dense(number)), words(number), metadata(change))
        case "update_nothing":
            return Update(key, None, None, None)
        case "update_where":
            return update_where(where, change)
        case "delete":
            return Delete(key)
        case "delete_where":
            return delete_where(where)
        case "delete_namespace":
            return DeleteNamespace(keep=False)
        case "empty_namespace":
            return DeleteNamespace(keep=True)
        case "create_namespace":
            return CreateNamespace(b"" if number % 2 else b'{"fields":{"g":{"filterable":true}}}')
    raise AssertionError(kind)


def poison_of(kind: str, name: str) -> tuple[bytes | None, bytes, tuple[tuple[str, bytes], ...]]:
    """Return key, value and headers of a record that cannot be folded."""
    key, good = name.encode(), encode(upsert("id-00", 0))
    match kind:
        case "null key":
            return None, good, ()
        case "key":
            return b"\xff\xfe", good, ()
        case "protobuf":
            return key, b"\x0a\xff\x01", ()
        case "dimension":
            return key, encode(upsert("id-00", 0, dimension=3)), ()
        case "not a number":
            return key, encode(Upsert("id-00", dense_bytes([1, float("nan"), 0, 0]), None, b"")), ()
        case "partition":
            return FOREIGN.encode(), good, ()
        case "format":
            return key, good, ((FORMAT_HEADER, b"one"),)
        case "newer":
            return key, good, ((FORMAT_HEADER, b"2"),)
    raise AssertionError(kind)
