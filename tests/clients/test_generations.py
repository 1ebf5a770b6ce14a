"""Every older generation of the official clients walks through as much of the surface as it knows."""

from __future__ import annotations

import pytest

from tests.clients.catalogue import GENERATIONS
from tests.clients.walking import count, walk

pytestmark = [pytest.mark.clients, pytest.mark.timeout(1_200)]


@pytest.mark.parametrize("client", GENERATIONS, ids=lambda client: client.title)
def test_client_takes_every_step(client, server, tmp_path, request):
    """An unmodified client, told nothing but the host, gets from every operation what it should."""
    count(request, client.title, walk(client, server, tmp_path))
