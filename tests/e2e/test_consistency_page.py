"""The examples of docs/consistency.md, as they stand there, against a server."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from compose.client import Client
from tests.support.freshet import Freshet

PAGE = (Path(__file__).parents[2] / "docs" / "consistency.md").read_text()
INDEX = {"name": "movies", "dimension": 8, "metric": "cosine"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Freshet(tmp_path_factory.mktemp("page")) as running:
        running.call("POST", "/indexes", INDEX)
        # The first write to an index takes longer than those that the page shows.
        with Client(running.url) as client:
            body = {"vectors": [{"id": "first", "values": [1] * 8}], "namespace": "warm"}
            headers = {"x-freshet-wait-visible-ms": "20000"}
            client.call("POST", "/i/movies/vectors/upsert", body, headers=headers)
        yield running


def examples(kind, server):
    """Return the blocks of a language, with the server's own port."""
    found = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return [block.replace("5080", str(server.port)) for block in found]


def test_python_examples_run(server):
    """The first reads its own write strongly; the second is answered."""
    strong, keyed = examples("python", server)
    names: dict[str, Any] = {}
    exec(compile(strong, "docs/consistency.md", "exec"), names)
    names["index"].close()
    names["pc"].close()
    exec(compile(keyed, "docs/consistency.md", "exec"), names)
    assert names["answer"].status_code == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples of the page call curl")
def test_shell_examples_run(server):
    """A strong query finds something; the update between an upsert and its repetition survives."""
    asked, repeated = examples("sh", server)
    server.call("POST", "/i/movies/vectors/upsert", {"vectors": [{"id": "a", "values": [1] * 8}]})
    said = subprocess.run(["sh", "-c", asked], capture_output=True, text=True, timeout=60, check=True).stdout
    assert '"matches":[{"id":"a"' in said
    assert '"vectors":{"a"' in said
    said = subprocess.run(["sh", "-c", repeated], capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.count('"upsertedCount":1') == 2
    body = {"filter": {"n": 2}, "setMetadata": {"n": 2}, "dryRun": True}
    with Client(server.url) as client:
        headers = {"x-freshet-consistency": "strong"}
        shown = client.call("POST", "/i/movies/vectors/update", body, headers=headers)
    assert shown == {"matchedRecords": 1}
