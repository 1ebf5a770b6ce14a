"""The control plane: both generations of bodies, one description for all, and its errors."""

from __future__ import annotations

import pytest

OLD = {"dimension": 4, "metric": "euclidean", "spec": {"serverless": {"cloud": "gcp", "region": "eu"}}}
NEW = {
    "schema": {"fields": {"_values": {"type": "dense_vector", "dimension": 4, "metric": "euclidean"}}},
    "deployment": {"deployment_type": "managed", "cloud": "gcp", "region": "eu"},
}
NEW_SPARSE = {"schema": {"fields": {"_sparse_values": {"type": "sparse_vector"}}}, "deployment": NEW["deployment"]}


@pytest.fixture
def create(server, http):
    """Create an index; delete it after the test."""
    made = []

    def send(name, **body):
        answer = http.post(f"{server.url}/indexes", json={"name": name, **body})
        if answer.status_code == 201:
            made.append(name)
        return answer

    yield send
    for name in made:
        http.delete(f"{server.url}/indexes/{name}")


@pytest.mark.parametrize("body", [OLD, NEW])
def test_both_generations_make_the_same_index(server, http, create, body):
    """The answer carries the fields of both, and describes the same as a later look."""
    answer = create("both", **body, tags={"team": "a"})
    assert answer.status_code == 201, answer.text
    model = answer.json()
    assert model["status"] == {"ready": True, "state": "Ready"}
    assert model["host"].startswith("http://localhost:")
    assert (model["dimension"], model["metric"], model["vector_type"]) == (4, "euclidean", "dense")
    assert model["schema"]["fields"] == {"_values": {"type": "dense_vector", "dimension": 4, "metric": "euclidean"}}
    assert model["deployment"] == {"deployment_type": "managed", "cloud": "gcp", "region": "eu"}
    assert model["spec"]["serverless"]["cloud"] == "gcp"
    assert model["deletion_protection"] == "disabled"
    assert model["tags"] == {"team": "a"}
    assert http.get(f"{server.url}/indexes/both").json() == model
    assert model in http.get(f"{server.url}/indexes").json()["indexes"]


def test_what_a_spec_leaves_out_by_null_is_not_given_back(create):
    """Clients of generation 3 send null for what they leave out, and fail on a null in the answer."""
    pods = {"environment": "e", "pod_type": "p1.x1", "replicas": None, "shards": None, "metadata_config": None}
    model = create("pods", dimension=4, spec={"pod": pods}).json()
    assert model["spec"] == {"pod": {"environment": "e", "pod_type": "p1.x1"}}
    assert (model["deployment"]["replicas"], model["deployment"]["shards"]) == (1, 1)


def test_sparse_indexes_are_hidden_from_clients_that_cannot_read_them(server, http, create):
    """A listing with an index without dimension fails as a whole in clients from before 2025-01."""
    assert create("sparse-new", **NEW_SPARSE).json()["vector_type"] == "sparse"
    assert "dimension" not in create("sparse-old", vector_type="sparse", spec=OLD["spec"]).json()

    def listed(**headers):
        return {one["name"] for one in http.get(f"{server.url}/indexes", headers=headers).json()["indexes"]}

    assert {"sparse-new", "sparse-old"} <= listed(**{"X-Pinecone-Api-Version": "2025-01"})
    assert not {"sparse-new", "sparse-old"} & listed(**{"X-Pinecone-Api-Version": "2024-10"})
    assert not {"sparse-new", "sparse-old"} & listed()


