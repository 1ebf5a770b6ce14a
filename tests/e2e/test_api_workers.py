"""Several API processes on the same ports: any of them does what one alone would do."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest
from pinecone import Pinecone, ServerlessSpec

from compose.client import Client
from compose.holding import run_directory
from compose.peers import door_of
from tests.support.freshet import (
    COMMAND,
    Freshet,
    alive,
    clean_environment,
    present,
    records,
    run,
    stop_under_writers,
    wait_until,
)

DEMO = {"name": "demo", "dimension": 4, "metric": "cosine", "spec": {"serverless": {"cloud": "aws", "region": "x"}}}
TWO = {"FRESHET_API_WORKERS": "2", "FRESHET_STOP_SECONDS": "60"}


class Workers:
    """A client of each process of its own, by the Unix socket on which it serves what its ports do."""

    def __init__(self, server: Freshet, count: int) -> None:
        folder = run_directory(Path(server.env["FRESHET_DATA_DIR"]))
        self.clients = [
            httpx2.Client(
                transport=httpx2.HTTPTransport(uds=door_of(folder, n)), base_url="http://localhost", timeout=30
            )
            for n in range(count)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()

    def call(self, worker: int, method: str, path: str, body: object = None, **headers: str) -> httpx2.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.clients[worker].request(method, path, json=body, headers=sent)


@pytest.fixture
def server(tmp_path):
    with Freshet(tmp_path, TWO) as running:
        yield running


@pytest.fixture
def workers(server):
    with Workers(server, 2) as made:
        yield made


def samples(text: str, name: str) -> dict[str, float]:
    """Return the sum of a metric's samples by worker."""
    found: dict[str, float] = {}
    for labels, value in re.findall(rf"^{name}{{(.*)}} (\S+)$", text, re.MULTILINE):
        worker = re.search(r'worker="(\d+)"', labels)[1]
        found[worker] = found.get(worker, 0.0) + float(value)
    return found


def metrics(server: Freshet) -> str:
    return httpx2.get(f"{server.url}/metrics", timeout=30).text


def total(server: Freshet) -> Any:
    return server.call("POST", "/i/demo/describe_index_stats", {})["totalVectorCount"]


def test_connections_spread_over_the_processes_and_any_of_them_tells_all_numbers(server):
    """New connections come to both; `/metrics` shows both, each under its label, whichever is asked."""
    for _ in range(60):
        assert httpx2.get(f"{server.url}/healthz").status_code == 200
    for _ in range(8):
        # A process that is busy at the moment is left out.
        wait_until(lambda: samples(metrics(server), "freshet_api_worker_up") == {"0": 1.0, "1": 1.0})
        text = metrics(server)
        answered = samples(text.replace('operation="readyz"', 'operation="other"'), "freshet_requests_total")
        assert set(answered) == {"0", "1"}
        assert min(answered.values()) > 5
        assert samples(text, "freshet_api_worker_up") == {"0": 1.0, "1": 1.0}
        assert text.count("# TYPE freshet_requests_total counter") == 1
        assert "process_resident_memory_bytes" in text
    own = httpx2.get(f"{server.url}/metrics?own=true").text
    assert "worker=" not in own


def test_index_of_one_process_is_used_at_the_other_at_once(workers):
    """Made here, it is described, listed and written there by the very next request; deleted there, it is gone here."""
    for turn in range(12):
        here, there = turn % 2, 1 - turn % 2
        body = {**DEMO, "name": f"turn-{turn}"}
        assert workers.call(here, "POST", "/indexes", body).status_code == 201
        if turn % 3 == 0:
            upserted = workers.call(there, "POST", f"/i/turn-{turn}/vectors/upsert", {"vectors": records(3)})
            assert upserted.status_code == 200, upserted.text
        elif turn % 3 == 1:
            described = workers.call(there, "GET", f"/indexes/turn-{turn}").json()
            assert described["status"]["ready"] is True
        else:
            by_host = workers.call(there, "POST", "/describe_index_stats", {}, host=f"turn-{turn}.example.com")
            assert by_host.status_code == 200, by_host.text
        listed = [index["name"] for index in workers.call(there, "GET", "/indexes").json()["indexes"]]
        assert f"turn-{turn}" in listed
        assert workers.call(here, "POST", "/indexes", body).status_code == 409
        assert workers.call(there, "POST", "/indexes", body).status_code == 409
        assert workers.call(there, "DELETE", f"/indexes/turn-{turn}").status_code == 202
        assert workers.call(here, "GET", f"/indexes/turn-{turn}").status_code == 404
        assert workers.call(there, "POST", f"/i/turn-{turn}/query", {}).status_code == 404


