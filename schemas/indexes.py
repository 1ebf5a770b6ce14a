"""What a control-plane call creates: an index, a view over a log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from schemas.errors import InvalidRequest
from schemas.limits import INDEX_NAME_BYTES_MAX

__all__ = ["IndexSpec", "Metric", "VectorType", "check_index_name"]

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


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
    `tags`, `deletion_protection`, `max_records`, `max_bytes` and the bodies it sent. `port` is 0 until one is assigned.
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


def check_index_name(name: str) -> None:
    """Raise `InvalidRequest` unless `name` can be an index: 1 to 45 of a-z, 0-9 and inner hyphens (a DNS label)."""
    if len(name) > INDEX_NAME_BYTES_MAX or not _NAME.fullmatch(name):
        raise InvalidRequest(
            "Name must consist of lower case alphanumeric characters or '-', must start and end with an alphanumeric "
            f"character and be 1 to {INDEX_NAME_BYTES_MAX} characters long, got {name[:80]!r}",
            limit=INDEX_NAME_BYTES_MAX,
        )
