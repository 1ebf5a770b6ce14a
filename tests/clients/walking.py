"""Runs a program in the environment of its client against a server, and counts the steps that passed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.client import Client as Door
from tests.clients.catalogue import PROGRAMS, Client, Environment
from tests.clients.environments import NoClient, prepared
from tests.clients.summary import COUNTED, NO_CLIENT
from tests.support.freshet import Freshet

API_KEY = "YOUR_API_KEY"
_SECONDS_MAX = 550


def have(environment: Environment) -> Path:
    """Return the folder of an environment; skip, loudly at the end of the run, or fail where it can't be had."""
    try:
        return prepared(environment)
    except NoClient as error:
        if os.environ.get("FRESHET_REQUIRE_CLIENTS"):
            pytest.fail(f"Client {environment.name} is required and cannot be had: {error}")
        pytest.skip(f"{NO_CLIENT}{environment.name}: {error}")


def walk(client: Client, server: Freshet, folder: Path, **settings: str) -> list[str]:
    """Run the program of a client; return its steps. Every one that it promises must have passed.

    `settings` are further environment variables, such as the certificate that it trusts.
    """
    where = have(client.environment)
    program = PROGRAMS / client.program
    if client.environment.kind == "python":
        # -B: no compiled files beside the programs; -W: what a client itself does is not judged here.
        command = [str(where / "venv" / "bin" / "python"), "-B", str(program)]
    else:
        # Node looks for packages beside the file that asks for them.
        shutil.copytree(program.parent, folder / "programs")
        (folder / "node_modules").symlink_to(where / "node_modules")
        command = ["node", str(folder / "programs" / program.name)]
    steps = run(command, server, folder, **settings)
    assert len(steps) == client.steps, f"{client.program} took {len(steps)} steps instead of {client.steps}"
    return steps


def run(command: list[str], server: Freshet, folder: Path, **settings: str) -> list[str]:
    """Run a command that is told the server's address, and `settings`; return the steps that passed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**surroundings(server), **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS_MAX,
    )
    steps = [line.removeprefix("ok ") for line in done.stdout.splitlines() if line.startswith("ok ")]
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{server.log_text[-2_000:]}"
    return steps


def surroundings(server: Freshet) -> dict[str, str]:
    """Return the environment of a program: the host, the key, and no other setting of ours or of the clients."""
    settings = ("FRESHET_", "PINECONE_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    said = {"FRESHET_URL": server.url, "PINECONE_CONTROLLER_HOST": server.url, "PINECONE_API_KEY": API_KEY}
    return {**kept, **said}


def count(request: pytest.FixtureRequest, title: str, steps: list[str]) -> None:
    """Let the closing lines of the run tell the steps, also from another test process."""
    request.node.user_properties.append((COUNTED, f"{title} {len(steps)} steps"))


def emptied(server: Freshet, door: Door | None = None) -> Iterator[Freshet]:
    """Give a server without indexes; remove what a program left behind when it failed."""
    yield server
    with door or Door(server.url) as opened:
        # Without a version the listing leaves sparse indexes out.
        listed = opened.call("GET", "/indexes", headers={"x-pinecone-api-version": "2026-07"})
        for one in listed["indexes"]:
            opened.call("PATCH", f"/indexes/{one['name']}", {"deletion_protection": "disabled"})
            opened.call("DELETE", f"/indexes/{one['name']}")
