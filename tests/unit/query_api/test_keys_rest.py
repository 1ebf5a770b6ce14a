"""API keys over REST: who gets in, who is told what."""

import re
import socket
import time

import httpx2
import pytest

from producer.keys import create_key, new_key, revoke_key
from schemas.keys import Role
from tests.support.api_server import ApiServer

ROUTE_PARTS = {
    "name": "movies",
    "key_id": "0123456789ab",
    "backup_id": "0" * 32,
    "job_id": "0" * 32,
    "id": "0f1e",
    "import_id": "0f1e",
    "namespace": "a",
}
# Answered without a key.
OPEN = {("get", "/healthz"), ("get", "/readyz")}
# What a key that may only read can do; all else must be refused to it.
READS = {
    ("post", "/query"),
    ("get", "/vectors/fetch"),
    ("get", "/vectors/list"),
    ("post", "/describe_index_stats"),
    ("get", "/describe_index_stats"),
    ("get", "/namespaces"),
    ("get", "/namespaces/{name}"),
    ("get", "/indexes"),
    ("get", "/indexes/{name}"),
    ("get", "/indexes/{name}/backups"),
    ("get", "/collections"),
    ("get", "/backups"),
    ("get", "/metrics"),
    ("post", "/vectors/fetch_by_metadata"),
    ("post", "/records/namespaces/{namespace}/search"),
    ("post", "/namespaces/{namespace}/documents/search"),
    ("post", "/namespaces/{namespace}/documents/fetch"),
    ("post", "/namespaces/{namespace}/documents/list"),
    ("get", "/bulk/imports"),
    ("get", "/bulk/imports/{id}"),
    ("get", "/collections/{name}"),
    ("get", "/backups/{backup_id}"),
    ("get", "/restore-jobs"),
    ("get", "/restore-jobs/{job_id}"),
}
WRITES = {
    ("post", "/vectors/upsert"),
    ("post", "/vectors/update"),
    ("post", "/vectors/delete"),
    ("delete", "/vectors/delete"),
    ("post", "/namespaces"),
    ("delete", "/namespaces/{name}"),
    ("post", "/records/namespaces/{namespace}/upsert"),
    ("post", "/namespaces/{namespace}/documents/upsert"),
    ("post", "/namespaces/{namespace}/documents/update"),
    ("post", "/namespaces/{namespace}/documents/delete"),
    ("post", "/bulk/imports"),
    ("delete", "/bulk/imports/{id}"),
}


class Keys:
    """A server with keys of all kinds, and two indexes."""

    def __init__(self, server):
        self.server = server
        self.http = httpx2.Client(timeout=30)
        self.admin, _ = self.make(Role.ADMIN)
        for name in ("movies", "actors"):
            body = {"name": name, "dimension": 4, "metric": "cosine"}
            assert self.call(self.admin, "POST", "/indexes", json=body).status_code == 201
        self.write, _ = self.make(Role.WRITE)
        self.read, _ = self.make(Role.READ)
        self.movies, _ = self.make(Role.WRITE, indexes=("movies",))
        self.movies_admin, _ = self.make(Role.ADMIN, indexes=("movies",))
        self.spaces, _ = self.make(Role.WRITE, namespaces=("a", ""))
        for space in ("a", "b", ""):
            body = {"vectors": [{"id": "x", "values": [1, 2, 3, 4]}], "namespace": space}
            headers = {"x-freshet-wait-visible-ms": "20000"}
            answer = self.call(self.admin, "POST", "/i/movies/vectors/upsert", json=body, headers=headers)
            assert answer.status_code == 200

    def make(self, role, **scope):
        key, kept = new_key(role, created_ms=1_700_000_000_000, **scope)
        self.server.call(lambda: create_key(self.server.catalog, kept))
        return key, kept.id

    def call(self, key, method, path, headers=None, **request):
        sent = {**(headers or {}), **({} if key is None else {"api-key": key})}
        url = path if path.startswith("http") else self.server.url + path
        return self.http.request(method, url, headers=sent, **request)

    def status(self, key, method, path, **request):
        return self.call(key, method, path, **request).status_code


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    with ApiServer(tmp_path_factory.mktemp("keyed")) as server:
        made = Keys(server)
        yield made
        made.http.close()


