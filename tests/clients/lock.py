"""Pin the packages of all clients anew: `python -m tests.clients.lock [NAME...]`, also `make lock-clients`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.clients.catalogue import ENVIRONMENTS, Environment
from tests.clients.environments import UV, integrities, resolve_typescript


def pin(environment: Environment) -> None:
    """Resolve an environment and write its lock."""
    environment.lock.parent.mkdir(exist_ok=True)
    if environment.kind == "python":
        options = ("--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url")
        comment = ("--custom-compile-command", "make lock-clients")
        command = [UV, "pip", "compile", "-q", *options, *comment, "-o", environment.lock, "-"]
        subprocess.run(command, input="\n".join(environment.packages), text=True, check=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        resolve_typescript(environment, Path(folder), {})
        environment.lock.write_text(integrities(Path(folder)))


if __name__ == "__main__":
    for each in ENVIRONMENTS:
        if not sys.argv[1:] or each.name in sys.argv[1:]:
            pin(each)
