"""Generated code is what the generator makes of the sources beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = (ROOT / "query_api" / "grpc", ROOT / "schemas" / "pb")
PROTOS = sorted(path.relative_to(ROOT).as_posix() for place in PLACES for path in place.glob("*.proto"))


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """Return the folder into which the classes were generated afresh."""
    where = tmp_path_factory.mktemp("generated")
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={where}", f"--pyi_out={where}"]
    subprocess.run([*command, *PROTOS], cwd=ROOT, check=True, capture_output=True)
    return where


def test_there_are_sources():
    """Guards the test below against looking at nothing."""
    assert PROTOS


@pytest.mark.parametrize("proto", PROTOS)
def test_committed_classes_equal_a_fresh_run(generated, proto):
    """Nobody edits generated code, and nobody forgets to generate it (`make proto`)."""
    for suffix in ("_pb2.py", "_pb2.pyi"):
        name = proto.removesuffix(".proto") + suffix
        assert (ROOT / name).read_text() == (generated / name).read_text(), f"{name} is stale: run `make proto`"


def test_every_generated_file_has_its_source():
    """No class outlives the message it was made from."""
    made = {path.name.partition("_pb2")[0] for place in PLACES for path in place.glob("*_pb2.py*")}
    assert made == {Path(proto).stem for proto in PROTOS}
