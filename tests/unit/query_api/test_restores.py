"""A restore job that breaks off goes on where it was, whatever broke it off."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from query_api.restores import RestoreOptions, _chunks
from schemas.errors import LogFull, LogUnavailable
from schemas.operations import Upsert
from schemas.records import make_sparse
from tests.support.api_server import PATIENT, ApiServer
from tests.support.backups import Control, all_of, fill, send

SMALL = RestoreOptions(page_records=20, append_bytes=400, note_seconds=0, retry_seconds_min=0.01, retry_seconds_max=0.1)
FAILURES = {
    "a mistake of ours": RuntimeError("broken"),
    "the log does not answer": LogUnavailable("gone", outcome="unknown"),
    "the disk is full": LogFull("full"),
}


class Breaking:
    """A step that raises at every `every`th passing of a name, as long as it is `on`."""

    def __init__(self):
        self.on, self.name, self.error, self.every = False, "", RuntimeError(), 7
        self.passings, self.raised = itertools.count(1), 0

    def __call__(self, name, /):
        if self.on and name == self.name and next(self.passings) % self.every == 0:
            self.raised += 1
            raise self.error


@pytest.fixture(scope="module")
def breaking():
    return Breaking()


@pytest.fixture(scope="module")
def control(tmp_path_factory, http, breaking):
    options = replace(PATIENT, restores=SMALL)
    with ApiServer(tmp_path_factory.mktemp("restores"), options, index_ports=32, step=breaking) as running:
        yield Control(running, http)


@pytest.fixture(scope="module")
def source(control, http):
    """A backup of an index with five namespaces, and what it holds."""
    name, host = control.create()
    token = fill(http, host)
    return control.back_up(name)["backup_id"], all_of(http, host, token)


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("step", ["before_append", "after_append", "before_note", "after_note"])
def test_a_job_that_breaks_off_again_and_again_restores_every_record(control, http, breaking, source, failure, step):  # noqa: PLR0917
    """It goes on from its last note, so it comes to an end, and writes hardly anything twice."""
    backup_id, expected = source
    breaking.name, breaking.error, breaking.raised, breaking.on = f"restore.{step}", FAILURES[failure], 0, True
    name = f"again-{list(FAILURES).index(failure)}-{step.replace('_', '-')}"
    try:
        job, host = control.restore(backup_id, name)
    finally:
        breaking.on = False
    assert breaking.raised >= 3
    assert job["percent_complete"] == 100
    assert all_of(http, host) == expected
    partitions = http.post(f"{host}/describe_index_stats", json={}).json()["freshness"]["partitions"]
    written = sum(one["logEnd"] for one in partitions)
    records = sum(len(found) for _, found in expected.values())
    least = records + len(expected)
    assert least <= written <= least + breaking.raised * (SMALL.page_records + 1)
    control.call("DELETE", f"/indexes/{name}", status=202)


def test_progress_rises_and_ends_at_a_hundred(control, breaking, source):
    """It is the share of the records that are in the log of the new index."""
    backup_id, _ = source
    seen = []
    breaking.name, breaking.error, breaking.on, breaking.every = "restore.after_note", RuntimeError("slow"), True, 2
    answer = control.call("POST", f"/backups/{backup_id}/create-index", {"name": "watched"}, status=202)
    try:
        while not seen or seen[-1]["status"] == "Pending":
            seen.append(control.call("GET", f"/restore-jobs/{answer['restore_job_id']}", status=200))
    finally:
        breaking.on = False
    shares = [one["percent_complete"] for one in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert len(set(shares)) > 5
    assert all(one["percent_complete"] < 100 for one in seen if one["status"] == "Pending")


def test_records_are_appended_in_pieces_of_bounded_size():
    """Whatever their vectors, sparse values and metadata weigh; one that is too large goes alone, none is left out."""
    sparse = make_sparse(list(range(100)), [1.0] * 100)
    events = [Upsert(f"r{n}", bytes(4 * (n % 50)), sparse if n % 3 else None, b"x" * (n % 300)) for n in range(500)]
    pieces = list(_chunks(events, 2_000))
    assert [event for piece in pieces for event in piece] == events
    assert all(len(piece) == 1 or sum(weight(event) for event in piece) <= 2_000 for piece in pieces)
    assert len(pieces) < 500
    assert list(_chunks([], 10)) == []
    assert len(list(_chunks(events[:5], 1))) == 5
    # An idempotency key names a batch, and a batch has so many events at most.
    assert [len(piece) for piece in _chunks([Upsert("r", b"", None, b"")] * 2_500, 10**9)] == [1_000, 1_000, 500]


def test_a_record_that_updates_made_larger_than_one_event_is_restored_whole(control, http):
    """Each update is within the limit, their sum need not be; the order of the fields stays."""
    name, host = control.create()
    send(
        http, host, "/vectors/upsert", {"vectors": [{"id": "x", "values": [1, 2, 3], "metadata": {"z": "z" * 30_000}}]}
    )
    for field in ("a", "m", "b"):
        change = {field: field * 30_000, f"{field}2": 1}
        token = send(http, host, "/vectors/update", {"id": "x", "setMetadata": change})
    expected = all_of(http, host, token)
    _, restored = control.restore(control.back_up(name)["backup_id"], "larger-than-an-event")
    assert all_of(http, restored) == expected
    metadata = http.get(f"{restored}/vectors/fetch", params={"ids": "x"}).json()["vectors"]["x"]["metadata"]
    assert set(metadata) == {"z", "a", "a2", "m", "m2", "b", "b2"}


def weight(event):
    return len(event.id) + len(event.values) + len(event.metadata) + (0 if event.sparse is None else 800)
