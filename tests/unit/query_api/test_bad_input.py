"""Every mistake of a client is its answer: a 4xx that says what is wrong, and nothing is written."""

from __future__ import annotations

import json
import math
import socket
from urllib.parse import urlsplit

import orjson
import pytest

from schemas.limits import BODY_BYTES_MAX

GOOD = [1.0, 2.0, 3.0, 4.0]


def upsert(**record):
    return {"vectors": [{"id": "a", "values": GOOD, **record}], "namespace": "bad"}


def nested(depth):
    value = {"x": 1}
    for _ in range(depth):
        value = {"$and": [value]} if depth < 100 else [value]
    return value


UPSERTS = {
    "dimension": (upsert(values=[1.0, 2.0, 3.0]), "Vector dimension 3 does not match the dimension of the index 4"),
    "too long": (upsert(values=[1.0] * 5), "Vector dimension 5 does not match the dimension of the index 4"),
    "zero vector": (upsert(values=[0, 0, 0, 0]), "at least one non-zero value"),
    "beyond float32": (upsert(values=[1e39, 0, 0, 0]), "finite"),
    "huge integer": (upsert(values=[10**400, 0, 0, 0]), "infinity"),
    "string": (upsert(values=["1", 0, 0, 0]), "numbers"),
    "null": (upsert(values=[None, 1, 0, 0]), "numbers"),
    "boolean": (upsert(values=[True, 1, 0, 0]), "numbers"),
    "list in list": (upsert(values=[[1, 2, 3, 4]]), "numbers"),
    "values a string": (upsert(values="1234"), "list of numbers"),
    "values an object": (upsert(values={"0": 1}), "list of numbers"),
    "no values": (upsert(values=None), "no dense values"),
    "id empty": (upsert(id=""), "must not be empty"),
    "id too long": (upsert(id="x" * 513), "513"),
    "id not ascii": (upsert(id="é"), "ASCII"),
    "id with nul": (upsert(id="a\0b"), "NUL"),
    "id a number": (upsert(id=7), "must be a string"),
    "id missing": ({"vectors": [{"values": GOOD}]}, "must be a string"),
    "namespace too long": ({**upsert(), "namespace": "n" * 513}, "513"),
    "namespace not ascii": ({**upsert(), "namespace": "ü"}, "ASCII"),
    "namespace a number": ({**upsert(), "namespace": 5}, "'namespace' must be a string"),
    "metadata nested": (
        upsert(metadata={"m": {"deep": 1}}),
        "Metadata value must be a string, number, boolean or list of strings, got '{\"deep\":1}' for field 'm'",
    ),
    "metadata deep": (upsert(metadata={"m": nested(500)}), "for field 'm'"),
    "metadata list of numbers": (upsert(metadata={"m": [1]}), "for field 'm'"),
    "metadata dollar": (upsert(metadata={"$m": 1}), "Metadata field '$m' cannot start with '$'"),
    "metadata a list": (upsert(metadata=[1]), "Metadata must be a JSON object"),
    "metadata too large": (upsert(metadata={"m": "x" * 41_000}), "40960"),
    "sparse lengths": (upsert(sparseValues={"indices": [1], "values": [1, 2]}), "as many values as indices"),
    "sparse twice": (upsert(sparseValues={"indices": [1, 1], "values": [1, 2]}), "more than once"),
    "sparse negative": (upsert(sparseValues={"indices": [-1], "values": [1]}), "indices must be integers"),
    "sparse too many": (upsert(sparseValues={"indices": list(range(2049)), "values": [1] * 2049}), "2048"),
    "sparse a list": (upsert(sparseValues=[1]), "'sparseValues' must be an object"),
    "no vectors": ({"vectors": []}, "Invalid request"),
    "vectors missing": ({}, "Invalid request"),
    "vectors an object": ({"vectors": {"id": "a"}}, "Invalid request"),
    "vector a string": ({"vectors": ["a"]}, "Invalid request"),
    "too many vectors": ({"vectors": [{"id": str(n), "values": GOOD} for n in range(1_001)]}, "1000"),
    "second vector bad": ({"vectors": [*upsert()["vectors"], {"id": "b", "values": [1]}]}, "dimension"),
}

