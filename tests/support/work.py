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


@dataclass(frozen=True, slots=True)
class Work:
    """Bytecode instructions run, and the most bytes that were allocated at once beyond what there was.

    A loop over all of something shows in the first, a copy of all of it in the second.
    """

    steps: int
    bytes: int


def work_of(function: Callable[[], object], *, before: Callable[[], object] = lambda: None) -> Work:
    """Call `function` twice, once to count its steps and once to count its bytes, each time after `before`."""
    before()
    steps = _steps(function)
    before()
    return Work(steps, _bytes(function))


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
