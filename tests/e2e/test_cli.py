"""The command `freshet` against a running server: indexes, load, stats, query, and how each of them fails."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.support.freshet import COMMAND, Freshet, clean_environment, records, run, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Freshet(tmp_path_factory.mktemp("cli")) as running:
        yield running


@pytest.fixture
def index(server, request):
    """Make an index for one test, and delete it by the command."""
    name = request.node.name.partition("[")[0].replace("_", "-").removeprefix("test-")[:40].strip("-")
    made = server.cli("indexes", "create", name, "-d", "4", "--json")
    assert made.returncode == 0, made.stderr
    yield name
    assert server.cli("indexes", "delete", name).returncode == 0


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def told(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def total(server, name):
    return told(server.cli("stats", "-i", name, "--json"))[name]["totalVectorCount"]


def visible(server, name, count):
    wait_until(lambda: total(server, name) == count)


def test_help_is_instant_and_names_every_command():
    """Nothing heavy is imported for a page of help."""
    done = run("--help")
    assert done.returncode == 0
    for command in ("up", "serve", "load", "import", "stats", "query", "indexes", "backup", "doctor", "config"):
        assert f"\n  {command} " in done.stdout
    heavy = ("aiokafka", "fastapi", "hnswlib", "httpx2", "numpy", "orjson", "pydantic", "rich", "structlog")
    program = f"import sys, compose.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([*COMMAND[:2], "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_indexes_are_created_listed_described_and_deleted(server):
    """The life of an index by hand, readable and as JSON."""
    assert (
        "shop: 8 dimensions, dotproduct"
        in server.cli("indexes", "create", "shop", "-d", "8", "-m", "dotproduct").stdout
    )
    assert [each["name"] for each in told(server.cli("indexes", "list", "--json"))["indexes"]].count("shop") == 1
    assert told(server.cli("indexes", "describe", "shop", "--json"))["dimension"] == 8
    again = server.cli("indexes", "create", "shop", "-d", "8")
    assert again.returncode == 1
    assert "already exists" in again.stderr
    assert server.cli("indexes", "delete", "shop").returncode == 0
    gone = server.cli("indexes", "describe", "shop", "--json")
    assert gone.returncode == 1
    assert "not found" in json.loads(gone.stderr)["error"]["message"]


def test_index_is_configured(server, index):
    """Recall target, protection and tags by command; nothing to change is wrong use."""
    done = server.cli("indexes", "configure", index, "--recall-target", "0.9", "--protect", "--tag", "a=b")
    assert f"{index}: recall target 0.9, deletion protection enabled, tags a=b" in done.stdout, done.stderr
    assert "protection" in server.cli("indexes", "delete", index).stderr
    made = told(server.cli("indexes", "configure", index, "--no-protect", "--tag", "a=", "--json"))
    assert (made["recall_target"], made["deletion_protection"], made["tags"]) == (0.9, "disabled", None)
    assert server.cli("indexes", "configure", index).returncode == 78
    assert server.cli("indexes", "configure", index, "--tag", "a").returncode == 78


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
def test_jsonl_is_loaded(server, index, tmp_path, ending):
    """Every line is a record; ids, values and metadata arrive."""
    file = tmp_path / f"rows.{ending}"
    write_lines(file, records(250))
    if ending.endswith("gz"):
        file.write_bytes(gzip.compress(file.read_bytes()))
    done = told(server.cli("load", str(file), "-i", index, "-n", "ns", "--batch", "40", "--json"))
    assert (done["rows"], done["accepted"], done["bad"]) == (250, 250, 0)
    visible(server, index, 250)
    found = server.call("GET", f"/i/{index}/vectors/fetch?ids=r7&namespace=ns")["vectors"]["r7"]
    assert (found["values"], found["metadata"]) == ([1, 7, 49, 1], {"n": 7})
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name]


def test_npy_with_jsonl_is_loaded(server, index, tmp_path):
    """Vectors from the array, ids and metadata from the lines beside it; other keys are metadata."""
    vectors = np.arange(1, 81, dtype=np.int8).reshape(20, 4)
    np.save(tmp_path / "rows.npy", vectors)
    write_lines(tmp_path / "rows.jsonl", [{"id": f"a{n}", "colour": "red", "n": n} for n in range(20)])
    assert told(server.cli("load", str(tmp_path / "rows.npy"), "-i", index, "--json"))["accepted"] == 20
    visible(server, index, 20)
    found = server.call("GET", f"/i/{index}/vectors/fetch?ids=a3")["vectors"]["a3"]
    assert (found["values"], found["metadata"]) == ([13, 14, 15, 16], {"colour": "red", "n": 3})


def test_npy_and_jsonl_of_different_lengths_are_refused(server, tmp_path):
    """Rows that do not belong together are not guessed at."""
    np.save(tmp_path / "rows.npy", np.ones((3, 4), np.float32))
    write_lines(tmp_path / "rows.jsonl", [{"id": "a"}])
    done = server.cli("load", str(tmp_path / "rows.npy"), "-i", "any")
    assert done.returncode == 78
    assert "don't belong together" in done.stderr


def test_parquet_is_loaded(server, index, tmp_path):
    """Columns id and values (or vector, or embedding); the others are metadata, null means absent."""
    rows = {"id": ["a", "b"], "embedding": [[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]], "kind": ["x", None]}
    parquet.write_table(pa.table(rows), tmp_path / "rows.parquet")
    assert told(server.cli("load", str(tmp_path / "rows.parquet"), "-i", index, "--json"))["accepted"] == 2
    visible(server, index, 2)
    found = server.call("GET", f"/i/{index}/vectors/fetch?ids=a&ids=b")["vectors"]
    assert found["a"]["metadata"] == {"kind": "x"}
    assert not found["b"].get("metadata")


def test_bad_rows_are_set_aside_with_the_reason(server, index, tmp_path):
    """Rows that are no JSON, have no id, or that the server refuses don't keep the others out."""
    lines = [json.dumps(row) for row in records(60)]
    lines[5] = "{not json"
    lines[17] = json.dumps({"values": [1, 2, 3, 4]})
    lines[30] = json.dumps({"id": "short", "values": [1, 2]})
    lines[31] = json.dumps({"id": "zero", "values": [0, 0, 0, 0]})
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    done = told(server.cli("load", str(tmp_path / "rows.jsonl"), "-i", index, "--batch", "25", "--json"))
    assert (done["accepted"], done["bad"]) == (56, 4)
    rejected = [json.loads(line) for line in Path(done["rejected"]).read_text().splitlines()]
    assert sorted(each["row"] for each in rejected) == [5, 17, 30, 31]
    reasons = {each["row"]: each["reason"] for each in rejected}
    assert "not JSON" in reasons[5]
    assert "no id" in reasons[17]
    assert "dimension" in reasons[30]
    assert reasons[31]
    visible(server, index, 56)


