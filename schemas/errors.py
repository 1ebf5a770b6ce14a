"""The one tree of errors: each knows its code, its facts and what to do next.

FreshetError
├── InvalidRequest            the caller's mistake                        400
│   ├── PayloadTooLarge       the body or batch is over a limit           413
│   ├── UnprocessableBody     a control-plane body of the wrong shape     422
│   ├── ForeignPosition       a position of another log or lineage        400
│   └── PositionBeyondEnd     a position that the log has not reached     400
├── NotFound                  index, namespace or route is missing        404
├── MethodNotAllowed          the route exists, not with this method      405
├── AlreadyExists             index or namespace of that name             409
├── PositionNotReached        the snapshot is behind the position asked   412
├── Unauthenticated           the API key is missing or wrong             401
├── NotReady                  something else has to end first             412
├── Forbidden                 switched off, or the key has no right to it 403
│   └── IndexFull             the index holds as much as it may           403
├── TailFull                  too much is not indexed yet                 429
├── TooManyRequests           above a rate, or too many at a time         429
├── Unavailable               try again later                             503
│   ├── LogUnavailable        the log does not answer (refused | unknown)
│   ├── LogFull               the log's disk is full or below its reserve
│   ├── LogRegressed          the log ends below what was folded
│   ├── SnapshotBehind        only older state than already served is left
│   └── StoreUnavailable      the snapshot store does not answer
├── OutcomeUnknown            durable, the result is not known yet        504
├── DeadlineExceeded          the caller's own deadline has passed        504
├── Unimplemented             a method or encoding that is not served     501
├── CommitConflict            another worker owns the partition
├── CorruptData               bytes do not match their digest or format
├── UnsupportedFormat         written by a newer version
└── ConfigError               a setting is wrong
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

__all__ = [
    "AlreadyExists",
    "Code",
    "CommitConflict",
    "ConfigError",
    "CorruptData",
    "DeadlineExceeded",
    "Forbidden",
    "ForeignPosition",
    "FreshetError",
    "IndexFull",
    "InvalidRequest",
    "LogFull",
    "LogRegressed",
    "LogUnavailable",
    "MethodNotAllowed",
    "NotFound",
    "NotReady",
    "OutcomeUnknown",
    "PayloadTooLarge",
    "PositionBeyondEnd",
    "PositionNotReached",
    "SnapshotBehind",
    "StoreUnavailable",
    "TailFull",
    "TooManyRequests",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "UnprocessableBody",
    "UnsupportedFormat",
]


class Code(IntEnum):
    """gRPC status codes, the vocabulary of every error (https://grpc.io/docs/guides/status-codes/)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class FreshetError(Exception):
    """Base of all errors; `str()` is the message for people, `facts` are for machines.

    `retry_after_seconds` is set where trying again later makes sense.
    """

    code: ClassVar[Code] = Code.UNKNOWN

    def __init__(self, message: str, *, retry_after_seconds: float | None = None, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
        self.retry_after_seconds = retry_after_seconds


class InvalidRequest(FreshetError):
    """The caller's mistake; trying again unchanged will fail again."""

    code = Code.INVALID_ARGUMENT


class PayloadTooLarge(InvalidRequest):
    """A body or batch is over a limit of `schemas.limits`."""


class UnprocessableBody(InvalidRequest):
    """A control-plane body has the wrong shape."""


class ForeignPosition(InvalidRequest):
    """A position token belongs to another log, or to another lineage of this one."""


class PositionBeyondEnd(InvalidRequest):
    """A position lies beyond the end of the log."""


class NotFound(FreshetError):
    """An index, namespace or route does not exist."""

    code = Code.NOT_FOUND


class MethodNotAllowed(FreshetError):
    """The route exists, but not with this method; facts: `allow`."""

    code = Code.UNIMPLEMENTED


class AlreadyExists(FreshetError):
    """An index or namespace of that name exists."""

    code = Code.ALREADY_EXISTS


class PositionNotReached(FreshetError):
    """The snapshot did not reach the wanted position within the wait; facts carry both positions."""

    code = Code.FAILED_PRECONDITION


class NotReady(FreshetError):
    """Something else that is under way has to end first, such as a backup or a restore."""

    code = Code.FAILED_PRECONDITION


class Unauthenticated(FreshetError):
    """The API key is missing, unknown or revoked."""

    code = Code.UNAUTHENTICATED


class Forbidden(FreshetError):
    """The operation is switched off for this index, or the API key has no right to it."""

    code = Code.PERMISSION_DENIED


class IndexFull(Forbidden):
    """The index holds as many records or bytes as it may: upserts are refused, deletes and updates are not."""


class TailFull(FreshetError):
    """Too many acknowledged rows are not in a graph yet."""

    code = Code.RESOURCE_EXHAUSTED


class TooManyRequests(FreshetError):
    """More requests than a rate allows, or more at a time than one process takes."""

    code = Code.RESOURCE_EXHAUSTED


class Unavailable(FreshetError):
    """A part that is needed does not answer now."""

    code = Code.UNAVAILABLE


class LogUnavailable(Unavailable):
    """The log does not answer.

    `outcome` is `refused` (the records were never appended) or `unknown` (they may still appear).
    """

    def __init__(
        self, message: str, *, outcome: str = "refused", retry_after_seconds: float = 1.0, **facts: object
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds, outcome=outcome, **facts)
        self.outcome = outcome


class LogFull(Unavailable):
    """The log's disk is full, or below the reserve of free space."""


class LogRegressed(Unavailable):
    """The log ends below an offset that was already folded: it was restored from an older copy or lost data."""


class SnapshotBehind(Unavailable):
    """Only a snapshot older than one already served could be opened, or none yet."""


class StoreUnavailable(Unavailable):
    """The snapshot store does not answer."""


class OutcomeUnknown(FreshetError):
    """The write is durable, but its result is not known yet."""

    code = Code.DEADLINE_EXCEEDED


class DeadlineExceeded(FreshetError):
    """The caller's deadline passed before its answer was known; an accepted write is carried out all the same."""

    code = Code.DEADLINE_EXCEEDED


class Unimplemented(FreshetError):
    """A method, or a way of saying things, that is not served."""

    code = Code.UNIMPLEMENTED


class CommitConflict(FreshetError):
    """A manifest of that version exists: another worker owns the partition."""

    code = Code.ABORTED


class CorruptData(FreshetError):
    """Bytes do not match their digest, size or format."""

    code = Code.DATA_LOSS


class UnsupportedFormat(FreshetError):
    """A format number above ours: written by a newer version."""

    code = Code.FAILED_PRECONDITION


class ConfigError(FreshetError):
    """A setting is missing, unknown or wrong."""

    code = Code.INVALID_ARGUMENT
