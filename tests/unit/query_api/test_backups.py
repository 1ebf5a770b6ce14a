"""Backups and restores over REST, on a live pipeline: what a backup holds comes back whole, and nothing else does."""

from __future__ import annotations

import json

import pytest

from tests.support.backups import SPEC, Control, all_of, fill, send


@pytest.fixture
def control(server, http):
    made = Control(server, http)
    yield made
    remove(made)


def remove(control):
    """Delete what was made: the server is shared, also with tests that want to find it without a backup."""
    for backup in control.call("GET", "/backups?limit=100", status=200)["data"]:
        if backup["source_index_name"] in control.names:
            control.call("DELETE", f"/backups/{backup['backup_id']}", status=202)
    for name in control.names:
        control.call("PATCH", f"/indexes/{name}", {"deletion_protection": "disabled"})
        control.call("DELETE", f"/indexes/{name}")


def test_restored_index_holds_what_the_source_held_and_the_source_is_untouched(control, http):
    """Every record with its sparse values and metadata, every namespace with its schema, also the empty ones."""
    name, host = control.create(tags={"team": "a"}, deletion_protection="enabled")
    token = fill(http, host)
    before = all_of(http, host, token)
    assert {one: len(records) for one, (_, records) in before.items()} == {
        "__default__": 698, "tenant a": 90, "z" * 512: 3, "empty": 0, "e": 0,
    }  # fmt: skip
    backup = control.back_up(name, name="nightly", description="before the move")
    # What is written afterwards does not belong to it.
    later = send(http, host, "/vectors/upsert", {"vectors": [{"id": "late", "values": [1, 2, 3]}]})
    job, restored = control.restore(backup["backup_id"], f"{name}-again")
    assert all_of(http, restored) == before
    assert (job["backup_id"], job["percent_complete"]) == (backup["backup_id"], 100)
    assert job["created_at"] <= job["completed_at"]
    made = control.call("GET", f"/indexes/{name}-again")
    assert (made["source_backup_id"], made["tags"]) == (backup["backup_id"], {"team": "a"})
    assert (made["deletion_protection"], made["metric"], made["dimension"]) == ("disabled", "dotproduct", 3)
    assert made["spec"]["serverless"]["cloud"] == "gcp"
    # Each goes its own way.
    send(http, restored, "/vectors/delete", {"deleteAll": True, "namespace": "tenant a"})
    assert set(all_of(http, host, later)["__default__"][1]) - set(before["__default__"][1]) == {"late"}
    assert all_of(http, host)["tenant a"] == before["tenant a"]


def test_a_backup_is_described_with_what_it_holds(control, http):
    """Counts, the source, and the schema for clients that read it."""
    name, host = control.create(tags={"team": "a"})
    fill(http, host)
    backup = control.back_up(name, name="nightly", description="two\nlines")
    assert backup["source_index_name"] == name
    assert (backup["name"], backup["description"], backup["tags"]) == ("nightly", "two\nlines", {"team": "a"})
    assert (backup["record_count"], backup["namespace_count"]) == (791, 5)
    assert (backup["cloud"], backup["region"]) == ("gcp", "europe-west1")
    assert (backup["dimension"], backup["metric"]) == (3, "dotproduct")
    assert backup["size_bytes"] > 791 * 12
    assert backup["created_at"].endswith("Z")
    assert "schema" not in backup
    newest = control.call("GET", f"/backups/{backup['backup_id']}", x_pinecone_api_version="2026-07")
    assert newest["schema"]["fields"]["_values"]["dimension"] == 3
    unnamed = control.back_up(name)
    assert not {"name", "description", "source_index_deleted_at"} & set(unnamed)


def test_a_backup_outlives_its_index(control, http):
    """It is listed, and restored with other tags; when it is deleted nothing is left of it."""
    name, host = control.create(tags={"team": "a"})
    token = fill(http, host, seed=2)
    before = all_of(http, host, token)
    backup = control.back_up(name)
    control.call("DELETE", f"/indexes/{name}", status=202)
    assert control.call("GET", f"/indexes/{name}/backups", status=404)["error"]["code"] == "NOT_FOUND"
    (listed,) = control.call("GET", f"/indexes/{name}/backups?include_deleted=true", status=200)["data"]
    assert listed["source_index_deleted_at"] >= backup["created_at"]
    # An index made anew under the name has no part in them.
    control.call("POST", "/indexes", {"name": name, "dimension": 3, "spec": SPEC}, status=201)
    assert control.call("GET", f"/indexes/{name}/backups", status=200) == {"data": []}
    _, restored = control.restore(
        backup["backup_id"], f"{name}-again", tags={"stage": "b"}, deletion_protection="enabled"
    )
    assert all_of(http, restored) == before
    made = control.call("GET", f"/indexes/{name}-again")
    assert (made["tags"], made["deletion_protection"]) == ({"stage": "b"}, "enabled")
    control.call("DELETE", f"/backups/{backup['backup_id']}", status=202)
    control.call("GET", f"/backups/{backup['backup_id']}", status=404)
    control.call("DELETE", f"/backups/{backup['backup_id']}", status=404)