def test_file_that_does_not_fit_the_index_is_given_up(server, index, tmp_path):
    """When every row is refused, the load ends with the reason instead of asking row by row for ever."""
    write_lines(tmp_path / "rows.jsonl", [{"id": f"r{n}", "values": [1.0]} for n in range(3_000)])
    done = server.cli("load", str(tmp_path / "rows.jsonl"), "-i", index)
    assert done.returncode == 1
    assert "rows were refused" in done.stderr


def test_load_into_a_missing_index_says_so(server, tmp_path):
    """Nothing is created behind anybody's back."""
    write_lines(tmp_path / "rows.jsonl", records(3))
    done = server.cli("load", str(tmp_path / "rows.jsonl"), "-i", "nowhere")
    assert done.returncode == 1
    assert "404" in done.stderr


def test_killed_load_goes_on_where_it_stopped(server, index, tmp_path):
    """After SIGKILL of the load itself the same command begins at the last row acknowledged without a gap.

    Rows above it that had been loaded are not loaded again: what was changed since stays changed.
    """
    file = tmp_path / "rows.jsonl"
    write_lines(file, records(20_000))
    state = tmp_path / f"rows.jsonl.{index}.load-state.json"
    command = [*COMMAND, "load", str(file), "-i", index, "--batch", "10", "--writers", "2"]
    process = subprocess.Popen(command, env={**clean_environment(), **server.env}, stderr=subprocess.DEVNULL)

    def next_row():
        return json.loads(state.read_text())["next_row"] if state.exists() else 0

    def shown():
        return server.call("POST", f"/i/{index}/describe_index_stats", {})["totalVectorCount"]

    wait_until(lambda: 0 < next_row() < shown() - 30 or process.poll() is not None)
    process.kill()
    process.wait()
    reached = json.loads(state.read_text())["next_row"]
    assert 0 < reached < 20_000
    change = {"filter": {"n": {"$gte": reached}}, "setMetadata": {"changed": True}}
    changed = server.call("POST", f"/i/{index}/vectors/update", change)["matchedRecords"]
    assert changed > 0
    done = told(server.cli("load", str(file), "-i", index, "--batch", "500", "--json"))
    assert done["resumed_at"] >= reached
    assert done["accepted"] == 20_000
    assert not state.exists()
    visible(server, index, 20_000)
    count = {"filter": {"changed": True}, "setMetadata": {"changed": True}, "dryRun": True}
    assert server.call("POST", f"/i/{index}/vectors/update", count) == {"matchedRecords": changed}


