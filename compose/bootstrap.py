"""Make `.venv` from `requirements.lock`: what `make up` and `make test` run first. Standard library only.

Every package is checked against a hash of the lock. The steps are repeatable and the stamp is written last, so a run
that was interrupted is simply run again. hnswlib is compiled here, with flags that suit every processor of its family
(its own default, `-march=native`, makes a wheel that crashes on another machine), and so are the native engine, against
the headers in hnswlib's source package, and the reader of request bodies. Where there is no C++ compiler, the one
inside the `ziglang` package is used.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

__all__ = [
    "BootstrapError",
    "bodies_command",
    "compiler_variables",
    "engine_command",
    "find_compiler",
    "library_headers",
    "lock_blocks",
    "main",
    "stamp_of",
]

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / ".build"
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "freshet-bootstrap"
# The graph library is built in a cache of its own, where its source package stays: the engine needs the headers.
LIBRARY = BUILD / "hnswlib"
ENGINE_SOURCES = Path("indexer") / "segments" / "cpp"
ENGINE = VENV / "lib" / "freshet" / "engine.so"
BODIES_SOURCES = Path("query_api") / "rest" / "cpp"
BODIES = VENV / "lib" / "freshet" / "bodies.so"

# Flags for hnswlib: AVX2 (every x86-64 server since 2013) and no AVX-512; on arm64 what every 64-bit core has.
_MARCH = {"x86_64": "x86-64-v3", "amd64": "x86-64-v3", "arm64": "armv8-a", "aarch64": "armv8-a"}
# The same two for zig's compiler, which spells processors its own way.
_ZIG_MCPU = {"x86_64": "x86_64_v3", "amd64": "x86_64_v3", "arm64": "generic", "aarch64": "generic"}
_COMPILERS = ("c++", "g++", "clang++")
_SMOKE = "import hnswlib, numpy, orjson, uvloop; hnswlib.Index('l2', 8).init_index(4)"


class BootstrapError(Exception):
    """The environment can't be made; the message says what is missing and what to do."""


def lock_blocks(text: str) -> dict[str, str]:
    """Split the text of a lock into one block per package: its pinned line and its hashes.

    A package that has another version for some Pythons has both in its block.
    """
    starts = list(re.finditer(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE))
    ends = [start.start() for start in starts[1:]] + [len(text)]
    blocks: dict[str, str] = {}
    for start, end in zip(starts, ends, strict=True):
        blocks[start[1]] = blocks.get(start[1], "") + text[start.start() : end]
    return blocks


def stamp_of(root: Path) -> str:
    """Return a digest of all that `.venv` is made from: a stamp that equals it means there is nothing to do."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    parts = [
        (root / "requirements.lock").read_text(),
        (root / "compose" / "bootstrap.py").read_text(),
        json.dumps([project["project"], project["build-system"]], sort_keys=True),
        f"{sys.version_info[:2]} {platform.machine()} {root}",
        *(file.read_text() for file in sorted((root / ENGINE_SOURCES).glob("*"))),
        *(file.read_text() for file in sorted((root / BODIES_SOURCES).glob("*"))),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def compiler_variables(machine: str, *, zig_python: Path | None) -> dict[str, str]:
    """Return the environment for building hnswlib on `machine`; with `zig_python`, by that interpreter's `ziglang`."""
    known = machine.lower()
    if zig_python is not None:
        flags = f"-O3 -mcpu={_ZIG_MCPU[known]}" if known in _ZIG_MCPU else "-O3"
    else:
        flags = f"-O3 -march={_MARCH[known]}" if known in _MARCH else "-O3"
    variables = {"HNSWLIB_NO_NATIVE": "1", "CFLAGS": flags, "CXXFLAGS": flags}
    if zig_python is not None:
        variables |= {
            "CC": f"{zig_python} -m ziglang cc",
            "CXX": f"{zig_python} -m ziglang c++",
            "LDSHARED": f"{zig_python} -m ziglang cc -shared",
            "LDCXXSHARED": f"{zig_python} -m ziglang c++ -shared",
        }
    return variables


