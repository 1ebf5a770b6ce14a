"""How much a call does, counted and not timed: steps of the interpreter and bytes held at once."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

__all__ = ["Work", "work_of"]

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Work:
    """Bytecode instructions run, and the most bytes that were allocated at once beyond what there was.

    A loop over all of something shows in the first, a copy of all of it in the second.
    """

    steps: int
    bytes: int


def work_of(function: Callable[[], object], *, before: Callable[[], object] = lambda: None) -> Work:
    """Call `function` to count its steps, and a few times more to count its bytes, each time after `before`.

    The least of the bytes counts: what another thread of the process allocates meanwhile is not the function's.
    """
    before()
    steps = _steps(function)
    counted = []
    for _ in range(_ATTEMPTS):
        before()
        counted.append(_bytes(function))
    return Work(steps, min(counted))


def _steps(function: Callable[[], object]) -> int:
    steps = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        steps += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return steps


def _bytes(function: Callable[[], object]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        function()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before
