"""The curl examples of the "Upsert data" guide, as they stand on the page."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time

import pytest

from compose.client import Client
from tests.clients.catalogue import PROGRAMS
from tests.clients.summary import NO_CLIENT
from tests.clients.walking import API_KEY, count, surroundings

EXAMPLES = re.split(r"^#: (.+)$", (PROGRAMS / "curl" / "guide.sh").read_text(), flags=re.MULTILINE)[1:]
UPSERTED = {"upsertedCount": 4}


def test_examples_of_the_page_run_as_they_stand(server, tmp_path, request):
    """Each example is run by a shell, letter by letter; only https, which needs a certificate, is http here."""
    if shutil.which("curl") is None:
        assert not os.environ.get("FRESHET_REQUIRE_CLIENTS"), "curl is required and there is none"
        pytest.skip(f"{NO_CLIENT}curl: no curl")
    body = {"name": "pinecone-index", "dimension": 8, "metric": "cosine"}
    spec = {"spec": {"serverless": {"cloud": "aws", "region": "us-east-1"}}}
    host = server.call("POST", "/indexes", {**body, **spec})["host"].removeprefix("http://")
    known = {**surroundings(server), "PINECONE_API_KEY": API_KEY, "INDEX_HOST": host}
    answers = {}
    for name, example in zip(EXAMPLES[::2], EXAMPLES[1::2], strict=True):
        command = ["bash", "-euc", example.replace('"https://$INDEX_HOST', '"http://$INDEX_HOST')]
        done = subprocess.run(command, env=known, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        answers[name] = json.loads(done.stdout)
    stats = answers.pop("check data freshness")
    assert {"namespaces", "dimension", "indexFullness", "totalVectorCount"} <= stats.keys()
    assert stats["dimension"] == 8
    assert answers == dict.fromkeys(EXAMPLES[::2][:3] + EXAMPLES[::2][4:], UPSERTED)
    _wait_for_counts(f"http://{host}", {"__default__": 4, "ns1": 4, "ns2": 4})
    count(request, "curl", EXAMPLES[::2])


def _wait_for_counts(url, wanted):
    deadline = time.monotonic() + 60
    with Client(url) as index:
        while True:
            stats = index.call("POST", "/describe_index_stats")
            if {name: one["vectorCount"] for name, one in stats["namespaces"].items()} == wanted:
                return
            assert time.monotonic() < deadline, stats
            time.sleep(0.01)