def engine_command(variables: dict[str, str], compiler: str, headers: Path, output: Path = ENGINE) -> list[str]:
    """Return the command that compiles the native engine into `output` with the flags of the graph library."""
    return [
        *_library_command(variables, compiler),
        *("-pthread", "-isystem", str(headers), "-o", str(output), str(ROOT / ENGINE_SOURCES / "engine.cpp")),
    ]


def bodies_command(variables: dict[str, str], compiler: str, root: Path = ROOT) -> list[str]:
    """Return the command that compiles the reader of request bodies, with the same flags."""
    return [*_library_command(variables, compiler), "-o", str(BODIES), str(root / BODIES_SOURCES / "bodies.cpp")]


def _library_command(variables: dict[str, str], compiler: str) -> list[str]:
    flags = variables["CXXFLAGS"].split()
    return [*variables.get("CXX", compiler).split(), *flags, "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden"]


def _say(text: str) -> None:
    sys.stderr.write(f"bootstrap: {text}\n")
    sys.stderr.flush()


def _run(*command: str | Path, why: str) -> None:
    """Run a command in the root; its output is shown only where it fails. Raises `BootstrapError`."""
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-40:])
        raise BootstrapError(f"{why} failed (exit {done.returncode}): {' '.join(map(str, command))}\n{tail}")


def _answers(*command: str | Path) -> str:
    """Return what a command prints, or nothing where it is missing or fails."""
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def _uv(blocks: dict[str, str]) -> Path:
    """Return the pinned uv, installed under `.build/uv` by whatever pip there is. Raises `BootstrapError`."""
    home = BUILD / "uv"
    wanted = re.match(r"uv==(\S+)", blocks["uv"])
    if wanted is None:
        raise BootstrapError("requirements.lock does not pin uv; make it again with `make lock`.")
    binary = home / "bin" / "uv"
    if _answers(binary, "--version").split(" ")[1:2] == [wanted[1]]:
        return binary
    pinned = BUILD / "uv.txt"
    pinned.write_text(blocks["uv"])
    pip: list[str | Path] = [sys.executable, "-m", "pip"]
    if not _answers(*pip, "--version"):
        _run(sys.executable, "-m", "venv", "--clear", BUILD / "pip", why="Making a venv with pip (python3-venv)")
        pip = [BUILD / "pip" / "bin" / "python", "-m", "pip"]
    shutil.rmtree(home, ignore_errors=True)
    _say(f"installing uv {wanted[1]}")
    options = ("install", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--target", home)
    _run(*pip, *options, "-r", pinned, why="Installing uv")
    return binary


def _make_venv(uv: Path) -> None:
    version = "import sys; print('%d.%d' % sys.version_info[:2])"
    if _answers(VENV / "bin" / "python", "-c", version).strip() != f"{sys.version_info[0]}.{sys.version_info[1]}":
        _run(uv, "venv", "-q", "--clear", "--no-project", "--python", sys.executable, VENV, why="Making .venv")


def find_compiler() -> str:
    """Return the first compiler that runs, or nothing."""
    return next((name for name in _COMPILERS if shutil.which(name) and _answers(name, "--version")), "")


def _uv_settings(variables: dict[str, str]) -> Path:
    """Write the build flags where uv makes them part of a wheel's cache key, so that no other build is taken."""
    path = BUILD / "uv.toml"
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in variables.items())
    path.write_text(f"[extra-build-variables.hnswlib]\n{lines}")
    return path


