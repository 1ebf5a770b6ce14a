"""The native engine with the sanitizers of its compiler, and a Python that runs with them."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from compose.bootstrap import BUILD, ENGINE_SOURCES, ROOT, compiler_variables, engine_command, find_compiler
from compose.bootstrap import library_headers as headers_of_library

__all__ = ["build_engine", "build_sanitized", "run_sanitized"]

# The library's prefetches name one link more than there is. What they read only says what to fetch: they stay out.
_FLAGS = (
    *("-O1", "-g", "-fno-omit-frame-pointer", "-DNO_MANUAL_VECTORIZATION"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
)
# What has to be there before the interpreter: the sanitizer, and what the sanitizer looks for when something is thrown.
_PRELOADED = ("libasan.so", "libstdc++.so.6")
# The interpreter leaks at its end, by design. Its own allocator would hide where an array ends.
_ENVIRONMENT = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1", "PYTHONMALLOC": "malloc"}


def build_engine(variables: dict[str, str], compiler: str, *flags: str) -> Path:
    """Compile the engine with more flags than usual, once for each state of its sources; skip where that fails."""
    headers = headers_of_library()
    if headers is None:
        pytest.skip("the graph library's headers are not there: `make venv` fetches them")
    sources = [file.read_bytes() for file in sorted((ROOT / ENGINE_SOURCES).glob("*"))]
    command = engine_command(variables, compiler, headers, Path("engine.so"))
    digest = hashlib.sha256(b"\0".join([*sources, repr((command, flags)).encode()])).hexdigest()[:20]
    file = BUILD / "engines" / f"{digest}.so"
    if file.exists():
        return file
    file.parent.mkdir(exist_ok=True)
    for old in file.parent.glob("*"):
        old.unlink(missing_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}")
    command = engine_command(variables, compiler, headers, unfinished)
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    unfinished.rename(file)
    return file


def build_sanitized() -> Path:
    """Compile the engine with the address and undefined behaviour sanitizers; skip where there are none."""
    compiler = find_compiler()
    if not compiler:
        pytest.skip("there is no C++ compiler, and that of the ziglang package has no address sanitizer")
    missing = [name for name in _PRELOADED if not _library(compiler, name)]
    if missing:
        pytest.skip(f"{compiler} has no {' and no '.join(missing)} to load before the interpreter")
    trial = subprocess.run(
        [compiler, "-fsanitize=address,undefined", "-shared", "-fPIC", "-x", "c++", "-", "-o", os.devnull],
        input="int nothing() { return 0; }",
        capture_output=True,
        text=True,
        check=False,
    )
    if trial.returncode:
        pytest.skip(f"{compiler} cannot link the sanitizers: {trial.stderr.strip()[-200:]}")
    return build_engine(compiler_variables(platform.machine(), zig_python=None), compiler, *_FLAGS)


def run_sanitized(module: str, *arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a module in an interpreter that has the sanitizers loaded."""
    preloaded = " ".join(_library(find_compiler(), name) for name in _PRELOADED)
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, **_ENVIRONMENT, "LD_PRELOAD": preloaded},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


def _library(compiler: str, name: str) -> str:
    """Return the path of a library of the compiler; empty where it has none."""
    done = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=False)
    path = done.stdout.strip()
    return path if Path(path).is_absolute() else ""
