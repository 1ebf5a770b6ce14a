"""The named steps of the write path, as the code has them, and what makes a server pass each."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.workload import WorkloadOptions

__all__ = ["Scenario", "groups_of", "scenario_of", "steps_in_code"]

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("schemas", "producer", "indexer", "query_api", "compose")


def steps_in_code() -> list[str]:
    """Return the names in all calls of `step` and `_step`."""
    found = set()
    for package in _PACKAGES:
        for path in (_ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and _name_of(node.func) in ("step", "_step") and node.args:
                    (argument,) = node.args
                    assert isinstance(argument, ast.Constant), f"{path}:{node.lineno}: a step has no literal name"
                    found.add(str(argument.value))
    return sorted(found)


def _name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """How to reach a step: the greatest number of passings to wait for, and what the load is like."""

    passings_max: int = 3
    workload: WorkloadOptions = field(default_factory=WorkloadOptions)
    # Whether indexes are created beside the load.
    creates: bool = False
    # Whether an index is backed up and restored beside the load.
    backs_up: bool = False


_OFTEN = Scenario(passings_max=100)
_FORWARDED = Scenario(passings_max=100, workload=WorkloadOptions(workers=2))
_BACKED_UP = Scenario(passings_max=8, backs_up=True)
_SCENARIOS = {
    "api.before_answer": Scenario(passings_max=100),
    "append.before_answer": _OFTEN,
    "append.before_commit": _OFTEN,
    "append.after_commit": _OFTEN,
    "api.after_append": _OFTEN,
    "forward.after_send": _FORWARDED,
    "forward.before_answer": _FORWARDED,
    "forward.before_send": _FORWARDED,
    "follower.before_swap": _OFTEN,
    "gc.unlink": _OFTEN,
    "publish.after_append": _OFTEN,
    "publish.after_manifest": _OFTEN,
    "publish.before_append": _OFTEN,
    "publish.before_manifest": _OFTEN,
    "publish.before_object": _OFTEN,
    "store.written": _OFTEN,
    "backup.after_event": _BACKED_UP,
    "backup.after_pin": _BACKED_UP,
    "backup.before_letting_go": Scenario(passings_max=2, backs_up=True),
    "backup.before_pin": _BACKED_UP,
    "restore.after_append": Scenario(passings_max=12, backs_up=True),
    "restore.after_finish": Scenario(passings_max=2, backs_up=True),
    "restore.after_note": Scenario(passings_max=2, backs_up=True),
    "restore.before_append": Scenario(passings_max=12, backs_up=True),
    "restore.before_finish": Scenario(passings_max=2, backs_up=True),
    "restore.before_note": Scenario(passings_max=2, backs_up=True),
    "catalog.after_append": Scenario(passings_max=2, creates=True),
    "catalog.before_append": Scenario(passings_max=2, creates=True),
    "log.checkpoint": Scenario(passings_max=1, workload=WorkloadOptions(filling_bytes=20_000)),
    "takeover.after_manifest": Scenario(passings_max=2),
    "takeover.before_manifest": Scenario(passings_max=2),
}


def groups_of(steps: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the steps that one server can take one after another: those of one part of the write path."""
    groups: dict[str, list[str]] = {}
    # No write of a client passes those of imports: they have a test of their own.
    for step in sorted(step for step in steps if not step.startswith("import.")):
        groups.setdefault(step.partition(".")[0], []).append(step)
    return [tuple(group) for group in groups.values()]


def scenario_of(step: str) -> Scenario:
    """Return how to reach `step`; a step that nobody thought of is expected to come by itself."""
    return _SCENARIOS.get(step, Scenario(passings_max=8))