QUERIES = {
    "neither": ({"topK": 1}, "Either 'vector' or 'ID' must be provided"),
    "both": ({"topK": 1, "vector": GOOD, "id": "a"}, "Cannot provide both 'ID' and 'vector' at the same time"),
    "id and sparse": (
        {"topK": 1, "id": "a", "sparseVector": {"indices": [1], "values": [1]}},
        "Cannot provide both 'ID' and 'sparse_vector' at the same time",
    ),
    "sparse only": (
        {"topK": 1, "sparseVector": {"indices": [1], "values": [1]}},
        "Cannot query index with dense 'vector_type' with only sparse vector",
    ),
    "sparse on cosine": (
        {"topK": 1, "vector": GOOD, "sparseVector": {"indices": [1], "values": [1]}},
        "Index configuration does not support sparse values",
    ),
    "dimension": ({"topK": 1, "vector": [1, 2]}, "Vector dimension 2 does not match"),
    "beyond float32": ({"topK": 1, "vector": [1e39, 0, 0, 0]}, "finite"),
    "vector of strings": ({"topK": 1, "vector": ["1", "2", "3", "4"]}, "numbers"),
    "vector of booleans": ({"topK": 1, "vector": [True, False, True, True]}, "numbers"),
    "vector a number": ({"topK": 1, "vector": 5}, "list of numbers"),
    "topK zero": ({"topK": 0, "vector": GOOD}, "top_k"),
    "topK missing": ({"vector": GOOD}, "top_k"),
    "topK too large": ({"topK": 10_001, "vector": GOOD}, "10000"),
    "topK a string": ({"topK": "3", "vector": GOOD}, "topK"),
    "topK a boolean": ({"topK": True, "vector": GOOD}, "topK"),
    "topK a fraction": ({"topK": 1.5, "vector": GOOD}, "topK"),
    "id a number": ({"topK": 1, "id": 3}, "'id' must be a string"),
    "id empty": ({"topK": 1, "id": ""}, "must not be empty"),
    "filter a list": ({"topK": 1, "vector": GOOD, "filter": [1]}, "Filter must be a JSON object"),
    "filter operator": ({"topK": 1, "vector": GOOD, "filter": {"a": {"$not": 1}}}, "$not"),
    "filter null": ({"topK": 1, "vector": GOOD, "filter": {"a": None}}, "null"),
    "filter too deep": ({"topK": 1, "vector": GOOD, "filter": {"$and": [nested(40)]}}, "levels"),
    "filter value deep": ({"topK": 1, "vector": GOOD, "filter": {"a": {"$eq": nested(500)}}}, "'a'"),
    "flag a string": ({"topK": 1, "vector": GOOD, "includeValues": "yes"}, "'includeValues' must be a boolean"),
    "queries": ({"topK": 1, "queries": [{"values": GOOD}]}, "'queries' is not supported"),
    "queries beside a vector": ({"topK": 1, "vector": GOOD, "queries": [{"values": GOOD}]}, "'queries' is not"),
    "scanFactor small": ({"topK": 1, "vector": GOOD, "scanFactor": 0.49}, "scanFactor must be 0.5 to 4, got 0.49"),
    "scanFactor large": ({"topK": 1, "vector": GOOD, "scanFactor": 4.01}, "scanFactor must be 0.5 to 4, got 4.01"),
    "scanFactor a boolean": ({"topK": 1, "vector": GOOD, "scanFactor": True}, "'scanFactor' must be a number"),
    "maxCandidates small": (
        {"topK": 10, "vector": GOOD, "maxCandidates": 9},
        "maxCandidates must be topK (10) to 100000, got 9",
    ),
    "maxCandidates large": ({"topK": 1, "vector": GOOD, "maxCandidates": 100_001}, "got 100001"),
    "maxCandidates a fraction": ({"topK": 1, "vector": GOOD, "maxCandidates": 10.5}, "'maxCandidates' must be an int"),
    "namespace a list": ({"topK": 1, "vector": GOOD, "namespace": []}, "'namespace' must be a string"),
    "consistency a number": ({"topK": 1, "vector": GOOD, "consistency": 3}, "'consistency' must be an object"),
    "atLeast a list": ({"topK": 1, "vector": GOOD, "consistency": {"atLeast": []}}, "atLeast"),
    "atLeast negative": ({"topK": 1, "vector": GOOD, "consistency": {"atLeast": -1}}, "negative"),
    "token malformed": ({"topK": 1, "vector": GOOD, "consistency": {"atLeast": "what"}}, "position token"),
    "waitMs a string": ({"topK": 1, "vector": GOOD, "consistency": {"waitMs": "1"}}, "waitMs"),
    "waitMs too long": ({"topK": 1, "vector": GOOD, "consistency": {"waitMs": 10**9}}, "60000"),
    "consistency unknown": ({"topK": 1, "vector": GOOD, "consistency": {"atMost": 1}}, "atMost"),
}

