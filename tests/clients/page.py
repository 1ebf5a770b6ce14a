"""The curl examples of the "Upsert data" guide, run by a shell."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from compose.client import Client as Door
from tests.clients.catalogue import PROGRAMS
from tests.clients.summary import NO_CLIENT
from tests.clients.walking import surroundings
from tests.support.freshet import Freshet

_PAGE = re.split(r"^#: (.+)$", (PROGRAMS / "curl" / "guide.sh").read_text(), flags=re.MULTILINE)[1:]
EXAMPLES = dict(zip(_PAGE[::2], _PAGE[1::2], strict=True))


def run_examples(server: Freshet, door: Door, folder: Path, **settings: str) -> list[str]:
    """Run every example against index "pinecone-index", made by `door`; check the answers; return their names.

    Where the server has no certificate, https becomes http; nothing else of the page's letters changes.
    """
    if shutil.which("curl") is None:
        assert not os.environ.get("FRESHET_REQUIRE_CLIENTS"), "curl is required and there is none"
        pytest.skip(f"{NO_CLIENT}curl: no curl")
    spec = {"serverless": {"cloud": "aws", "region": "us-east-1"}}
    made = door.call("POST", "/indexes", {"name": "pinecone-index", "dimension": 8, "metric": "cosine", "spec": spec})
    scheme, _, host = made["host"].partition("://")
    known = {**surroundings(server), "INDEX_HOST": host, **settings}
    answers = {}
    for name, example in EXAMPLES.items():
        command = ["bash", "-euc", example.replace('"https://$INDEX_HOST', f'"{scheme}://$INDEX_HOST')]
        done = subprocess.run(command, env=known, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        answers[name] = json.loads(done.stdout)
    stats = answers.pop("check data freshness")
    assert {"namespaces", "dimension", "indexFullness", "totalVectorCount"} <= stats.keys()
    assert stats["dimension"] == 8
    assert list(answers.values()) == [{"upsertedCount": 4}] * 4
    _wait_for_counts(door, {"__default__": 4, "ns1": 4, "ns2": 4})
    return list(EXAMPLES)


def _wait_for_counts(door: Door, wanted: dict[str, int]) -> None:
    deadline = time.monotonic() + 60
    while True:
        stats = door.index("pinecone-index", "POST", "/describe_index_stats")
        if {name: one["vectorCount"] for name, one in stats["namespaces"].items()} == wanted:
            return
        assert time.monotonic() < deadline, stats
        time.sleep(0.01)