def test_sparse_and_empty_indexes_are_restored(control, http):
    """Nothing is assumed of what an index holds."""
    name, host = control.create(dimension=None, vector_type="sparse")
    vectors = [{"id": f"s{n}", "sparseValues": {"indices": [n, n + 9], "values": [1, 0.25]}} for n in range(5)]
    token = send(http, host, "/vectors/upsert", {"vectors": vectors, "namespace": "words"})
    before = all_of(http, host, token)
    backup = control.back_up(name)
    assert "dimension" not in backup
    assert all_of(http, control.restore(backup["backup_id"], f"{name}-again")[1]) == before
    name, _ = control.create()
    backup = control.back_up(name)
    assert (backup["record_count"], backup["namespace_count"]) == (0, 0)
    assert all_of(http, control.restore(backup["backup_id"], f"{name}-again")[1]) == {}


def test_listings_come_in_pages_of_ten_unless_another_size_is_asked_for(control):
    """Each backup once, oldest first; a token carries the size of its pages."""
    name, _ = control.create()
    made = [control.back_up(name, name=str(n))["backup_id"] for n in range(12)]
    for path in (f"/indexes/{name}/backups", "/backups"):
        for query in ("", "limit=5&", "limit=12&", "limit=100&"):
            seen, sizes, page = [], [], control.call("GET", f"{path}?{query}", status=200)
            while True:
                seen += [one["backup_id"] for one in page["data"]]
                sizes.append(len(page["data"]))
                if "pagination" not in page:
                    break
                page = control.call("GET", f"{path}?paginationToken={page['pagination']['next']}", status=200)
            assert [one for one in seen if one in made] == made
            assert len(seen) == len(set(seen))
            size = int(query[6:-1]) if query else 10
            assert all(count == size for count in sizes[:-1])
    for backup_id in made:
        control.call("DELETE", f"/backups/{backup_id}", status=202)


def test_an_index_that_is_being_restored_is_neither_read_nor_written(control, http, server):
    """Until every record is visible it is Initializing, and says how far it is; deleting it cancels the job."""
    name, host = control.create()
    fill(http, host)
    backup = control.back_up(name)
    server.call(server.hold_restores)
    try:
        body = {"name": f"{name}-again"}
        answer = control.call("POST", f"/backups/{backup['backup_id']}/create-index", body, status=202)
        control.names.append(body["name"])
        described = control.call("GET", f"/indexes/{name}-again", status=200)
        assert described["status"] == {"ready": False, "state": "Initializing"}
        for method, path, sent in (
            ("POST", "/query", {"vector": [1, 2, 3], "topK": 1}),
            ("POST", "/vectors/upsert", {"vectors": [{"id": "x", "values": [1, 2, 3]}]}),
            ("GET", "/describe_index_stats", None),
        ):
            refused = http.request(method, f"{described['host']}{path}", json=sent)
            assert refused.status_code == 503
            assert "is being restored" in refused.json()["message"]
            assert refused.headers["retry-after"] == "1"
        refused = control.call("POST", f"/indexes/{name}-again/backups", {}, status=412)
        assert refused["error"]["code"] == "FAILED_PRECONDITION"
        refused = control.call("DELETE", f"/backups/{backup['backup_id']}", status=412)
        assert "delete the backup when the job has ended" in refused["error"]["message"]
        job = control.call("GET", f"/restore-jobs/{answer['restore_job_id']}", status=200)
        assert job["status"] == "Pending"
        assert 0 <= job["percent_complete"] < 100
        control.call("DELETE", f"/indexes/{name}-again", status=202)
        job = control.call("GET", f"/restore-jobs/{answer['restore_job_id']}", status=200)
        assert job["status"] == "Cancelled"
        assert job in control.call("GET", "/restore-jobs?limit=100")["data"]
    finally:
        server.call(server.release_restores)
    control.call("DELETE", f"/backups/{backup['backup_id']}", status=202)
    assert http.get(f"{server.url}/readyz").status_code == 200


def test_a_restore_that_cannot_be_read_fails_and_says_why(control, http, server):
    """The index stays unserved until it is deleted."""
    name, host = control.create()
    fill(http, host)
    backup = control.back_up(name)
    for pin in (server.folder / "snapshots").glob(f"{name}.*/*/pins/{backup['backup_id']}.*"):
        pin.unlink()
    answer = control.call("POST", f"/backups/{backup['backup_id']}/create-index", {"name": f"{name}-b"}, status=202)
    control.names.append(f"{name}-b")
    job = control.until(f"/restore-jobs/{answer['restore_job_id']}", "Failed")
    assert "a file is gone" in job["error"]
    described = control.call("GET", f"/indexes/{name}-b")
    assert described["status"] == {"ready": False, "state": "InitializationFailed"}
    assert "could not be restored" in http.get(f"{described['host']}/describe_index_stats").json()["message"]


