"""What a publish costs beside much that does not change: the partition's own code, in process, on a real store."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from indexer.merge_policy import MergeOptions
from indexer.snapshots.reader import SnapshotReader
from schemas.operations import Delete
from tests.bench.figures import Row, figure, note
from tests.bench.harness import Bench, scenario
from tests.support.builders import spec_of, upsert
from tests.support.driver import Pipeline, Worker

# A small dimension: what is measured does not depend on it, and a million rows have to be written.
_DIMENSION = 4
_ROWS_EACH = 10
_FEW_ROWS, _MANY_ROWS = 10_000, 1_000_000
_PUBLISHES = 400
_CHUNK_ROWS = 50_000
_IDS = [f"id-{number}" for number in range(_ROWS_EACH)]


class _Index:
    """An index of `namespaces` namespaces of 10 rows, a tenth of all rows dead."""

    def __init__(self, root: Path, namespaces: int) -> None:
        pipeline = Pipeline(root, spec_of(dimension=_DIMENSION), merge=MergeOptions(rollup_deltas=16))
        self._pipeline = pipeline
        self._worker: Worker = pipeline.worker()
        self._reader: SnapshotReader = pipeline.follower(list_every=1_000_000)
        self._number = itertools.count()
        for begin in range(0, namespaces, _CHUNK_ROWS // _ROWS_EACH):
            for number in range(begin, min(begin + _CHUNK_ROWS // _ROWS_EACH, namespaces)):
                pipeline.book.append_all(f"tenant-{number}", [upsert(key, number) for key in _IDS])
            self._publish()
        for begin in range(0, namespaces, _CHUNK_ROWS):
            for number in range(begin, min(begin + _CHUNK_ROWS, namespaces)):
                pipeline.book.append(f"tenant-{number}", Delete(_IDS[number % _ROWS_EACH]))
            self._publish()
        self._worker.merge_all()
        self._reader.refresh()
        self._namespaces = namespaces

    def publish(self) -> tuple[float, float]:
        """Replace a row of some namespace; return the seconds to fold and publish it, and to open what came."""
        number = next(self._number)
        self._pipeline.book.append(f"tenant-{number * 7919 % self._namespaces}", upsert(_IDS[3], number))
        began = time.perf_counter()
        self._publish()
        published = time.perf_counter()
        self._reader.refresh()
        return published - began, time.perf_counter() - published

    def merge(self) -> None:
        self._worker.merge_all()
        self._reader.refresh()

    def _publish(self) -> None:
        assert self._worker.publish(), "there was nothing to publish"
        self._pipeline.book.said.clear()


@scenario("publish_cost", "publish_cost")
async def publish_cost(bench: Bench) -> Sequence[Row]:
    """Publish single upserts to a large and a small index by turns; the ratio of the medians."""
    return await asyncio.to_thread(_measure, bench.options.scale)


def _measure(scale: float) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="freshet-bench-") as folder:
        counts = [max(1, int(rows * scale) // _ROWS_EACH) for rows in (_FEW_ROWS, _MANY_ROWS)]
        few, many = (_Index(Path(folder) / str(count), count) for count in counts)
        taken: dict[_Index, list[tuple[float, float]]] = {few: [], many: []}
        for number in range(_PUBLISHES):
            for index in (few, many):
                taken[index].append(index.publish())
                # Merges are not what is measured.
                if number % 16 == 15:
                    index.merge()
    (few_write, few_read), (many_write, many_read) = (1000 * np.median(taken[index], axis=0) for index in (few, many))
    ratio = float(many_write / few_write)
    said = f"{ratio:.2f} x ({many_write:.2f} ms against {few_write:.2f} ms; {counts[1]:,} namespaces)"
    opened = f"{many_read / few_read:.2f} x ({many_read:.2f} ms against {few_read:.2f} ms)"
    return [
        figure("publish_cost", ratio, said, namespaces=counts[1], many_ms=many_write, few_ms=few_write),
        note("open_cost", "the same for a reader that opens it", opened, many_ms=many_read, few_ms=few_read),
    ]
