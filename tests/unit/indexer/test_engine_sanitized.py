"""Whatever bytes a graph is made of: they are refused, or searches stay inside. Sanitizers watch every read."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from tests.support.sanitized import build_sanitized, run_sanitized

_MODULE = "tests.support.graph_fuzz"
_SEEDS = [1, 2]
# Of all trials, at least.
_SHARES = {"refused": 0.1, "opened": 0.1, "extended": 0.05}


@pytest.fixture(scope="module")
def engine() -> Path:
    return build_sanitized()


def fuzz(engine: Path, seed: int, *how: str, timeout_s: float) -> dict[str, int]:
    """Run it; return what it did."""
    print(f"again: seed {seed}")
    done = run_sanitized(_MODULE, str(engine), "--seed", str(seed), *how, timeout_s=timeout_s)
    assert done.returncode == 0, f"seed {seed}\n{done.stdout[-2000:]}\n{done.stderr[-12_000:]}"
    counts: dict[str, int] = json.loads(done.stdout)
    # Neither all refused nor all let in: then nothing would have been tried.
    assert counts["trials"] > 20
    assert all(counts[what] > counts["trials"] * share for what, share in _SHARES.items()), counts
    return counts


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("seed", [*_SEEDS, secrets.randbelow(2**32)], ids=[*map(str, _SEEDS), "random"])
def test_damaged_graph_is_refused_or_searched_inside(engine, seed):
    """Searches, extensions and builds read no byte from outside and answer with allowed rows only."""
    fuzz(engine, seed, "--trials", "300", timeout_s=900)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_damaged_graphs_for_a_long_time(engine):
    """The same for half an hour, from a seed that is told."""
    fuzz(engine, secrets.randbelow(2**32), "--seconds", "1800", timeout_s=3600)
