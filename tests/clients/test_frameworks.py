"""Frameworks' own Pinecone stores, unchanged, over an embedding whose answers are known beforehand."""

from __future__ import annotations

import pytest

from tests.clients.catalogue import FRAMEWORKS
from tests.clients.walking import count, walk

pytestmark = [pytest.mark.clients, pytest.mark.timeout(1_200)]


@pytest.mark.parametrize("client", FRAMEWORKS, ids=lambda client: client.title)
def test_store_takes_every_step(client, server, tmp_path, request):
    """Adding, searching with scores and filters, retrievers and deleting work as on the hosted service."""
    count(request, client.title, walk(client, server, tmp_path))