def test_an_index_can_be_made_used_deleted_and_made_again(server, http, create):
    """A recreated index is empty and has another log."""
    hosts, tokens = [], []
    for _ in range(2):
        hosts.append(create("again", **OLD).json()["host"])
        body = {"vectors": [{"id": "a", "values": [1, 2, 3, 4]}]}
        answer = http.post(f"{hosts[-1]}/vectors/upsert", json=body, headers={"x-freshet-wait-visible-ms": "20000"})
        assert answer.json()["visible"] is True
        tokens.append(answer.headers["x-freshet-position"])
        assert http.get(f"{hosts[-1]}/describe_index_stats").json()["totalVectorCount"] == 1
        answer = http.delete(f"{server.url}/indexes/again")
        assert answer.status_code == 202
        assert answer.content == b""
        assert http.get(f"{server.url}/indexes/again").status_code == 404
        assert http.get(f"{hosts[-1]}/describe_index_stats").status_code == 404
    assert tokens[0].partition(":")[0] != tokens[1].partition(":")[0]


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"name": "Bad_Name", **OLD}, 400, "INVALID_ARGUMENT", "alphanumeric character"),
        ({"name": "x" * 46, **OLD}, 400, "INVALID_ARGUMENT", "45"),
        ({**OLD}, 422, "UNPROCESSABLE_ENTITY", "name"),
        ({"name": 5, **OLD}, 422, "UNPROCESSABLE_ENTITY", "name"),
        ({"name": "n", "spec": OLD["spec"]}, 422, "UNPROCESSABLE_ENTITY", "dimension"),
        ({"name": "n", "dimension": "8"}, 422, "UNPROCESSABLE_ENTITY", "dimension"),
        ({"name": "n", "dimension": 0}, 400, "INVALID_ARGUMENT", "Dimension"),
        ({"name": "n", "dimension": 20_001}, 400, "INVALID_ARGUMENT", "20000"),
        ({"name": "n", "dimension": 4, "metric": "manhattan"}, 400, "INVALID_ARGUMENT", "Metric"),
        ({"name": "n", "dimension": 4, "vector_type": "odd"}, 400, "INVALID_ARGUMENT", "dense or sparse"),
        (
            {"name": "n", "vector_type": "sparse", "metric": "cosine"},
            400,
            "INVALID_ARGUMENT",
            "Sparse vector indexes must use the metric dotproduct",
        ),
        (
            {"name": "n", "vector_type": "sparse", "dimension": 4},
            400,
            "INVALID_ARGUMENT",
            "dimension should not be specified for sparse indexes",
        ),
        (
            {"name": "n", "vector_type": "sparse", "spec": {"pod": {"environment": "e"}}},
            400,
            "INVALID_ARGUMENT",
            "Sparse vector type is not supported for pod indexes",
        ),
        ({"name": "n", "dimension": 4, "spec": {}}, 422, "UNPROCESSABLE_ENTITY", "spec"),
        (
            {"name": "n", "dimension": 4, "spec": {"serverless": {"cloud": "aws"}}},
            422,
            "UNPROCESSABLE_ENTITY",
            "region",
        ),
        ({"name": "n", "dimension": 4, "tags": {"k": 1}}, 422, "UNPROCESSABLE_ENTITY", "tags"),
        ({"name": "n", "dimension": 4, "tags": {"k k": "v"}}, 400, "INVALID_ARGUMENT", "Tag key"),
        ({"name": "n", "dimension": 4, "tags": {str(n): "v" for n in range(21)}}, 400, "INVALID_ARGUMENT", "20"),
        ({"name": "n", "dimension": 4, "deletion_protection": "maybe"}, 422, "UNPROCESSABLE_ENTITY", "protection"),
        ({"name": "n", **NEW, "deployment": {"cloud": "aws"}}, 422, "UNPROCESSABLE_ENTITY", "deployment_type"),
        ({"name": "n", **NEW, "deployment": {"deployment_type": "moon"}}, 422, "UNPROCESSABLE_ENTITY", "moon"),
        ({"name": "n", **NEW, "deployment": {"deployment_type": "managed"}}, 422, "UNPROCESSABLE_ENTITY", "cloud"),
        (
            {"name": "n", **NEW, "deployment": {"deployment_type": "pod", "environment": "e"}},
            400,
            "INVALID_ARGUMENT",
            "Pod",
        ),
        ({"name": "n", **NEW, "schema": {"fields": {"title": {"type": "string"}}}}, 400, "INVALID_ARGUMENT", "title"),
        ({"name": "n", **NEW, "schema": {"fields": {}}}, 422, "UNPROCESSABLE_ENTITY", "fields"),
        ({"name": "n", **NEW, "schema": []}, 422, "UNPROCESSABLE_ENTITY", "schema"),
    ],
)
def test_a_bad_create_is_refused(server, http, body, status, code, says):  # noqa: PLR0917
    """In the control plane's error body."""
    answer = http.post(f"{server.url}/indexes", json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()
    assert error["status"] == status
    assert error["error"]["code"] == code
    assert says in error["error"]["message"]


@pytest.mark.parametrize("content", [b"", b"x", b"[]", b"[" * 100_000])
def test_a_create_that_is_no_object_is_refused(server, http, content):
    """400 for bytes that are no JSON object."""
    answer = http.post(f"{server.url}/indexes", content=content)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "INVALID_ARGUMENT"


def test_a_name_that_is_taken_is_a_conflict(create):
    """409."""
    assert create("taken", **OLD).status_code == 201
    answer = create("taken", **OLD)
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "ALREADY_EXISTS"


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("PATCH", ""), ("GET", "/backups")])
def test_an_index_that_does_not_exist_is_not_found(server, http, method, path):
    """404 with its name."""
    answer = http.request(method, f"{server.url}/indexes/doesnotexist{path}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "NOT_FOUND"
    assert "Resource doesnotexist not found" in answer.json()["error"]["message"]


def test_a_protected_index_is_not_deleted(server, http, create):
    """403 in the hosted service's words."""
    create("protected", **OLD, deletion_protection="enabled")
    answer = http.delete(f"{server.url}/indexes/protected")
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "FORBIDDEN"
    assert "Deletion protection is enabled for this index" in answer.json()["error"]["message"]
    assert http.get(f"{server.url}/indexes/protected").json()["deletion_protection"] == "enabled"


def test_tags_are_merged_and_an_empty_one_is_taken_away(server, http, create):
    """As the hosted service does; what is not named stays as it is."""
    create("labels", **OLD, tags={"team": "a", "stage": "test"})
    answer = http.patch(f"{server.url}/indexes/labels", json={"tags": {"stage": "", "owner": "b"}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["tags"] == {"team": "a", "owner": "b"}
    assert answer.json()["deletion_protection"] == "disabled"
    assert http.get(f"{server.url}/indexes/labels").json() == answer.json()
    answer = http.patch(f"{server.url}/indexes/labels", json={"tags": {"team": "", "owner": ""}})
    assert answer.json()["tags"] is None


def test_deletion_protection_is_switched_on_and_off(server, http, create):
    """A protected index is refused to be deleted until the protection is taken off."""
    create("shield", **OLD)
    url = f"{server.url}/indexes/shield"
    assert http.patch(url, json={"deletion_protection": "enabled"}).json()["deletion_protection"] == "enabled"
    assert http.delete(url).status_code == 403
    assert http.patch(url, json={"tags": {"a": "b"}}).json()["deletion_protection"] == "enabled"
    assert http.patch(url, json={"deletion_protection": "disabled"}).json()["deletion_protection"] == "disabled"
    assert http.delete(url).status_code == 202


def test_recall_target_is_taken_at_create_and_at_configure(server, http, create):
    """It is told by every description; where none is given it is 0.95."""
    assert create("asked", **NEW, recall_target=0.98).json()["recall_target"] == 0.98
    assert create("unasked", **OLD).json()["recall_target"] == 0.95
    answer = http.patch(f"{server.url}/indexes/unasked", json={"recall_target": 0.9})
    assert answer.status_code == 200
    told = {one["name"]: one["recall_target"] for one in http.get(f"{server.url}/indexes").json()["indexes"]}
    assert (told["asked"], told["unasked"]) == (0.98, 0.9)
    assert create("edge", **OLD, recall_target=0.5).status_code == 201


@pytest.mark.parametrize("target", [0.4999, 0, -1, 1, 0.9991, 95, 1e300])
def test_recall_target_out_of_range_is_refused(server, http, create, target):
    """400 with the range, at create and at configure; nothing changes."""
    answer = http.post(f"{server.url}/indexes", json={"name": "reach", **OLD, "recall_target": target})
    assert answer.status_code == 400
    assert "recall_target must be a number from 0.5 to 0.999" in answer.json()["error"]["message"]
    create("reach", **OLD)
    answer = http.patch(f"{server.url}/indexes/reach", json={"recall_target": target, "tags": {"a": "b"}})
    assert answer.status_code == 400
    assert "recall_target must be a number from 0.5 to 0.999" in answer.json()["error"]["message"]
    described = http.get(f"{server.url}/indexes/reach").json()
    assert (described["recall_target"], described["tags"]) == (0.95, None)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"spec": {"pod": {"replicas": 2}}}, 400, "'spec' cannot be changed"),
        ({"spec": {"serverless": {"cloud": "aws"}}}, 400, "'spec' cannot be changed"),
        ({"deployment": {"replicas": 4}}, 400, "'deployment' cannot be changed"),
        ({"read_capacity": {"mode": "Dedicated"}}, 400, "Read capacity"),
        ({"schema": NEW["schema"]}, 400, "schema"),
        ({"embed": {"model": "m"}}, 400, "embed"),
        ({"tags": {"k k": "v"}}, 400, "Tag key"),
        ({"tags": {str(n): "v" for n in range(20)}}, 400, "there would be 21"),
        ({"tags": {"k": 1}}, 422, "tags"),
        ({"deletion_protection": "maybe"}, 422, "deletion_protection"),
        ({"recall_target": "high"}, 422, "recall_target"),
    ],
)
def test_what_cannot_be_configured_is_refused(server, http, create, body, status, says):  # noqa: PLR0917
    """With the reason, and nothing changes."""
    before = create("fixed", **OLD, tags={"first": "x"}).json()
    answer = http.patch(f"{server.url}/indexes/fixed", json=body)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["error"]["message"]
    assert http.get(f"{server.url}/indexes/fixed").json() == before


