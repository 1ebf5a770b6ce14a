"""A schema of a namespace, or of its index, says which metadata fields can be filtered by."""

from __future__ import annotations

import httpx2
import pytest

VECTOR = [1.0, 2.0, 3.0, 4.0]
SCHEMA = {"fields": {"genre": {"filterable": True}, "year": {"filterable": True}}}
DEPLOYMENT = {"deployment_type": "managed", "cloud": "aws", "region": "eu"}


def write(http: httpx2.Client, host: str, space: str) -> None:
    body = {"vectors": [{"id": "a", "values": VECTOR, "metadata": {"genre": "x", "other": 1}}], "namespace": space}
    answer = http.post(f"{host}/vectors/upsert", json=body, headers={"x-freshet-wait-visible-ms": "20000"})
    assert answer.json()["visible"] is True


def ask(http: httpx2.Client, host: str, space: str, where: dict) -> dict[str, httpx2.Response]:
    """Every operation that takes a filter, the delete last."""
    named = {"namespace": space, "filter": where}
    update = {**named, "setMetadata": {"seen": True}}
    return {
        "query": http.post(f"{host}/query", json={"vector": VECTOR, "topK": 1, **named}),
        "query by id": http.post(f"{host}/query", json={"id": "a", "topK": 1, **named}),
        "fetch by metadata": http.post(f"{host}/vectors/fetch_by_metadata", json=named),
        "dry run": http.post(f"{host}/vectors/update", json={**update, "dryRun": True}),
        "update": http.post(f"{host}/vectors/update", json=update),
        "delete": http.post(f"{host}/vectors/delete", json=named),
    }


def assert_refused(http: httpx2.Client, host: str, space: str, where: dict, says: str) -> None:
    for name, answer in ask(http, host, space, where).items():
        assert answer.status_code == 400, name
        assert says in answer.json()["message"], name
        assert answer.json()["details"][0]["field"] in says


def assert_taken(http: httpx2.Client, host: str, space: str, where: dict) -> None:
    for name, answer in ask(http, host, space, where).items():
        assert answer.status_code == 200, (name, answer.text)


def test_field_that_the_schema_of_a_namespace_does_not_name_is_refused(http, host, space):
    """By every operation that takes a filter, however deep it stands; nothing is changed."""
    assert http.post(f"{host}/namespaces", json={"name": space, "schema": SCHEMA}).status_code == 200
    write(http, host, space)
    says = f"Metadata field 'other' is not filterable in namespace '{space}': its schema names genre, year"
    assert_refused(http, host, space, {"other": 1}, says)
    assert_refused(http, host, space, {"$or": [{"genre": "x"}, {"$and": [{"year": 1}, {"other": 1}]}]}, says)
    assert_refused(http, host, space, {"other": {"$exists": False}}, says)
    fetched = http.get(f"{host}/vectors/fetch", params={"ids": "a", "namespace": space}).json()["vectors"]["a"]
    assert fetched["metadata"] == {"genre": "x", "other": 1}


def test_fields_of_the_schema_are_filtered_by(http, host, space):
    """Also one that no record has; other fields are stored and given back all the same."""
    http.post(f"{host}/namespaces", json={"name": space, "schema": SCHEMA})
    write(http, host, space)
    found = http.post(f"{host}/query", json={"vector": VECTOR, "topK": 1, "namespace": space, "filter": {"genre": "x"}})
    assert [match["id"] for match in found.json()["matches"]] == ["a"]
    assert_taken(http, host, space, {"year": {"$exists": False}})


def test_query_without_filter_needs_no_schema(http, host, space):
    """An empty filter names no field."""
    http.post(f"{host}/namespaces", json={"name": space, "schema": SCHEMA})
    write(http, host, space)
    for where in ({}, None):
        body = {"vector": VECTOR, "topK": 1, "namespace": space, "filter": where}
        assert len(http.post(f"{host}/query", json=body).json()["matches"]) == 1


