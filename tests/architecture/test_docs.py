"""The README's tables of settings, routes, errors and metrics equal the code; its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from compose.config import Loaded, Settings, load_settings
from tests.docs_tables import EXAMPLE, TABLES, example_settings, filled, named_tables

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


def test_example_settings_equal_the_code(tmp_path):
    """The example names every setting with its default, and is accepted when all of it is switched on."""
    text = EXAMPLE.read_text()
    assert text == example_settings(), "compose/settings.example.toml is stale: run `make docs`"
    switched_on = tmp_path / "freshet.toml"
    switched_on.write_text(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE))
    loaded = load_settings(switched_on)
    assert loaded.effective() == Loaded(Settings(), {}).effective()
    assert set(loaded.sources.values()) == {str(switched_on)}


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
