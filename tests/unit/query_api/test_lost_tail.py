"""A log that ends below what was shown takes no writes until it is folded again; old positions mean nothing then."""

from __future__ import annotations

import shutil
import time

import httpx2
import pytest

from tests.support.api_server import ApiServer

WAITS = {"x-freshet-wait-visible-ms": "20000"}


def upsert(http, host, name, **headers):
    body = {"vectors": [{"id": name, "values": [1, 2, 3, 4]}], "namespace": "n"}
    return http.post(f"{host}/vectors/upsert", json=body, headers=headers)


def lose_two_of_three(data, copy):
    """Write a, b and c, and put the log back to where it held a; return host, ports, and the answer to the last."""
    with ApiServer(data) as server, httpx2.Client(timeout=30) as http:
        host = http.post(f"{server.url}/indexes", json={"name": "i", "dimension": 4}).json()["host"]
        assert upsert(http, host, "a", **WAITS).json()["visible"]
        ports = server.ports
    shutil.copytree(data, copy)
    with ApiServer(data, ports=ports) as server, httpx2.Client(timeout=30) as http:
        for name in "bc":
            lost = upsert(http, host, name, **WAITS)
            assert lost.json()["visible"]
    for file in copy.glob("log.sqlite*"):
        shutil.copy(file, data / file.name)
    return host, ports, lost


@pytest.mark.parametrize("level", ["strong", "bounded"])
def test_strong_and_bounded_reads_wait_until_a_restored_log_is_folded_again(tmp_path, level):
    """What is shown until then holds events that the log has lost, and lacks those that it may have got instead."""
    (tmp_path / "data").mkdir()
    host, ports, _ = lose_two_of_three(tmp_path / "data", tmp_path / "copy")
    headers = {"x-freshet-consistency": level, "x-freshet-wait-ms": "100"}
    if level == "bounded":
        headers["x-freshet-max-staleness-ms"] = "0"
    listed = f"{host}/vectors/list?namespace=n"
    with (
        ApiServer(tmp_path / "data", ports=ports, indexing=False) as server,
        httpx2.Client(timeout=30) as http,
    ):
        answer = http.get(listed, headers=headers)
        assert answer.status_code == 412, answer.text
        server.resume_indexing()
        answer = http.get(listed, headers={**headers, "x-freshet-wait-ms": "20000"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["vectors"] == [{"id": "a"}]


@pytest.mark.parametrize("first", ["write", "read"])
def test_a_restored_log_takes_no_writes_until_it_is_recovered(tmp_path, first):
    """Otherwise new acknowledged writes would get offsets that are never folded."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    data.mkdir()
    host, ports, lost = lose_two_of_three(data, copy)
    with ApiServer(data, ports=ports, indexing=False) as server, httpx2.Client(timeout=30) as http:
        if first == "read":
            assert http.get(f"{host}/vectors/fetch?ids=c&namespace=n").status_code == 200
        refused = upsert(http, host, "d")
        assert refused.status_code == 503, refused.text
        assert refused.json()["code"] == 14
        assert int(refused.headers["retry-after"]) >= 1
        assert "ends at 1, below the 3" in refused.json()["message"]
        server.resume_indexing()
        deadline = time.monotonic() + 30
        while (answer := upsert(http, host, "d", **WAITS)).status_code != 200:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.05)
        assert answer.json()["visible"] is True, answer.text
        listed = http.get(f"{host}/vectors/list?namespace=n").json()["vectors"]
        assert [item["id"] for item in listed] == ["a", "d"]
        old = {"x-freshet-at-least": lost.headers["x-freshet-position"]}
        foreign = http.get(f"{host}/vectors/fetch?ids=a&namespace=n", headers=old)
        assert foreign.status_code == 400, foreign.text
        assert foreign.json()["details"][0]["reason"] == "ForeignPosition"
        new = {"x-freshet-at-least": answer.headers["x-freshet-position"]}
        assert http.get(f"{host}/vectors/fetch?ids=a&namespace=n", headers=new).status_code == 200