def test_what_is_sent_again_unchanged_is_no_change(server, http, create):
    """Older clients send the whole of what they know; fields that are not known are refused from 2026-07 on."""
    before = create("same", **OLD).json()
    url = f"{server.url}/indexes/same"
    known = {name: before[name] for name in ("spec", "deployment", "read_capacity", "deletion_protection")}
    assert http.patch(url, json=known).json() == before
    assert http.patch(url, json={}).json() == before
    assert http.patch(url, json={"colour": "red"}).json() == before
    answer = http.patch(url, json={"colour": "red"}, headers={"X-Pinecone-Api-Version": "2026-07"})
    assert answer.status_code == 400
    assert "Unknown field 'colour'" in answer.json()["error"]["message"]


@pytest.mark.usefixtures("host")
def test_what_there_is_none_of_is_listed_as_empty(server, http):
    """Clients ask for collections and backups."""
    assert http.get(f"{server.url}/collections").json() == {"collections": []}
    assert http.get(f"{server.url}/backups").json() == {"data": []}
    name = http.get(f"{server.url}/indexes").json()["indexes"][0]["name"]
    assert http.get(f"{server.url}/indexes/{name}/backups").json() == {"data": []}


def test_an_unknown_route_and_method_are_told_in_the_control_planes_words(server, http):
    """404 and 405."""
    answer = http.get(f"{server.url}/nothing")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")
    answer = http.put(f"{server.url}/indexes", json={})
    assert (answer.status_code, answer.json()["status"]) == (405, 405)


