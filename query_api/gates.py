"""What every request for a namespace or an index passes before it is worked on, whatever transport it came by."""

from __future__ import annotations

from query_api.access import granted
from query_api.fullness import Fullness
from query_api.shedding import Operation, Rates
from schemas.partitions import canonical_namespace
from schemas.records import check_namespace

__all__ = ["Gates"]


class Gates:
    """Whether the request's key reaches the namespace, whether there is a token left, whether the index has room."""

    def __init__(self, rates: Rates, fullness: Fullness) -> None:
        self._rates = rates
        self.fullness = fullness

    def enter(self, operation: Operation, index: str, namespace: str) -> None:
        """Let a request for one namespace pass. Raises `InvalidRequest`, `Forbidden`, `TooManyRequests`."""
        check_namespace(namespace)
        name = canonical_namespace(namespace)
        granted().check_namespace(name)
        self._rates.take(operation, index, name)

    def enter_index(self, index: str) -> None:
        """Let a request for a whole index pass. Raises `TooManyRequests`."""
        self._rates.take(Operation.STATS, index)