def routes(keys):
    paths = keys.server.app.rest.rest.openapi()["paths"]
    return {(method, path) for path, operations in paths.items() for method in operations}


def address(path):
    plain = re.sub(r"{(\w+)}", lambda match: ROUTE_PARTS[match[1]], path)
    at_index = path.startswith(("/vectors", "/query", "/namespaces", "/describe_index_stats", "/records", "/bulk"))
    return f"/i/movies{plain}" if at_index else plain


def test_every_route_but_health_needs_a_key(keys):
    """Without a key, and with a wrong one, each route of the document is a 401, and so is one that does not exist."""
    wrong = f"fsk_{'0' * 12}_{'0' * 64}"
    for method, path in sorted(routes(keys)):
        for key in (None, "", "any", wrong, keys.admin + "0", "ключ".encode()):
            answer = keys.call(key, method.upper(), address(path))
            assert (answer.status_code == 401) is ((method, path) not in OPEN), (method, path, answer.text)
    for path in ("/", "/docs", "/openapi.json", "/nothing", "/i/movies/nothing", "/i/none/query", "/indexes/none"):
        assert keys.status(None, "GET", path) == 401


def test_each_role_may_do_what_it_is_for(keys):
    """Every route of the document has its least role; a route that is in no list is an administrator's."""
    assert routes(keys) >= READS | WRITES
    for method, path in sorted(routes(keys) - OPEN):
        least = 1 if (method, path) in READS else 2 if (method, path) in WRITES else 3
        for rank, key in enumerate((keys.read, keys.write), start=1):
            status = keys.status(key, method.upper(), address(path))
            assert (status == 403) is (rank < least), (method, path, rank, status)
    assert keys.status(keys.admin, "GET", "/keys") == 200


def test_routes_that_are_not_there_yet_are_closed_to_readers(keys):
    """What nobody has thought about is a write at an index, and an administrator's on the control plane."""
    assert keys.status(keys.read, "POST", "/i/movies/vectors/anything") == 403
    assert keys.status(keys.write, "POST", "/i/movies/vectors/anything") == 404
    assert keys.status(keys.write, "POST", "/anything") == 403
    assert keys.status(keys.movies, "GET", "/anything") == 403
    # Asked of the control plane, an index's route says how to reach it.
    assert keys.status(keys.read, "POST", "/query", json={}) == 404


def test_errors_are_in_the_words_of_their_plane(keys):
    """Numbers at an index, the nested object on the control plane; a 401 names a way that is understood."""
    at_index = keys.call(None, "POST", "/i/movies/query", json={})
    assert at_index.json() == {"code": 16, "message": at_index.json()["message"], "details": []}
    assert at_index.headers["www-authenticate"].startswith("Bearer")
    control = keys.call("wrong", "GET", "/indexes").json()
    assert (control["status"], control["error"]["code"]) == (401, "UNAUTHENTICATED")
    assert "Wrong API key" in control["error"]["message"]
    forbidden = keys.call(keys.read, "POST", "/i/movies/vectors/upsert", json={})
    assert (forbidden.status_code, forbidden.json()["code"]) == (403, 7)
    control = keys.call(keys.read, "POST", "/indexes", json={}).json()
    assert (control["status"], control["error"]["code"]) == (403, "FORBIDDEN")


def test_bearer_token_is_a_key_too(keys):
    """Tools that know no Api-Key header send Authorization."""
    headers = {"authorization": f"Bearer {keys.read}"}
    assert keys.status(None, "GET", "/indexes", headers=headers) == 200
    assert keys.status(None, "GET", "/indexes", headers={"authorization": keys.read}) == 401


