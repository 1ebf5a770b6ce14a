"""The newest official clients walk through the whole surface, the "Upsert data" guide first."""

from __future__ import annotations

import pytest

from tests.clients.catalogue import NEWEST
from tests.clients.walking import count, walk


@pytest.mark.timeout(600)
@pytest.mark.parametrize("client", NEWEST, ids=lambda client: client.title)
def test_client_takes_every_step(client, server, tmp_path, request):
    """An unmodified client, told nothing but the host, gets from every operation what it should."""
    count(request, client.title, walk(client, server, tmp_path))
