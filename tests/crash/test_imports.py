"""An import whose process is killed goes on after the restart: nothing is lost, nothing is sent twice."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter

import pytest

from producer.catalog import Catalog
from producer.log.sqlite import SqliteLogOptions, SqliteLogs
from schemas.events import decode, namespace_of
from schemas.import_events import IMPORT_HEADER
from schemas.operations import Upsert
from tests.crash.steps import steps_in_code
from tests.support.freshet import Freshet, wait_until
from tests.support.parquet_files import plain_rows, write_many, write_rows

DIMENSION = 32
ROWS = 60_000
# The steps of an import at which its process dies, and at which passing.
PASSINGS = {"import.planned": (1,), "import.reported": (1, 2), "import.appended": (1, 4), "publish.after_append": (3,)}
ENDED = ("Completed", "Failed", "Cancelled")


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "files"
    made.mkdir()
    return made


def serving(tmp_path, root, **settings):
    return Freshet(tmp_path, {"FRESHET_IMPORT_DIRS": str(root), **settings})


def make_index(server):
    spec = {"serverless": {"cloud": "aws", "region": "x"}}
    server.call("POST", "/indexes", {"name": "demo", "dimension": DIMENSION, "metric": "cosine", "spec": spec})


def start(server, root, mode="continue"):
    body = {"uri": f"file://{root}", "errorMode": {"onError": mode}}
    return server.call("POST", "/i/demo/bulk/imports", body)["id"]


def described(server, import_id):
    return server.call("GET", f"/i/demo/bulk/imports/{import_id}")


def wait_for_end(server, import_id):
    wait_until(lambda: server.is_ready() and described(server, import_id)["status"] in ENDED, 120)
    return described(server, import_id)


def total(server):
    return server.call("POST", "/i/demo/describe_index_stats", {})["totalVectorCount"]


def upserts(folder):
    """Return how often each id of each namespace was appended, as the log itself has it."""

    async def read():
        logs = SqliteLogs(folder / "data" / "log.sqlite", SqliteLogOptions(), clock_ms=lambda: 0, is_read_only=True)
        await logs.start()
        seen = Counter()
        try:
            catalog = Catalog(logs)
            await catalog.start()
            spec = catalog.get("demo")
            log = await logs.open(spec.name, spec.log_id, spec.partitions)
            for partition in range(spec.partitions):
                offset = 0
                while True:
                    batch = await log.read(partition, offset, bytes_max=1 << 24, wait_seconds=0)
                    for record in batch.records:
                        event = decode(record.value, dict(record.headers))
                        if isinstance(event, Upsert) and IMPORT_HEADER in dict(record.headers):
                            seen[namespace_of(record.key), event.id] += 1
                    offset = batch.next_offset
                    if offset >= batch.end_offset:
                        break
            await catalog.close()
        finally:
            await logs.close()
        return seen

    return asyncio.run(read())


def write_files(root):
    """Two namespaces, three files, all rows in one row group each; more than are imported before one looks."""
    write_many(root / "one" / "a.parquet", ROWS, dimension=DIMENSION)
    write_many(root / "one" / "b.parquet", ROWS // 2, dimension=DIMENSION, begin=ROWS, seed=1)
    write_many(root / "two" / "a.parquet", ROWS // 2, dimension=DIMENSION, seed=2)


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("mode", ["abort", "continue"])
def test_killed_import_goes_on_and_sends_no_row_twice(tmp_path, root, mode):
    """All processes are killed again and again; in the end every row is in the log exactly once."""
    write_files(root)
    with serving(tmp_path, root) as server:
        make_index(server)
        import_id = start(server, root, mode)
        kills = 0
        while described(server, import_id)["status"] not in ENDED and kills < 4:
            before = total(server)
            wait_until(lambda before=before: total(server) >= before + 2_000 or ended(server, import_id), 120)
            server.kill_all()
            kills += 1
            server.start()
            wait_until(server.is_ready)
        assert kills >= 2
        done = wait_for_end(server, import_id)
        assert (done["status"], done["recordsImported"], done["percentComplete"]) == ("Completed", 2 * ROWS, 100.0)
        wait_until(lambda: total(server) == 2 * ROWS, 120)
        server.stop()
    seen = upserts(tmp_path)
    assert len(seen) == 2 * ROWS
    assert set(seen.values()) == {1}


def ended(server, import_id):
    return described(server, import_id)["status"] in ENDED


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize(("step", "passing"), [(step, passing) for step in PASSINGS for passing in PASSINGS[step]])
def test_import_survives_a_death_at_each_of_its_steps(tmp_path, root, step, passing):
    """The process that runs the import dies at a step; the next one finishes it, bad rows counted once."""
    rows = plain_rows(6_000, dimension=DIMENSION)
    for at in range(0, 6_000, 1_000):
        rows[at]["values"] = [1.0]
    write_rows(root / "one" / "a.parquet", rows)
    with serving(tmp_path, root) as server:
        make_index(server)
        server.stop()
        server.env["FRESHET_CRASH_AT"] = f"{step}:{passing}"
        server.start()
        import_id = start(server, root)
        wait_until(lambda: '"exit": -9' in server.log_text, 60)
        server.kill_all()
        server.env["FRESHET_CRASH_AT"] = ""
        server.start()
        done = wait_for_end(server, import_id)
        assert (done["status"], done["recordsImported"], done["badRows"]) == ("Completed", 5_994, 6)
        assert [bad["row"] for bad in done["badRowSample"]] == list(range(0, 6_000, 1_000))
        wait_until(lambda: total(server) == 5_994)
        server.stop()
    seen = upserts(tmp_path)
    assert len(seen) == 5_994
    assert set(seen.values()) == {1}


def test_every_step_of_imports_is_died_at():
    """A step that is added to the code is added to the deaths."""
    assert {step for step in steps_in_code() if step.startswith("import.")} == set(PASSINGS) - {"publish.after_append"}


@pytest.mark.timeout(1_200)
def test_write_of_a_user_is_not_undone_by_going_on(tmp_path, root):
    """A record that was imported and then replaced stays replaced, whatever dies after that."""
    write_files(root)
    with serving(tmp_path, root) as server:
        make_index(server)
        import_id = start(server, root)
        wait_until(lambda: total(server) >= 1_000, 60)
        newer = {"id": "r5", "values": [7.0] * DIMENSION, "metadata": {"newer": True}}
        server.call("POST", "/i/demo/vectors/upsert", {"vectors": [newer], "namespace": "one"})
        server.call("POST", "/i/demo/vectors/delete", {"ids": ["r6"], "namespace": "one"})
        for _ in range(2):
            os.kill(server.children()["serve"], signal.SIGKILL)
            wait_until(server.is_ready)
            time.sleep(0.3)
        done = wait_for_end(server, import_id)
        assert (done["status"], done["recordsImported"]) == ("Completed", 2 * ROWS)
        wait_until(lambda: total(server) == 2 * ROWS - 1, 60)
        fetched = server.call("GET", "/i/demo/vectors/fetch?ids=r5&ids=r6&namespace=one")["vectors"]
        assert list(fetched) == ["r5"]
        assert fetched["r5"]["metadata"] == {"newer": True}


@pytest.mark.timeout(1_200)
def test_file_that_changed_while_nobody_ran_the_import_ends_it(tmp_path, root):
    """What was imported belongs to other files: the import fails and names the file."""
    write_files(root)
    with serving(tmp_path, root) as server:
        make_index(server)
        import_id = start(server, root)
        wait_until(lambda: total(server) >= 1_000, 60)
        server.stop()
        os.utime(root / "two" / "a.parquet")
        server.start()
        done = wait_for_end(server, import_id)
        assert done["status"] == "Failed"
        assert done["error"] == (
            "File two/a.parquet has changed since the import began. What was imported until then stays."
        )


@pytest.mark.timeout(1_200)
def test_import_through_any_api_process_is_run_by_the_owner_of_the_log(tmp_path, root):
    """With several processes each answers for all imports; one of them runs them, also after it died."""
    write_files(root)
    with serving(tmp_path, root, FRESHET_API_WORKERS="2") as server:
        make_index(server)
        import_id = start(server, root)
        for _ in range(20):
            assert described(server, import_id)["id"] == import_id
        wait_until(lambda: total(server) >= 1_000, 60)
        os.kill(server.children()["serve"], signal.SIGKILL)
        wait_until(lambda: "serve" in server.children() and server.is_ready(), 60)
        done = wait_for_end(server, import_id)
        assert (done["status"], done["recordsImported"]) == ("Completed", 2 * ROWS)
        server.stop()
    seen = upserts(tmp_path)
    assert len(seen) == 2 * ROWS
    assert set(seen.values()) == {1}