def test_namespace_without_a_schema_is_filtered_by_every_field(http, host, space):
    """Made by its first record or by a call; and again once one with a schema was deleted."""
    write(http, host, space)
    assert_taken(http, host, space, {"anything": 1})
    made = f"{space}-made"
    http.post(f"{host}/namespaces", json={"name": made})
    write(http, host, made)
    assert_taken(http, host, made, {"anything": 1})
    again = f"{space}-again"
    http.post(f"{host}/namespaces", json={"name": again, "schema": SCHEMA})
    assert http.delete(f"{host}/namespaces/{again}").status_code == 200
    write(http, host, again)
    assert_taken(http, host, again, {"anything": 1})


def test_schema_outlives_the_records_of_a_namespace(http, host, space):
    """DeleteAll keeps the namespace as it was made."""
    http.post(f"{host}/namespaces", json={"name": space, "schema": SCHEMA})
    write(http, host, space)
    assert http.post(f"{host}/vectors/delete", json={"namespace": space, "deleteAll": True}).status_code == 200
    write(http, host, space)
    assert_refused(http, host, space, {"other": 1}, "Metadata field 'other' is not filterable")


@pytest.mark.parametrize(
    "body",
    [
        {
            "schema": {"fields": {"_values": {"type": "dense_vector", "dimension": 4}, "genre": {"filterable": True}}},
            "deployment": DEPLOYMENT,
            "dimension": None,
            "metric": None,
        },
        {"spec": {"serverless": {"cloud": "a", "region": "r", "schema": {"fields": {"genre": {"filterable": True}}}}}},
        {"spec": {"byoc": {"environment": "e", "schema": {"fields": {"genre": {"filterable": True}}}}}},
    ],
    ids=["2026-07", "serverless", "byoc"],
)
def test_namespaces_inherit_the_schema_of_their_index(http, make_index, space, body):
    """Where they have none of their own; a description says which fields they are."""
    host = make_index(**body)
    write(http, host, space)
    says = f"Metadata field 'other' is not filterable in namespace '{space}': its schema names genre"
    assert_refused(http, host, space, {"other": 1}, says)
    described = http.get(f"{host}/namespaces/{space}").json()
    assert described["schema"] == {"fields": {"genre": {"filterable": True}}}
    assert described["indexed_fields"] == {"fields": ["genre"]}
    own = f"{space}-own"
    http.post(f"{host}/namespaces", json={"name": own, "schema": {"fields": {"other": {"filterable": True}}}})
    write(http, host, own)
    assert_refused(http, host, own, {"genre": "x"}, "Metadata field 'genre' is not filterable")
    assert_taken(http, host, own, {"other": 1})


def test_many_fields_are_not_all_named(http, host, space):
    """The message stays short."""
    schema = {"fields": {f"f{n:03}": {"filterable": True} for n in range(200)}}
    http.post(f"{host}/namespaces", json={"name": space, "schema": schema})
    answer = http.post(f"{host}/query", json={"vector": VECTOR, "topK": 1, "namespace": space, "filter": {"other": 1}})
    assert answer.json()["message"].endswith(
        "its schema names f000, f001, f002, f003, f004, f005, f006, f007, f008, f009 and 190 more"
    )


def test_description_of_an_index_tells_its_filterable_fields(server, http, make_index):
    """Beside its vector field, with what was declared of them."""
    fields = {
        "_values": {"type": "dense_vector", "dimension": 4, "metric": "cosine"},
        "genre": {"type": "string", "filterable": True, "description": "what it is"},
        "tags": {"type": "string_list", "filterable": True},
        "old": {"filterable": True},
    }
    name = "tells-its-fields"
    make_index(name=name, schema={"fields": fields}, deployment=DEPLOYMENT, dimension=None, metric=None)
    assert http.get(f"{server.url}/indexes/{name}").json()["schema"] == {"fields": fields}
