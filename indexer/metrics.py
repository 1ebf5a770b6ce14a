"""What an indexer counts. The registry is passed in; names are listed in the README."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["IndexerMetrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class IndexerMetrics:
    """Counters of all workers of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register every metric with `registry`."""
        self.events = Counter("freshet_indexer_events", "Events folded.", registry=registry)
        self.publishes = Counter("freshet_indexer_publishes", "Snapshots published.", registry=registry)
        self.publish_seconds = Histogram(
            "freshet_indexer_publish_seconds",
            "Time to fold and publish one batch.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.visible_seconds = Histogram(
            "freshet_indexer_visible_seconds",
            "Age of the oldest event of a batch when its snapshot was published.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.merges = Counter("freshet_indexer_merges", "Merges committed, by kind.", ["kind"], registry=registry)
        self.merge_failures = Counter(
            "freshet_indexer_merge_failures", "Merges that failed and were given up.", registry=registry
        )
        self.dead_letters = Counter(
            "freshet_indexer_dead_letters", "Records that could not be folded.", registry=registry
        )
        self.conflicts = Counter(
            "freshet_indexer_conflicts", "Publishes refused because another worker had taken over.", registry=registry
        )
        self.fallbacks = Counter(
            "freshet_indexer_fallbacks",
            "Manifests passed over because they or their objects were damaged.",
            registry=registry,
        )
        self.collected = Counter("freshet_indexer_collected", "Objects and manifests collected.", registry=registry)
        self.checkpoints = Counter("freshet_indexer_checkpoints", "Durable checkpoints.", registry=registry)
        self.stopped = Gauge(
            "freshet_indexer_stopped_partitions",
            "Partitions that stand at a record of a newer format.",
            registry=registry,
        )
