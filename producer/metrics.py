"""What the way on to the log counts. The registry is passed in, so two pipelines in one process don't mix."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

__all__ = ["ProducerMetrics"]

# From a commit on a fast disk to a broker that is about to be given up.
_APPEND_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class ProducerMetrics:
    """Counters of publisher and catalog."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.events = Counter(
            "freshet_events_published", "Events appended and durable.", ["operation"], registry=registry
        )
        self.append_bytes = Counter(
            "freshet_append_bytes", "Encoded bytes of events appended and durable.", registry=registry
        )
        self.append_seconds = Histogram(
            "freshet_append_seconds", "From hand-over to durable.", buckets=_APPEND_SECONDS, registry=registry
        )
        self.append_failures = Counter(
            "freshet_append_failures", "Appends that raised, by kind of error.", ["error"], registry=registry
        )
        self.catalog_poison = Counter(
            "freshet_catalog_poison", "Control records that could not be read and were skipped.", registry=registry
        )