def test_nobody_learns_of_an_index_that_its_key_does_not_reach(keys):
    """Without a key there and not there look the same, and so they do outside the scope of a key, by every address."""
    for name in ("actors", "none"):
        for path in (f"/i/{name}/query", f"/indexes/{name}"):
            assert keys.status(None, "POST", path, json={}) == 401
        answers = [
            keys.call(keys.movies, "POST", f"/i/{name}/query", json={}),
            keys.call(keys.movies, "GET", f"/indexes/{name}"),
            keys.call(keys.movies, "POST", "/query", json={}, headers={"host": f"{name}.example.com"}),
        ]
        assert [answer.status_code for answer in answers[:2]] == [403, 403]
        assert not any("not found" in answer.text for answer in answers[:2])
    movies, actors = (keys.call(keys.admin, "GET", f"/indexes/{name}").json()["host"] for name in ("movies", "actors"))
    assert keys.status(keys.movies, "GET", f"{movies}/describe_index_stats") == 200
    assert keys.status(keys.movies, "GET", f"{actors}/describe_index_stats") == 403
    free = next(port for port in keys.server.ports[1:] if str(port) not in movies + actors)
    assert keys.status(keys.movies, "GET", f"http://localhost:{free}/describe_index_stats") == 403
    assert keys.status(keys.read, "GET", f"http://localhost:{free}/describe_index_stats") == 404


def test_key_of_an_index_sees_that_index(keys):
    """The listing shows it alone; its administrator may configure it, make no other and see no other's metrics."""
    listed = keys.call(keys.movies, "GET", "/indexes").json()["indexes"]
    assert [index["name"] for index in listed] == ["movies"]
    assert len(keys.call(keys.read, "GET", "/indexes").json()["indexes"]) == 2
    assert keys.status(keys.movies, "PATCH", "/indexes/movies", json={}) == 403
    assert keys.status(keys.movies_admin, "PATCH", "/indexes/movies", json={"tags": {"a": "b"}}) == 200
    assert keys.status(keys.movies_admin, "PATCH", "/indexes/actors", json={}) == 403
    assert keys.status(keys.movies_admin, "POST", "/indexes", json={"name": "new", "dimension": 2}) == 403
    assert keys.status(keys.movies_admin, "GET", "/metrics") == 403
    for method, path in (("GET", "/keys"), ("POST", "/keys"), ("DELETE", "/keys/0123456789ab")):
        assert keys.status(keys.movies_admin, method, path, json={"role": "read"}) == 403
    assert keys.call(keys.movies, "GET", "/i/movies/describe_index_stats").json()["freshness"]["logBytes"] is None


def test_key_of_a_namespace_reaches_that_namespace(keys):
    """Every data-plane call on another one is a 403, also one that does not exist; "" and __default__ are the same."""
    vector = {"id": "y", "values": [1, 1, 1, 1]}
    for space, allowed in (("a", True), ("", True), ("__default__", True), ("b", False), ("none", False)):
        calls = [
            keys.call(
                keys.spaces, "POST", "/i/movies/query", json={"topK": 1, "vector": [1, 0, 0, 0], "namespace": space}
            ),
            keys.call(keys.spaces, "GET", "/i/movies/vectors/fetch", params={"ids": "x", "namespace": space}),
            keys.call(keys.spaces, "GET", "/i/movies/vectors/list", params={"namespace": space}),
            keys.call(keys.spaces, "POST", "/i/movies/vectors/upsert", json={"vectors": [vector], "namespace": space}),
            keys.call(
                keys.spaces,
                "POST",
                "/i/movies/vectors/update",
                json={"id": "y", "setMetadata": {"a": 1}, "namespace": space},
            ),
            keys.call(
                keys.spaces,
                "POST",
                "/i/movies/vectors/update",
                json={"filter": {"a": 1}, "setMetadata": {"b": 1}, "dryRun": True, "namespace": space},
            ),
            keys.call(
                keys.spaces,
                "POST",
                "/i/movies/vectors/update",
                json={"filter": {"a": 1}, "setMetadata": {"b": 1}, "namespace": space},
            ),
            keys.call(keys.spaces, "POST", "/i/movies/vectors/delete", json={"ids": ["y"], "namespace": space}),
            keys.call(keys.spaces, "GET", f"/i/movies/namespaces/{space or '__default__'}"),
        ]
        statuses = [answer.status_code for answer in calls]
        assert statuses == [200 if allowed else 403] * len(calls), (space, [answer.text for answer in calls])
    assert keys.status(keys.spaces, "POST", "/i/movies/namespaces", json={"name": "other"}) == 403
    assert keys.status(keys.spaces, "DELETE", "/i/movies/namespaces/b") == 403