UPDATES = {
    "no id": ({"setMetadata": {"x": 1}}, "'id' or a 'filter'"),
    "nothing to change": ({"id": "a"}, "at least one of"),
    "id a number": ({"id": 4, "setMetadata": {"x": 1}}, "'id'"),
    "dimension": ({"id": "a", "values": [1, 2]}, "dimension"),
    "zero vector": ({"id": "a", "values": [0, 0, 0, 0]}, "non-zero"),
    "metadata nested": ({"id": "a", "setMetadata": {"x": {}}}, "for field 'x'"),
    "metadata a string": ({"id": "a", "setMetadata": "x"}, "Metadata must be a JSON object"),
    "values by filter": ({"filter": {"x": 1}, "values": GOOD}, "metadata only"),
    "nothing by filter": ({"filter": {"x": 1}}, "must set at least one"),
    "filter a string": ({"filter": "x", "setMetadata": {"x": 1}}, "Filter must be a JSON object"),
    "dryRun by id": ({"id": "a", "setMetadata": {"x": 1}, "dryRun": True}, "dryRun"),
    "dryRun a string": ({"filter": {"x": 1}, "setMetadata": {"x": 1}, "dryRun": "yes"}, "dryRun"),
}

DELETES = {
    "ids a string": ({"ids": "a"}, "ids"),
    "ids of numbers": ({"ids": [1]}, "ids"),
    "an id empty": ({"ids": [""]}, "must not be empty"),
    "too many ids": ({"ids": [str(n) for n in range(1_001)]}, "1000"),
    "deleteAll a string": ({"deleteAll": "true"}, "deleteAll"),
    "filter a number": ({"filter": 3}, "Filter must be a JSON object"),
}

ROUTES = {"/vectors/upsert": UPSERTS, "/query": QUERIES, "/vectors/update": UPDATES, "/vectors/delete": DELETES}
CASES = [
    pytest.param(path, body, says, id=f"{path} {name}")
    for path, cases in ROUTES.items()
    for name, (body, says) in cases.items()
]
POSTS = [*ROUTES, "/describe_index_stats", "/namespaces"]
BODIES = {
    "empty": b"",
    "not JSON": b"hello",
    "cut off": b'{"vectors": [',
    "a list": b"[1]",
    "a string": b'"x"',
    "null": b"null",
    "not UTF-8": b'{"namespace": "\xff"}',
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "deep value": b'{"x": ' + b"[" * 2_000 + b"]" * 2_000 + b"}",
    "infinite number": b'{"vectors": [{"id": "a", "values": [1e400, 0, 0, 0]}]}',
    "NaN": b'{"vectors": [{"id": "a", "values": [NaN, 0, 0, 0]}]}',
}


def assert_refused(answer, status=400, code=3):
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["code"] == code
    assert body["message"]
    assert isinstance(body["details"], list)


@pytest.mark.parametrize(("path", "body", "says"), CASES)
def test_a_bad_field_is_refused_with_its_reason(http, host, path, body, says):
    """400 with code 3 and a message that names what is wrong; the data plane's error body."""
    # The standard library writes numbers that orjson refuses to write.
    answer = http.post(f"{host}{path}", content=json.dumps(body, allow_nan=True), headers={"content-type": "x"})
    assert_refused(answer)
    assert says in answer.json()["message"]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_refused(http, host, path, name):
    """Whatever the bytes are; only stats take an empty body, as a request without conditions."""
    answer = http.post(f"{host}{path}", content=BODIES[name])
    if path == "/describe_index_stats" and name == "empty":
        assert answer.status_code == 200
    elif name in ("NaN", "infinite number") and path == "/describe_index_stats":
        assert answer.status_code == 400
    else:
        assert_refused(answer)


