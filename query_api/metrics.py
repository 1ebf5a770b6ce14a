"""What the API counts; the registry is passed in."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["ApiMetrics"]

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class ApiMetrics:
    """Counters, gauges and histograms of one API process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answered: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self.requests = Counter(
            "freshet_requests_total",
            "Requests answered, by operation and HTTP status.",
            ["operation", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "freshet_request_seconds",
            "Seconds from the first byte of a request to its answer.",
            ["operation"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.events = Counter(
            "freshet_events_accepted_total", "Events appended to a log by this process.", registry=registry
        )
        self.swaps = Counter("freshet_snapshot_swaps_total", "Newer snapshots taken over.", registry=registry)
        self.follow_errors = Counter(
            "freshet_snapshot_errors_total", "Looks for a newer snapshot that failed.", registry=registry
        )
        self.applied = Gauge(
            "freshet_applied_offset",
            "Offset up to which the served snapshot shows the log.",
            ["index", "partition"],
            registry=registry,
        )
        self.lag = Gauge(
            "freshet_lag_events",
            "Events of the log that the served snapshot does not show yet, an upper bound.",
            ["index", "partition"],
            registry=registry,
        )
        self.tail_rows = Gauge(
            "freshet_tail_rows", "Live rows that are in no graph yet.", ["index", "partition"], registry=registry
        )

    def answered(self, operation: str, status: int, *, seconds: float) -> None:
        """Count one request. Looking a metric up by its labels costs 5 us, so what was found is kept."""
        found = self._answered.get((operation, status))
        if found is None:
            found = (
                self.requests.labels(operation=operation, status=str(status)),
                self.request_seconds.labels(operation=operation),
            )
            self._answered[operation, status] = found
        found[0].inc()
        found[1].observe(seconds)
