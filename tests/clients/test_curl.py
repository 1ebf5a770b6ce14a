"""The curl examples of the "Upsert data" guide, as they stand on the page."""

from __future__ import annotations

from compose.client import Client as Door
from tests.clients.page import run_examples
from tests.clients.walking import count


def test_examples_of_the_page_run_as_they_stand(server, tmp_path, request):
    """Each example is run by a shell, letter by letter; only https, which needs a certificate, is http here."""
    with Door(server.url) as door:
        count(request, "curl", run_examples(server, door, tmp_path))