def _install(uv: Path, blocks: dict[str, str], compiler: str) -> dict[str, str]:
    """Make `.venv` hold exactly the lock and this repository; return the variables that the compiler ran with."""
    zig_python = None if compiler else VENV / "bin" / "python"
    pip = (uv, "pip")
    common = ("-q", "--python", VENV / "bin" / "python", "--build-constraints", LOCK)
    if zig_python is not None:
        _say("no C++ compiler found: taking the one of the ziglang package")
        zig = BUILD / "zig.txt"
        zig.write_text(blocks["ziglang"])
        _run(*pip, "install", *common, "--no-deps", "--require-hashes", "-r", zig, why="Installing ziglang")
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if not headers.exists():
        raise BootstrapError(
            f"Python's headers are missing ({headers}): hnswlib is compiled here. "
            "Install them (python3-dev on Debian and Ubuntu, python3-devel on Fedora) and run this again."
        )
    wanted = BUILD / "requirements.txt"
    wanted.write_text("".join(b for name, b in blocks.items() if name != "ziglang" or zig_python is not None))
    variables = compiler_variables(platform.machine(), zig_python=zig_python)
    library = BUILD / "hnswlib.txt"
    library.write_text(blocks["hnswlib"])
    options = ("--cache-dir", LIBRARY, "--config-file", _uv_settings(variables), "--no-deps", "--require-hashes")
    _run(
        *(*pip, "install", *common, *options, "--reinstall-package", "hnswlib", "-r", library),
        why="Compiling the graph library",
    )
    _run(*pip, "sync", *common, "--require-hashes", wanted, why="Installing the packages of requirements.lock")
    _run(*pip, "install", *common, "--no-deps", "-e", ".", why="Installing freshet itself")
    return variables


def library_headers() -> Path | None:
    """Return the folder with the graph library's headers, None where it was not compiled here."""
    found = next(LIBRARY.rglob("hnswalg.h"), None)
    return None if found is None else found.parent


def _compile_engine(variables: dict[str, str], compiler: str) -> None:
    """Compile the native engine. Where that fails the stock module takes its place: loudly, here and at every start."""
    headers = library_headers()
    ENGINE.parent.mkdir(exist_ok=True)
    ENGINE.unlink(missing_ok=True)
    try:
        if headers is None:
            raise BootstrapError(
                f"The graph library's headers are not below {LIBRARY}; delete that folder and try again."
            )
        _run(*engine_command(variables, compiler, headers), why="Compiling the native engine")
    except BootstrapError as error:
        _say(str(error))
        _say("WARNING: going on without the native engine; graphs will be searched by the slower stock module")


def _compile_bodies(variables: dict[str, str], compiler: str) -> None:
    """Compile the reader of request bodies. Where that fails the JSON parser reads them whole: loudly, as above."""
    BODIES.unlink(missing_ok=True)
    try:
        _run(*bodies_command(variables, compiler), why="Compiling the reader of request bodies")
    except BootstrapError as error:
        _say(str(error))
        _say("WARNING: going on without it; large upserts will hold up other requests for longer")


def _check_hnswlib() -> None:
    _run(
        *(VENV / "bin" / "python", "-c", _SMOKE),
        why="Importing what was built (exit -4, SIGILL, means a processor older than x86-64-v3, without AVX2)",
    )


def main() -> int:
    """Bring `.venv` up to date; return the exit code."""
    wanted = stamp_of(ROOT)
    if STAMP.exists() and STAMP.read_text() == wanted:
        return 0
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "bootstrap.lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        if STAMP.exists() and STAMP.read_text() == wanted:
            return 0
        STAMP.unlink(missing_ok=True)
        _say("making .venv from requirements.lock (the first time takes about a minute)")
        try:
            blocks = lock_blocks(LOCK.read_text())
            uv = _uv(blocks)
            _make_venv(uv)
            compiler = find_compiler()
            variables = _install(uv, blocks, compiler)
            _compile_engine(variables, compiler)
            _compile_bodies(variables, compiler)
            _check_hnswlib()
        except BootstrapError as error:
            _say(str(error))
            return 1
        STAMP.write_text(wanted)
        _say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