UNKNOWN = "0" * 32


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("POST", "/indexes/doesnotexist/backups", {}, 404, "Resource doesnotexist not found"),
        ("GET", "/indexes/doesnotexist/backups", None, 404, "Resource doesnotexist not found"),
        ("POST", "/indexes/{index}/backups", {"name": 5}, 422, "name"),
        ("POST", "/indexes/{index}/backups", [], 400, "object"),
        ("POST", "/indexes/{index}/backups", {"name": "x" * 257}, 400, "256"),
        ("POST", "/indexes/{index}/backups", {"name": "a\nb"}, 400, "printable"),
        ("POST", "/indexes/{index}/backups", {"description": "x" * 1025}, 400, "1024"),
        ("GET", "/indexes/{index}/backups?limit=0", None, 400, "1 to 100"),
        ("GET", "/indexes/{index}/backups?limit=101", None, 400, "1 to 100"),
        ("GET", "/indexes/{index}/backups?limit=many", None, 400, "limit"),
        ("GET", "/indexes/{index}/backups?paginationToken=x", None, 400, "Invalid pagination token"),
        ("GET", "/indexes/{index}/backups?include_deleted=maybe", None, 400, "include_deleted"),
        ("GET", "/backups?limit=0", None, 400, "1 to 100"),
        ("GET", "/backups?limit=101", None, 400, "1 to 100"),
        ("GET", "/backups?paginationToken=%C3%A9", None, 400, "Invalid pagination token"),
        ("GET", "/backups?paginationToken=W10=", None, 400, "Invalid pagination token"),
        ("GET", "/backups?paginationToken=eyJsaW1pdCI6OTk5OSwic2tpcF9wYXN0IjoiIn0=", None, 400, "1 to 100"),
        ("GET", f"/backups/{UNKNOWN}", None, 404, f"Resource {UNKNOWN} not found"),
        ("DELETE", f"/backups/{UNKNOWN}", None, 404, f"Resource {UNKNOWN} not found"),
        ("POST", f"/backups/{UNKNOWN}/create-index", {"name": "n"}, 404, f"Resource {UNKNOWN} not found"),
        ("POST", "/backups/{backup}/create-index", {}, 422, "name"),
        ("POST", "/backups/{backup}/create-index", {"name": "Bad_Name"}, 400, "alphanumeric character"),
        ("POST", "/backups/{backup}/create-index", {"name": "x" * 46}, 400, "45"),
        ("POST", "/backups/{backup}/create-index", {"name": "{index}"}, 409, "already exists"),
        ("POST", "/backups/{backup}/create-index", {"name": "n", "tags": {"k k": "v"}}, 400, "Tag key"),
        ("POST", "/backups/{backup}/create-index", {"name": "n", "tags": {"k": 1}}, 422, "tags"),
        ("POST", "/backups/{backup}/create-index", {"name": "n", "deletion_protection": "x"}, 422, "protection"),
        ("GET", "/restore-jobs?limit=0", None, 400, "1 to 100"),
        ("GET", "/restore-jobs?paginationToken=x", None, 400, "Invalid pagination token"),
        ("GET", f"/restore-jobs/{UNKNOWN}", None, 404, f"Resource {UNKNOWN} not found"),
    ],
)
def test_what_cannot_be_backed_up_or_restored_is_refused(shared, method, path, body, status, says):  # noqa: PLR0917
    """In the control plane's error body, and nothing is made."""
    control, name, backup_id = shared
    text = json.dumps(body).replace("{index}", name)
    path = path.replace("{index}", name).replace("{backup}", backup_id)
    error = control.call(method, path, None if body is None else json.loads(text), status=status)
    assert error["status"] == status
    assert says in error["error"]["message"]
    assert [one["backup_id"] for one in control.call("GET", f"/indexes/{name}/backups")["data"]] == [backup_id]


@pytest.fixture(scope="module")
def shared(server, http):
    """An index with one backup."""
    control = Control(server, http)
    name, _ = control.create()
    yield control, name, control.back_up(name)["backup_id"]
    remove(control)


def test_a_backup_that_is_not_ready_is_not_restored_and_keeps_its_index(control, server, http):
    """412 until it is; without an indexer it waits."""
    name, host = control.create()
    fill(http, host)
    server.pause_indexing()
    try:
        made = control.call("POST", f"/indexes/{name}/backups", {}, status=201)
        assert made["status"] == "Initializing"
        refused = control.call("POST", f"/backups/{made['backup_id']}/create-index", {"name": "early"}, status=412)
        assert "still being made" in refused["error"]["message"]
        refused = control.call("DELETE", f"/indexes/{name}", status=412)
        assert "still being made" in refused["error"]["message"]
    finally:
        server.resume_indexing()
    control.until(f"/backups/{made['backup_id']}", "Ready")
