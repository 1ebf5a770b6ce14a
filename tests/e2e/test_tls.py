"""Both doors under TLS, with an authority of the test's own; and gRPC on ports that several processes share."""

from __future__ import annotations

import socket
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx2
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from pinecone import Pinecone

from tests.support.freshet import Freshet, records, run
from tests.support.grpc_client import GrpcClient

DEMO = {"name": "demo", "dimension": 4, "metric": "cosine", "spec": {"serverless": {"cloud": "aws", "region": "here"}}}


@dataclass(frozen=True)
class Files:
    authority: Path
    certificate: Path
    key: Path

    @property
    def settings(self) -> dict[str, str]:
        return {"FRESHET_TLS_CERTIFICATE": str(self.certificate), "FRESHET_TLS_KEY": str(self.key)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A certificate for localhost."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    made = Files(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    authority.cert_pem.write_to_path(made.authority)
    for blob in issued.cert_chain_pems:
        blob.write_to_path(made.certificate, append=True)
    issued.private_key_pem.write_to_path(made.key)
    return made


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two processes"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, files: Files) -> Iterator[Freshet]:
    settings = {**files.settings, "FRESHET_API_WORKERS": str(request.param)}
    made = Freshet(tmp_path_factory.mktemp("up"), settings)
    with made:
        assert made.cli("indexes", "create", "demo", "--dimension", "4").returncode == 0
        yield made


@pytest.fixture(scope="module")
def host(server: Freshet, files: Files) -> str:
    trusting = ssl.create_default_context(cafile=str(files.authority))
    with httpx2.Client(verify=trusting) as client:
        answer = client.get(f"https://localhost:{server.port}/indexes/demo").json()
    return answer["host"]


def trusting(files: Files) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(files.authority))


def test_describe_index_gives_a_host_under_tls(host: str) -> None:
    """So that a client that is told a host need not be told a scheme."""
    assert host.startswith("https://localhost:")


def test_rest_and_grpc_are_served_under_tls_on_one_port(host: str, files: Files) -> None:
    """What one door wrote the other shows, over new connections too, whichever process takes them."""
    target = host.removeprefix("https://")
    credentials = grpc.ssl_channel_credentials(files.authority.read_bytes())
    with httpx2.Client(verify=trusting(files), base_url=host, timeout=30) as http:
        written = http.post("/vectors/upsert", json={"vectors": records(5)})
        assert written.status_code == 200, written.text
        seen = {"x-freshet-at-least": written.headers["x-freshet-position"], "x-freshet-wait-ms": "20000"}
        for _ in range(12):
            alone = (("grpc.use_local_subchannel_pool", 1),)
            with GrpcClient(target, credentials=credentials, options=alone) as client:
                answer, _ = client.call("Query", {"vector": [1, 2, 4, 1], "topK": 1}, seen)
                assert [match["id"] for match in answer["matches"]] == ["r2"]
                body = {"vectors": [{"id": "late", "values": [9, 9, 9, 9]}]}
                _, told = client.call("Upsert", body, {"x-freshet-wait-visible-ms": "20000"})
                assert told["x-freshet-visible"] == "true"
        fetched = http.get("/vectors/fetch", params={"ids": "late"}, headers={"x-freshet-wait-ms": "20000"}).json()
        assert list(fetched["vectors"]) == ["late"]


def test_the_official_client_goes_by_name_over_both_doors(
    server: Freshet, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the authority in SSL_CERT_FILE nothing else has to be said."""
    monkeypatch.setenv("SSL_CERT_FILE", str(files.authority))
    monkeypatch.delenv("PINECONE_GRPC_SCHEME", raising=False)
    with Pinecone(api_key="any", host=f"https://localhost:{server.port}") as client:
        by_grpc = client.index(name="demo", grpc=True)
        assert by_grpc.upsert(vectors=[("official", [1.0, 2.0, 3.0, 5.0])], namespace="official").upserted_count == 1
        with client.Index("demo") as by_rest:
            assert by_rest.upsert(vectors=[("other", [5.0, 2.0, 3.0, 5.0])], namespace="official").upserted_count == 1
        by_grpc.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("offered", "agreed"), [(["h2"], "h2"), (["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "h2")]
)
def test_versions_are_agreed_upon(
    server: Freshet, files: Files, version: ssl.TLSVersion, offered: list[str], agreed: str
) -> None:
    """TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN."""
    context = trusting(files)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(offered)
    with (
        socket.create_connection(("127.0.0.1", server.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        assert secured.selected_alpn_protocol() == agreed


def test_what_is_not_trusted_is_not_spoken_to(server: Freshet, host: str) -> None:
    """Neither plain words to a port under TLS, nor a client that does not know the authority, nor TLS 1.1."""
    with pytest.raises(httpx2.TransportError):
        httpx2.get(host.replace("https://", "http://"), timeout=10)
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(host, timeout=10)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        # That this version is of the past is the point.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", server.port), 10) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", server.port), 10) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        plain.settimeout(10)
        assert not plain.recv(1_024).startswith(b"HTTP")


def test_commands_trust_the_server_of_their_own_settings(server: Freshet, tmp_path: Path) -> None:
    """Reading, and loading a file."""
    stats = server.cli("stats", "--index", "demo", "--json")
    assert stats.returncode == 0, stats.stderr
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "loaded", "values": [1, 2, 3, 4]}\n')
    loaded = server.cli("load", str(rows), "--index", "demo", "--namespace", "loaded")
    assert loaded.returncode == 0, loaded.stderr


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (("missing.pem", "server.key"), "Cannot read tls_certificate"),
        (("server.pem", "missing.key"), "Cannot read tls_key"),
        (("server.pem", "other.key"), "key values mismatch"),
        (("text.pem", "server.key"), "Both must be PEM files"),
        (("server.pem", "text.pem"), "Both must be PEM files"),
        (("server.pem", "locked.key"), "the key unencrypted"),
        (("server.pem", ""), "tls_key"),
        (("", "server.key"), "tls_certificate"),
    ],
)
def test_files_that_cannot_be_used_are_told_at_start(
    files: Files, tmp_path: Path, pair: tuple[str, str], words: str
) -> None:
    """One line, exit code 78, nothing left running, and no question on the terminal."""
    folder = files.authority.parent
    (folder / "text.pem").write_text("this is no PEM file\n")
    (folder / "other.key").write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes())
    lock_key(files.key, folder / "locked.key")
    env = {"FRESHET_DATA_DIR": str(tmp_path / "data"), "FRESHET_PORT": "1"}
    certificate, key = pair
    env |= {"FRESHET_TLS_CERTIFICATE": str(folder / certificate)} if certificate else {}
    env |= {"FRESHET_TLS_KEY": str(folder / key)} if key else {}
    # Which of the two tells makes no difference; a few of both.
    done = run("up" if len(words) % 2 else "serve", env=env, cwd=tmp_path)
    assert done.returncode == 78
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def lock_key(key: Path, where: Path) -> None:
    """Write a key anew, encrypted by a password."""
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    where.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
