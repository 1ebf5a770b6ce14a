"""API keys with real processes: the commands, a running server, the official client, and where a key must not be."""

from __future__ import annotations

import contextlib
import json
import re
import stat
import subprocess
from pathlib import Path

import httpx2
import pytest
from pinecone import Pinecone, ServerlessSpec
from pinecone.exceptions import ForbiddenException, UnauthorizedException

from compose.holding import run_directory
from compose.peers import door_of
from tests.support.freshet import COMMAND, Freshet, clean_environment, records, run, wait_until

DEMO = {"name": "demo", "dimension": 4, "metric": "cosine", "spec": {"serverless": {"cloud": "aws", "region": "x"}}}
# Each command is a process of its own, and a test runs up to thirty of them.
pytestmark = pytest.mark.timeout(1_200)
WRONG = f"fsk_{'0' * 12}_{'0' * 64}"


def cli(server, *arguments, key=""):
    extra = {"FRESHET_API_KEY": key} if key else {}
    return run(*arguments, env={**server.env, **extra}, cwd=server.folder)


def made(server, *arguments, key=""):
    done = cli(server, "keys", "create", "--json", *arguments, key=key)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def call(server, key, method, path, body=None):
    return httpx2.request(method, server.url + path, json=body, headers={"api-key": key} if key else {}, timeout=30)


def test_first_key_is_made_before_the_first_start_and_rotated_on_a_running_server(tmp_path):
    """create, use, revoke: nothing restarts, and no key needs to be on any command line."""
    server = Freshet(tmp_path)
    assert json.loads(cli(server, "keys", "list", "--json").stdout) == {"keys": []}
    refused = cli(server, "keys", "create", "--role", "read")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "first key must have the role admin" in refused.stderr
    old = made(server, "--role", "admin", "--label", "first")
    with server:
        assert call(server, "", "GET", "/indexes").status_code == 401
        assert "FRESHET_API_KEY" in cli(server, "indexes", "list").stderr
        assert cli(server, "keys", "create", "--role", "admin").returncode == 1
        new = made(server, "--role", "admin", "--label", "second", key=old["key"])
        revoked = cli(server, "keys", "revoke", old["id"], key=new["key"])
        assert revoked.stdout == f"revoked {old['id']}\n"
        assert call(server, old["key"], "GET", "/indexes").status_code == 401
        assert call(server, new["key"], "GET", "/indexes").status_code == 200
        listed = cli(server, "keys", "list", key=new["key"]).stdout
        assert new["id"] in listed
        assert old["id"] not in listed
        last = cli(server, "keys", "revoke", new["id"], key=new["key"])
        assert "last key with the role admin" in last.stderr
        assert server.stop() == 0
    # A lost administrator's key is replaced where the data lies.
    again = made(server, "--role", "admin")
    assert cli(server, "keys", "revoke", new["id"]).returncode == 0
    assert [key["id"] for key in json.loads(cli(server, "keys", "list", "--json").stdout)["keys"]] == [again["id"]]


def test_commands_work_with_the_key_of_the_environment_or_of_a_file(tmp_path):
    """Indexes, load, query and stats send it; a file that the key was written to is its owner's alone."""
    server = Freshet(tmp_path)
    file = tmp_path / "admin.key"
    done = cli(server, "keys", "create", "--role", "admin", "--output", str(file))
    assert done.returncode == 0, done.stderr
    assert file.read_text().strip() not in done.stdout + done.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert cli(server, "keys", "create", "--role", "admin", "--output", str(file)).returncode == 78
    unmade = tmp_path / "unmade.key"
    assert cli(server, "keys", "create", "--role", "root", "--output", str(unmade)).returncode == 1
    assert not unmade.exists()
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(record) + "\n" for record in records(300)))
    commands = [
        ("indexes", "create", "demo", "--dimension", "4", "--bound", "records=1000"),
        ("load", str(rows), "--index", "demo"),
        ("query", "--index", "demo", "--id", "r1"),
        ("stats", "--index", "demo"),
        ("indexes", "configure", "demo", "--bound", "records=2000"),
        ("dead-letters", "list", "--index", "demo"),
    ]
    with server:
        for command in commands:
            without = cli(server, *command)
            assert without.returncode == 1, command
            assert "401" in without.stderr
            by_file = run(*command, env={**server.env, "FRESHET_API_KEY_FILE": str(file)}, cwd=server.folder)
            assert by_file.returncode == 0, by_file.stderr
        described = cli(server, "indexes", "describe", "demo", "--json", key=file.read_text())
        assert json.loads(described.stdout)["max_records"] == 2_000


def test_revocation_reaches_every_api_process(tmp_path):
    """A key that one process made opens at the other at once, and after a revocation at neither."""
    with Freshet(tmp_path, {"FRESHET_API_WORKERS": "2"}) as server:
        folder = run_directory(Path(server.env["FRESHET_DATA_DIR"]))
        doors = [
            httpx2.Client(transport=httpx2.HTTPTransport(uds=door_of(folder, n)), base_url="http://x", timeout=30)
            for n in range(2)
        ]
        admin = {"api-key": made(server, "--role", "admin")["key"]}
        for turn in range(6):
            here, there = doors[turn % 2], doors[1 - turn % 2]
            body = here.post("/keys", json={"role": "read"}, headers=admin).json()
            key = {"api-key": body["key"]}
            assert there.get("/indexes", headers=key).status_code == 200
            assert here.get("/indexes", headers=key).status_code == 200
            assert here.delete(f"/keys/{body['id']}", headers=admin).status_code == 200
            assert here.get("/indexes", headers=key).status_code == 401
            wait_until(lambda there=there, key=key: there.get("/indexes", headers=key).status_code == 401)
        # All processes' metrics on one page need one key; the processes themselves ask each other without.
        assert httpx2.get(f"{server.url}/metrics").status_code == 401

        def are_up() -> bool:
            text = httpx2.get(f"{server.url}/metrics", headers=admin).text
            return all(f'freshet_api_worker_up{{worker="{n}"}} 1.0' in text for n in range(2))

        wait_until(are_up)
        for door in doors:
            door.close()


