"""A write whose answer was lost is sent again under its idempotency key: it is carried out once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.client import Client, Reply, Unreachable
from tests.crash.server import INDEX, Server

_KEY = {"freshet-idempotency-key": "upsert-of-a"}
_UPSERT = {"vectors": [{"id": "a", "values": [1, 0, 0, 0], "metadata": {"n": 1}}]}
_UPDATE = {"id": "a", "setMetadata": {"n": 2}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data") as made:
        made.start()
        made.create_index()
        made.kill()
        yield made


def insist(server: Server, path: str, body: Any, headers: dict[str, str] | None = None) -> Reply:
    """Send a write until it is answered."""
    server.wait_ready()
    with Client(server.port) as client:
        reply = client.call("POST", f"/i/{INDEX}{path}", body, headers=headers)
    assert reply.status == 200, reply
    return reply


def metadata(server: Server) -> Any:
    """Return the record's metadata as a strong read shows it."""
    server.wait_ready()
    headers = {"x-freshet-consistency": "strong", "x-freshet-wait-ms": "20000"}
    with Client(server.port) as client:
        reply = client.call("GET", f"/i/{INDEX}/vectors/fetch?ids=a", headers=headers)
    assert reply.status == 200, reply
    return reply.body["vectors"]["a"]["metadata"]


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize(
    ("step", "was_appended"),
    [
        ("publish.before_append", False),
        ("append.before_commit", False),
        ("append.after_commit", True),
        ("append.before_answer", True),
        ("api.after_append", True),
    ],
)
def test_a_retry_after_a_crash_carries_the_write_out_once(server: Server, step: str, was_appended: bool) -> None:
    """Upsert, die before its answer, update, the upsert again: the update survives exactly where it came second."""
    server.start(settings={"FRESHET_CRASH_AT": f"{step}:1"})
    server.wait_ready()
    with Client(server.port) as client, pytest.raises(Unreachable):
        client.call("POST", f"/i/{INDEX}/vectors/upsert", _UPSERT, headers=_KEY)
    server.kill()
    server.start()
    updated = insist(server, "/vectors/update", _UPDATE)
    assert int(updated.headers["x-pinecone-request-lsn"]) == 1 + was_appended
    insist(server, "/vectors/upsert", _UPSERT, _KEY)
    shown = {"n": 2 if was_appended else 1}
    assert metadata(server) == shown
    server.kill()
    server.start()
    # It was carried out in any case by now, so what comes next stays.
    insist(server, "/vectors/update", {"id": "a", "setMetadata": {"n": 3}})
    insist(server, "/vectors/upsert", _UPSERT, _KEY)
    assert metadata(server) == {"n": 3}
    server.kill()
    # Folded from the log alone, it comes to the same.
    shutil.rmtree(server.data_dir / "snapshots")
    server.start()
    insist(server, "/vectors/upsert", _UPSERT, _KEY)
    assert metadata(server) == {"n": 3}


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("step", ["publish.before_manifest", "publish.after_manifest", "merge.after_manifest"])
def test_a_retry_is_recognised_by_an_indexer_that_died_in_between(server: Server, step: str) -> None:
    """Before and after the publish that remembers the key, and after it was rolled up."""
    server.start(settings={"FRESHET_CRASH_AT": f"{step}:1"})
    insist(server, "/vectors/upsert", _UPSERT, _KEY)
    for number in range(12):
        insist(server, "/vectors/update", {"id": "a", "setMetadata": {"n": number}})
    server.kill()
    server.start()
    insist(server, "/vectors/upsert", _UPSERT, _KEY)
    assert metadata(server) == {"n": 11}
