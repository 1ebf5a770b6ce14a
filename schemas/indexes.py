"""What a control-plane call creates: an index, a view over a log."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["IndexSpec", "Metric", "VectorType"]


class Metric(StrEnum):
    """How two dense vectors are compared."""

    COSINE = "cosine"
    DOTPRODUCT = "dotproduct"
    EUCLIDEAN = "euclidean"


class VectorType(StrEnum):
    """What the records of an index must have."""

    DENSE = "dense"
    SPARSE = "sparse"


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """An index as it was created, and configured since.

    `dimension` is 0 for sparse indexes. `settings` is a JSON object with what the client asked for beside:
    `tags`, `deletion_protection`, `cloud`, `region` and the bodies it sent. `port` is 0 until one is assigned.
    `recall_target` is the share of the true nearest rows that a query must find, 0.5 to 0.999. `write_wait_ms` is how
    long a write is held until it is visible, milliseconds; None leaves that to the server.
    Name, log, dimension and metric never change; `settings`, `recall_target` and `write_wait_ms` may.
    """

    name: str
    log_id: str
    partitions: int
    dimension: int
    metric: Metric
    vector_type: VectorType = VectorType.DENSE
    settings: bytes = b"{}"
    port: int = 0
    recall_target: float = 0.95
    write_wait_ms: int | None = None

    @property
    def index_id(self) -> str:
        """Name of the view in the snapshot store; a recreated index gets another."""
        return f"{self.name}.{self.log_id}"
