"""The log: a named, partitioned, append-only sequence of records. One contract, every implementation.

Promises, tested by `tests/contract/log_contract.py` on each implementation:

1. `append` is whole or not at all: all records of one call lie at consecutive positions of one partition in the order
   given, or none ever does. Concurrent calls may share one commit; they never mix their records.
2. When `append` returns, the records survive the death of every process, and power loss as far as the medium does.
3. `append` raises `LogUnavailable(outcome="refused")` where nothing was and will be appended, and
   `LogUnavailable(outcome="unknown")` where the records may still appear, once and whole; `LogFull` (never appended)
   where space is short. An append whose outcome was reported is never sent again behind the caller's back.
4. A cancelled `append` is still carried out once it was accepted.
5. Offsets rise within a partition; they are sparse: a gap means nothing. The offsets of one log are never reused for
   other records while the medium keeps what it acknowledged.
6. `read` returns records in offset order, never one that is not committed, at most about `bytes_max` (but at least one
   record if there is one), and waits up to `wait_seconds` where there is none. `next_offset` of a batch may pass over
   offsets that carry no record (Kafka's markers), so it can rise without records.
7. Several processes may append to and read from one log.
8. A log that was dropped, here or elsewhere, answers `NotFound` or `LogUnavailable`; using it does not bring it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Appended", "Log", "LogBatch", "LogRecord", "Logs", "StoredRecord"]


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record to append. `key` is the namespace in UTF-8; header values are bytes."""

    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as read. `time_ms` is its append time in milliseconds since 1970, never falling within a partition."""

    offset: int
    time_ms: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Appended:
    """Where records went: offsets `begin_offset` (the first) up to, not including, `next_offset`."""

    begin_offset: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class LogBatch:
    """What a read returned: reading on from `next_offset` misses nothing; `end_offset` was the log's end then."""

    records: Sequence[StoredRecord]
    next_offset: int
    end_offset: int


class Log(Protocol):
    """One open log."""

    @property
    def log_id(self) -> str:
        """Identity: 22 characters of [A-Za-z0-9_-], new for every log that is created."""
        ...

    @property
    def partitions(self) -> int:
        """Number of partitions, fixed when the log was made."""
        ...

    async def append(self, partition: int, records: Sequence[LogRecord]) -> Appended:
        """Append all of `records` to `partition`, whole or not at all; return when durable.

        Raises `LogUnavailable`, `LogFull`, `PayloadTooLarge` (one call over `limits.APPEND_BYTES_MAX`).
        """
        ...

    async def read(self, partition: int, offset: int, *, bytes_max: int, wait_seconds: float) -> LogBatch:
        """Read from `offset` on. An offset beyond the end returns an empty batch at once with the true end.

        Raises `LogUnavailable`; `CorruptData` where `offset` lies below the first one kept.
        """
        ...

    async def ends(self) -> Sequence[int]:
        """Return for every partition the offset after its last committed record, as of a moment after the call began.

        Raises `LogUnavailable` within 2 s where the log does not answer.
        """
        ...


class Logs(Protocol):
    """A place where logs are kept: a SQLite file, or a Kafka cluster. `control` is the catalog's one-partition log."""

    @property
    def control(self) -> Log:
        """The control log; it exists from the first start on."""
        ...

    async def start(self) -> None:
        """Connect or create. Raises `LogUnavailable`, `ConfigError`."""
        ...

    async def open(self, name: str, log_id: str, partitions: int) -> Log:
        """Open the log, making it if it does not exist yet (idempotent, also between processes).

        Raises `LogUnavailable`, `LogFull`; `ConfigError` where it exists with another partition count.
        """
        ...

    async def drop(self, name: str, log_id: str, partitions: int) -> None:
        """Delete the log and its records for good; a missing one is fine. Raises `LogUnavailable`."""
        ...

    async def close(self) -> None:
        """Finish accepted appends, then let go; returns within 10 s."""
        ...
