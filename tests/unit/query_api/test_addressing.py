"""An index is reached by its own port, by a path, and by the first label of the host name."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from query_api.app import ApiOptions, host_of
from schemas.indexes import IndexSpec, Metric
from tests.support.api_server import PATIENT, ApiServer


@pytest.fixture
def name(server, http, host):
    """Name of the index behind `host`."""
    listed = http.get(f"{server.url}/indexes").json()["indexes"]
    return next(one["name"] for one in listed if one["host"] == host)


def test_three_ways_lead_to_one_index(server, http, host, name, space):
    """What one way writes, the others read."""
    body = {"vectors": [{"id": "a", "values": [1, 2, 3, 4]}], "namespace": space}
    answer = http.post(f"{host}/vectors/upsert", json=body, headers={"x-freshet-wait-visible-ms": "20000"})
    assert answer.json()["visible"] is True
    fetch = f"/vectors/fetch?ids=a&namespace={space}"
    ways = [
        http.get(f"{host}{fetch}"),
        http.get(f"{server.url}/i/{name}{fetch}"),
        http.get(f"{server.url}{fetch}", headers={"host": f"{name}.example.com"}),
        http.get(f"{server.url}{fetch}", headers={"host": f"{name}.example.com:5080"}),
    ]
    assert [list(way.json()["vectors"]) for way in ways] == [["a"]] * 4
    listed = http.get(f"{server.url}/i/{name}/vectors/list?namespace={space}").json()["vectors"]
    assert listed == [{"id": "a"}]
    assert http.get(f"{server.url}/i/{name}/namespaces/{space}").json()["record_count"] == 1


def test_a_port_without_index_is_not_found(server, http):
    """404 in the data plane's words."""
    # Clients without a version are not told of sparse indexes.
    listed = http.get(f"{server.url}/indexes", headers={"x-pinecone-api-version": "2025-10"}).json()["indexes"]
    taken = {urlsplit(one["host"]).port for one in listed}
    port = next(port for port in server.ports[1:] if port not in taken)
    answer = http.get(f"http://localhost:{port}/describe_index_stats")
    assert answer.status_code == 404
    assert answer.json()["code"] == 5
    assert str(port) in answer.json()["message"]


def test_a_path_to_an_index_that_does_not_exist_is_not_found(server, http):
    """404 with its name, for hot routes and others."""
    for path in ("/i/missing/query", "/i/missing/describe_index_stats", "/i/missing"):
        answer = http.post(f"{server.url}{path}", json={})
        assert answer.status_code == 404
        assert "missing" in answer.json()["message"]


def test_a_route_of_an_index_without_index_says_how_to_address_one(server, http):
    """The control plane's port has no vectors."""
    answer = http.post(f"{server.url}/query", json={})
    assert answer.status_code == 404
    assert "/i/<index>/" in answer.json()["error"]["message"]


def test_an_index_called_like_the_machine_does_not_hide_the_control_plane(server, http, name):
    """Paths of the control plane are its own, whatever the host name."""
    headers = {"host": f"{name}.example.com"}
    assert "indexes" in http.get(f"{server.url}/indexes", headers=headers).json()
    assert http.get(f"{server.url}/healthz", headers=headers).status_code == 200
    assert http.get(f"{server.url}/describe_index_stats", headers=headers).json()["dimension"] == 4


def test_an_index_has_a_port_of_its_own(server, http, host):
    """One of those the server offers, and the host says so."""
    hosts = [one["host"] for one in http.get(f"{server.url}/indexes").json()["indexes"]]
    ports = [urlsplit(one).port for one in hosts]
    assert len(set(hosts)) == len(hosts)
    assert host in hosts
    assert set(ports) <= {*server.ports}


@pytest.mark.parametrize(
    ("template", "port", "expected"),
    [
        ("http://localhost:{port}", 5081, "http://localhost:5081"),
        ("http://localhost:{control_port}/i/{name}", 5081, "http://localhost:5080/i/movies"),
        ("https://{name}.example.com", 5081, "https://movies.example.com"),
        ("vectors.internal:{port}", 5081, "vectors.internal:5081"),
        ("http://localhost:{port}", 0, "http://proxy/i/movies"),
        ("http://localhost:{port}", 6000, "http://proxy/i/movies"),
    ],
)
def test_an_index_is_described_with_the_host_of_the_template(template, port, expected):
    """By port, by path or by label; by the other template where the index has no port of this server."""
    options = ApiOptions(
        5080, index_ports=(5081,), host_template=template, portless_host_template="http://proxy/i/{name}"
    )
    spec = IndexSpec("movies", "L" * 22, 1, 4, Metric.COSINE, port=port)
    assert host_of(spec, options) == expected


def test_each_form_of_a_described_host_leads_to_the_index(tmp_path, http):
    """What `describe_index` returns can be used as it is, path included; a label by whoever resolves it."""
    for template in (
        "http://localhost:{port}",
        "http://localhost:{control_port}/i/{name}",
        "http://{name}.example.com",
    ):
        folder = tmp_path / str(len(template))
        folder.mkdir()
        with ApiServer(folder, replace(PATIENT, host_template=template), index_ports=2) as server:
            made = http.post(f"{server.url}/indexes", json={"name": "movies", "dimension": 4}).json()
            host, headers = made["host"], {}
            if host == "http://movies.example.com":
                # As a proxy sends it on.
                host, headers = server.url, {"host": "movies.example.com"}
            stats = http.post(f"{host}/describe_index_stats", json={}, headers=headers)
            assert stats.json()["dimension"] == 4, (made["host"], stats.text)
            body = {"vectors": [{"id": "a", "values": [1, 2, 3, 4]}]}
            assert http.post(f"{host}/vectors/upsert", json=body, headers=headers).json() == {"upsertedCount": 1}