def test_official_client_works_with_its_key_and_is_told_without(tmp_path):
    """By name, with roles and scopes; a wrong key is the client's own error for that."""
    spec = ServerlessSpec(cloud="aws", region="us-east-1")
    with Freshet(tmp_path) as server:
        admin = made(server, "--role", "admin")["key"]
        with Pinecone(api_key=WRONG, host=server.url) as client, pytest.raises(UnauthorizedException):
            client.list_indexes()
        with Pinecone(api_key=admin, host=server.url) as client:
            client.create_index("guide", dimension=4, metric="cosine", spec=spec)
            client.create_index("other", dimension=4, metric="cosine", spec=spec)
            host = client.describe_index("guide").host
            with client.Index("guide") as index:
                index.upsert(vectors=[("a", [1.0, 2.0, 3.0, 4.0])], namespace="x")
        writer = made(server, "--role", "write", "--index", "guide", "--namespace", "x", key=admin)["key"]
        with Pinecone(api_key=writer, host=server.url) as client:
            assert [index.name for index in client.list_indexes()] == ["guide"]
            with client.Index("guide") as index:
                index.upsert(vectors=[("b", [1.0, 2.0, 3.0, 4.0])], namespace="x")
                wait_until(lambda: index.describe_index_stats().total_vector_count == 2)
                assert len(index.query(vector=[1, 2, 3, 4], top_k=5, namespace="x").matches) == 2
                for refused in (
                    lambda: index.upsert(vectors=[("c", [1.0, 2.0, 3.0, 4.0])], namespace="y"),
                    lambda: index.query(vector=[1, 2, 3, 4], top_k=5),
                    lambda: client.delete_index("guide"),
                    lambda: client.describe_index("other"),
                ):
                    with pytest.raises(ForbiddenException):
                        refused()
        with (
            Pinecone(api_key=WRONG, host=server.url) as client,
            client.Index(host=host) as index,
            pytest.raises(UnauthorizedException),
        ):
            index.query(vector=[1, 2, 3, 4], top_k=5)


def test_client_that_is_shed_comes_through_by_its_own_back_off(tmp_path):
    """Some upserts above the rate get a 429; the official client waits as told, and all of them are there at last."""
    with Freshet(tmp_path, {"FRESHET_UPSERT_RATE_MAX": "1"}) as server:
        spec = ServerlessSpec(cloud="aws", region="us-east-1")
        with Pinecone(api_key="any", host=server.url) as client:
            client.create_index("busy", dimension=4, metric="cosine", spec=spec)
            with client.Index("busy") as index:
                for number in range(5):
                    index.upsert(vectors=[(f"r{number}", [1.0, 2.0, 3.0, 4.0])])
                wait_until(lambda: index.describe_index_stats().total_vector_count == 5)
        text = httpx2.get(f"{server.url}/metrics").text
    counted = re.findall(r'requests_total{operation="upsert",status="(\d+)"} (\S+)', text)
    answered = {status: float(count) for status, count in counted}
    assert answered["200"] == 5
    assert answered["429"] > 0


def test_no_output_of_a_run_holds_a_key(tmp_path):
    """Not logs, metrics, answers, error messages, process lists or files: a key is in its creation's answer alone."""
    server = Freshet(tmp_path, {"FRESHET_LOG_LEVEL": "debug"})
    admin = made(server, "--role", "admin")["key"]
    said = []
    with server:
        second = made(server, "--role", "write", "--label", "second", key=admin)
        for key in (admin, second["key"], admin[:-1] + "x", WRONG):
            said.append(cli(server, "keys", "list", key=key))
            said.append(cli(server, "indexes", "create", "demo", "--dimension", "4", key=key))
            said.append(cli(server, "query", "--index", "demo", "--vector", "[1]", key=key))
            said.append(cli(server, "keys", "revoke", key, key=admin))
            for method, path in (("GET", "/indexes"), ("POST", "/i/demo/query"), ("GET", "/keys"), ("GET", "/metrics")):
                said.append(call(server, key, method, path, {} if method == "POST" else None).text)
        said.append(call(server, admin, "DELETE", f"/keys/{second['id']}").text)
        with subprocess.Popen(
            [*COMMAND, "stats", "--watch", "--json"],
            env={**clean_environment(), **server.env, "FRESHET_API_KEY": admin},
            cwd=server.folder,
            stdout=subprocess.PIPE,
        ) as watching:
            said.append(watching.stdout.readline().decode())
            said.append(process_list())
            watching.kill()
        said.append(httpx2.get(f"http://127.0.0.1:{server.env['FRESHET_INDEXER_PORT']}/metrics").text)
        said.append(httpx2.get(f"http://127.0.0.1:{server.env['FRESHET_INDEXER_PORT']}/status").text)
        assert server.stop() == 0
    text = "\n".join(one if isinstance(one, str) else one.stdout + one.stderr for one in said) + server.log_text
    files = b"".join(path.read_bytes() for path in (server.folder / "data").rglob("*") if path.is_file())
    assert second["id"] in text
    for key in (admin, second["key"]):
        secret = key.split("_")[2]
        assert secret[:-1] not in text
        assert secret.encode() not in files
        assert bytes.fromhex(secret) not in files


def process_list():
    """Return the command lines of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        # It may have ended since it was found.
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(found)