def test_a_bad_batch_writes_nothing(http, host, space):
    """One bad record among good ones: whole or not at all."""
    body = {"vectors": [{"id": "good", "values": GOOD}, {"id": "bad", "values": [math.pi]}], "namespace": space}
    assert_refused(http.post(f"{host}/vectors/upsert", json=body))
    assert space not in http.get(f"{host}/describe_index_stats").json()["namespaces"]


def test_a_body_over_the_limit_is_told_so(http, host):
    """413, also where the client sends it in pieces without saying its length."""
    body = b'{"vectors": "' + b"x" * BODY_BYTES_MAX + b'"}'
    answer = http.post(f"{host}/vectors/upsert", content=body)
    assert_refused(answer, 413)
    assert str(BODY_BYTES_MAX) in answer.json()["message"]

    def pieces():
        for start in range(0, len(body), 1 << 20):
            yield body[start : start + (1 << 20)]

    assert_refused(http.post(f"{host}/vectors/upsert", content=pieces()), 413)


def test_the_largest_batch_is_taken(http, host, space):
    """1,000 records in one request."""
    body = {"vectors": [{"id": str(n), "values": [n + 1, 0, 0, 1]} for n in range(1_000)], "namespace": space}
    assert http.post(f"{host}/vectors/upsert", json=body).json() == {"upsertedCount": 1_000}


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "at least one id"),
        ("namespace=x", "at least one id"),
        ("ids=", "must not be empty"),
        ("ids=a&namespace=%C3%BC", "ASCII"),
        ("ids=%C3%BC", "ASCII"),
        ("&".join(f"ids={n}" for n in range(1_001)), "1000"),
    ],
)
def test_a_bad_fetch_is_refused(http, host, query, says):
    """Zero ids, too many, or names that cannot be."""
    answer = http.get(f"{host}/vectors/fetch?{query}")
    assert_refused(answer)
    assert says in answer.json()["message"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("limit=0", "1 to 100"),
        ("limit=101", "1 to 100"),
        ("limit=many", "limit"),
        ("paginationToken=what", "token"),
        ("paginationToken=eyJhIjoxfQ==", "token"),
        (f"prefix={'x' * 513}", "513"),
    ],
)
@pytest.mark.parametrize("path", ["/vectors/list", "/namespaces"])
def test_a_bad_page_is_refused(http, host, path, query, says):
    """Limits and tokens of both listings."""
    answer = http.get(f"{host}{path}?{query}")
    assert_refused(answer)
    assert says in answer.json()["message"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "name"),
        ({"name": 4}, "name"),
        ({"name": ""}, "default namespace"),
        ({"name": "ü"}, "ASCII"),
        ({"name": "x" * 513}, "513"),
        ({"name": "n", "schema": {"fields": {"f": {"filterable": False}}}}, "filterable"),
        ({"name": "n", "schema": 5}, "schema"),
    ],
)
def test_a_bad_namespace_is_refused(http, host, body, says):
    """Names and schemas that cannot be."""
    answer = http.post(f"{host}/namespaces", json=body)
    assert_refused(answer)
    assert says in answer.json()["message"]


def test_stats_by_filter_are_refused(http, host):
    """As the hosted service does for every serverless index."""
    assert_refused(http.post(f"{host}/describe_index_stats", json={"filter": {"x": 1}}))
    assert http.post(f"{host}/describe_index_stats", json={"filter": {}}).status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/vectors", "/vectors/upsert/", "/indexes", "/healthz", "/bulk"])
def test_an_unknown_route_is_not_found(http, host, path):
    """404 in the data plane's words; the control plane is not on an index's port."""
    assert_refused(http.get(f"{host}{path}"), 404, 5)


