"""The newest official clients, and curl, walk through the surface, the "Upsert data" guide first."""

from __future__ import annotations

import pytest

from compose.client import Client as Door
from tests.clients.catalogue import NEWEST
from tests.clients.page import run_examples
from tests.clients.walking import count, walk


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("client", NEWEST, ids=lambda client: client.title)
def test_client_takes_every_step(client, server, tmp_path, request):
    """An unmodified client, told nothing but the host, gets from every operation what it should."""
    count(request, client.title, walk(client, server, tmp_path))


def test_curl_examples_of_the_page_run_as_they_stand(server, tmp_path, request):
    """Each example is run by a shell, letter by letter; only https, which needs a certificate, is http here."""
    with Door(server.url) as door:
        count(request, "curl", run_examples(server, door, tmp_path))
