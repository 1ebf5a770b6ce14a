"""Backups by the official client and by the command, against real processes."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from pinecone import Pinecone, ServerlessSpec
from pinecone.errors.exceptions import ConflictError, FailedPreconditionError, NotFoundError

from tests.support.freshet import Freshet, records, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Two API processes: one that owns the log and runs the jobs, and one that asks."""
    with Freshet(tmp_path_factory.mktemp("backups"), {"FRESHET_API_WORKERS": "2"}) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with Pinecone(api_key="any", host=server.url) as made:
        yield made


def filled(client, name, count=250):
    """Make an index with so many records of four dimensions in namespace "ns"."""
    client.create_index(
        name, dimension=4, spec=ServerlessSpec(cloud="aws", region="us-east-1"), tags={"team": "search"}
    )
    rows = records(count)
    with client.Index(name) as index:
        for begin in range(0, count, 100):
            index.upsert(vectors=rows[begin : begin + 100], namespace="ns")


def count_of(client, name):
    with client.Index(name) as index:
        return index.describe_index_stats().total_vector_count


def ready(client, backup_id):
    deadline = time.monotonic() + 60
    while True:
        backup = client.backups.describe(backup_id=backup_id)
        if backup.status == "Ready":
            return backup
        assert time.monotonic() < deadline, backup
        time.sleep(0.05)


def test_every_backup_method_of_the_client(client):
    """Create, describe, list, restore, follow the job, delete; and what each refuses."""
    filled(client, "library")
    made = client.backups.create(index_name="library", name="nightly", description="by the client")
    assert made.source_index_name == "library"
    backup = ready(client, made.backup_id)
    assert (backup.record_count, backup.namespace_count, backup.name) == (250, 1, "nightly")
    assert (backup.dense_dimension, backup.tags) == (4, {"team": "search"})
    assert client.backups.get(backup_id=made.backup_id) == backup
    other = ready(client, client.indexes.create_backup("library").backup_id)
    assert [one.backup_id for one in client.backups.list(index_name="library")] == [made.backup_id, other.backup_id]
    page = client.backups.list(limit=1)
    assert page.names() == ["nightly"]
    rest = client.backups.list(pagination_token=page.pagination.next)
    assert [one.backup_id for one in rest] == [other.backup_id]
    assert [one.backup_id for one in client.indexes.list_backups("library")] == [made.backup_id, other.backup_id]
    # Written after the backup.
    with client.Index("library") as source:
        source.delete(delete_all=True, namespace="ns")

    index = client.create_index_from_backup(name="restored", backup_id=made.backup_id, tags={"stage": "test"})
    assert (index.status.ready, index.source_backup_id, index.tags) == (True, made.backup_id, {"stage": "test"})
    assert count_of(client, "restored") == 250
    with client.Index("restored") as restored:
        fetched = restored.fetch(ids=["r7"], namespace="ns").vectors["r7"]
    assert (list(fetched.values), fetched.metadata) == ([1, 7, 49, 1], {"n": 7})

    started = client.create_index_from_backup(name="restored-too", backup_id=other.backup_id, timeout=-1)
    deadline = time.monotonic() + 60
    while (job := client.restore_jobs.describe(job_id=started.restore_job_id)).status == "Pending":
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    assert (job.status, job.percent_complete, job.target_index_id) == ("Completed", 100, started.index_id)
    assert [one.target_index_name for one in client.restore_jobs.list()] == ["restored", "restored-too"]
    page = client.restore_jobs.list(limit=1)
    assert [one.restore_job_id for one in client.restore_jobs.list(pagination_token=page.pagination.next)] == [
        started.restore_job_id
    ]

    with pytest.raises(ConflictError):
        client.create_index_from_backup(name="restored", backup_id=made.backup_id)
    with pytest.raises(NotFoundError):
        client.create_index_from_backup(name="nothing", backup_id="0" * 32)
    with pytest.raises(NotFoundError):
        client.backups.create(index_name="nothing")
    client.delete_index("library")
    with pytest.raises(NotFoundError):
        client.backups.list(index_name="library")
    found = client.backups.list(index_name="library", include_deleted=True)
    assert all(one.source_index_deleted_at for one in found)
    assert len(found) == 2
    for one in found:
        client.backups.delete(backup_id=one.backup_id)
    with pytest.raises(NotFoundError):
        client.backups.describe(backup_id=made.backup_id)
    with pytest.raises(NotFoundError):
        client.restore_jobs.describe(job_id="0" * 32)


def test_an_index_is_not_deleted_before_its_backup_is_made(server, client):
    """The client learns it as a failed precondition; without the indexer the backup waits."""
    filled(client, "guarded", 10)
    pid = server.children()["index"]
    os.kill(pid, signal.SIGSTOP)
    try:
        made = client.backups.create(index_name="guarded")
        assert made.status == "Initializing"
        with pytest.raises(FailedPreconditionError):
            client.delete_index("guarded")
        with pytest.raises(FailedPreconditionError):
            client.create_index_from_backup(name="early", backup_id=made.backup_id)
    finally:
        os.kill(pid, signal.SIGCONT)
    ready(client, made.backup_id)
    client.delete_index("guarded")


def test_backups_by_hand(server, client):
    """`freshet backup`: create, list, describe, restore, delete, readable and as JSON."""
    filled(client, "shelf", 30)

    def told(*arguments):
        done = server.cli("backup", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    made = told("create", "shelf", "--name", "weekly")
    assert (made["status"], made["record_count"], made["name"]) == ("Ready", 30, "weekly")
    done = server.cli("backup", "create", "shelf")
    assert "ready, 30 records of shelf" in done.stdout
    assert [one["source_index_name"] for one in told("list", "-i", "shelf")] == ["shelf"] * 2
    assert made in told("list")
    listed = server.cli("backup", "list").stdout
    assert made["backup_id"] in listed
    assert "weekly" in listed
    assert told("describe", made["backup_id"]) == made
    assert "weekly" in server.cli("backup", "describe", made["backup_id"]).stdout
    job = told("restore", made["backup_id"], "shelf-again", "--tag", "stage=b", "--protect")
    assert (job["status"], job["percent_complete"]) == ("Completed", 100)
    described = client.describe_index("shelf-again")
    assert (described.tags, described.deletion_protection) == ({"stage": "b"}, "enabled")
    assert count_of(client, "shelf-again") == 30
    done = server.cli("backup", "restore", made["backup_id"], "shelf")
    assert done.returncode == 1
    assert "already exists" in done.stderr
    assert f"deleted {made['backup_id']}" in server.cli("backup", "delete", made["backup_id"]).stdout
    done = server.cli("backup", "describe", made["backup_id"])
    assert done.returncode == 1
    assert "not found" in done.stderr
    done = server.cli("backup", "restore", made["backup_id"], "x", "--tag", "novalue")
    assert done.returncode == 78


def test_a_restore_goes_on_after_a_restart(server, client):
    """The job is in the catalog: whoever starts next goes on with it."""
    filled(client, "long", 1_000)
    backup = client.backups.create(index_name="long")
    ready(client, backup.backup_id)
    started = client.create_index_from_backup(name="long-again", backup_id=backup.backup_id, timeout=-1)
    server.stop()
    server.start()
    wait_until(lambda: client.restore_jobs.describe(job_id=started.restore_job_id).status == "Completed")
    assert count_of(client, "long-again") == 1_000
