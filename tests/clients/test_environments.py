"""Clients are what their pinned hashes say, a missing one is told apart from a broken one, and none is made twice."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.catalogue import ENVIRONMENTS, PYTHON_3, TYPESCRIPT_9, Environment
from tests.clients.environments import BrokenEnvironment, NoClient, prepared
from tests.clients.walking import have

pytestmark = [pytest.mark.clients, pytest.mark.timeout(1_200)]

# Nobody listens on the discard port of this machine.
NOWHERE = {
    "UV_INDEX_URL": "http://127.0.0.1:9/simple",
    "UV_FIND_LINKS": "",
    "UV_NO_CACHE": "1",
    "UV_HTTP_RETRIES": "0",
    "npm_config_registry": "http://127.0.0.1:9/",
    "npm_config_fetch_retries": "0",
}
BOTH = pytest.mark.parametrize("environment", [PYTHON_3, TYPESCRIPT_9], ids=lambda one: one.kind)


@dataclass(frozen=True)
class Planted(Environment):
    """An environment with a lock of the test's."""

    planted: Path = Path()

    @property
    def lock(self) -> Path:
        return self.planted


@BOTH
def test_a_package_with_another_hash_is_a_failure_and_no_skip(environment, tmp_path):
    """What a registry gives must be what was pinned; otherwise no client is installed."""
    have(environment)
    lock = tmp_path / "lock.txt"
    lock.write_text(re.sub(r"(sha256:|sha512-)\S{8}", r"\g<1>00000000", environment.lock.read_text()))
    planted = Planted(environment.name, environment.kind, environment.packages, lock)
    with pytest.raises(BrokenEnvironment, match=r"(?i)hash|integrities"):
        prepared(planted, tmp_path / "cache")
    assert not (tmp_path / "cache" / environment.name / "stamp").exists()


@BOTH
def test_a_registry_that_does_not_answer_means_no_client(environment, tmp_path):
    """Then the client's tests are skipped with a loud line, or fail where clients are required."""
    settings = {**NOWHERE, "npm_config_cache": str(tmp_path / "npm")}
    with pytest.raises(NoClient, match="cannot reach its registry"):
        prepared(environment, tmp_path / "cache", settings)


@BOTH
def test_a_second_run_installs_nothing(environment):
    """The environment is kept: nothing is asked of any registry."""
    made = have(environment)
    before = (made / "stamp").stat()
    assert prepared(environment, settings=NOWHERE) == made
    assert (made / "stamp").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda one: one.name)
def test_every_lock_pins_its_packages_and_names_no_host(environment):
    """Versions and digests are checked in, addresses are not."""
    text = environment.lock.read_text()
    assert "://" not in text
    for package in environment.packages:
        name, version = re.fullmatch(r"(@?[^=@\[]+)(?:\[.*\])?(?:==|@)(.+)", package).groups()
        assert re.search(rf"^{re.escape(name)}(==| ){re.escape(version)}[ \\]", text, re.MULTILINE), package
