"""Hypothesis strategies for events that fit an index of dimension 3."""

import numpy as np
from hypothesis import strategies as st

from schemas.filters import filter_to_json, parse_filter
from schemas.metadata import canonical_metadata
from schemas.operations import CreateNamespace, Delete, DeleteNamespace, DeleteWhere, Update, UpdateWhere, Upsert
from schemas.records import dense_bytes, make_sparse

DIMENSION = 3
IDS = st.text(st.characters(min_codepoint=1, max_codepoint=127), min_size=1, max_size=20)
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VALUES = st.lists(NUMBERS, min_size=DIMENSION, max_size=DIMENSION).filter(any).map(dense_bytes)
SPARSE = st.dictionaries(st.integers(0, 2**32 - 1), NUMBERS, min_size=1, max_size=8).map(
    lambda entries: make_sparse(np.array(list(entries), dtype=np.uint32), list(entries.values()))
)
FIELDS = st.sampled_from(["a", "b", "é", "", "a.b"])
SCALARS = st.one_of(
    st.text(max_size=5), st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False)
)
METADATA = st.dictionaries(FIELDS, SCALARS | st.lists(st.text(max_size=5)), max_size=4).map(canonical_metadata)
CONDITIONS = st.one_of(
    SCALARS,
    st.dictionaries(st.sampled_from(["$eq", "$ne"]), SCALARS, min_size=1),
    st.dictionaries(st.sampled_from(["$in", "$nin"]), st.lists(SCALARS, max_size=3), min_size=1),
    st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), st.integers(-5, 5), min_size=1),
    st.dictionaries(st.just("$exists"), st.booleans(), min_size=1),
)
FILTER_VALUES = st.recursive(
    st.dictionaries(FIELDS, CONDITIONS, min_size=1, max_size=2),
    lambda inner: st.dictionaries(
        st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3), min_size=1
    ),
    max_leaves=6,
)
FILTERS = FILTER_VALUES.map(lambda value: filter_to_json(parse_filter(value)))
SCHEMAS = st.sampled_from([b"", b'{"fields":{"a":{"filterable":true}}}'])
EVENTS = st.one_of(
    st.builds(Upsert, IDS, VALUES, st.none() | SPARSE, METADATA),
    st.builds(Update, IDS, st.none() | VALUES, st.none() | SPARSE, METADATA.map(lambda metadata: metadata or None)),
    st.builds(UpdateWhere, FILTERS, METADATA.filter(bool)),
    st.builds(Delete, IDS),
    st.builds(DeleteWhere, FILTERS),
    st.builds(DeleteNamespace, keep=st.booleans()),
    st.builds(CreateNamespace, SCHEMAS),
)
