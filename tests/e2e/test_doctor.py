"""`freshet doctor` on a real data directory: beside the running server, after it stopped, and after damage."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.support.freshet import Freshet, run, wait_until

ROWS = 1_200
# A graph of few rows, so that there is one to look at; and a collection that comes by.
SETTINGS = {
    "FRESHET_GRAPH_ROWS_MIN": "500",
    "FRESHET_ROLLUP_DELTAS": "3",
    "FRESHET_CHECKPOINT_SECONDS": "0.2",
    "FRESHET_COLLECT_SECONDS": "0.2",
    "FRESHET_GRACE_SECONDS": "1",
    "FRESHET_SETTLE_SECONDS": "0.5",
    "FRESHET_PARTITIONS": "2",
}


def fill(server):
    """Make an index with a graph and wait until nothing more happens."""
    assert server.cli("indexes", "create", "films", "-d", "16").returncode == 0
    vectors = np.random.default_rng(5).standard_normal((ROWS, 16)).round(4)
    for begin in range(0, ROWS, 100):
        rows = [{"id": f"r{n}", "values": vectors[n].tolist()} for n in range(begin, begin + 100)]
        server.call("POST", "/i/films/vectors/upsert", {"vectors": rows})
    wait_until(lambda: server.call("POST", "/i/films/describe_index_stats", {})["totalVectorCount"] == ROWS)
    wait_until(lambda: any(server.folder.rglob("*.graph")))


def doctor(server, *arguments):
    done = server.cli("doctor", "--json", *arguments)
    return done.returncode, json.loads(done.stdout)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of the data directory but those that SQLite keeps for readers."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.unlink()
    path.write_bytes(data)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A server with one index, stopped and started by the tests below."""
    with Freshet(tmp_path_factory.mktemp("doctor"), SETTINGS) as server:
        fill(server)
        yield server


def test_running_server_is_sound_while_it_is_written_to(filled):
    """Publishes, merges and collections beside the doctor are no findings, time and again."""
    for turn in range(3):
        for n in range(30):
            row = {"id": f"t{turn}-{n}", "values": [float(n), *[1.0] * 15]}
            filled.call("POST", "/i/films/vectors/upsert", {"vectors": [row]})
        code, told = doctor(filled, "--queries", "5")
        assert (code, told["sound"]) == (0, True), told
    table = filled.cli("doctor", "-i", "films")
    assert table.returncode == 0, table.stderr
    assert "films" in table.stdout
    assert "recall" in table.stdout
    assert table.stdout.rstrip().endswith("sound")


def test_stats_tell_graphs_bytes_and_recall(filled):
    """What the doctor finds in the store, the API tells of its snapshot; the command prints both tables."""
    looks = []

    def is_the_same_version() -> bool:
        stats = json.loads(filled.cli("stats", "-i", "films", "--json").stdout)["films"]["freshness"]
        _, told = doctor(filled, "-i", "films", "--queries", "0")
        looks[:] = [stats, told]
        versions = [part["snapshotVersion"] for part in stats["partitions"]]
        return versions == [part["version"] for part in told["partitions"]]

    # A merge may come between the two looks.
    wait_until(is_the_same_version)
    freshness, told = looks
    assert freshness["recallTarget"] == 0.95
    assert freshness["logBytes"] >= (filled.folder / "data" / "log.sqlite").stat().st_size
    for shown, part in zip(freshness["partitions"], told["partitions"], strict=True):
        engine = shown["engine"]
        assert engine["rows"] == part["live_rows"]
        assert engine["graphRows"] + shown["tailRows"] == engine["rows"]
        assert engine["graphsTotal"] == len(engine["graphs"])
        kept = {
            (one["segment_id"], one["namespace"], one["rows"] - one["dead_rows"], one["size_bytes"], one["ef_search"])
            for one in part["segments"]
            if one["has_graph"]
        }
        graphs = engine["graphs"]
        assert {(g["segment"], g["namespace"], g["rows"], g["bytes"], g["efSearch"]) for g in graphs} == kept
        # A graph that was extended by a few rows only was not measured again.
        assert all(graph["recall"] is None or 0.9 < graph["recall"] <= 1 for graph in graphs)
        assert engine["snapshotBytes"] >= sum(graph["bytes"] for graph in graphs)
    table = filled.cli("stats", "-i", "films").stdout
    assert "recall" in table
    assert "0.950" in table
    assert "the log of all indexes" in table


def test_missing_index_and_missing_directory_could_not_be_checked(filled, tmp_path):
    """Exit code 2 is for what could not be looked at, with the reason; nothing is made."""
    code, told = doctor(filled, "-i", "nowhere")
    assert code == 2
    assert "not found" in told["error"]["message"]
    done = run("doctor", "--data-dir", str(tmp_path / "none"))
    assert done.returncode == 2
    assert "no snapshots" in done.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_server_is_checked_without_a_trace(filled, number):
    """Without a server the same is said, also after a kill, and every file is as it was."""
    if number == signal.SIGKILL:
        for pid in (*filled.children().values(), filled.process.pid):
            os.kill(pid, number)
        filled.process.wait()
    else:
        assert filled.stop(number) == 0
    data = filled.folder / "data"
    before = contents(data)
    code, told = doctor(filled)
    assert contents(data) == before
    assert (code, told["unchecked"]) == (0, {}), told
    (part,) = [part for part in told["partitions"] if part["live_rows"]]
    assert part["next_offset"] <= part["log_end"]
    graphs = [segment for segment in part["segments"] if segment["has_graph"]]
    assert all(graph["recall"] >= 0.95 for graph in graphs)
    assert graphs
    filled.start()


def test_flipped_byte_is_found_told_and_repaired_as_foretold(filled):
    """The doctor names the object and the repair; the server does it, and the doctor is content again."""
    assert filled.stop() == 0
    data = filled.folder / "data"
    _, told = doctor(filled)
    version = next(part["version"] for part in told["partitions"] if part["live_rows"])
    graph = max(data.rglob("*.graph"), key=lambda path: path.stat().st_mtime_ns)
    flip(graph)
    code, told = doctor(filled)
    assert code == 1
    (part,) = [part for part in told["partitions"] if part["findings"] and not part["sound"]]
    assert {finding["name"] for finding in part["findings"] if finding["level"] == "damage"} == {
        str(graph.relative_to(data / "snapshots"))
    }
    assert any("set aside" in repair for repair in part["repairs"])
    assert part["version"] < version
    shown = filled.cli("doctor")
    assert shown.returncode == 1
    assert " damage " in shown.stdout
    assert "would repair" in shown.stdout
    filled.start()
    wait_until(filled.is_ready)
    wait_until(lambda: doctor(filled)[0] == 0, 90)
    _, told = doctor(filled)
    assert [finding["kind"] for finding in told["findings"]] == ["quarantine"]


def test_folder_of_no_index_is_named(filled):
    """What no index of the log knows is told; it is never deleted."""
    folder = filled.folder / "data" / "snapshots" / "ghost.AAAAAAAAAAAAAAAAAAAAAA"
    folder.mkdir()
    code, told = doctor(filled)
    folder.rmdir()
    assert code == 1
    assert [finding["name"] for finding in told["findings"] if finding["kind"] == "folder"] == [folder.name]
