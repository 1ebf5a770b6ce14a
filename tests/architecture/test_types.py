"""Types and style: the five packages pass mypy --strict, and everything passes ruff."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(1_200)
def test_packages_pass_mypy_strict():
    """Every function of the product is typed, strictly."""
    done = run("mypy")
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_passes_ruff():
    """All of ruff's rules hold, but those that pyproject.toml lists with a reason."""
    done = run("ruff", "check", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_planted_type_error_is_found(tmp_path):
    """The settings of pyproject.toml are strict: an untyped function is refused."""
    (tmp_path / "planted.py").write_text("def f(a):\n    return a\n")
    done = run("mypy", "--config-file", str(ROOT / "pyproject.toml"), str(tmp_path / "planted.py"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no-untyped-def" in done.stdout


def test_planted_style_error_is_found(tmp_path):
    """The settings of pyproject.toml are strict: a public function without docstring is refused."""
    (tmp_path / "planted.py").write_text('"""A module."""\n\n\ndef f() -> None:\n    print(1)\n')
    done = run("ruff", "check", "--config", str(ROOT / "pyproject.toml"), str(tmp_path / "planted.py"))
    assert done.returncode == 1
    assert "D103" in done.stdout
    assert "T201" in done.stdout