@pytest.mark.parametrize(("method", "path"), [("GET", "/query"), ("PUT", "/vectors/upsert"), ("POST", "/vectors/list")])
def test_a_wrong_method_is_told_the_right_one(http, host, method, path):
    """405 with `allow`."""
    answer = http.request(method, f"{host}{path}")
    assert_refused(answer, 405, 12)
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-freshet-at-least", "nonsense"),
        ("x-freshet-at-least-lsn", "-1"),
        ("x-freshet-at-least-lsn", "soon"),
        ("x-freshet-at-least-lsn", "9" * 30),
        ("x-freshet-wait-ms", "1.5"),
        ("x-freshet-wait-ms", "60001"),
    ],
)
def test_a_bad_header_of_a_read_is_refused(http, host, header, value):
    """On every read alike."""
    for path in ("/vectors/fetch?ids=a", "/vectors/list", "/describe_index_stats", "/namespaces"):
        assert_refused(http.get(host + path, headers={header: value}))


@pytest.mark.parametrize("value", ["soon", "-1", "60001"])
def test_a_bad_wait_of_a_write_is_refused_before_it_is_written(http, host, space, value):
    """Nothing is appended."""
    body = {"vectors": [{"id": "a", "values": GOOD}], "namespace": space}
    answer = http.post(f"{host}/vectors/upsert", json=body, headers={"x-freshet-wait-visible-ms": value})
    assert_refused(answer)
    assert space not in http.get(f"{host}/describe_index_stats").json()["namespaces"]


def talk(host, request):
    """Send bytes and return all that comes back until the server closes or is silent."""
    parts = urlsplit(host)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_a_body_shorter_than_its_length_ends_quietly(http, host, space):
    """The request is never served, and the server goes on."""
    body = orjson.dumps({"vectors": [{"id": "a", "values": GOOD}], "namespace": space})
    head = b"POST /vectors/upsert HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (len(body) + 10)
    assert b"200 OK" not in talk(host, head + body)
    assert space not in http.get(f"{host}/describe_index_stats").json()["namespaces"]


def test_a_length_that_is_no_number_is_refused(host):
    """By the HTTP server itself, with a 400."""
    reply = talk(host, b"POST /query HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n{}")
    assert reply.startswith(b"HTTP/1.1 400")


def test_a_sparse_index_takes_sparse_records_and_refuses_what_is_dense(http, make_index):
    """Records are stored and fetched; dense records and questions are refused, in the hosted service's words."""
    host = make_index(dimension=None, metric=None, vector_type="sparse")
    sparse = {"indices": [5, 2], "values": [0.5, 0.25]}
    body = {"vectors": [{"id": "s", "sparseValues": sparse, "values": []}]}
    answer = http.post(f"{host}/vectors/upsert", json=body, headers={"x-freshet-wait-visible-ms": "20000"})
    assert answer.json()["visible"] is True
    fetched = http.get(f"{host}/vectors/fetch?ids=s").json()["vectors"]["s"]
    assert fetched == {"id": "s", "values": [], "sparseValues": {"indices": [2, 5], "values": [0.25, 0.5]}}
    assert "dimension" not in http.get(f"{host}/describe_index_stats").json()
    for question, says in (
        ({"vector": GOOD}, "Either 'sparse_vector' or 'ID' must be provided"),
        ({"vector": GOOD, "sparseVector": sparse}, "Index configuration does not support dense values"),
        ({"sparseVector": {"indices": [1], "values": [1e39]}}, "finite"),
        ({"sparseVector": {"indices": [1, 1], "values": [1, 2]}}, "more than once"),
        ({"sparseVector": {"indices": [-1], "values": [1]}}, "indices must be integers"),
        ({"sparseVector": {"indices": [2**32], "values": [1]}}, "indices must be integers"),
        ({"sparseVector": [1]}, "'sparseVector' must be an object"),
        ({"sparseVector": {"indices": [], "values": []}}, "Either 'sparse_vector' or 'ID' must be provided"),
    ):
        refused = http.post(f"{host}/query", json={"topK": 1, **question})
        assert_refused(refused)
        assert says in refused.json()["message"]
    assert_refused(http.post(f"{host}/vectors/upsert", json={"vectors": [{"id": "d", "values": GOOD}]}))