def test_counts_of_namespaces_are_strings_from_2026_07_on(http, host, space):
    """Integers before, and for clients that send no version."""
    http.post(f"{host}/namespaces", json={"name": space})
    for version, count in ((None, 0), ("2025-10", 0), ("2026-07", "0")):
        headers = {} if version is None else {"X-Pinecone-Api-Version": version}
        assert http.get(f"{host}/namespaces/{space}", headers=headers).json()["record_count"] == count


def test_a_namespace_keeps_the_schema_it_was_made_with(http, host, space):
    """It is given back by create, describe and list."""
    schema = {"fields": {"genre": {"filterable": True}}}
    made = http.post(f"{host}/namespaces", json={"name": space, "schema": schema}).json()
    described = http.get(f"{host}/namespaces/{space}").json()
    (listed,) = http.get(f"{host}/namespaces", params={"prefix": space}).json()["namespaces"]
    expected = {"name": space, "record_count": 0, "schema": schema, "indexed_fields": {"fields": ["genre"]}}
    assert made == described == listed == expected


def test_namespaces_come_in_pages(http, make_index):
    """In byte order, each once, with the count of all that match the prefix."""
    host = make_index()
    names = sorted(f"{kind}{n}" for kind in ("a", "b") for n in range(12))
    for name in names:
        assert http.post(f"{host}/namespaces", json={"name": name}).status_code == 200
    token = http.post(f"{host}/namespaces", json={"name": "z"}).headers["x-freshet-position"]
    seen, parameters = [], {"limit": 10}
    while True:
        page = http.get(f"{host}/namespaces", params=parameters, headers={"x-freshet-at-least": token}).json()
        assert page["total_count"] == 25
        seen += [one["name"] for one in page["namespaces"]]
        if "pagination" not in page:
            break
        parameters["paginationToken"] = page["pagination"]["next"]
    assert seen == [*names, "z"]
    page = http.get(f"{host}/namespaces", params={"prefix": "b"}).json()
    assert [one["name"] for one in page["namespaces"]] == [name for name in names if name.startswith("b")]
    assert page["total_count"] == 12


def test_names_of_namespaces_are_quoted_in_paths(http, host, space):
    """Slashes, spaces and question marks are part of a name."""
    name = f"{space}/a b?c%"
    quoted = name.replace("%", "%25").replace("/", "%2F").replace(" ", "%20").replace("?", "%3F")
    assert http.post(f"{host}/namespaces", json={"name": name}).status_code == 200
    assert http.get(f"{host}/namespaces/{quoted}").json()["name"] == name
    deleted = http.delete(f"{host}/namespaces/{quoted}")
    assert deleted.status_code == 200
    headers = {"x-freshet-at-least": deleted.headers["x-freshet-position"]}
    assert http.get(f"{host}/namespaces/{quoted}", headers=headers).status_code == 404