def test_stats_and_listing_show_the_namespaces_of_the_key(keys):
    """What counts all namespaces counts those in reach only, and tells nothing of the partitions they share."""
    stats = keys.call(keys.spaces, "POST", "/i/movies/describe_index_stats", json={}).json()
    assert set(stats["namespaces"]) == {"a", "__default__"}
    assert stats["totalVectorCount"] == sum(one["vectorCount"] for one in stats["namespaces"].values())
    assert stats["freshness"]["partitions"] == []
    listed = keys.call(keys.spaces, "GET", "/i/movies/namespaces").json()
    assert [one["name"] for one in listed["namespaces"]] == ["__default__", "a"]
    assert listed["total_count"] == 2
    first = keys.call(keys.spaces, "GET", "/i/movies/namespaces", params={"limit": 1}).json()
    token = {"limit": 1, "paginationToken": first["pagination"]["next"]}
    second = keys.call(keys.spaces, "GET", "/i/movies/namespaces", params=token).json()
    assert [one["name"] for one in first["namespaces"] + second["namespaces"]] == ["__default__", "a"]
    assert "pagination" not in second
    everything = keys.call(keys.read, "POST", "/i/movies/describe_index_stats", json={}).json()
    assert "b" in everything["namespaces"]
    assert everything["freshness"]["partitions"]


def test_health_names_no_index_to_those_without_a_key(keys):
    """Ready or not is everybody's to know; which indexes there are is not."""
    assert keys.call(None, "GET", "/healthz").json() == {"status": "ok"}
    assert keys.call(None, "GET", "/readyz").json() == {"ready": True, "indexes": [], "failures": {}}
    assert {one["index"] for one in keys.call(keys.read, "GET", "/readyz").json()["indexes"]} == {"movies", "actors"}
    assert [one["index"] for one in keys.call(keys.movies, "GET", "/readyz").json()["indexes"]] == ["movies"]


def test_keys_are_made_listed_and_revoked_over_rest(keys):
    """The answer to a creation alone shows a key; what is revoked opens nothing from the next request on."""
    wanted = {"role": "write", "indexes": ["movies"], "namespaces": [""], "label": "nightly load"}
    made = keys.call(keys.admin, "POST", "/keys", json=wanted)
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    body = made.json()
    key = body.pop("key")
    assert body == {**body, **wanted, "namespaces": ["__default__"]}
    listed = keys.call(keys.admin, "GET", "/keys")
    assert body in listed.json()["keys"]
    assert key.split("_")[2] not in listed.text
    assert keys.status(key, "GET", "/i/movies/vectors/list") == 200
    assert keys.call(keys.admin, "DELETE", f"/keys/{body['id']}").json() == {"revoked": body["id"]}
    assert keys.status(key, "GET", "/i/movies/vectors/list") == 401
    assert keys.status(keys.admin, "DELETE", f"/keys/{body['id']}") == 404
    assert keys.status(keys.admin, "DELETE", "/keys/none") == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"role": "root"}, 422),
        ({"role": "read", "index": ["movies"]}, 422),
        ({"role": "read", "indexes": "movies"}, 422),
        ({"role": "read", "indexes": ["Movies"]}, 400),
        ({"role": "admin", "namespaces": ["a"]}, 400),
        ({"role": "read", "label": "a\u0000"}, 400),
    ],
)
def test_key_that_cannot_be_is_refused(keys, body, status):
    """A scope that is misspelled must not become a key without one."""
    assert keys.status(keys.admin, "POST", "/keys", json=body) == status


