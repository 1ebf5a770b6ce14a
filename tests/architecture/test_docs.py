"""The README's tables of settings, routes, errors and metrics equal the code; its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs_tables import TABLES, filled, named_tables

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.fixture(scope="module")
def made():
    """Return the README as the code would have it."""
    return filled(README)


def test_readme_has_every_table():
    """Settings, routes, errors and metrics each have their place."""
    assert named_tables(README) == sorted(TABLES)


def test_tables_equal_the_code(made):
    """`make docs` changes nothing."""
    assert made == README, "README.md is stale: run `make docs`"


@pytest.mark.parametrize("name", TABLES)
def test_planted_stale_row_is_found(made, name):
    """A table that lacks one row of the code is not taken for true."""
    table = TABLES[name]()
    lines = table.splitlines(keepends=True)
    stale = made.replace(table, "".join(lines[:-1]))
    assert stale != made
    assert filled(stale) == made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    """Every relative link names a file of the repository."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
