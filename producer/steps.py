"""Named points of the write path, so that a test can stop a process exactly there.

Code calls `step("append.before_commit")` where a crash would be interesting; in production the step does nothing.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Step", "no_step"]

Step = Callable[[str], None]


def no_step(name: str, /) -> None:
    """Do nothing at the point called `name`."""
