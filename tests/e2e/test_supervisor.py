"""`freshet up`: children come back, nobody is left behind, nothing accepted is lost at a stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time

import pytest

from compose.client import Client
from schemas.errors import FreshetError
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


@pytest.fixture
def server(tmp_path):
    with Freshet(tmp_path, {"FRESHET_STOP_SECONDS": "60"}) as running:
        yield running


def upsert(server, count, begin=0):
    return server.call("POST", "/i/demo/vectors/upsert", {"vectors": records(count, begin)})


def total(server):
    return server.call("POST", "/i/demo/describe_index_stats", {})["totalVectorCount"]


def test_up_says_where_it_listens_once_it_is_ready(tmp_path):
    """The address printed answers at once, reads included."""
    server = Freshet(tmp_path)
    try:
        assert server.start()["url"] == server.url
        assert server.is_ready()
    finally:
        server.stop()


@pytest.mark.parametrize("victim", ["serve", "index"])
def test_killed_child_comes_back_and_nothing_is_lost(server, victim):
    """SIGKILL of API or indexer: the supervisor starts it again, and everything acknowledged is there."""
    server.call("POST", "/indexes", DEMO)
    upsert(server, 50)
    before = server.children()
    os.kill(before[victim], signal.SIGKILL)
    wait_until(lambda: server.children().get(victim, before[victim]) != before[victim])
    wait_until(server.is_ready)
    # Durable when answered; visible once the indexer, which may be the one that was killed, has folded it.
    wait_until(lambda: total(server) == 50)
    upsert(server, 10, begin=50)
    wait_until(lambda: total(server) == 60)
    other = {"serve": "index", "index": "serve"}[victim]
    assert server.children()[other] == before[other]


def test_killed_supervisor_takes_its_children_along(server):
    """No process outlives its supervisor, and the next one starts at once on the same ports."""
    server.call("POST", "/indexes", DEMO)
    upsert(server, 20)
    children = server.children()
    assert set(children) == {"serve", "index"}
    server.stop(signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in children.values()))
    server.start()
    assert total(server) == 20


def test_everything_killed_at_once_loses_nothing(server):
    """All three processes killed together: the next start has every acknowledged record at once."""
    server.call("POST", "/indexes", DEMO)
    upsert(server, 100)
    server.kill_all()
    server.start()
    assert total(server) == 100


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_finishes_what_was_accepted(server, number):
    """A stop under writers ends by itself; every acknowledged record is there after the next start."""
    server.call("POST", "/indexes", DEMO)
    acknowledged = stop_under_writers(server, number, is_connection_kept=True)
    server.start()
    assert set(acknowledged) <= present(server, acknowledged)


def test_second_signal_ends_at_once(server):
    """Who asks twice does not wait."""
    server.process.send_signal(signal.SIGSTOP)
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGINT)
    server.process.send_signal(signal.SIGCONT)
    assert server.process.wait(30) == 0
    assert not server.children()


def test_second_up_on_one_data_directory_is_refused_with_the_holders_pid(server):
    """The error names the process to stop."""
    done = run("up", env={**server.env, "FRESHET_PORT": "1"})
    assert done.returncode == 78
    assert f"pid {server.process.pid}" in done.stderr


def test_port_in_use_is_named(tmp_path):
    """A taken control port is refused before anything is started, with its number."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("up", "--port", str(port), "--data-dir", str(tmp_path / "data"), cwd=tmp_path)
    assert done.returncode == 78
    assert f"127.0.0.1:{port}: the port is in use" in done.stderr


def test_index_port_in_use_elsewhere_is_skipped_and_said(tmp_path):
    """The next free port of the range goes to the index."""
    server = Freshet(tmp_path)
    first, second, *_ = map(int, server.env["FRESHET_INDEX_PORTS"].split(","))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        taken.listen()
        with server:
            made = server.call("POST", "/indexes", DEMO)
            assert made["host"] == f"http://localhost:{second}"
            with Client(f"http://127.0.0.1:{second}") as index:
                assert index.call("POST", "/vectors/upsert", {"vectors": records(3)}) == {"upsertedCount": 3}
            assert f"[{first}]" in server.log_text


def test_wrong_setting_ends_up_with_the_reason(tmp_path):
    """A child that can't start because of its settings is not started again and again."""
    done = run("up", env={"FRESHET_DATA_DIR": "/dev/null/data"}, cwd=tmp_path)
    assert done.returncode == 78
    assert "Cannot use the data directory" in done.stderr


def test_child_that_keeps_dying_is_started_with_growing_pauses(tmp_path):
    """A log that does not answer is tried again, and the supervisor stays."""
    server = Freshet(tmp_path, {"FRESHET_LOG": "kafka://127.0.0.1:1"})
    with (tmp_path / "up.err").open("wb") as err:
        process = subprocess.Popen(
            [*COMMAND, "up"], env={**clean_environment(), **server.env}, cwd=tmp_path, stderr=err
        )
    try:
        wait_until(lambda: server.log_text.count("starting it again") >= 4, seconds=90)
        assert process.poll() is None
        assert '"pause_seconds": 0.2' in server.log_text
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_crash_step_kills_the_process_that_passes_it(tmp_path):
    """FRESHET_CRASH_AT ends a process exactly at a named step; the supervisor brings it back."""
    with Freshet(tmp_path, {"FRESHET_CRASH_AT": "publish.after_append"}) as server:
        server.call("POST", "/indexes", DEMO)
        before = server.children()["serve"]
        with pytest.raises(FreshetError):
            upsert(server, 5)
        wait_until(lambda: server.children().get("serve", before) != before)
        wait_until(server.is_ready)
        # The step lies after the commit: the answer was lost, the records were not.
        wait_until(lambda: total(server) == 5)


def test_idle_children_serve_their_own_metrics(server):
    """API and indexer each have a door for Prometheus."""
    for port in (server.port, server.env["FRESHET_INDEXER_PORT"]):
        with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as asked:
            asked.sendall(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            answer = b""
            deadline = time.monotonic() + 10
            while (part := asked.recv(65_536)) and time.monotonic() < deadline:
                answer += part
        assert b"200 OK" in answer.split(b"\r\n")[0]
        assert b"\nfreshet_" in answer


@pytest.mark.kafka
def test_whole_product_runs_on_kafka(kafka, tmp_path):
    """One setting moves everything to a Kafka cluster; killed at once, it loses nothing there either."""
    settings = {"FRESHET_LOG": f"kafka://{kafka.bootstrap}", "FRESHET_KAFKA_CONTROL": f"up-{os.getpid()}"}
    with Freshet(tmp_path, settings) as server:
        server.call("POST", "/indexes", DEMO)
        upsert(server, 60)
        wait_until(lambda: total(server) == 60)
        server.kill_all()
        server.start()
        assert total(server) == 60
        server.call("DELETE", "/indexes/demo")
