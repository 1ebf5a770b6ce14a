"""Imports beside others: back-pressure, runners that fall silent, missing extras, malformed requests, the command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import httpx2
import pytest
from structlog.testing import capture_logs

from query_api.imports import service
from query_api.imports.service import ImportOptions
from query_api.writes import WriteOptions
from schemas.catalog_events import CatalogEvent
from schemas.import_events import ImportProgress, ReportImportEvent, StartImportEvent
from tests.support.api_server import PATIENT, ApiServer
from tests.support.freshet import Freshet
from tests.support.parquet_files import plain_rows, write_many, write_rows


def api(tmp_path, **imports):
    (tmp_path / "api").mkdir()
    options = replace(
        PATIENT,
        imports=ImportOptions(dirs=(str(tmp_path / "files"),), **imports),
        writes=WriteOptions(tail_rows_max=2_500, tail_retry_seconds=0.2, tail_retry_seconds_max=0.5),
    )
    return ApiServer(tmp_path / "api", options=options, index_ports=1)


def make_index(server, dimension=4):
    body = {
        "name": "demo",
        "dimension": dimension,
        "metric": "cosine",
        "spec": {"serverless": {"cloud": "aws", "region": "x"}},
    }
    return httpx2.post(f"{server.url}/indexes", json=body).raise_for_status().json()["host"]


def wait_for_end(host, import_id):
    deadline = time.monotonic() + 90
    while True:
        found = httpx2.get(f"{host}/bulk/imports/{import_id}").raise_for_status().json()
        if found["status"] not in ("Pending", "InProgress"):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def start(host, folder):
    return httpx2.post(f"{host}/bulk/imports", json={"uri": str(folder)}).raise_for_status().json()["id"]


@pytest.mark.timeout(1_200)
def test_import_waits_where_a_write_would_be_put_off(tmp_path):
    """The limit of rows in no graph holds for imports as well, and none fails for it."""
    write_many(tmp_path / "files" / "one" / "a.parquet", 30_000, dimension=16)
    with capture_logs() as lines, api(tmp_path) as server:
        host = make_index(server, 16)
        done = wait_for_end(host, start(host, tmp_path / "files"))
    assert (done["status"], done["recordsImported"]) == ("Completed", 30_000)
    waits = [line for line in lines if line["event"] == "import.waits"]
    assert waits
    assert all("in no graph yet" in line["reason"] for line in waits)


def decide(server, event: CatalogEvent):
    return server.call(lambda: server.catalog.decide("demo", event))


@pytest.mark.timeout(1_200)
def test_import_is_taken_over_where_its_runner_falls_silent(tmp_path):
    """Not while it reports; then by the next term, and the runner of before cannot report any more."""
    write_rows(tmp_path / "files" / "one" / "a.parquet", plain_rows(3_000))
    with api(tmp_path, role="peer", lease_seconds=6) as server:
        host = make_index(server)
        index_id = server.call(lambda: server.catalog.get("demo").index_id)
        event = StartImportEvent(index_id, "one", str(tmp_path / "files"), "abort", "", 1, "another")
        assert decide(server, event).runner == "another"
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            job = decide(server, ReportImportEvent(index_id, "one", "another", 0, ImportProgress()))
            assert (job.runner, job.end) == ("another", None)
            time.sleep(0.3)
        done = wait_for_end(host, "one")
        assert (done["status"], done["recordsImported"]) == ("Completed", 3_000)
        job = server.call(lambda: server.catalog.imports.get(index_id, "one"))
        assert job.term == 1
        assert job.runner != "another"


@pytest.mark.timeout(1_200)
def test_process_that_does_not_own_the_log_runs_no_import(tmp_path):
    """It takes the request, tells of it, and cancels it."""
    write_rows(tmp_path / "files" / "one" / "a.parquet", plain_rows(3))
    with api(tmp_path, role="none") as server:
        host = make_index(server)
        import_id = start(host, tmp_path / "files")
        time.sleep(1.5)
        assert httpx2.get(f"{host}/bulk/imports/{import_id}").json()["status"] == "Pending"
        assert httpx2.delete(f"{host}/bulk/imports/{import_id}").status_code == 200
        assert httpx2.get(f"{host}/bulk/imports/{import_id}").json()["status"] == "Cancelled"


@pytest.mark.timeout(1_200)
def test_server_without_the_extra_says_what_to_install(tmp_path, monkeypatch):
    """At once, as the client's answer."""
    (tmp_path / "files").mkdir()
    with api(tmp_path) as server:
        host = make_index(server)
        monkeypatch.setattr(service, "is_installed", lambda module: module != "pyarrow")
        answer = httpx2.post(f"{host}/bulk/imports", json={"uri": str(tmp_path / "files")})
        assert answer.status_code == 400
        assert "install freshet[parquet]" in answer.json()["message"]


@pytest.mark.timeout(1_200)
def test_malformed_requests_are_the_clients_mistakes(tmp_path):
    """Each is a 4xx with the field that is wrong."""
    with api(tmp_path) as server:
        host = make_index(server)
        for body in ({}, {"uri": 1}, {"uri": ""}, {"uri": "/x", "errorMode": {"onError": "maybe"}}, {"uri": "/\0"}, []):
            answer = httpx2.post(f"{host}/bulk/imports", json=body)
            assert answer.status_code == 400, (body, answer.text)
        for query in ("limit=0", "limit=101", "paginationToken=x"):
            assert httpx2.get(f"{host}/bulk/imports?{query}").status_code == 400
        assert httpx2.get(f"{host}/bulk/imports/%00").status_code == 404
        assert httpx2.get(f"{server.url}/bulk/imports").status_code == 404


@pytest.mark.timeout(1_200)
def test_command_starts_shows_and_cancels_imports(tmp_path):
    """`freshet import start | list | describe | cancel`, in words and in JSON."""
    rows = plain_rows(30)
    rows[7]["values"] = [1.0]
    write_rows(tmp_path / "files" / "one" / "a.parquet", rows)
    with Freshet(tmp_path, {"FRESHET_IMPORT_DIRS": str(tmp_path / "files")}) as server:
        assert server.cli("indexes", "create", "demo", "-d", "4").returncode == 0
        strict = server.cli("import", "start", str(tmp_path / "files"), "-i", "demo", "--wait")
        assert strict.returncode == 1
        assert "row 7 (from 0)" in strict.stderr
        done = server.cli("import", "start", str(tmp_path / "files"), "-i", "demo", "--skip-bad", "--wait", "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert (found["status"], found["recordsImported"], found["badRows"]) == ("Completed", 29, 1)
        listed = json.loads(server.cli("import", "list", "-i", "demo", "--json").stdout)
        assert [each["status"] for each in listed] == ["Completed", "Failed"]
        assert found["id"] in server.cli("import", "list", "-i", "demo").stdout
        described = server.cli("import", "describe", found["id"], "-i", "demo").stdout
        assert "one/a.parquet row 7: Vector dimension 1" in described
        assert "Completed" in server.cli("import", "cancel", found["id"], "-i", "demo").stdout
        refused = server.cli("import", "start", "/etc", "-i", "demo")
        assert refused.returncode == 1
        assert "import_dirs" in refused.stderr


def test_process_that_imports_nothing_loads_no_extra():
    """Neither pyarrow nor obstore is part of the start of an API process."""
    program = "import sys, compose.serve, query_api.app; print([n for n in ('pyarrow', 'obstore') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[]\n"