def test_pipelined_requests_do_not_inherit_each_other_s_rights(keys):
    """On one connection each request has the rights of its own key, whatever came before it."""

    def request(key, space):
        head = f"GET /i/movies/vectors/list?namespace={space} HTTP/1.1\r\nhost: localhost\r\n"
        return f"{head}api-key: {key}\r\n\r\n".encode()

    sent = [(keys.spaces, "a"), (keys.read, "b"), (keys.spaces, "b"), (keys.admin, "b"), (keys.spaces, "a"), ("x", "a")]
    with socket.create_connection(("127.0.0.1", keys.server.ports[0]), timeout=30) as connection:
        connection.sendall(b"".join(request(*one) for one in sent))
        received = b""
        deadline = time.monotonic() + 10
        while len(re.findall(rb"HTTP/1.1 (\d+)", received)) < len(sent) and time.monotonic() < deadline:
            received += connection.recv(65_536)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200", b"200", b"403", b"200", b"200", b"401"]


def test_large_body_without_a_key_is_refused_and_the_connection_lives(keys):
    """Nothing of it is kept, and the client reads its answer."""
    body = b" " * 10_000_000
    for _ in range(3):
        assert keys.status(None, "POST", "/i/movies/vectors/upsert", content=body) == 401
    assert keys.status(keys.read, "GET", "/i/movies/vectors/list") == 200


def test_first_key_closes_an_open_server(tmp_path):
    """Before it everybody may do everything with any key; the first must be an administrator's."""
    with ApiServer(tmp_path) as server, httpx2.Client(base_url=server.url, timeout=30) as http:
        any_key = {"api-key": "any"}
        assert http.get("/indexes", headers=any_key).status_code == 200
        assert http.get("/keys").json() == {"keys": []}
        refused = http.post("/keys", json={"role": "read"})
        assert refused.status_code == 403
        assert "first key must have the role admin" in refused.text
        made = http.post("/keys", json={"role": "admin"}, headers=any_key)
        assert made.status_code == 201
        assert http.get("/indexes", headers=any_key).status_code == 401
        right = {"api-key": made.json()["key"]}
        assert http.get("/indexes", headers=right).status_code == 200
        last = http.delete(f"/keys/{made.json()['id']}", headers=right)
        assert last.status_code == 403
        assert "last key" in last.text
        for _ in range(2):
            key, kept = new_key(Role.ADMIN, created_ms=1)
            server.call(lambda kept=kept: create_key(server.catalog, kept))
            assert http.get("/indexes", headers={"api-key": key}).status_code == 200
            server.call(lambda kept=kept: revoke_key(server.catalog, kept.id))
            assert http.get("/indexes", headers={"api-key": key}).status_code == 401


@pytest.mark.parametrize("route", ["documents/search", "documents/fetch", "documents/list"])
def test_namespace_that_is_called_like_a_read_is_not_deleted_by_a_reader(keys, route):
    """What a route of a read is called says nothing of another method on its path."""
    assert keys.status(keys.read, "DELETE", f"/i/movies/namespaces/a/{route}") == 403


def test_backups_tell_of_all_namespaces_and_are_not_for_keys_of_some(keys):
    """Their counts are those of the whole index."""
    reader, _ = keys.make(Role.READ, namespaces=("a",))
    assert keys.status(reader, "GET", "/indexes/movies/backups") == 403
    assert keys.status(reader, "GET", "/indexes/movies") == 200


def test_key_that_is_revoked_while_a_body_comes_opens_nothing(keys):
    """A request is let in by its key as it is when the request is whole."""
    key, key_id = keys.make(Role.WRITE)
    body = b'{"vectors":[{"id":"late","values":[1,2,3,4]}],"namespace":"late"}'
    head = f"POST /i/movies/vectors/upsert HTTP/1.1\r\nhost: x\r\napi-key: {key}\r\ncontent-length: {len(body)}\r\n"
    host, port = keys.server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode() + b"connection: close\r\n\r\n" + body[:10])
        time.sleep(0.2)
        keys.server.call(lambda: revoke_key(keys.server.catalog, key_id))
        connection.sendall(body[10:])
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    assert answer.split()[1] == b"401"
    found = keys.call(keys.admin, "GET", "/i/movies/vectors/fetch?ids=late&namespace=late").json()
    assert found["vectors"] == {}
