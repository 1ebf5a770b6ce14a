"""Both generations of gRPC clients, by name and by host, without TLS and with it; REST clients and curl with TLS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from compose.client import Client as Door
from tests.clients.catalogue import GRPC, GRPC_BARE_HOSTS, TLS
from tests.clients.page import run_examples
from tests.clients.walking import count, emptied, walk
from tests.support.freshet import Freshet
from tests.support.ports import free_ports

pytestmark = [pytest.mark.clients, pytest.mark.timeout(1_200)]


@dataclass
class SecureFreshet(Freshet):
    """`freshet up` that serves TLS; `authority` is the file of the certificate that clients trust."""

    authority: Path = Path()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secure")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    settings = {
        "FRESHET_INDEX_PORTS": ",".join(map(str, free_ports(5))),
        "FRESHET_TLS_CERTIFICATE": str(folder / "certificate.pem"),
        "FRESHET_TLS_KEY": str(folder / "key.pem"),
    }
    with SecureFreshet(folder, settings, authority=folder / "authority.pem") as server:
        yield server


@pytest.fixture
def secure_server(secure):
    yield from emptied(secure, open_door(secure))


def open_door(server: SecureFreshet) -> Door:
    return Door(server.url, ssl.create_default_context(cafile=server.authority))


def trusting(server: SecureFreshet) -> dict[str, str]:
    """Return how each client is told whom to trust; the program of generation 8 passes it on as an argument."""
    names = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "FRESHET_CA")
    return dict.fromkeys(names, str(server.authority))


@pytest.mark.parametrize("client", GRPC, ids=lambda client: client.title)
def test_client_takes_every_step_over_grpc(client, server, tmp_path, request):
    """What REST answers, gRPC answers: the guide and all operations on records, with the float32 of the message."""
    count(request, client.title, walk(client, server, tmp_path, PINECONE_GRPC_SCHEME="http"))


def test_older_client_takes_every_step_by_name_where_hosts_have_no_scheme(tmp_path, request):
    """The setting that leaves the scheme out of hosts makes names work for grpcio; REST clients would want TLS then."""
    ports = ",".join(map(str, free_ports(5)))
    with Freshet(tmp_path, {"FRESHET_INDEX_PORTS": ports, "FRESHET_HOST_TEMPLATE": "localhost:{port}"}) as server:
        count(request, GRPC_BARE_HOSTS.title, walk(GRPC_BARE_HOSTS, server, tmp_path))


@pytest.mark.parametrize("client", TLS, ids=lambda client: client.title)
def test_client_takes_every_step_under_tls(client, secure_server, tmp_path, request):
    """With a certificate that it trusts a client needs no further setting, on either transport."""
    count(request, client.title, walk(client, secure_server, tmp_path, **trusting(secure_server)))


def test_examples_of_the_page_run_under_tls(secure_server, tmp_path, request):
    """With a certificate even the https of the page's curl examples stays."""
    with open_door(secure_server) as door:
        trusted = {"CURL_CA_BUNDLE": str(secure_server.authority)}
        count(request, "curl TLS", run_examples(secure_server, door, tmp_path, **trusted))
