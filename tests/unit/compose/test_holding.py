"""One `freshet up` per data directory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from compose.holding import hold
from schemas.errors import ConfigError


def test_second_holder_is_refused_with_the_pid_of_the_first(tmp_path):
    """The error says who holds the directory, and what to do."""
    with (
        hold(tmp_path / "data", "up"),
        pytest.raises(ConfigError, match=f"pid {os.getpid()}"),
        hold(tmp_path / "data", "up"),
    ):
        pytest.fail("held twice")


def test_directory_is_free_again_after_its_holder(tmp_path):
    """Holding ends with the block."""
    for _ in range(2):
        with hold(tmp_path, "up"):
            assert (tmp_path / "up.lock").read_text() == f"{os.getpid()}\n"


def test_directory_is_free_when_its_holder_was_killed(tmp_path):
    """The kernel lets go: no stale file keeps anybody out."""
    program = (
        "import os, pathlib, signal; from compose.holding import hold\n"
        f"with hold(pathlib.Path({str(tmp_path)!r}), 'up'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert (tmp_path / "up.lock").exists()
    with hold(tmp_path, "up"):
        pass


def test_directory_that_cannot_be_made_is_refused(tmp_path):
    """The error names the directory."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Cannot use the data directory"), hold(tmp_path / "file" / "data", "up"):
        pytest.fail("held a file")
