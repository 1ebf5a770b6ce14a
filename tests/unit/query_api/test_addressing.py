"""An index is reached by its own port, by a path, and by the first label of the host name."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest


@pytest.fixture
def name(server, http, host):
    """Name of the index behind `host`."""
    listed = http.get(f"{server.url}/indexes").json()["indexes"]
    return next(one["name"] for one in listed if one["host"] == host)


def test_three_ways_lead_to_one_index(server, http, host, name, space):
    """What one way writes, the others read."""
    body = {"vectors": [{"id": "a", "values": [1, 2, 3, 4]}], "namespace": space}
    answer = http.post(f"{host}/vectors/upsert", json=body, headers={"x-freshet-wait-visible-ms": "9000"})
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
    taken = {urlsplit(one["host"]).port for one in http.get(f"{server.url}/indexes").json()["indexes"]}
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
