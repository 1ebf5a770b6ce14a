"""The control plane against the tables of the wire surface: bodies, limits, answers and errors, one line each."""

from __future__ import annotations

import itertools

import pytest

_NUMBERS = itertools.count(1)
AWS = {"cloud": "aws", "region": "us-east-1"}
MANAGED = {"deployment_type": "managed", **AWS}
DENSE = {"fields": {"_values": {"type": "dense_vector", "dimension": 4, "metric": "cosine"}}}
SPARSE = {"fields": {"_sparse_values": {"type": "sparse_vector"}}}
OLD = {"dimension": 4, "spec": {"serverless": AWS}}
NEWEST = {"X-Pinecone-Api-Version": "2026-07"}


@pytest.fixture
def create(server, http):
    """Create an index, by default under a name of its own; delete it after the test."""
    made = set()

    def send(body, **headers):
        body = {"name": f"table-{next(_NUMBERS)}", **body}
        answer = http.post(f"{server.url}/indexes", json=body, headers=headers)
        if answer.status_code == 201:
            made.add(body["name"])
        return answer

    yield send
    for name in made:
        http.patch(f"{server.url}/indexes/{name}", json={"deletion_protection": "disabled"})
        assert http.delete(f"{server.url}/indexes/{name}").status_code == 202


