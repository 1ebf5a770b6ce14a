"""Strong and bounded reads of several API processes: what any of them acknowledged, each of them shows or refuses."""

from __future__ import annotations

import os
import signal
import threading
import time
from itertools import product

import pytest

from tests.e2e.test_api_workers import DEMO, Workers
from tests.support.freshet import Freshet, wait_until

COUNT = 3


@pytest.fixture
def server(tmp_path):
    with Freshet(tmp_path, {"FRESHET_API_WORKERS": str(COUNT)}) as running:
        running.call("POST", "/indexes", DEMO)
        yield running


@pytest.fixture
def workers(server):
    with Workers(server, COUNT) as made:
        yield made


def upsert(workers, worker, name, **headers):
    body = {"vectors": [{"id": name, "values": [1, 0, 0, 1]}], "namespace": "n"}
    answer = workers.call(worker, "POST", "/i/demo/vectors/upsert", body, **headers)
    assert answer.status_code == 200, answer.text
    return answer


def listed(workers, worker, **headers):
    return workers.call(worker, "GET", "/i/demo/vectors/list?namespace=n&prefix=", **headers)


def strong(wait_ms=20_000):
    return {"x_freshet_consistency": "strong", "x_freshet_wait_ms": str(wait_ms)}


def bounded(milliseconds, wait_ms=30):
    return {
        "x_freshet_consistency": "bounded",
        "x_freshet_max_staleness_ms": str(milliseconds),
        "x_freshet_wait_ms": str(wait_ms),
    }


def test_what_one_process_acknowledged_a_strong_read_of_any_other_shows(workers):
    """Write by one, read at once by another, without a position; every pair, many times."""
    pairs = list(product(range(COUNT), repeat=2)) * 8
    for count, (writer, reader) in enumerate(pairs, 1):
        upsert(workers, writer, f"id-{count}")
        answer = listed(workers, reader, **strong())
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["vectors"]) == count


def test_concurrent_strong_reads_never_miss_a_write_that_was_acknowledged_before_them(workers):
    """Counters that only grow: what all writers had acknowledged when a read began is in its answer."""
    acknowledged = [0] * COUNT
    failures: list[str] = []
    stop = threading.Event()

    def write(worker):
        while not stop.is_set() and acknowledged[worker] < 30:
            upsert(workers, worker, f"w{worker}-{acknowledged[worker]:03d}")
            acknowledged[worker] += 1

    def read(worker):
        while not stop.is_set():
            known = sum(acknowledged)
            answer = workers.call(worker, "POST", "/i/demo/describe_index_stats", {}, **strong())
            shown = answer.json().get("totalVectorCount", -1)
            if answer.status_code != 200 or shown < known:
                failures.append(f"{answer.status_code}: {shown} of {known}")

    threads = [threading.Thread(target=task, args=(n,)) for task in (write, read) for n in range(COUNT)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while sum(acknowledged) < 30 * COUNT and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert sum(acknowledged) == 30 * COUNT


def test_while_the_indexer_stands_still_strong_and_bounded_reads_fail_and_never_show_older_state(server, workers):
    """SIGSTOP: 412 with both positions by every process; reads that ask for nothing show what there was."""
    upsert(workers, 0, "a", x_freshet_wait_visible_ms="20000")
    wait_until(lambda: all(len(listed(workers, n).json()["vectors"]) == 1 for n in range(COUNT)))
    indexer = server.children()["index"]
    os.kill(indexer, signal.SIGSTOP)
    try:
        wanted = upsert(workers, 1, "b").headers["x-freshet-position"]
        time.sleep(0.5)
        for worker in range(COUNT):
            for headers in (strong(wait_ms=50), bounded(0), bounded(400)):
                answer = listed(workers, worker, **headers)
                assert answer.status_code == 412, answer.text
                assert answer.json()["details"][0]["wanted"] == wanted
            assert len(listed(workers, worker).json()["vectors"]) == 1
            assert len(listed(workers, worker, **bounded(600_000, wait_ms=20_000)).json()["vectors"]) == 1
    finally:
        os.kill(indexer, signal.SIGCONT)
    for worker in range(COUNT):
        for headers in (strong(), bounded(0, wait_ms=20_000)):
            assert len(listed(workers, worker, **headers).json()["vectors"]) == 2
