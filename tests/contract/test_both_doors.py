"""The same questions over REST and over gRPC: the same answers, positions, errors and words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx2
import orjson
import pytest

from tests.support.api_server import ApiServer
from tests.support.grpc_client import GrpcClient

SPARSE = {"indices": [3, 70_000, 4_000_000_000], "values": [0.5, -0.25, 1e-3]}
RECORDS = [
    {"id": "plain", "values": [0.1, -2.5, 3e-38, 1e30]},
    {"id": "told", "values": [1, 2, 3, 4], "metadata": {"n": 7, "x": -0.5, "big": 2**53, "yes": True, "no": False}},
    {"id": "words", "values": [4, 3, 2, 1], "metadata": {"": "empty name", "t": "žluťoučký 🐎", "l": ["a", "", "b"]}},
    {"id": "mixed", "values": [1, 0, 0, 1e-7], "sparseValues": SPARSE, "metadata": {"n": 8, "gone": None}},
    {"id": "none", "values": [0, 0, 0, 1], "metadata": {}},
]
QUESTIONS: list[dict[str, Any]] = [
    {"vector": [1, 2, 3, 4], "topK": 10},
    {"vector": [1, 2, 3, 4], "topK": 2, "includeValues": True, "includeMetadata": True},
    {"id": "mixed", "topK": 3, "includeMetadata": True},
    {"id": "nobody", "topK": 3},
    {"vector": [1, 0, 0, 0], "topK": 5, "filter": {"$or": [{"n": {"$gte": 8}}, {"l": {"$in": ["a"]}}]}},
    {"vector": [1, 0, 0, 0], "topK": 5, "filter": {"yes": True, "x": {"$lt": 0}}, "includeValues": True},
    {"vector": [1, 0, 0, 0], "topK": 5, "filter": {}},
    {"vector": [0, 0, 0, 0], "topK": 2},
]
# What is wrong, as (method and path, gRPC's method, body).
MISTAKES: list[tuple[str, str, dict[str, Any]]] = [
    ("/query", "Query", {"vector": [1, 2, 3], "topK": 3}),
    ("/query", "Query", {"vector": [1, 2, 3, 4], "topK": 0}),
    ("/query", "Query", {"vector": [1, 2, 3, 4], "topK": 10_001}),
    ("/query", "Query", {"topK": 3}),
    ("/query", "Query", {"vector": [1, 2, 3, 4], "id": "told", "topK": 3}),
    ("/query", "Query", {"id": "é", "topK": 3}),
    ("/query", "Query", {"vector": [1, 2, 3, 4], "topK": 1, "filter": {"n": {"$regex": "x"}}}),
    ("/query", "Query", {"vector": [1, 2, 3, 4], "topK": 1, "filter": {"n": None}}),
    ("/query", "Query", {"vector": [1, 2, 3, 4], "topK": 1, "filter": {"n": {"$in": 1}}}),
    ("/query", "Query", {"vector": [1, 2, 3, 4], "topK": 1, "queries": [{"topK": 1}]}),
    ("/query", "Query", {"vector": [1, 2, 3, 4], "topK": 1, "scanFactor": 99}),
    ("/query", "Query", {"vector": [1, 2, 3, 4], "topK": 5, "maxCandidates": 4}),
    ("/vectors/upsert", "Upsert", {"vectors": []}),
    ("/vectors/upsert", "Upsert", {"vectors": [{"id": "a", "values": [1, 2]}]}),
    ("/vectors/upsert", "Upsert", {"vectors": [{"id": "", "values": [1, 2, 3, 4]}]}),
    ("/vectors/upsert", "Upsert", {"vectors": [{"id": "x" * 513, "values": [1, 2, 3, 4]}]}),
    ("/vectors/upsert", "Upsert", {"vectors": [{"id": "a", "values": [0, 0, 0, 0]}]}),
    ("/vectors/upsert", "Upsert", {"vectors": [{"id": "a", "values": [1, 2, 3, 4], "metadata": {"m": {"n": 1}}}]}),
    ("/vectors/upsert", "Upsert", {"vectors": [{"id": "a", "values": [1, 2, 3, 4], "metadata": {"$m": 1}}]}),
    ("/vectors/upsert", "Upsert", {"vectors": [{"id": "a", "values": [1, 2, 3, 4], "metadata": {"m": [1, "x"]}}]}),
    ("/vectors/upsert", "Upsert", {"vectors": [{"id": "a", "values": [1, 2, 3, 4], "metadata": {"m": "x" * 41_000}}]}),
    (
        "/vectors/upsert",
        "Upsert",
        {"vectors": [{"id": "a", "values": [1, 2, 3, 4], "sparseValues": {"indices": [1, 1], "values": [1, 2]}}]},
    ),
    ("/vectors/upsert", "Upsert", {"vectors": [{"id": "a", "values": [1, 2, 3, 4]}], "namespace": "č"}),
    ("/vectors/upsert", "Upsert", {"vectors": [{"id": str(n), "values": [1, 2, 3, 4]} for n in range(1_001)]}),
    ("/vectors/fetch_by_metadata", "FetchByMetadata", {}),
    ("/vectors/fetch_by_metadata", "FetchByMetadata", {"filter": {}}),
    ("/vectors/fetch_by_metadata", "FetchByMetadata", {"filter": {"n": 1}, "paginationToken": "x"}),
    ("/vectors/update", "Update", {}),
    ("/vectors/update", "Update", {"id": "told"}),
    ("/vectors/update", "Update", {"filter": {}, "setMetadata": {"a": 1}}),
    ("/vectors/update", "Update", {"filter": {"n": 1}, "values": [1, 2, 3, 4]}),
    ("/vectors/update", "Update", {"id": "told", "setMetadata": {"a": 1}, "dryRun": True}),
    ("/vectors/delete", "Delete", {}),
    ("/vectors/delete", "Delete", {"ids": ["a"], "deleteAll": True}),
    ("/vectors/delete", "Delete", {"filter": {}}),
    ("/vectors/delete", "Delete", {"ids": ["a"], "namespace": "nowhere"}),
    ("/vectors/delete", "Delete", {"ids": [str(n) for n in range(1_001)]}),
    ("/describe_index_stats", "DescribeIndexStats", {"filter": {"a": 1}}),
    ("/namespaces", "CreateNamespace", {"name": "both"}),
    ("/namespaces", "CreateNamespace", {"name": ""}),
    ("/namespaces", "CreateNamespace", {"name": "s", "schema": {"fields": {"a": {"filterable": False}}}}),
]


@dataclass
class Doors:
    rest: httpx2.Client
    grpc: GrpcClient
    seen: dict[str, str] = field(default_factory=dict)

    def post(self, path: str, body: dict[str, Any], **headers: str) -> httpx2.Response:
        return self.rest.post(path, json=body, headers={**self.seen, **headers})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(scope="module")
def doors(server: ApiServer) -> Iterator[Doors]:
    """An index with the same records in two namespaces: `rest` was written over REST, `grpc` over gRPC."""
    spec = {"serverless": {"cloud": "c", "region": "r"}}
    # A power of two, so that the fullness is a number that a float of gRPC's can hold.
    body = {"name": "both", "dimension": 4, "metric": "dotproduct", "spec": spec, "max_records": 1_024}
    host = httpx2.post(f"{server.url}/indexes", json=body).json()["host"]
    with httpx2.Client(base_url=host, timeout=30) as http, GrpcClient(host.removeprefix("http://")) as client:
        made = Doors(http, client)
        visible = {"x-freshet-wait-visible-ms": "20000"}
        http.post("/vectors/upsert", json={"vectors": RECORDS, "namespace": "rest"}, headers=visible)
        client.call("Upsert", {"vectors": RECORDS, "namespace": "grpc"}, visible)
        answer = http.post("/namespaces", json={"name": "both", "schema": {"fields": {"n": {"filterable": True}}}})
        assert answer.status_code == 200, answer.text
        made.seen = {"x-freshet-at-least": answer.headers["x-freshet-position"], "x-freshet-wait-ms": "20000"}
        yield made


def positions(told: Any) -> dict[str, str]:
    names = ("x-freshet-position", "x-pinecone-max-indexed-lsn", "x-pinecone-lsn-reconciled", "x-freshet-staleness-ms")
    return {name: told[name] for name in names if name in told}


@pytest.mark.parametrize("namespace", ["rest", "grpc", "", "nowhere"])
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda one: "-".join(map(str, one)))
def test_query_answers_alike(doors: Doors, namespace: str, question: dict[str, Any]) -> None:
    """Ids, scores, values, metadata, namespace, usage, and the positions that are shown."""
    asked = {**question, "namespace": namespace}
    by_rest = doors.post("/query", asked)
    by_grpc, told = doors.grpc.call("Query", asked, doors.seen)
    assert by_grpc.pop("results") == []
    assert by_grpc == by_rest.json()
    assert positions(told) == positions(by_rest.headers)
    assert len(positions(told)) == 4


@pytest.mark.parametrize("namespace", ["rest", "grpc", "nowhere"])
def test_fetch_answers_alike(doors: Doors, namespace: str) -> None:
    """Whichever door wrote them: every number, string and missing part."""
    ids = [record["id"] for record in RECORDS] + ["nobody"] * 20
    parameters = {"ids": ids, "namespace": namespace}
    by_rest = doors.rest.get("/vectors/fetch", params=parameters, headers=doors.seen)
    by_grpc, told = doors.grpc.call("Fetch", parameters, doors.seen)
    assert by_grpc == by_rest.json()
    assert positions(told) == positions(by_rest.headers)


def test_pages_by_metadata_continue_at_the_other_door(doors: Doors) -> None:
    """Records, usage and tokens are the same."""
    asked: dict[str, Any] = {"namespace": "grpc", "filter": {"n": {"$gt": 0}}, "limit": 1}
    seen = []
    while True:
        by_rest = doors.post("/vectors/fetch_by_metadata", asked).json()
        by_grpc, told = doors.grpc.call("FetchByMetadata", asked, doors.seen)
        assert by_grpc == by_rest
        assert len(positions(told)) == 4
        seen += list(by_rest["vectors"])
        if "pagination" not in by_rest:
            break
        asked["paginationToken"] = by_rest["pagination"]["next"]
    assert seen == ["mixed", "told"]


def test_both_doors_write_the_same_records(doors: Doors) -> None:
    """A record is the same whichever way it came, whole numbers included."""
    ids = [record["id"] for record in RECORDS]
    one, other = (
        doors.rest.get("/vectors/fetch", params={"ids": ids, "namespace": name}, headers=doors.seen).json()["vectors"]
        for name in ("rest", "grpc")
    )
    # A map of protobuf has no order; as text, since 1 and 1.0 are equal to Python.
    assert orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)


def test_pages_continue_at_the_other_door(doors: Doors) -> None:
    """A token of one door is good at the other; pages, prefixes and the end are the same."""
    token_of_rest = token_of_grpc = None
    seen = []
    for _ in range(3):
        asked: dict[str, Any] = {"namespace": "rest", "limit": 2}
        other = {"paginationToken": token_of_rest} if token_of_rest else {}
        by_grpc, _ = doors.grpc.call("List", {**asked, **other}, doors.seen)
        other = {"paginationToken": token_of_grpc} if token_of_grpc else {}
        by_rest = doors.rest.get("/vectors/list", params={**asked, **other}, headers=doors.seen).json()
        assert by_grpc == by_rest
        seen += [one["id"] for one in by_rest["vectors"]]
        token_of_rest = token_of_grpc = by_rest.get("pagination", {}).get("next")
    assert seen == sorted(record["id"] for record in RECORDS)
    assert token_of_rest is None


def test_statistics_and_namespaces_are_alike(doors: Doors) -> None:
    """Counts, dimension, metric, fullness; names, schemas and totals of namespaces."""
    by_rest = doors.post("/describe_index_stats", {}).json()
    del by_rest["freshness"]
    assert by_rest["indexFullness"] * 1_024 == by_rest["totalVectorCount"] > 0
    by_grpc, _ = doors.grpc.call("DescribeIndexStats", {}, doors.seen)
    assert by_grpc == by_rest
    version = {"x-pinecone-api-version": "2026-07"}
    listed = doors.rest.get("/namespaces", params={"prefix": ""}, headers={**doors.seen, **version}).json()
    by_grpc, _ = doors.grpc.call("ListNamespaces", {}, doors.seen)
    assert [as_rest(one) for one in by_grpc["namespaces"]] == listed["namespaces"]
    assert by_grpc["totalCount"] == listed["total_count"] == 3
    described = doors.rest.get("/namespaces/both", headers={**doors.seen, **version}).json()
    by_grpc, told = doors.grpc.call("DescribeNamespace", {"namespace": "both"}, doors.seen)
    assert as_rest(by_grpc) == described
    assert described["schema"] == {"fields": {"n": {"filterable": True}}}
    assert len(positions(told)) == 4


def as_rest(description: dict[str, Any]) -> dict[str, Any]:
    made = {"name": description["name"], "record_count": description["recordCount"]}
    if "schema" in description:
        made |= {"schema": description["schema"], "indexed_fields": description["indexedFields"]}
    return made


@pytest.mark.parametrize(("path", "method", "body"), MISTAKES)
def test_mistakes_are_told_alike(doors: Doors, path: str, method: str, body: dict[str, Any]) -> None:
    """The same code and the same words; never a mistake of the server's."""
    by_rest = doors.post(path, body)
    assert 400 <= by_rest.status_code < 500, by_rest.text
    with pytest.raises(grpc.RpcError) as refused:
        doors.grpc.call(method, body, doors.seen)
    assert refused.value.code().value[0] == by_rest.json()["code"]
    assert refused.value.details() == by_rest.json()["message"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-freshet-at-least", "nonsense"),
        ("x-freshet-at-least", "AAAAAAAAAAAAAAAAAAAAAA:0=1"),
        ("x-freshet-at-least-lsn", "9999"),
        ("x-freshet-wait-ms", "soon"),
        ("x-freshet-wait-ms", "60001"),
    ],
)
def test_metadata_of_reads_is_refused_as_headers_are(doors: Doors, name: str, value: str) -> None:
    """Positions of other logs or beyond the end, and numbers that are none."""
    body = {"vector": [1, 0, 0, 0], "topK": 1, "namespace": "rest"}
    by_rest = doors.rest.post("/query", json=body, headers={name: value})
    assert by_rest.status_code == 400
    with pytest.raises(grpc.RpcError) as refused:
        doors.grpc.call("Query", body, {name: value})
    assert (refused.value.code().value[0], refused.value.details()) == (3, by_rest.json()["message"])


def test_a_write_says_its_position_and_whether_it_is_visible(doors: Doors) -> None:
    """The headers of REST as initial metadata; what REST says in its body of a write that was waited for, too."""
    body = {"vectors": [RECORDS[0]], "namespace": "visible"}
    by_rest = doors.post("/vectors/upsert", body, **{"x-freshet-wait-visible-ms": "20000"})
    answer, told = doors.grpc.call("Upsert", body, {"x-freshet-wait-visible-ms": "20000"})
    assert answer == {"upsertedCount": 1}
    assert by_rest.json()["visible"] is True
    assert told["x-freshet-visible"] == "true"
    lsn = int(told["x-pinecone-request-lsn"])
    assert lsn > int(by_rest.headers["x-pinecone-request-lsn"])
    assert told["x-pinecone-lsn-committed"] == str(lsn)
    assert int(told["x-freshet-applied-lsn"]) >= lsn
    assert told["x-freshet-position"].endswith(f"={lsn}")
    _, told = doors.grpc.call("Upsert", body)
    assert "x-freshet-visible" not in told