# Body, then what the answer says: vector type, dimension, metric, deployment type.
BODIES = {
    "old serverless": (OLD, "dense", 4, "cosine", "managed"),
    "old, every default of Python 7 and 8": (
        {**OLD, "metric": "cosine", "vector_type": "dense", "deletion_protection": "disabled", "tags": {}},
        "dense", 4, "cosine", "managed",
    ),
    "old serverless with read capacity and schema": (
        {
            "dimension": 4,
            "spec": {
                "serverless": {
                    **AWS, "read_capacity": {"mode": "OnDemand"}, "schema": {"fields": {"genre": {"filterable": True}}}
                }
            },
        },
        "dense", 4, "cosine", "managed",
    ),
    "old without spec": ({"dimension": 4}, "dense", 4, "cosine", "managed"),
    "old euclidean": ({**OLD, "metric": "euclidean"}, "dense", 4, "euclidean", "managed"),
    "old sparse": ({"vector_type": "sparse", "spec": {"serverless": AWS}}, "sparse", None, "dotproduct", "managed"),
    "old sparse with metric": (
        {"vector_type": "sparse", "metric": "dotproduct", "spec": {"serverless": AWS}},
        "sparse", None, "dotproduct", "managed",
    ),
    "old pod": (
        {
            "dimension": 4,
            "spec": {"pod": {"environment": "eu", "pod_type": "p2.x2", "pods": 2, "replicas": 2, "shards": 1}},
        },
        "dense", 4, "cosine", "pod",
    ),
    "old pod with the least": ({"dimension": 4, "spec": {"pod": {"environment": "eu"}}}, "dense", 4, "cosine", "pod"),
    "old byoc": ({"dimension": 4, "spec": {"byoc": {"environment": "own"}}}, "dense", 4, "cosine", "byoc"),
    "newest dense": ({"schema": DENSE, "deployment": MANAGED}, "dense", 4, "cosine", "managed"),
    "newest dense without metric": (
        {"schema": {"fields": {"_values": {"type": "dense_vector", "dimension": 4}}}, "deployment": MANAGED},
        "dense", 4, "cosine", "managed",
    ),
    "newest sparse": ({"schema": SPARSE, "deployment": MANAGED}, "sparse", None, "dotproduct", "managed"),
    "newest byoc": (
        {"schema": DENSE, "deployment": {"deployment_type": "byoc", "environment": "own"}},
        "dense", 4, "cosine", "byoc",
    ),
    "newest with all the rest": (
        {
            "schema": DENSE, "deployment": MANAGED, "read_capacity": {"mode": "OnDemand"}, "cmek_id": None,
            "deletion_protection": "enabled", "tags": {"team": "a"},
        },
        "dense", 4, "cosine", "managed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BODIES)
def test_every_form_of_a_create_makes_its_index(server, http, create, case):
    """The answer has the fields that each generation of clients needs, of the types that they need."""
    body, vector_type, dimension, metric, deployment = BODIES[case]
    answer = create(body, **(NEWEST if "schema" in body else {}))
    assert answer.status_code == 201, answer.text
    model = answer.json()
    assert (model["vector_type"], model.get("dimension"), model["metric"]) == (vector_type, dimension, metric)
    assert model["deployment"]["deployment_type"] == deployment
    assert model["deletion_protection"] == body.get("deletion_protection", "disabled")
    assert model["tags"] == (body.get("tags") or None)
    assert list(model["spec"]) == [{"managed": "serverless"}.get(deployment, deployment)]
    assert model["status"] == {"ready": True, "state": "Ready"}
    (name, field), *others = model["schema"]["fields"].items()
    assert (name, field["type"]) == {
        "dense": ("_values", "dense_vector"),
        "sparse": ("_sparse_values", "sparse_vector"),
    }[vector_type]
    declared = body.get("spec", {}).get("serverless", {}).get("schema", {}).get("fields", {})
    assert dict(others) == declared
    assert model["read_capacity"] == {"mode": "OnDemand", "status": {"state": "Ready"}}
    if deployment == "managed":
        assert (model["deployment"]["cloud"], model["deployment"]["region"]) == ("aws", "us-east-1")
        assert model["spec"]["serverless"]["read_capacity"] == model["read_capacity"]
    else:
        assert model["deployment"]["environment"] == next(iter(model["spec"].values()))["environment"]
    # Absent or set, never null: older clients know no null there.
    assert not {"private_host", "embed", "source_collection", "source_backup_id", "cmek_id"} & set(model)
    assert model["host"].startswith("http://localhost:")
    assert http.get(f"{server.url}/indexes/{model['name']}").json() == model


LONGEST = "a" + "-0" * 22
LIMITS = {
    "shortest name": {**OLD, "name": "7"},
    "longest name": {**OLD, "name": LONGEST},
    "least dimension": {**OLD, "dimension": 1},
    "greatest dimension": {**OLD, "dimension": 20_000},
    "most and longest tags": {**OLD, "tags": {f"{n:_<80}": "~" * 120 for n in range(20)}},
    "every character of a tag": {**OLD, "tags": {"aZ0_-": " !\"#$%&'()*+,-./:;<=>?@[]^_`{|}~"}},
    "an empty tag": {**OLD, "tags": {"gone": ""}},
}


@pytest.mark.parametrize("case", LIMITS)
def test_what_reaches_a_limit_is_accepted(create, case):
    """Limits are inclusive."""
    answer = create(LIMITS[case])
    assert answer.status_code == 201, answer.text


BEYOND = {
    "empty name": ({"name": ""}, "alphanumeric character"),
    "name too long": ({"name": f"{LONGEST}a"}, "45"),
    "capital": ({"name": "Movies"}, "alphanumeric character"),
    "underscore": ({"name": "a_b"}, "alphanumeric character"),
    "leading hyphen": ({"name": "-a"}, "alphanumeric character"),
    "trailing hyphen": ({"name": "a-"}, "alphanumeric character"),
    "dot": ({"name": "a.b"}, "alphanumeric character"),
    "slash": ({"name": "a/b"}, "alphanumeric character"),
    "no ASCII": ({"name": "é"}, "alphanumeric character"),
    "trailing line break": ({"name": "a\n"}, "alphanumeric character"),
    "dimension below": ({"dimension": 0}, "1 to 20000"),
    "negative dimension": ({"dimension": -1}, "1 to 20000"),
    "dimension above": ({"dimension": 20_001}, "1 to 20000"),
    "a tag too many": ({"tags": {str(n): "v" for n in range(21)}}, "20 tags"),
    "tag key too long": ({"tags": {"k" * 81: "v"}}, "Tag key"),
    "empty tag key": ({"tags": {"": "v"}}, "Tag key"),
    "tag key with a dot": ({"tags": {"a.b": "v"}}, "Tag key"),
    "tag too long": ({"tags": {"k": "v" * 121}}, "120"),
    "tag with a line break": ({"tags": {"k": "a\nb"}}, "printable ASCII"),
    "tag beyond ASCII": ({"tags": {"k": "é"}}, "printable ASCII"),
}


@pytest.mark.parametrize("case", BEYOND)
def test_what_is_beyond_a_limit_is_refused(create, case):
    """400, with the limit."""
    body, says = BEYOND[case]
    answer = create({**OLD, **body})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "INVALID_ARGUMENT"
    assert says in answer.json()["error"]["message"]


MODEL = {"name": "m", "cloud": "aws", "region": "us-east-1", "embed": {"model": "e5", "field_map": {"text": "body"}}}
INVALID_MODEL = {**MODEL, "embed": {"model": "invalid-model", "field_map": {"text": "x"}}}
# Method, path, body, status, code, what the message must contain.
ERRORS = {
    "unknown index": ("GET", "/indexes/doesnotexist", None, 404, "NOT_FOUND", "Resource doesnotexist not found"),
    "delete of an unknown index": ("DELETE", "/indexes/doesnotexist", None, 404, "NOT_FOUND", "doesnotexist"),
    "configure of an unknown index": ("PATCH", "/indexes/doesnotexist", {}, 404, "NOT_FOUND", "doesnotexist"),
    "name that is taken": ("POST", "/indexes", {**OLD, "name": "{taken}"}, 409, "ALREADY_EXISTS", "already exists"),
    "protected index": (
        "DELETE", "/indexes/{taken}", None, 403, "FORBIDDEN", "Deletion protection is enabled for this index",
    ),
    "malformed deployment": (
        "POST", "/indexes", {"name": "n", "schema": DENSE, "deployment": {"deployment_type": "managed", "cloud": 5}},
        422, "UNPROCESSABLE_ENTITY", "deployment.cloud",
    ),
    "deployment without its environment": (
        "POST", "/indexes", {"name": "n", "schema": DENSE, "deployment": {"deployment_type": "byoc"}},
        422, "UNPROCESSABLE_ENTITY", "deployment.environment",
    ),
    "pods in the newest form": (
        "POST", "/indexes",
        {"name": "n", "schema": DENSE, "deployment": {"deployment_type": "pod", "environment": "e"}},
        400, "INVALID_ARGUMENT", "Pod indexes cannot be created",
    ),
    "sparse pods": (
        "POST", "/indexes", {"name": "n", "vector_type": "sparse", "spec": {"pod": {"environment": "e"}}},
        400, "INVALID_ARGUMENT", "Sparse vector type is not supported for pod indexes",
    ),
    "sparse with cosine": (
        "POST", "/indexes", {"name": "n", "vector_type": "sparse", "metric": "cosine", "spec": {"serverless": AWS}},
        400, "INVALID_ARGUMENT", "Sparse vector indexes must use the metric dotproduct",
    ),
    "sparse with euclidean": (
        "POST", "/indexes", {"name": "n", "vector_type": "sparse", "metric": "euclidean", "spec": {"serverless": AWS}},
        400, "INVALID_ARGUMENT", "Sparse vector indexes must use the metric dotproduct",
    ),
    "sparse with a dimension": (
        "POST", "/indexes", {"name": "n", "vector_type": "sparse", "dimension": 4, "spec": {"serverless": AWS}},
        400, "INVALID_ARGUMENT", "dimension should not be specified for sparse indexes",
    ),
    "serverless from a collection": (
        "POST", "/indexes", {**OLD, "name": "n", "spec": {"serverless": {**AWS, "source_collection": "doesnotexist"}}},
        404, "NOT_FOUND", "Resource doesnotexist not found",
    ),
    "pods from a collection": (
        "POST", "/indexes",
        {**OLD, "name": "n", "spec": {"pod": {"environment": "e", "source_collection": "doesnotexist"}}},
        404, "NOT_FOUND", "Resource doesnotexist not found",
    ),
    "unknown model": (
        "POST", "/indexes/create-for-model", INVALID_MODEL, 404, "NOT_FOUND", "Model invalid-model not found.",
    ),
    "any model": (
        "POST", "/indexes/create-for-model", MODEL, 404, "NOT_FOUND", "No embedding model is configured here",
    ),
    "model without its text": (
        "POST", "/indexes/create-for-model", {**MODEL, "embed": {"model": "e5", "field_map": {}}},
        400, "INVALID_ARGUMENT", "Missing required key 'text'",
    ),
    "model for a bad name": (
        "POST", "/indexes/create-for-model", {**MODEL, "name": "Bad_Name"},
        400, "INVALID_ARGUMENT", "alphanumeric character",
    ),
    "no model": (
        "POST", "/indexes/create-for-model", {**MODEL, "embed": {"field_map": {"text": "x"}}},
        422, "UNPROCESSABLE_ENTITY", "embed.model",
    ),
    "no embed": (
        "POST", "/indexes/create-for-model", {"name": "n", **AWS}, 422, "UNPROCESSABLE_ENTITY", "embed",
    ),
    "unknown collection": (
        "GET", "/collections/doesnotexist", None, 404, "NOT_FOUND", "Resource doesnotexist not found",
    ),
    "delete of an unknown collection": (
        "DELETE", "/collections/doesnotexist", None, 404, "NOT_FOUND", "Resource doesnotexist not found",
    ),
    "collection of an unknown index": (
        "POST", "/collections", {"name": "c", "source": "doesnotexist"},
        404, "NOT_FOUND", "Resource doesnotexist not found",
    ),
    "collection of an index": (
        "POST", "/collections", {"name": "c", "source": "{taken}"}, 400, "INVALID_ARGUMENT", "make a backup of it",
    ),
    "collection with a bad name": (
        "POST", "/collections", {"name": "C_", "source": "{taken}"}, 400, "INVALID_ARGUMENT", "alphanumeric character",
    ),
    "collection without source": ("POST", "/collections", {"name": "c"}, 422, "UNPROCESSABLE_ENTITY", "source"),
    "unknown route": ("GET", "/doesnotexist", None, 404, "NOT_FOUND", "There is no route"),
    "unknown method": ("PUT", "/indexes/{taken}", {}, 405, "UNIMPLEMENTED", "does not take PUT"),
    "no object": ("POST", "/indexes", [], 400, "INVALID_ARGUMENT", "object"),
}  # fmt: skip


@pytest.fixture(scope="module")
def taken(server, http):
    """Name of a protected index."""
    name = "table-taken"
    body = {**OLD, "name": name, "deletion_protection": "enabled"}
    assert http.post(f"{server.url}/indexes", json=body).status_code == 201
    yield name
    http.patch(f"{server.url}/indexes/{name}", json={"deletion_protection": "disabled"})
    assert http.delete(f"{server.url}/indexes/{name}").status_code == 202


def filled(value, name):
    if isinstance(value, dict):
        return {key: filled(each, name) for key, each in value.items()}
    return value.replace("{taken}", name) if isinstance(value, str) else value


@pytest.mark.parametrize("case", ERRORS)
def test_every_mistake_has_its_status_code_and_words(server, http, taken, case):
    """In the control plane's error body, for every API version; nothing is made."""
    method, path, body, status, code, says = ERRORS[case]
    path, body = path.replace("{taken}", taken), filled(body, taken)
    before = http.get(f"{server.url}/indexes", headers=NEWEST).json()
    for headers in ({}, {"X-Pinecone-Api-Version": "2025-10"}, NEWEST):
        answer = http.request(method, f"{server.url}{path}", json=body, headers=headers)
        assert answer.status_code == status, answer.text
        told = answer.json()
        assert told["status"] == status
        assert told["error"]["code"] == code
        assert says in told["error"]["message"]
    assert http.get(f"{server.url}/indexes", headers=NEWEST).json() == before


def test_a_body_that_is_too_large_is_told_in_the_control_planes_words(server, http):
    """413."""
    answer = http.post(f"{server.url}/indexes", content=b" " * (16 * 1024 * 1024 + 1))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "PAYLOAD_TOO_LARGE"


# What each generation of clients sends to configure, and what it means for tags, protection.
CONFIGURES = {
    "newest, all": (
        {"deletion_protection": "enabled", "tags": {"b": "2"}, "read_capacity": {"mode": "OnDemand"}},
        NEWEST, {"a": "1", "b": "2"}, "enabled",
    ),
    "newest with the deployment that it has": ({"deployment": MANAGED}, NEWEST, {"a": "1"}, "disabled"),
    "newest, nothing": ({}, NEWEST, {"a": "1"}, "disabled"),
    "newest, a tag removed": ({"tags": {"a": ""}}, NEWEST, None, "disabled"),
    "old, all that was described": (
        {"spec": {"serverless": AWS}, "deletion_protection": "disabled", "tags": {"a": "3"}},
        {}, {"a": "3"}, "disabled",
    ),
    "old, an unknown tag removed": ({"tags": {"nothing": ""}}, {}, {"a": "1"}, "disabled"),
    "old, a field that it does not know": ({"private": 1, "tags": {"c": "4"}}, {}, {"a": "1", "c": "4"}, "disabled"),
    "old, nulls": (
        {"spec": None, "tags": None, "deletion_protection": None, "embed": None}, {}, {"a": "1"}, "disabled",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONFIGURES)
def test_every_form_of_a_configure_means_what_it_says(server, http, create, case):
    """Tags are merged, an empty one is taken away, what is not named stays."""
    body, headers, tags, protection = CONFIGURES[case]
    name = create({**OLD, "tags": {"a": "1"}}).json()["name"]
    answer = http.patch(f"{server.url}/indexes/{name}", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["tags"], answer.json()["deletion_protection"]) == (tags, protection)
    assert http.get(f"{server.url}/indexes/{name}").json() == answer.json()


@pytest.mark.parametrize("field", ["private", "metric", "dimension", "name", "pod_type"])
def test_a_field_that_a_configure_does_not_know_is_refused_since_2026_07(server, http, create, field):
    """Before, it is passed over."""
    name = create(OLD).json()["name"]
    answer = http.patch(f"{server.url}/indexes/{name}", json={field: 1}, headers=NEWEST)
    assert answer.status_code == 400
    assert f"Unknown field '{field}'" in answer.json()["error"]["message"]
    assert http.patch(f"{server.url}/indexes/{name}", json={field: 1}).status_code == 200


def test_a_listing_holds_every_index_as_it_is_described(server, http, create):
    """In the order of names, whatever the version; deleted ones are gone from it and from the look-up at once."""
    names = sorted(create(body).json()["name"] for body in (OLD, {"schema": SPARSE, "deployment": MANAGED}))
    listed = http.get(f"{server.url}/indexes", headers=NEWEST).json()["indexes"]
    by_name = {one["name"]: one for one in listed}
    assert list(by_name) == sorted(by_name)
    for name in names:
        assert by_name[name] == http.get(f"{server.url}/indexes/{name}").json()
    extra = create(OLD).json()["name"]
    assert http.delete(f"{server.url}/indexes/{extra}").content == b""
    assert http.get(f"{server.url}/indexes/{extra}").status_code == 404
    assert extra not in {one["name"] for one in http.get(f"{server.url}/indexes").json()["indexes"]}
    assert create({**OLD, "name": extra}).status_code == 201