def test_load_survives_a_killed_api(tmp_path):
    """A server that is killed in the middle and comes back loses no row of the load."""
    with Freshet(tmp_path) as server:
        assert server.cli("indexes", "create", "demo", "-d", "4").returncode == 0
        write_lines(tmp_path / "rows.jsonl", records(5_000))
        command = [*COMMAND, "load", "rows.jsonl", "-i", "demo", "--batch", "10", "--json"]
        env = {**clean_environment(), **server.env}
        process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE)
        wait_until(lambda: total(server, "demo") > 0)
        os.kill(server.children()["serve"], signal.SIGKILL)
        output, _ = process.communicate(timeout=90)
        assert process.returncode == 0
        assert json.loads(output)["accepted"] == 5_000
        visible(server, "demo", 5_000)


def test_query_finds_by_vector_by_record_and_with_a_filter(server, index, tmp_path):
    """The nearest come first, with their metadata."""
    write_lines(tmp_path / "rows.jsonl", records(30))
    told(server.cli("load", str(tmp_path / "rows.jsonl"), "-i", index, "--json"))
    visible(server, index, 30)
    found = told(server.cli("query", "-i", index, "--id", "r3", "-k", "2", "--json"))["matches"]
    assert found[0]["id"] == "r3"
    found = told(server.cli("query", "-i", index, "--vector", "[1,9,81,1]", "--filter", '{"n": {"$lt": 5}}', "--json"))
    assert {match["id"] for match in found["matches"]} == {f"r{n}" for n in range(5)}
    table = server.cli("query", "-i", index, "--id", "r3", "-k", "1")
    assert "r3" in table.stdout
    assert "score" in table.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("query", "-i", "x"), "either --vector or --id"),
        (("query", "-i", "x", "--vector", "[1,"), "--vector is not JSON"),
        (("load", "rows.csv", "-i", "x"), "none of the kinds"),
        (("load", "missing.jsonl", "-i", "x"), "No such file"),
        (("config", "--set", "port"), "NAME=VALUE"),
        (("indexes", "configure", "x", "--bound", "rows=1"), "records=N or bytes=N"),
        (("config", "--set", "prot=1"), "Did you mean 'port'"),
    ],
)
def test_wrong_use_is_told_with_the_reason(server, arguments, reason):
    """Exit code 78, one line, no traceback."""
    done = server.cli(*arguments)
    assert done.returncode == 78
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_no_server_is_told_with_what_to_do(server):
    """Exit code 1, one line, no traceback."""
    done = server.cli("stats", "--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "Is `freshet up` running there?" in done.stderr
    assert "Traceback" not in done.stderr


def test_stats_show_records_and_freshness(server, index, tmp_path):
    """A table for people, JSON for programs, again and again with --watch."""
    write_lines(tmp_path / "rows.jsonl", records(12))
    told(server.cli("load", str(tmp_path / "rows.jsonl"), "-i", index, "--json"))
    visible(server, index, 12)
    table = server.cli("stats", "-i", index).stdout
    assert index[:10] in table
    assert "12" in table
    command = [*COMMAND, "stats", "-i", index, "--watch", "--seconds", "0.05", "--json"]
    env = {**clean_environment(), **server.env}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as watching:
        looks = [json.loads(watching.stdout.readline()) for _ in range(3)]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 130
    assert all(look[index]["freshness"]["partitions"] for look in looks)


def test_config_shows_values_with_their_source(server):
    """What is obeyed, and why."""
    shown = told(server.cli("config", "--json", "--set", "partitions=2"))
    assert shown["port"] == {"value": server.port, "source": "FRESHET_PORT"}
    assert shown["partitions"] == {"value": 2, "source": "command line"}
    assert shown["graph_rows_min"]["source"] == "default"
    assert "FRESHET_PORT" in server.cli("config").stdout
