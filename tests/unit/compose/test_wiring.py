"""Wiring: the parts of each process, and the steps at which tests end it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from compose.config import load_settings
from compose.holding import run_directory
from compose.wiring import api_parts, catalog_at_rest, crash_step, is_embedded, open_logs
from producer.keys import create_key, new_key
from producer.log.kafka import KafkaLogs
from producer.log.sqlite import SqliteLogs
from producer.steps import no_step
from schemas.errors import ConfigError
from schemas.keys import Role


def test_log_is_chosen_by_its_address():
    """`sqlite://` is the embedded log, `kafka://` the topics of a cluster."""
    embedded = load_settings(overrides={"log": "sqlite://"}).settings
    kafka = load_settings(overrides={"log": "kafka://a:9092,b:9092"}).settings
    assert is_embedded(embedded)
    assert not is_embedded(kafka)
    assert isinstance(open_logs(embedded, step=no_step), SqliteLogs)
    assert isinstance(open_logs(kafka, step=no_step), KafkaLogs)


def test_run_directory_is_private_short_and_the_same_for_all(tmp_path, monkeypatch):
    """Every process of a data directory finds the same folder, which others can't read."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    folder = run_directory(deep)
    assert folder == run_directory(deep.parent / "." / deep.name)
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(folder.name) < 50
    assert folder != run_directory(tmp_path / "other")


def test_run_directory_that_is_open_to_others_is_refused(tmp_path, monkeypatch):
    """A folder that somebody prepared is not trusted."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    run_directory(tmp_path / "data").chmod(0o777)
    with pytest.raises(ConfigError, match="open to others"):
        run_directory(tmp_path / "data")


@pytest.mark.parametrize(("crash_at", "passed"), [("a", 0), ("a:1", 0), ("a:3", 2)])
def test_crash_step_kills_at_the_nth_passing(crash_at, passed):
    """The process ends by SIGKILL exactly there, and other steps don't count."""
    program = (
        "import sys; from compose.wiring import crash_step\n"
        f"step = crash_step({crash_at!r})\n"
        "for n in range(9):\n"
        "    step('b'); step('a'); sys.stdout.write(str(n)); sys.stdout.flush()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "".join(map(str, range(passed)))


def test_no_crash_step_does_nothing():
    """Without the setting no step does anything."""
    assert crash_step("") is no_step
    crash_step("x:5")("x")
    assert os.getpid() > 0


async def parts_of(settings):
    async with api_parts(settings, index_ports=()) as parts:
        return parts.options


def test_address_that_others_reach_is_served_once_there_is_a_key(tmp_path):
    """Without any key the API does not start there, and says what to do; with one it does, and is never open."""
    chosen = {"data_dir": tmp_path / "data", "bind": "192.0.2.1"}
    settings = load_settings(overrides=chosen).settings
    with pytest.raises(ConfigError, match="freshet keys create"):
        asyncio.run(parts_of(settings))
    open_to_all = load_settings(overrides={**chosen, "bind_without_keys": "true"}).settings
    assert asyncio.run(parts_of(open_to_all)).is_open_without_keys

    async def make() -> None:
        async with catalog_at_rest(settings) as catalog:
            await create_key(catalog, new_key(Role.ADMIN, created_ms=1)[1])

    asyncio.run(make())
    assert not asyncio.run(parts_of(settings)).is_open_without_keys


def test_limits_reach_those_who_obey_them(tmp_path):
    """Rates, requests at a time and bounds of indexes are settings."""
    limits = {"query_rate_max": "2.5", "requests_in_flight_max": "9", "index_records_max": "7", "index_bytes_max": "8"}
    options = asyncio.run(parts_of(load_settings(overrides={"data_dir": tmp_path, **limits}).settings))
    assert (options.rates.query, options.rates.upsert, options.requests_in_flight_max) == (2.5, 0, 9)
    assert (options.bounds.max_records, options.bounds.max_bytes) == (7, 8)
