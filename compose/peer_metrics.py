"""The metrics of all API processes on one page, whichever of them is asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog
from prometheus_client import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from compose.peers import door_of, get

__all__ = ["PeerMetrics"]

_log = structlog.get_logger(__name__)


class _Families(Collector):
    """Families to print, as a registry has them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self._families


class PeerMetrics:
    """Puts the numbers of all API processes on one page, each with the label `worker`."""

    def __init__(self, run_directory: Path, *, own: int, workers: int) -> None:
        self._own = own
        self._doors = {worker: door_of(run_directory, worker) for worker in range(workers) if worker != own}

    async def merged(self, text: bytes) -> bytes:
        """Return the page, `text` being this process's own; of one that does not answer it says just that."""
        found = await asyncio.gather(*(self._ask(worker, door) for worker, door in self._doors.items()))
        texts = {self._own: text} | {worker: answer for worker, answer in found if answer is not None}
        return await asyncio.to_thread(_merge, texts, len(self._doors) + 1)

    async def _ask(self, worker: int, door: str) -> tuple[int, bytes | None]:
        try:
            status, body = await get(door, "/metrics?own=true")
        except (OSError, TimeoutError) as error:
            _log.warning("metrics.peer_does_not_answer", worker=worker, reason=str(error))
            return worker, None
        return worker, body if status == 200 else None


def _merge(texts: dict[int, bytes], workers: int) -> bytes:
    families: dict[str, Metric] = {}
    for worker, text in sorted(texts.items()):
        for family in text_string_to_metric_families(text.decode()):
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                labels = {"worker": str(worker), **sample.labels}
                merged.add_sample(sample.name, labels, sample.value, sample.timestamp, sample.exemplar)
    return generate_latest(_Families([*families.values(), *_answering(texts, workers)]))


def _answering(texts: dict[int, bytes], workers: int) -> Iterator[Metric]:
    family = GaugeMetricFamily("freshet_api_worker_up", "Whether an API process answered just now.", labels=["worker"])
    for worker in range(workers):
        family.add_metric([str(worker)], float(worker in texts))
    yield family
