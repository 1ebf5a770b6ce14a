"""The control plane of a running pipeline, as a client that backs indexes up uses it, and what an index holds."""

from __future__ import annotations

import itertools
import random
import time

_NUMBERS = itertools.count(1)
SPEC = {"serverless": {"cloud": "gcp", "region": "europe-west1"}}


class Control:
    """The control plane as a client uses it."""

    def __init__(self, server, http):
        self.url, self.http = server.url, http
        self.names = []

    def call(self, method, path, body=None, *, status=None, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.http.request(method, f"{self.url}{path}", json=body, headers=named)
        assert status is None or answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def create(self, **body):
        name = f"kept-{next(_NUMBERS)}"
        body = {"name": name, "dimension": 3, "metric": "dotproduct", "spec": SPEC, **body}
        made = self.call(
            "POST", "/indexes", {key: value for key, value in body.items() if value is not None}, status=201
        )
        self.names.append(name)
        return name, made["host"]

    def back_up(self, name, /, **body):
        """Make a backup; return it when it is ready."""
        made = self.call("POST", f"/indexes/{name}/backups", body, status=201)
        return self.until(f"/backups/{made['backup_id']}", "Ready")

    def restore(self, backup_id, name, /, **body):
        """Make an index from a backup; return its job when it is done, and its host."""
        answer = self.call("POST", f"/backups/{backup_id}/create-index", {"name": name, **body}, status=202)
        self.names.append(name)
        job = self.until(f"/restore-jobs/{answer['restore_job_id']}", "Completed")
        assert job["target_index_id"] == answer["index_id"]
        described = self.call("GET", f"/indexes/{name}", status=200)
        assert described["status"] == {"ready": True, "state": "Ready"}
        return job, described["host"]

    def until(self, path, status):
        deadline = time.monotonic() + 60
        while True:
            found = self.call("GET", path, status=200)
            if found["status"] == status:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.02)


def send(http, host, path, body):
    answer = http.post(f"{host}{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-freshet-position"]


def all_of(http, host, token=None):
    """Return every record of every namespace, and the namespaces with their schemas."""
    headers = {"x-freshet-at-least": token} if token else {}
    listed = http.get(f"{host}/namespaces", params={"limit": 100}, headers=headers).json()["namespaces"]
    found = {}
    for namespace in listed:
        ids, parameters = [], {"namespace": namespace["name"]}
        while True:
            page = http.get(f"{host}/vectors/list", params=parameters, headers=headers).json()
            ids += [one["id"] for one in page["vectors"]]
            if "pagination" not in page:
                break
            parameters["paginationToken"] = page["pagination"]["next"]
        records = {}
        for begin in range(0, len(ids), 100):
            wanted = {"ids": ids[begin : begin + 100], "namespace": namespace["name"]}
            records |= http.get(f"{host}/vectors/fetch", params=wanted, headers=headers).json()["vectors"]
        found[namespace["name"]] = (namespace, records)
    return found


def fill(http, host, seed=1):
    """Write many records of every kind, change and delete some; return a token of all of it."""
    rng = random.Random(seed)
    tokens = []
    for namespace, count in (("", 700), ("tenant a", 90), ("z" * 512, 3)):
        for begin in range(0, count, 100):
            vectors = [
                {
                    "id": f"id {n}",
                    "values": [rng.uniform(-1, 1), n, 1],
                    "metadata": {"n": n, "genre": "comédie", "tags": ["a", "b"], "seen": n % 2 == 0},
                    **({"sparseValues": {"indices": [n, 2**32 - 1], "values": [0.1, -3e-5]}} if n % 3 else {}),
                }
                for n in range(begin, min(begin + 100, count))
            ]
            tokens.append(send(http, host, "/vectors/upsert", {"vectors": vectors, "namespace": namespace}))
    tokens.append(send(http, host, "/vectors/update", {"id": "id 5", "setMetadata": {"late": "yes"}}))
    body = {"filter": {"n": {"$lt": 50}}, "setMetadata": {"genre": "drama"}, "namespace": "tenant a"}
    tokens.append(send(http, host, "/vectors/update", body))
    tokens.append(send(http, host, "/vectors/delete", {"ids": ["id 1", "id 699"]}))
    schema = {"fields": {"genre": {"filterable": True}}}
    tokens.append(send(http, host, "/namespaces", {"name": "empty", "schema": schema}))
    tokens.append(
        send(http, host, "/vectors/upsert", {"vectors": [{"id": "x", "values": [1, 1, 1]}], "namespace": "e"})
    )
    tokens.append(send(http, host, "/vectors/delete", {"deleteAll": True, "namespace": "e"}))
    merged = {}
    for token in tokens:
        log_id, _, positions = token.partition(":")
        merged |= dict(one.split("=") for one in positions.split(","))
    return f"{log_id}:" + ",".join(f"{partition}={offset}" for partition, offset in sorted(merged.items()))
