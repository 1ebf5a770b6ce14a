"""The figures to reach, one target each: a scenario says which it measures, a test that none is left out."""

from __future__ import annotations

import operator
from dataclasses import dataclass

__all__ = ["TARGETS", "Target"]

_COMPARE = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True, slots=True)
class Target:
    """`figure` is the line of the table, `relation` is `>=` or `<=`, `bound` in `unit` ("" for a ratio)."""

    figure: str
    relation: str
    bound: float
    unit: str = ""

    @property
    def text(self) -> str:
        """The target as it is printed."""
        bound = f"{self.bound:.0%}" if self.unit == "%" else f"{self.bound:g} {self.unit}".strip()
        return f"{self.relation} {bound}"

    def met(self, value: float) -> bool:
        """Say whether `value` reaches the target; a share is given as a fraction."""
        return bool(_COMPARE[self.relation](value, self.bound))


TARGETS: dict[str, Target] = {
    "query_1": Target("queries/s at equal ef over REST, 1 connection, against the bare program", ">=", 0.9),
    "query_16": Target("queries/s at equal ef over REST, 16 connections, against the bare program", ">=", 1.3),
    "grpc_query_1": Target("queries/s over gRPC, 1 connection, against REST", ">=", 1.0),
    "grpc_query_16": Target("queries/s over gRPC, 16 connections, against REST", ">=", 1.0),
    "grpc_upsert_1": Target("upserts/s of 100 rows over gRPC, 1 writer, against REST", ">=", 1.0),
    "grpc_upsert_4": Target("upserts/s of 100 rows over gRPC, 4 writers, against REST", ">=", 1.0),
    "recall": Target("recall@10 of queries like the rows", ">=", 0.95),
    "recall_foreign": Target("recall@10 of queries unlike the rows: 0.03 below the target at most", ">=", 0.92),
    "visible_p50": Target("write to visible, embedded, 100 single upserts/s, p50", "<=", 15, "ms"),
    "visible_p99": Target("write to visible, embedded, 100 single upserts/s, p99", "<=", 60, "ms"),
    "visible_kafka_p50": Target("write to visible, Kafka on loopback, p50", "<=", 30, "ms"),
    "visible_kafka_p99": Target("write to visible, Kafka on loopback, p99", "<=", 120, "ms"),
    "load": Target("full load over REST until all is in graphs, against bare hnswlib", ">=", 0.6),
    "load_next": Target("the same, the next target", ">=", 0.8),
    "import_rate": Target("bulk import of Parquet, all rows checked first, against `freshet load` of them", ">=", 0.8),
    "log_to_graph": Target("log to graph while serving 100 queries/s, against bare hnswlib", ">=", 0.8),
    "replay": Target("replay of a history into a new index, against bare hnswlib", ">=", 0.9),
    "p99_full_ingest": Target("query p99 at a fixed rate during full-speed ingest, against idle", "<=", 5, "x"),
    "p99_paced_ingest": Target("query p99 at a fixed rate during 1,000 rows/s, against idle", "<=", 2, "x"),
    "pause": Target("longest pause of the API while a graph is loaded and swapped", "<=", 20, "ms"),
    "hold_100": Target("upserts of 100 rows x 384: how long one holds the event loop", "<=", 5, "ms"),
    "hold_1000": Target("upserts of 1,000 rows x 384: how long one holds the event loop", "<=", 15, "ms"),
    "publish_cost": Target("publish at 1,000,000 rows, 10 % dead, 100,000 namespaces, against 10,000", "<=", 2, "x"),
    "log_bytes": Target("bytes written per byte of vectors over a full load: log", "<=", 3),
    "snapshot_bytes": Target("bytes written per byte of vectors over a full load: snapshots", "<=", 5),
    "start": Target("start beyond verifying and loading what the manifest names", "<=", 2, "s"),
    "filter_recall": Target("filtered queries, any selectivity, also anti-correlated: least recall@10", ">=", 0.95),
    "filter_70": Target("filtered queries at 70 %: p50 against unfiltered", "<=", 1.5, "x"),
    "filter_worst": Target("filtered queries at any selectivity: worst p50 against unfiltered", "<=", 5, "x"),
    "filter_1": Target("filtered queries at 1 % and below: worst p50", "<=", 1, "ms"),
    "sparse_p50": Target("sparse queries of 50 values over REST, rows of 100 values: p50", "<=", 5, "ms"),
    "sparse_scan": Target("the same, against numpy over columns in process", "<=", 1, "x"),
    "sparse_exact": Target("share of their matches that belong to the true best", ">=", 1),
    "hybrid_dense": Target("queries by dense and sparse part: worst p50 against dense alone", "<=", 5, "x"),
    "hybrid_recall": Target("the same, either part leading, signs mixed: least recall@10", ">=", 0.95),
    "memory": Target("anonymous memory of the API less an empty one's, over raw vector bytes", "<=", 1.5, "x"),
    "attack_p99": Target("query p99 at a fixed rate while others attack the server, against idle", "<=", 3, "x"),
    "idle": Target("idle processor use with 20 indexes, of one core", "<=", 0.02, "%"),
}
