"""docs/compatibility.md tells the truth: every row names a test that exists; no route and no client is without one."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from query_api.grpc.service import VectorService
from tests.clients.catalogue import FRAMEWORKS, GENERATIONS, GRPC, NEWEST, TLS
from tests.docs_tables import routes

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "compatibility.md").read_text()
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::([^`]+)`$")


def rows(page: str) -> list[list[str]]:
    """Return the cells of every row of every table of a page, without the titles."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    found = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    titles = [number - 1 for number, cells in enumerate(found) if set("".join(cells)) <= {"-"}]
    return [cells for number, cells in enumerate(found) if not {number, number - 1} & set(titles)]


def named_tests(page: str) -> list[tuple[str, str]]:
    """Return file and name of the test that each row names. Raises `AssertionError` for a row that names none."""
    named = [_NAMED.fullmatch(cells[-1]) for cells in rows(page)]
    nameless = [cells for cells, match in zip(rows(page), named, strict=True) if match is None]
    assert not nameless, f"these rows name no test as `path::name`: {nameless}"
    return [(match[1], match[2]) for match in named if match is not None]


def routes_of(page: str) -> set[tuple[str, str]]:
    """Return method and path of the rows that are about a route."""
    cells = [tuple(cell.strip("`") for cell in row[:2]) for row in rows(page)]
    return {(method, path) for method, path in cells if re.fullmatch("[A-Z]+", method) and path.startswith("/")}


def collected(files: Iterable[str]) -> set[str]:
    """Return the ids of all tests in files, with and without what they are parametrised by."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    ids = {line for line in done.stdout.splitlines() if "::" in line}
    return ids | {each.partition("[")[0] for each in ids}


def missing(page: str) -> set[str]:
    """Return the tests that rows name and that do not exist."""
    named = named_tests(page)
    gone = {file for file, _ in named if not (ROOT / file).exists()}
    known = collected(sorted({file for file, _ in named} - gone))
    return {f"{file}::{name}" for file, name in named if f"{file}::{name}" not in known}


@pytest.mark.timeout(1_200)
def test_every_row_names_a_test_that_exists():
    """Nothing is promised that no test holds."""
    assert missing(PAGE) == set()


def test_every_route_has_a_row_and_every_row_a_route():
    """A route that is added says here which test is its own; one that went takes its row along."""
    assert routes_of(PAGE) == {(method, path) for method, path, _ in routes()}


def test_every_grpc_method_that_is_served_has_a_row():
    """The service's methods are those of its table."""
    named = {cells[0].strip("`") for cells in rows(PAGE.partition("## gRPC methods")[2].partition("\n## ")[0])}
    # What a method answers does not matter here, so it gets neither reads nor writes.
    assert named == set(VectorService(None, None).methods)


@pytest.mark.parametrize("client", [*NEWEST, *GENERATIONS, *GRPC, *TLS, *FRAMEWORKS], ids=lambda client: client.title)
def test_every_client_has_a_row(client):
    """What is run is told."""
    assert f"[{client.title}]`" in PAGE


@pytest.mark.timeout(1_200)
def test_planted_rows_are_found():
    """A row without a test, with a test that is not there, or about a route that is not there is not taken for true."""
    row = "| `POST` | `/query` | `tests/contract/test_api_rest.py::TestRest::test_query_gives_what_is_asked_for` |"
    assert row in PAGE
    with pytest.raises(AssertionError, match="name no test"):
        named_tests(PAGE.replace(row, "| `POST` | `/query` | by hand |"))
    planted = PAGE.replace(row, row.replace("test_query_gives", "test_query_takes"))
    assert missing(planted) == {"tests/contract/test_api_rest.py::TestRest::test_query_takes_what_is_asked_for"}
    assert ("POST", "/query") not in routes_of(PAGE.replace(row, ""))
    assert ("GET", "/gone") in routes_of(PAGE.replace(row, row.replace("`POST` | `/query`", "`GET` | `/gone`")))
