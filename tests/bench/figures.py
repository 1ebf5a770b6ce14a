"""Lines of the table: made, printed, kept."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from tests.bench.server import ROOT
from tests.bench.targets import TARGETS

__all__ = ["Row", "failure", "figure", "keep", "note", "percentiles", "print_rows"]


@dataclass(slots=True)
class Row:
    """What was measured (`figure`), in words and in `values`; `met` is None without a target or a valid measurement.

    `key` is that of the target, or a name of its own.
    """

    name: str
    figure: str
    target: str = ""
    met: bool | None = None
    values: dict[str, object] = field(default_factory=dict)
    recall: float | None = None
    key: str = ""
    is_failure: bool = False


def figure(key: str, value: float, measured: str, *, recall: float | None = None, **values: object) -> Row:
    """Return the line of the target `key`."""
    target = TARGETS[key]
    return Row(target.figure, measured, target.text, target.met(value), {"value": value, **values}, recall, key)


def note(key: str, name: str, measured: str, *, recall: float | None = None, **values: object) -> Row:
    """Return a line without a target."""
    return Row(name, measured, values=dict(values), recall=recall, key=key)


def failure(key: str, reason: str) -> Row:
    """Return the line of a target that could not be measured: neither met nor missed, and loud."""
    target = TARGETS.get(key)
    if target is None:
        return Row(key, f"FAILED: {reason}", key=key, is_failure=True)
    return Row(target.figure, f"FAILED: {reason}", target.text, key=key, is_failure=True)


def print_rows(rows: Iterable[Row]) -> None:
    """Print lines, with recall and verdict."""
    for row in rows:
        verdict = {True: "met", False: "MISSED", None: "FAILED" if row.is_failure else ""}[row.met]
        recall = "" if row.recall is None else f"recall {row.recall:.3f}"
        print(f"{row.name:<86} {row.figure:<64} {recall:<13} {row.target:<9} {verdict}", flush=True)


def keep(file: Path, lines: Iterable[Row], **run: object) -> None:
    """Append lines to `file` as JSON, each with commit, machine, time and the load average; `run` is added to each."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    facts: Mapping[str, object] = {
        "time": int(time.time()),
        "commit": commit,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average": [round(value, 2) for value in os.getloadavg()],
        **run,
    }
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as out:
        for row in lines:
            out.write(json.dumps({**facts, **asdict(row)}, default=float) + "\n")


def percentiles(seconds: Iterable[float]) -> tuple[float, float]:
    """Return p50 and p99 in milliseconds. Raises `ValueError` where nothing was measured."""
    values = np.array(list(seconds)) * 1000
    if not len(values):
        raise ValueError("nothing was measured")
    p50, p99 = np.percentile(values, [50, 99])
    return float(p50), float(p99)
