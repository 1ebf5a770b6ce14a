"""Strong and bounded reads: they show what they must, or say that they cannot."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace

import httpx2
import pytest

from producer.log.protocol import LogRecord
from schemas.events import encode
from schemas.partitions import partition_of
from schemas.positions import PositionToken
from tests.support.api_server import PATIENT, ApiServer
from tests.support.builders import upsert as upsert_event
from tests.unit.query_api.test_freshness import paused, reads_of, upsert

__all__ = ["paused"]

STRONG = {"x-freshet-consistency": "strong"}


def bounded(milliseconds, wait_ms=30):
    return {
        "x-freshet-consistency": "bounded",
        "x-freshet-max-staleness-ms": str(milliseconds),
        "x-freshet-wait-ms": str(wait_ms),
    }


def test_a_strong_read_shows_every_write_that_was_acknowledged_before_it(http, host, space):
    """Without a position, by every read, each right after its write."""
    for number in range(30):
        upsert(http, host, space, f"id-{number:02d}")
        listed = http.get(f"{host}/vectors/list", params={"namespace": space}, headers=STRONG)
        assert listed.status_code == 200, listed.text
        assert len(listed.json()["vectors"]) == number + 1
    upsert(http, host, space)
    wanted = 31
    query, fetch, listed, described, stats, namespaces = reads_of(http, host, space, STRONG)
    assert len(fetch.json()["vectors"]) == 1
    assert len(listed.json()["vectors"]) == wanted
    assert len(query.json()["matches"]) == 10
    assert int(described.json()["record_count"]) == wanted
    assert stats.json()["namespaces"][space]["vectorCount"] == wanted
    found = {one["name"]: int(one["record_count"]) for one in namespaces.json()["namespaces"]}
    assert found[space] == wanted


def test_the_level_can_stand_in_the_body(http, host, space):
    """Of a query, and of the statistics."""
    upsert(http, host, space)
    body = {"vector": [1, 0, 0, 0], "topK": 3, "namespace": space, "consistency": {"level": "strong"}}
    assert len(http.post(f"{host}/query", json=body).json()["matches"]) == 1
    upsert(http, host, space, "b")
    stats = http.post(f"{host}/describe_index_stats", json={"consistency": {"level": "strong"}}).json()
    assert stats["namespaces"][space]["vectorCount"] == 2
    body["consistency"] = {"level": "bounded"}
    refused = http.post(f"{host}/query", json=body)
    assert refused.status_code == 400
    assert "needs a staleness" in refused.json()["message"]


@pytest.mark.usefixtures("paused")
def test_a_strong_read_fails_with_both_positions_rather_than_show_older_state(http, host, space):
    """412 with code 9, for every read of the partition and of the whole index."""
    wanted = upsert(http, host, space).headers["x-freshet-position"]
    for answer in reads_of(http, host, space, {**STRONG, "x-freshet-wait-ms": "30"}):
        assert answer.status_code == 412, answer.text
        details = answer.json()["details"][0]
        assert details["reason"] == "PositionNotReached"
        assert details["wanted"] == wanted
        assert details["wanted"] in answer.json()["message"]
        assert details["applied"] in answer.json()["message"]


def test_a_strong_read_of_another_partition_is_not_held_up(http, host, space, request):
    """It reads one."""
    mine = partition_of(space, 4)
    other = next(name for name in (f"{space}-{n}" for n in range(100)) if partition_of(name, 4) != mine)
    # What was written to it before is shown before the indexer stands still.
    waiting = {**STRONG, "x-freshet-wait-ms": "20000"}
    assert http.get(f"{host}/vectors/list", params={"namespace": other}, headers=waiting).status_code == 200
    request.getfixturevalue("paused")
    upsert(http, host, space)
    answer = http.get(f"{host}/vectors/list", params={"namespace": other}, headers={**STRONG, "x-freshet-wait-ms": "0"})
    assert answer.status_code == 200, answer.text


def test_a_strong_read_that_waits_is_answered_when_the_snapshot_arrives(http, host, space, paused):
    """Within its wait."""
    upsert(http, host, space)
    answers = []

    def ask():
        with httpx2.Client(timeout=30) as client:
            headers = {**STRONG, "x-freshet-wait-ms": "20000"}
            answers.append(client.get(f"{host}/vectors/list", params={"namespace": space}, headers=headers))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.2)
    assert answers == []
    paused()
    thread.join(30)
    assert [answer.json()["vectors"] for answer in answers] == [[{"id": "a"}]]


def test_a_bounded_read_is_answered_at_once_while_what_is_missing_is_young(http, make_index, space, server):
    """And refused when it has grown old, with both positions; the bound is obeyed from there on."""
    host = make_index()
    upsert(http, host, space, **{"x-freshet-wait-visible-ms": "20000"})
    server.pause_indexing()
    try:
        before = time.monotonic()
        wanted = upsert(http, host, space, "b").headers["x-freshet-position"]
        for answer in reads_of(http, host, space, bounded(20_000)):
            assert answer.status_code == 200, answer.text
        assert time.monotonic() - before < 20
        time.sleep(0.3)
        for answer in reads_of(http, host, space, bounded(250)):
            assert answer.status_code == 412, answer.text
            details = answer.json()["details"][0]
            assert (details["wanted"], details["max_staleness_ms"]) == (wanted, 250)
            applied = PositionToken.parse(details["applied"])
            assert applied != PositionToken.parse(wanted)
            assert applied.merge(PositionToken.parse(wanted)) == PositionToken.parse(wanted)
        for answer in reads_of(http, host, space, bounded(20_000)):
            assert answer.status_code == 200, answer.text
    finally:
        server.resume_indexing()
    for answer in reads_of(http, host, space, bounded(0, wait_ms=20_000)):
        assert answer.status_code == 200, answer.text
    listed = http.get(f"{host}/vectors/list", params={"namespace": space}, headers=bounded(0, wait_ms=20_000))
    assert len(listed.json()["vectors"]) == 2


def test_writes_of_others_count_for_strong_and_bounded_reads(tmp_path):
    """Also where this process believes that it is the only writer: ends are read from the log, not from memory."""
    options = replace(PATIENT, ends=replace(PATIENT.ends, sole_writer_seconds=60))
    with ApiServer(tmp_path, options=options) as server, httpx2.Client(timeout=30) as http:
        host = http.post(f"{server.url}/indexes", json={"name": "i", "dimension": 4}).json()["host"]
        upsert(http, host, "n", **{"x-freshet-wait-visible-ms": "20000"})
        server.pause_indexing()
        spec = server.call(lambda: server.catalog.get("i"))

        async def append():
            log = await server.logs.open(spec.name, spec.log_id, spec.partitions)
            record = LogRecord(b"n", encode(upsert_event("b", 1)))
            return await log.append(partition_of("n", spec.partitions), [record])

        server.call(append)
        time.sleep(0.2)
        for headers in ({**STRONG, "x-freshet-wait-ms": "30"}, bounded(100)):
            assert http.get(f"{host}/vectors/list?namespace=n", headers=headers).status_code == 412
        assert http.get(f"{host}/vectors/list?namespace=n", headers=bounded(60_000)).status_code == 200
        assert http.get(f"{host}/vectors/list?namespace=n").status_code == 200


def test_unknown_staleness_lies_within_no_bound_and_no_read_is_strong_without_the_log(server, http, make_index, space):
    """A log that is silent: 412 for a bound, however large, 503 for a strong read; others are answered."""
    host = make_index()
    upsert(http, host, space, **{"x-freshet-wait-visible-ms": "20000"})
    served = next(one for one in server.call(server.app.rest._served.indexes) if host.endswith(f":{one.spec.port}"))
    log = served.ends._log

    class Silent:
        def __getattr__(self, name):
            return getattr(log, name)

        async def ends(self):
            await asyncio.Event().wait()

        async def read(self, *_args, **_options):
            await asyncio.Event().wait()

    def replaced(part, patience_seconds):
        async def done():
            served.ends.forget()
            served.ends._log = part
            served.ends._options = replace(PATIENT.ends, patience_seconds=patience_seconds)

        return done

    server.call(replaced(Silent(), 0.25))
    try:
        listed = f"{host}/vectors/list?namespace={space}"
        assert http.get(listed).headers["x-freshet-staleness-ms"] == "unknown"
        answer = http.get(listed, headers=bounded(80_000_000, wait_ms=400))
        assert answer.status_code == 412, answer.text
        assert "does not say where it ends" in answer.json()["message"]
        answer = http.get(listed, headers={**STRONG, "x-freshet-wait-ms": "100"})
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) >= 1
    finally:
        server.call(replaced(log, 20))
