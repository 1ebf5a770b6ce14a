"""What scenarios share: options, data, one loaded server, one bare graph; and the list of scenarios."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from indexer.merge_policy import MergeOptions
from tests.bench import baseline, data, work
from tests.bench.figures import Row, failure
from tests.bench.server import Server, running

__all__ = ["SCENARIOS", "Bench", "Loaded", "Options", "Scenario", "run", "scenario"]

_RECALL_QUERIES = 200


@dataclass(frozen=True, slots=True)
class Options:
    """`seconds` is the longest window; `threads` build a graph, here and in the baseline; `ef` where it is pinned.

    `kafka` is `find` for a broker as the tests find one, `off`, or an address. `scale` shrinks what has a size of its
    own, such as the 1,000,000 rows of the publish cost.
    """

    rows: int = 100_000
    seconds: float = 60.0
    threads: int = 1
    ef: int = 200
    kafka: str = "find"
    scale: float = 1.0
    # How long a partition must be quiet before its graphs are joined; None is the product's own default.
    settle_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """The shared server, and what its full load took: seconds, bytes written, anonymous bytes of the empty API.

    `rested_bytes` are those of the snapshots once the graphs of the load were joined, too.
    """

    server: Server
    acknowledged_seconds: float
    total_seconds: float
    log_bytes: int
    snapshot_bytes: int
    rested_bytes: int
    empty_bytes: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """`run` measures the targets named by `targets`, in the order of the table."""

    name: str
    targets: tuple[str, ...]
    run: Callable[[Bench], Awaitable[Sequence[Row]]]


SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str, *targets: str) -> Callable[[Callable], Callable]:
    """Register a function that measures `targets`."""

    def register(function: Callable[[Bench], Awaitable[Sequence[Row]]]) -> Callable:
        assert name not in SCENARIOS, f"{name} is there twice"
        SCENARIOS[name] = Scenario(name, targets, function)
        return function

    return register


async def run(bench: Bench, each: Scenario) -> list[Row]:
    """Run a scenario; what goes wrong becomes a line for each of its targets, and so does a target that it left out."""
    try:
        rows = list(await each.run(bench))
    except Exception as error:  # noqa: BLE001 # printed as the line of the figure; the other scenarios go on
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return [failure(key, reason) for key in each.targets]
    measured = {row.key for row in rows}
    return rows + [failure(key, "the scenario gave no figure") for key in each.targets if key not in measured]


@dataclass
class Bench:
    """One run: everything is made when it is first needed, and cleaned up by `close`."""

    options: Options
    folder: Path
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _loaded: Loaded | None = None
    _bare_file: Path | None = None
    _history: Server | None = None

    @cached_property
    def data(self) -> data.DataSet:
        return data.load(self.options.rows)

    @cached_property
    def truth(self) -> np.ndarray:
        """Row numbers of the true neighbours of the queries: int [q, 10]."""
        return data.true_neighbours(self.data.vectors, self.data.queries, 10)

    @cached_property
    def questions(self) -> list[bytes]:
        return [work.question(query) for query in self.data.queries]

    @property
    def settings(self) -> dict[str, object]:
        """Settings of every server: the builder has as many threads as the baseline."""
        settle = self.options.settle_seconds
        return {"graph_threads": self.options.threads} | ({} if settle is None else {"settle_seconds": settle})

    async def rest(self, server: Server) -> None:
        """Wait until a server is at rest, the joining of graphs included."""
        await work.calm(server, seconds=2.0 + (self.options.settle_seconds or MergeOptions().settle_seconds))

    async def recall(self, server: Server, *, index: str = work.INDEX) -> float:
        """Return recall@10 as the server answers now."""
        truth, asked = self.truth[:_RECALL_QUERIES], self.questions[:_RECALL_QUERIES]
        return await work.recall(server.port, asked, truth, prefix=work.prefix_of(index))

    async def loaded(self) -> Loaded:
        """Return the shared server with all rows in graphs; the first call loads it and counts what that takes."""
        if self._loaded is None:
            made = list(work.bodies(self.data))
            server = self._stack.enter_context(running(**self.settings))
            empty_bytes = server.anonymous_bytes("serve")
            await work.create_index(server.port, self.data.vectors.shape[1])
            before = [server.bytes_written(role) for role in ("serve", "index")]
            began = time.perf_counter()
            acknowledged = await work.upsert_all(server.port, made)
            await work.settled(server.port, len(self.data.vectors))
            total = time.perf_counter() - began
            log, snapshots = (server.bytes_written(role) for role in ("serve", "index"))
            await self.rest(server)
            rested = server.bytes_written("index")
            written = (log - before[0], snapshots - before[1], rested - before[1])
            self._loaded = Loaded(server, acknowledged, total, *written, empty_bytes)
        return self._loaded

    async def bare_graph(self) -> Path:
        """Return the file of a graph that bare hnswlib built from the same rows with the same parameters."""
        if self._bare_file is None:
            await self.bare_build()
        assert self._bare_file is not None
        return self._bare_file

    async def bare_build(self) -> float:
        """Build that graph anew, with as many threads as the product has; return the seconds.

        A load is compared with the builds right before and right after it: this machine is at times a third faster.
        """
        index, seconds = await asyncio.to_thread(baseline.build, self.data.vectors, threads=self.options.threads)
        if self._bare_file is None:
            self._bare_file = self.folder / "bare-graph"
            index.save_index(str(self._bare_file))
        return seconds

    async def history(self) -> Server:
        """Return a server whose log holds all rows, and whose snapshots are still to be made; nothing runs on it."""
        if self._history is None:
            server = self._stack.enter_context(running(commands=["serve"], **self.settings))
            await work.create_index(server.port, self.data.vectors.shape[1])
            await work.upsert_all(server.port, list(work.bodies(self.data)))
            server.stop()
            self._history = server
        return self._history

    def close(self) -> None:
        self._stack.close()
