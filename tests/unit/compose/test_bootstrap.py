"""What `.venv` is made of: the lock's blocks, the flags of the compiled package, the stamp."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from compose.bootstrap import (
    BUILD,
    bodies_command,
    compiler_variables,
    engine_command,
    library_headers,
    lock_blocks,
    stamp_of,
)
from indexer.segments.graph import GraphOptions, encode_codes
from indexer.segments.native import SCAN, WALK, Engine, NativeGraph, slices_of
from schemas.indexes import Metric

ROOT = Path(__file__).resolve().parents[3]
LOCK = (ROOT / "requirements.lock").read_text()


def test_lock_is_split_into_blocks_that_join_to_the_whole():
    """No line of the lock gets lost, and every package has its hashes."""
    blocks = lock_blocks(LOCK)
    assert LOCK.endswith("".join(blocks.values()))
    assert all("--hash=sha256:" in block for block in blocks.values())
    assert {"uv", "ziglang", "hnswlib", "hatchling", "pybind11", "setuptools", "wheel", "numpy"} <= set(blocks)


def test_lock_names_no_address():
    """Where packages come from is the business of whoever installs them."""
    assert "://" not in LOCK


def test_lock_pins_what_the_project_asks_for():
    """The lock was made after the last change of the dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"].values()
    asked = [*project["project"]["dependencies"], *(each for group in groups for each in group)]
    blocks = lock_blocks(LOCK)
    for requirement in asked:
        name, _, version = requirement.partition("==")
        name = name.partition("[")[0].partition(">")[0]
        assert name in blocks
        if version:
            assert blocks[name].startswith(f"{name}=={version} "), requirement


@pytest.mark.parametrize(("machine", "flag"), [("x86_64", "-march=x86-64-v3"), ("aarch64", "-march=armv8-a")])
def test_graph_library_is_built_for_every_processor_of_the_family(machine, flag):
    """A cached build never carries instructions of the one machine that made it."""
    variables = compiler_variables(machine, zig_python=None)
    assert variables["HNSWLIB_NO_NATIVE"] == "1"
    assert flag in variables["CXXFLAGS"]
    assert "native" not in variables["CXXFLAGS"]


def test_without_a_compiler_the_one_of_a_package_is_used():
    """The flags are spelled for it."""
    variables = compiler_variables("x86_64", zig_python=Path("python"))
    assert variables["CXX"] == "python -m ziglang c++"
    assert variables["CXXFLAGS"] == "-O3 -mcpu=x86_64_v3"


@pytest.mark.parametrize("zig_python", [None, Path("python")])
def test_native_code_is_compiled_with_the_flags_and_the_compiler_of_the_graph_library(zig_python):
    """One processor family for both, and one compiler."""
    variables = compiler_variables("x86_64", zig_python=zig_python)
    for command in (engine_command(variables, "g++", Path("headers")), bodies_command(variables, "g++")):
        assert command[0] == ("python" if zig_python else "g++")
        assert set(variables["CXXFLAGS"].split()) <= set(command)
        assert Path(command[-1]).is_file()


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_engine_of_the_packaged_compiler_builds_and_searches(tmp_path):
    """Where there is no compiler, the pinned one makes an engine that finds every row; its first run takes minutes."""
    headers = library_headers()
    if headers is None:
        pytest.skip("the graph library's headers are not there: `make venv` fetches them")
    (tmp_path / "zig.txt").write_text(lock_blocks(LOCK)["ziglang"])
    home, output = tmp_path / "zig", tmp_path / "engine.so"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    python = home / "bin" / "python"
    install = ("pip", "install", "-q", "--python", python, "--no-deps", "--require-hashes", "-r", tmp_path / "zig.txt")
    subprocess.run([BUILD / "uv" / "bin" / "uv", *install], check=True)
    command = engine_command(compiler_variables(platform.machine(), zig_python=python), "", headers, output)
    subprocess.run(command, check=True)
    engine = Engine(output)
    vectors = np.random.default_rng(1).standard_normal((500, 24)).astype(np.float32)
    norms = np.einsum("ij,ij->i", vectors, vectors)
    with engine.builder(vectors, Metric.COSINE, GraphOptions(threads=2), rows=500) as builder:
        builder.add(np.arange(500, dtype=np.uint32))
        graph = NativeGraph(engine, builder.links(), 500, 0, encode_codes(vectors))
    for plan in (SCAN, WALK):
        numbers = (500, 500, plan, 100, 2**32 - 1)
        places = (vectors.ctypes.data, norms.ctypes.data, 0, graph.address, graph.codes_address)
        slices = slices_of([(*places, *numbers)])
        assert [engine.search(slices, query, Metric.COSINE, 1)[0]["row"][0] for query in vectors] == list(range(500))


def test_stamp_changes_with_what_the_environment_is_made_from(tmp_path):
    """A new lock makes a new environment, another tool setting does not."""
    (tmp_path / "compose").mkdir()
    for name in ("requirements.lock", "pyproject.toml", "compose/bootstrap.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    first = stamp_of(tmp_path)
    with (tmp_path / "pyproject.toml").open("a") as project:
        project.write("\n[tool.other]\nx = 1\n")
    assert stamp_of(tmp_path) == first
    for folder, name in (("indexer/segments/cpp", "engine.cpp"), ("query_api/rest/cpp", "bodies.cpp")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / name).write_text("// changed")
        assert stamp_of(tmp_path) != first
        first = stamp_of(tmp_path)
    with (tmp_path / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert stamp_of(tmp_path) != first
