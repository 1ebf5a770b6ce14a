"""What one API process takes: requests per second of one kind in one namespace, requests and their bytes at a time.

What is above is refused at once, with the time after which it would pass: a queue would only make everybody late.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from schemas.errors import TooManyRequests

__all__ = ["Bodies", "Body", "InFlight", "Operation", "RateOptions", "Rates"]


class Operation(StrEnum):
    """Kinds of requests that have a rate of their own."""

    QUERY = "query"
    FETCH = "fetch"
    LIST = "list"
    STATS = "stats"
    UPSERT = "upsert"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class RateOptions:
    """Requests per second that one process takes of each kind; 0 = no bound.

    Per namespace, but `stats`, which counts index-wide reads, per index. A second's worth may come at once.
    `buckets_max` bounds the memory: of so many namespaces it is remembered what they asked for.
    """

    query: float = 0
    fetch: float = 0
    list: float = 0
    stats: float = 0
    upsert: float = 0
    update: float = 0
    delete: float = 0
    buckets_max: int = 100_000


class Rates:
    """Token buckets, one per operation, index and namespace.

    A bucket is kept as the moment at which it will be full again; one that is full is the same as none.
    """

    def __init__(self, options: RateOptions, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds and never goes back."""
        self._rates = {kind: float(getattr(options, kind.value)) for kind in Operation}
        self._buckets_max = options.buckets_max
        self._clock = clock
        self._full_at: OrderedDict[tuple[Operation, str, str], float] = OrderedDict()
        self._has_none = not any(self._rates.values())

    def take(self, operation: Operation, index: str, namespace: str = "") -> None:
        """Take one token. Raises `TooManyRequests` where there is none; its retry time says when there will be."""
        if self._has_none:
            return
        rate = self._rates[operation]
        if not rate:
            return
        now = self._clock()
        # A bucket holds what comes in within a second, and one token at least.
        depth = max(1.0, 1.0 / rate)
        bucket = (operation, index, namespace)
        full_at = max(now, self._full_at.get(bucket, now)) + 1.0 / rate
        if full_at - now > depth + 1e-9:
            where = f"namespace '{namespace}' of index '{index}'" if namespace else f"index '{index}'"
            raise TooManyRequests(
                f"Too many {operation} requests to {where}: max {rate:g} per second. Send again more slowly.",
                retry_after_seconds=full_at - now - depth,
                operation=operation.value,
                limit=rate,
            )
        self._full_at[bucket] = full_at
        self._full_at.move_to_end(bucket)
        while len(self._full_at) > self._buckets_max:
            # The one that was asked for longest ago: most likely full again by now.
            self._full_at.popitem(last=False)


_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Body:
    """What is held of the body of one request."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._size = 0

    def take(self, size: int) -> None:
        """Take in so many bytes more. Raises `TooManyRequests` where there is no room for them."""
        self._bodies.take(size)
        self._size += size

    def drop(self) -> None:
        """Let go of all of it."""
        self._bodies.release(self._size)
        self._size = 0

    def counted(self, receive: _Receive) -> _Receive:
        """Return a `receive` of ASGI that takes in what it passes on; it raises `TooManyRequests`."""

        async def taking() -> MutableMapping[str, Any]:
            message = await receive()
            self.take(len(message.get("body", b"")))
            return message

        return taking


class Bodies:
    """Bytes of bodies that one process holds at a time, of requests that are read or worked on."""

    def __init__(self, bytes_max: int) -> None:
        """`bytes_max`: 0 = no bound."""
        self._max = bytes_max
        self._now = 0

    @contextmanager
    def reading(self) -> Iterator[Body]:
        """Give room to the body of one request, for as long as the block runs."""
        body = Body(self)
        try:
            yield body
        finally:
            body.drop()

    def take(self, size: int) -> None:
        """Take in so many bytes. Raises `TooManyRequests` where there is no room for them."""
        if self._max and size and self._now + size > self._max:
            raise TooManyRequests(
                f"This server holds {self._now} bytes of requests; max {self._max} at a time. Send again a little "
                "later, or less at a time.",
                retry_after_seconds=1.0,
                limit=self._max,
            )
        self._now += size

    def release(self, size: int) -> None:
        """Let go of so many bytes."""
        self._now -= size


class InFlight:
    """Requests that one process works on at a time; a context manager for each of them."""

    def __init__(self, requests_max: int) -> None:
        """`requests_max`: 0 = no bound."""
        self._max = requests_max
        self._now = 0

    def __enter__(self) -> None:
        """Begin one. Raises `TooManyRequests` where there are as many as may be."""
        if self._max and self._now >= self._max:
            raise TooManyRequests(
                f"This server works on {self._now} requests; max {self._max} at a time. Send again a little later.",
                retry_after_seconds=1.0,
                limit=self._max,
            )
        self._now += 1

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._now -= 1
