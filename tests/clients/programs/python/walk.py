"""What every program here shares: steps that say that they passed, and waiting for what was written.

A program runs in the environment of one client, so nothing of the project can be imported: only this folder and the
client. A step is a function whose name is its sentence; a failed one ends the program.
"""

import os
import struct
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

# Where the client finds the server; the test sets it. Everything else is the client's default.
URL = os.environ.get("FRESHET_URL", "")
API_KEY = "YOUR_API_KEY"
PATIENCE_SECONDS = 60.0


@dataclass
class Walk:
    """What the steps of a program work with: the client module, a client, and the index that they share."""

    module: Any
    client: Any
    index: Any = None
    vector_class: Any = None
    # How an index is opened by its name; a program for gRPC sets it, and the other way to the same index.
    open_index: Callable[[str], Any] = field(init=False)
    open_otherwise: Callable[[str], Any] = field(init=False)
    # Over gRPC: how batches are sent without waiting for each.
    upsert_in_background: Callable[[Any, Any], Any] = field(init=False)
    # Whether numbers come as the float32 of a binary message instead of JSON's shortest decimals.
    is_binary: bool = False

    def __post_init__(self) -> None:
        self.open_index = self.client.Index


Step = Callable[[Walk], None]


def take(walk: Walk, steps: Iterable[Step]) -> None:
    """Take the steps in order; each that passes is one line."""
    for step in steps:
        step(walk)
        passed(step.__name__)


def passed(name: str) -> None:
    sys.stdout.write(f"ok {name.replace('_', ' ')}\n")
    sys.stdout.flush()


def until(read: Callable[[], Any], is_so: Callable[[Any], bool]) -> Any:
    """Read again and again until the answer shows what was written: the service is eventually consistent."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        answer = read()
        if is_so(answer):
            return answer
        assert time.monotonic() < deadline, f"waited in vain; the last answer was {answer!r}"
        time.sleep(0.01)


def counts(stats: Any) -> dict[str, int]:
    """Return the record counts of `describe_index_stats` by namespace."""
    return {name: one.vector_count for name, one in stats.namespaces.items()}


def wait_for_counts(index: Any, **wanted: int) -> Any:
    """Check data freshness as the guide does, until the counts are the expected ones; `default` is the default."""
    named = {"__default__" if name == "default" else name: count for name, count in wanted.items()}
    return until(index.describe_index_stats, lambda stats: counts(stats) == named)


def float32(number: float) -> float:
    """Return what a float32 holds of a number."""
    return float(struct.unpack("<f", struct.pack("<f", number))[0])


def same_numbers(walk: Walk, got: Iterable[float], wanted: Iterable[float]) -> bool:
    """Whether values are exactly those written: the same decimals in JSON, the same float32 in a binary message."""
    return list(got) == [float32(number) if walk.is_binary else number for number in wanted]


def close(got: float, wanted: float) -> bool:
    """Whether a score is the wanted one, to the accuracy of a float32."""
    return abs(got - wanted) <= 1e-6 * max(1.0, abs(wanted))


def refused(call: Callable[[], Any], *texts: str, status: int | None = None) -> BaseException:
    """Expect an error whose text has all `texts` and, where the client shows it, this status."""
    try:
        answer = call()
    except Exception as error:  # noqa: BLE001 - every generation has classes of its own
        said = f"{type(error).__name__} {getattr(error, 'status', '')} {error} {getattr(error, 'body', '')}"
        assert all(text.lower() in said.lower() for text in texts), said
        shown = getattr(error, "status", None) or getattr(error, "status_code", None)
        assert status is None or shown is None or shown == status, said
        return error
    raise AssertionError(f"expected an error, got {answer!r}")