def test_write_at_one_process_is_read_at_every_other_by_its_token(workers):
    """A position of one process means the same at another: a reader that sends it never sees older state."""
    workers.call(0, "POST", "/indexes", DEMO)
    for turn in range(40):
        vector = {"id": "one", "values": [1, 2, 3, 4], "metadata": {"turn": turn}}
        written = workers.call(turn % 2, "POST", "/i/demo/vectors/upsert", {"vectors": [vector]})
        assert written.status_code == 200, written.text
        token = written.headers["x-freshet-position"]
        for reader in (0, 1):
            headers = {"x_freshet_at_least": token, "x_freshet_wait_ms": "20000"}
            read = workers.call(reader, "GET", "/i/demo/vectors/fetch?ids=one", **headers)
            assert read.status_code == 200, read.text
            assert read.json()["vectors"]["one"]["metadata"] == {"turn": turn}


def test_missing_namespace_is_decided_at_the_end_of_the_log(workers):
    """A delete at a process that has not seen the namespace's first write yet is not told that there is none."""
    workers.call(0, "POST", "/indexes", DEMO)
    for turn in range(20):
        name = f"space-{turn}"
        body = {"vectors": records(2), "namespace": name}
        assert workers.call(turn % 2, "POST", "/i/demo/vectors/upsert", body).status_code == 200
        deleted = workers.call(1 - turn % 2, "POST", "/i/demo/vectors/delete", {"ids": ["r0"], "namespace": name})
        assert deleted.status_code == 200, deleted.text
    missing = workers.call(1, "POST", "/i/demo/vectors/delete", {"ids": ["r0"], "namespace": "never"})
    assert missing.status_code == 404


def test_official_client_sees_one_server(server):
    """Create, upsert and read over fresh connections, each of which may come to another process."""
    with Pinecone(api_key="any", host=server.url) as client:
        made = client.create_index("guide", dimension=4, metric="cosine", spec=ServerlessSpec(cloud="aws", region="x"))
        assert made.status.ready
    written = 0
    for turn in range(15):
        with Pinecone(api_key="any", host=server.url) as client:
            assert client.has_index("guide")
            with client.Index("guide") as index:
                batch = [(f"r{written + n}", [1.0, float(turn), float(n), 1.0]) for n in range(10)]
                assert index.upsert(vectors=batch).upserted_count == 10
                written += 10
                wait_until(lambda: index.describe_index_stats().total_vector_count == written)  # noqa: B023
        with Pinecone(api_key="any", host=server.url) as client, client.Index("guide") as index:
            wait_until(lambda: len(index.query(vector=[1, 0, 0, 1], top_k=1_000).matches) == written)  # noqa: B023
    with Pinecone(api_key="any", host=server.url) as client:
        client.delete_index("guide")
    for _ in range(10):
        with Pinecone(api_key="any", host=server.url) as client:
            assert not client.has_index("guide")


@pytest.mark.parametrize("victim", ["serve", "serve-1"])
def test_killed_process_comes_back_alone_and_nothing_is_lost(server, victim):
    """The other one goes on serving meanwhile, and finds the owner of the log again by itself."""
    server.call("POST", "/indexes", DEMO)
    server.call("POST", "/i/demo/vectors/upsert", {"vectors": records(50)})
    before = server.children()
    assert set(before) == {"serve", "serve-1", "index"}
    os.kill(before[victim], signal.SIGKILL)
    wait_until(lambda: not alive(before[victim]))
    # New connections come to who is there; none is refused.
    assert httpx2.get(f"{server.url}/healthz").status_code == 200
    wait_until(lambda: server.children().get(victim, before[victim]) != before[victim])
    wait_until(lambda: samples(metrics(server), "freshet_api_worker_up") == {"0": 1.0, "1": 1.0})
    for turn in range(10):
        server.call("POST", "/i/demo/vectors/upsert", {"vectors": records(5, 50 + 5 * turn)})
    wait_until(lambda: total(server) == 100)
    after = server.children()
    assert {name: pid for name, pid in after.items() if name != victim} == {
        name: pid for name, pid in before.items() if name != victim
    }


