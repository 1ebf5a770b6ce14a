"""Environments of clients: made from the registries by their ordinary clients, kept below `.build/clients`.

Every package is checked against a hash that lies beside the tests. A stamp is written last, so that a run which was
interrupted is simply run again, and a second run takes no time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.clients.catalogue import Environment

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".build" / "clients"
UV = ROOT / ".build" / "uv" / "bin" / "uv"
# What uv and npm say where a registry can't be reached. Anything else is a failure: a hash above all.
_UNREACHABLE = re.compile(
    r"error sending request|client error \(Connect\)|dns error|Could not connect|tunnel error|operation timed out"
    r"|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ERR_SOCKET_TIMEOUT"
)
_TRIES = 2


class NoClient(Exception):
    """A client cannot be had on this machine; the message says what is missing."""


class BrokenEnvironment(Exception):
    """A client cannot be installed though everything is there: a hash that is not the pinned one, above all."""


def prepared(environment: Environment, cache: Path = CACHE, settings: Mapping[str, str] | None = None) -> Path:
    """Return the folder of an environment, made where it is missing or out of date.

    `settings` are further environment variables of the installers. Raises `NoClient`, `BrokenEnvironment`.
    """
    folder = cache / environment.name
    stamp = folder / "stamp"
    wanted = hashlib.sha256(f"{sys.version} {folder}\n{environment.lock.read_text()}".encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{environment.name}.lock").open("w") as holder:
        # Two test processes may want the same client at once.
        fcntl.flock(holder, fcntl.LOCK_EX)
        if not (stamp.exists() and stamp.read_text() == wanted):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make = _make_python if environment.kind == "python" else _make_typescript
            make(environment, folder, settings or {})
            stamp.write_text(wanted)
    return folder


def _make_python(environment: Environment, folder: Path, settings: Mapping[str, str]) -> None:
    if not UV.exists():
        raise NoClient(f"no {UV.relative_to(ROOT)} (`make venv` installs it)")
    venv = folder / "venv"
    _install([str(UV), "venv", "-q", "--no-project", "--python", sys.executable, str(venv)], folder, settings)
    options = ("-q", "--python", str(venv / "bin" / "python"), "--require-hashes")
    _install([str(UV), "pip", "sync", *options, str(environment.lock)], folder, settings)


def _make_typescript(environment: Environment, folder: Path, settings: Mapping[str, str]) -> None:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NoClient(f"no {program}")
    resolve_typescript(environment, folder, settings)
    found = integrities(folder)
    if found != environment.lock.read_text():
        raise BrokenEnvironment(f"{environment.lock.name} has other integrities than the registry:\n{found}")
    # What is unpacked is checked by npm against the lock, whose integrities were just compared.
    _install(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], folder, settings)


def resolve_typescript(environment: Environment, folder: Path, settings: Mapping[str, str]) -> None:
    """Let npm resolve the packages of an environment into a lock in `folder`; it never leaves that folder."""
    wanted = dict(package.rsplit("@", 1) for package in environment.packages)
    (folder / "package.json").write_text(json.dumps({"name": "client", "private": True, "dependencies": wanted}))
    command = ["npm", "install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund"]
    _install([*command, "--loglevel=error"], folder, settings)


def integrities(folder: Path) -> str:
    """Return one line per package of npm's lock: name, version, digest. No host is in it."""
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    lines = [
        f"{place.rpartition('node_modules/')[2]} {one['version']} {one['integrity']}\n"
        for place, one in sorted(packages.items())
        if place
    ]
    return "".join(lines)


def _install(command: Sequence[str], folder: Path, settings: Mapping[str, str]) -> None:
    """Run an installer; once more where the registry did not answer. Raises `NoClient`, `BrokenEnvironment`."""
    # The installers need the whole environment of the run: proxies, certificates.
    surroundings = {**os.environ, **settings}
    said = ""
    for _ in range(_TRIES):
        done = subprocess.run(
            command, cwd=folder, env=surroundings, capture_output=True, text=True, check=False, timeout=300
        )
        if done.returncode == 0:
            return
        said = (done.stdout + done.stderr).strip()
        if not _UNREACHABLE.search(said):
            raise BrokenEnvironment(f"{' '.join(command[:3])} failed:\n{said[-4_000:]}")
    raise NoClient(f"{Path(command[0]).name} cannot reach its registry")
