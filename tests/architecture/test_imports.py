"""Which room may import which: the contracts of `pyproject.toml`, and that each of them bites."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
PACKAGES = tuple(CONFIG["root_packages"])
CONTRACTS = {contract["id"]: contract["name"] for contract in CONFIG["contracts"]}
# For each contract the module to plant and the import that it must not have.
VIOLATIONS = {
    "upstream": ("producer/planted_upstream.py", "import indexer.snapshots"),
    "pure-schemas": ("schemas/planted_pure.py", "import asyncio"),
    "reading": ("query_api/planted_reading.py", "import indexer.worker"),
    "pure-policies": ("indexer/fold.py", "import time"),
    "choice-of-log": ("query_api/planted_choice.py", "import producer.log.sqlite"),
    "codecs": ("producer/planted_codecs.py", "from schemas.pb import event_pb2"),
    "codecs-grpc": ("query_api/planted_grpc.py", "from query_api.grpc import vector_service_pb2"),
    "door-http2": ("query_api/planted_http2.py", "import zttp"),
    "door-sqlite": ("indexer/planted_sqlite.py", "import sqlite3"),
    "door-kafka": ("producer/planted_kafka.py", "import aiokafka"),
    "door-graph": ("query_api/planted_graph.py", "import hnswlib"),
    "door-pydantic": ("producer/planted_pydantic.py", "import pydantic"),
}


def lint(where: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=500, check=False)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Return what the linter says of a copy in which every contract is broken once."""
    where = tmp_path_factory.mktemp("planted")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, where / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", where)
    for path, line in VIOLATIONS.values():
        (where / path).write_text(f"{line}\n")
    return lint(where)


def test_imports_keep_every_contract():
    """Imports run upstream, schemas is pure, and each outside library has one door."""
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_contract_has_a_planted_violation():
    """A contract that was never seen failing proves nothing."""
    assert set(VIOLATIONS) == set(CONTRACTS)


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_planted_violation_breaks_its_contract(planted, contract):
    """Each contract is broken by an import that it forbids, and names the module at fault."""
    assert planted.returncode != 0
    assert re.search(rf"^{re.escape(CONTRACTS[contract])}\s+BROKEN", planted.stdout, re.MULTILINE), planted.stdout
    module = VIOLATIONS[contract][0].removesuffix(".py").replace("/", ".")
    assert module in planted.stdout