def test_stop_finishes_what_was_accepted_and_ends_the_owner_last(server):
    """A stop under writers: every acknowledged record is there afterwards, and nobody had to be killed."""
    server.call("POST", "/indexes", DEMO)
    acknowledged = stop_under_writers(server, is_connection_kept=False)
    assert re.findall(r'"process": "(api[^"]*)", "event": "stopped"', server.log_text) == ["api-1", "api"]
    server.start()
    wait_until(lambda: total(server) >= len(acknowledged))
    assert set(acknowledged) <= present(server, acknowledged)


def test_killed_supervisor_takes_all_along_and_the_next_starts_at_once(server):
    """No process outlives its supervisor, and all of them can be started again on the same ports."""
    server.call("POST", "/indexes", DEMO)
    server.call("POST", "/i/demo/vectors/upsert", {"vectors": records(20)})
    children = server.children()
    server.stop(signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in children.values()))
    server.start()
    assert total(server) == 20


def test_ports_in_use_elsewhere_are_found_out(server, tmp_path):
    """A shared port is not one that a stranger may share: another server, with one process or two, is refused."""
    for count in ("1", "2"):
        other = run(
            "up", "--api-workers", count, "--data-dir", str(tmp_path / "other"), env={"FRESHET_PORT": str(server.port)}
        )
        assert other.returncode == 78
        assert f"127.0.0.1:{server.port}: the port is in use" in other.stderr


def test_index_port_in_use_elsewhere_is_skipped_by_all(tmp_path):
    """Both processes know the same ports, and the one in use is said once."""
    server = Freshet(tmp_path, TWO)
    first, second, *_ = map(int, server.env["FRESHET_INDEX_PORTS"].split(","))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        taken.listen()
        with server:
            made = server.call("POST", "/indexes", DEMO)
            assert made["host"] == f"http://localhost:{second}"
            for _ in range(10):
                with Client(f"http://127.0.0.1:{second}") as index:
                    assert index.call("POST", "/vectors/upsert", {"vectors": records(3)}) == {"upsertedCount": 3}
            assert server.log_text.count(f"[{first}]") == 1


def test_api_processes_run_without_the_indexer_too(tmp_path):
    """`freshet serve --api-workers 2` beside `freshet index`: one ends with a signal like the other."""
    server = Freshet(tmp_path)
    env = {**clean_environment(), **server.env, **TWO}
    with (tmp_path / "up.err").open("wb") as err:
        running = [
            subprocess.Popen([*COMMAND, *words], env=env, cwd=tmp_path, stderr=err)
            for words in (["serve", "--api-workers", "2"], ["index"])
        ]
    try:
        wait_until(server.is_ready)
        server.call("POST", "/indexes", DEMO)
        for turn in range(10):
            server.call("POST", "/i/demo/vectors/upsert", {"vectors": records(2, 2 * turn)})
        wait_until(lambda: total(server) == 20)
        wait_until(lambda: samples(metrics(server), "freshet_api_worker_up") == {"0": 1.0, "1": 1.0})
    finally:
        for process in running:
            process.terminate()
        codes = [process.wait(30) for process in running]
    assert codes == [0, 0]


@pytest.mark.kafka
def test_on_kafka_every_process_appends_itself(kafka, tmp_path):
    """Nothing is handed over there, and any process is as good as another all the same."""
    settings = {**TWO, "FRESHET_LOG": f"kafka://{kafka.bootstrap}", "FRESHET_KAFKA_CONTROL": f"two-{os.getpid()}"}
    with Freshet(tmp_path, settings) as server, Workers(server, 2) as workers:
        assert workers.call(0, "POST", "/indexes", DEMO).status_code == 201
        for turn in range(10):
            body = {"vectors": records(2, 2 * turn)}
            written = workers.call(turn % 2, "POST", "/i/demo/vectors/upsert", body)
            assert written.status_code == 200, written.text
            read = workers.call(
                1 - turn % 2,
                "GET",
                f"/i/demo/vectors/fetch?ids=r{2 * turn}",
                x_freshet_at_least=written.headers["x-freshet-position"],
                x_freshet_wait_ms="10000",
            )
            assert list(read.json()["vectors"]) == [f"r{2 * turn}"], read.text
        for process in server.children().values():
            os.kill(process, signal.SIGKILL)
        wait_until(server.is_ready)
        wait_until(lambda: samples(metrics(server), "freshet_api_worker_up") == {"0": 1.0, "1": 1.0})
        wait_until(lambda: total(server) == 20)
        server.call("DELETE", "/indexes/demo")
