"""Commands to the log: upsert, update, delete, namespaces. Free of any transport.

A write is answered when it is durable. What depends on the state at its offset (how many records matched, whether a
namespace existed) is computed by the fold and waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from producer.publisher import PublishedBatch
from query_api.appends import Appends
from query_api.filterable import check_filterable
from query_api.freshness import Freshness, decide_existence, reach
from query_api.gates import Gates
from query_api.served import ServedIndex
from query_api.shedding import Operation
from schemas.changes import Outcome
from schemas.errors import (
    AlreadyExists,
    Code,
    IndexFull,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    TailFull,
)
from schemas.filters import filter_from_json
from schemas.idempotency import digest_of, within_window
from schemas.limits import WAIT_MS_MAX
from schemas.operations import CreateNamespace, Delete, DeleteNamespace, DeleteWhere, Event, Update, UpdateWhere
from schemas.partitions import DEFAULT_NAMESPACE, canonical_namespace
from schemas.positions import Position, PositionToken

__all__ = ["WriteContext", "WriteOptions", "Writes", "Written"]


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """`tail_rows_max`: rows of one namespace that may lie in no graph before writes to it are put off.

    For how long follows from how fast rows came into graphs so far: `tail_retry_seconds` before that is known, at most
    `tail_retry_seconds_max`. Writes to an index that has no wait of its own are answered when they are visible, at the
    latest after `write_wait_ms`.
    """

    tail_rows_max: int = 200_000
    tail_retry_seconds: float = 2.0
    tail_retry_seconds_max: float = 60.0
    write_wait_ms: int = 0


@dataclass(frozen=True, slots=True)
class WriteContext:
    """What came with a write: headers for its records, and its idempotency key.

    `visible_ms` says how long to wait until it is visible, and that the answer is to say so; None leaves the wait to
    the index and the server.
    """

    headers: tuple[tuple[str, bytes], ...] = ()
    visible_ms: int | None = None
    idempotency_key: bytes | None = None

    def __post_init__(self) -> None:
        """Check the bound; raises `InvalidRequest`."""
        if self.visible_ms is not None and not 0 <= self.visible_ms <= WAIT_MS_MAX:
            raise InvalidRequest(
                f"Wait must be 0 to {WAIT_MS_MAX} milliseconds, got {self.visible_ms}", limit=WAIT_MS_MAX
            )


@dataclass(frozen=True, slots=True)
class Written:
    """A durable write: the position after it, and whether it was visible in time (None = nobody asked)."""

    position: PositionToken
    lsn: int
    is_visible: bool | None
    applied: int


class Writes:
    """Puts commands on the logs of indexes."""

    def __init__(self, appends: Appends, *, options: WriteOptions, freshness: Freshness, gates: Gates) -> None:
        self._appends = appends
        self._options = options
        self._freshness = freshness
        self._gates = gates

    async def append(
        self, index: ServedIndex, namespace: str, events: Sequence[Event], context: WriteContext
    ) -> Written:
        """Append `events`, whole or not at all; return when durable, and visible where that is asked for.

        Raises `InvalidRequest` for a filter that names a field which is not filterable; what `Gates.enter` raises,
        `IndexFull` for upserts, `TailFull` and what `Publisher.publish` raises.
        """
        self._gates.enter(_operation(events), index.spec.name, namespace)
        return await self._append(index, namespace, events, context)

    async def _append(
        self, index: ServedIndex, namespace: str, events: Sequence[Event], context: WriteContext
    ) -> Written:
        if _operation(events) is Operation.UPSERT:
            await self._gates.fullness.check(index)
        batch, lineage = await self._publish(index, namespace, events, context)
        return await self._written(index, batch, lineage, context)

    async def delete(
        self, index: ServedIndex, namespace: str, events: Sequence[Event], context: WriteContext
    ) -> Written:
        """Append deletes, unless the namespace does not exist.

        Raises `NotFound` only where a snapshot that reached the log's end says so; where none came in time, the events
        are appended: a delete is never lost because the snapshot lagged.
        """
        self._gates.enter(Operation.DELETE, index.spec.name, namespace)
        return await self._append(index, await self._existing(index, namespace, context), events, context)

    async def delete_where(
        self, index: ServedIndex, namespace: str, event: DeleteWhere, context: WriteContext
    ) -> tuple[int, Written]:
        """Append the delete; return how many records it deleted, as of its offset.

        Raises `NotFound` as `delete`, `OutcomeUnknown` as `update_where`.
        """
        self._gates.enter(Operation.DELETE, index.spec.name, namespace)
        name = await self._existing(index, namespace, context)
        batch, lineage = await self._publish(index, name, [event], context)
        outcome = await self._outcome(index, batch, lineage)
        return outcome.matched_records, await self._written(index, batch, lineage, context)

    async def delete_namespace(self, index: ServedIndex, namespace: str, context: WriteContext) -> Written:
        """Remove a namespace with all its records. Raises as `delete`."""
        return await self.delete(index, namespace, [DeleteNamespace(keep=False)], context)

    async def update_where(
        self, index: ServedIndex, namespace: str, event: UpdateWhere, context: WriteContext
    ) -> tuple[int, Written]:
        """Append the update; return how many records matched as of its offset.

        Raises `OutcomeUnknown` where the fold did not say so in time; the update is durable then.
        """
        self._gates.enter(Operation.UPDATE, index.spec.name, namespace)
        batch, lineage = await self._publish(index, namespace, [event], context)
        outcome = await self._outcome(index, batch, lineage)
        return outcome.matched_records, await self._written(index, batch, lineage, context)

    async def create_namespace(
        self, index: ServedIndex, namespace: str, schema: bytes, context: WriteContext
    ) -> Written:
        """Make an empty namespace. Raises `AlreadyExists`, `OutcomeUnknown`, `InvalidRequest` for the default one."""
        self._gates.enter(Operation.UPDATE, index.spec.name, namespace)
        if canonical_namespace(namespace) == DEFAULT_NAMESPACE:
            raise InvalidRequest("The default namespace always has its name and cannot be created.")
        batch, lineage = await self._publish(index, namespace, [CreateNamespace(schema)], context)
        outcome = await self._outcome(index, batch, lineage)
        if outcome.code == Code.ALREADY_EXISTS:
            raise AlreadyExists(f"Namespace {namespace} already exists", namespace=namespace)
        return await self._written(index, batch, lineage, context)

    async def close(self) -> None:
        """Wait for the appends that were accepted and whose callers have gone."""
        await self._appends.close()

    async def _existing(self, index: ServedIndex, namespace: str, context: WriteContext) -> str:
        """Return the canonical name of a namespace. Raises `NotFound` as `delete` does."""
        name = canonical_namespace(namespace)
        exists = await decide_existence(index, name, wait_ms=self._freshness.ready_wait_ms)
        if exists is False and not _is_repeated(index, name, context.idempotency_key):
            raise NotFound(f"Namespace {name} not found", namespace=name)
        return name

    async def _publish(
        self, index: ServedIndex, namespace: str, events: Sequence[Event], context: WriteContext
    ) -> tuple[PublishedBatch, int]:
        """Append and take note of it; return where, and the lineage that the offsets belong to."""
        name = canonical_namespace(namespace)
        follower = index.follower_of(name)
        applied, lineage = 0, 0
        until = asyncio.get_running_loop().time() + self._freshness.ready_wait_ms / 1000
        if follower.is_open or await follower.opened(until=until):
            snapshot = follower.snapshot
            applied, lineage = snapshot.next_offset, snapshot.lineage
            for event in events:
                if isinstance(event, UpdateWhere | DeleteWhere):
                    check_filterable(index.spec, snapshot, name, filter_from_json(event.filter))
            if index.ends.known[follower.partition] < applied:
                # Others have written, or the log has lost events: then the look-up refuses writes from now on.
                await index.ends.read()
            index.allow_if_recovered(follower.partition)
            if snapshot.tail_rows > self._options.tail_rows_max:
                self._check_tail(index, name)
        batch = await self._appends.append(
            index,
            name,
            events,
            headers=context.headers,
            idempotency_key=context.idempotency_key,
            applied=applied,
        )
        return batch, lineage

    def _check_tail(self, index: ServedIndex, namespace: str) -> None:
        follower = index.follower_of(namespace)
        rows = follower.snapshot.tail_rows_of(namespace)
        if rows > self._options.tail_rows_max:
            wait_seconds = follower.pace.seconds_for(
                rows - self._options.tail_rows_max,
                unknown=self._options.tail_retry_seconds,
                most=self._options.tail_retry_seconds_max,
            )
            raise TailFull(
                f"Namespace '{namespace}' has {rows} records that are in no graph yet; the limit is "
                f"{self._options.tail_rows_max}. Nothing was written: send again more slowly.",
                retry_after_seconds=wait_seconds,
                rows=rows,
                limit=self._options.tail_rows_max,
            )

    async def _outcome(self, index: ServedIndex, batch: PublishedBatch, lineage: int) -> Outcome:
        until = asyncio.get_running_loop().time() + self._freshness.outcome_wait_ms / 1000
        follower = index.followers[batch.partition]
        if await follower.opened(until=until):
            snapshot = await reach(follower, batch.next_offset, until=until)
            outcome = snapshot.outcomes.get(batch.begin_offset)
            if outcome is not None and snapshot.lineage == lineage:
                return outcome
        position = PositionToken(index.spec.log_id, {batch.partition: Position(lineage, batch.next_offset)})
        raise OutcomeUnknown(
            f"The write is durable at {position}, its outcome is not known yet. It need not be sent again.",
            position=str(position),
        )

    async def _written(self, index: ServedIndex, batch: PublishedBatch, lineage: int, context: WriteContext) -> Written:
        follower = index.followers[batch.partition]
        is_visible = False
        wait_ms = self._wait_ms(index, context)
        if wait_ms or context.visible_ms is not None:
            until = asyncio.get_running_loop().time() + wait_ms / 1000
            if await follower.opened(until=until):
                snapshot = await reach(follower, batch.next_offset, until=until)
                is_visible = snapshot.lineage == lineage and snapshot.next_offset >= batch.next_offset
        position = PositionToken(index.spec.log_id, {batch.partition: Position(lineage, batch.next_offset)})
        applied = follower.snapshot.next_offset if follower.is_open else 0
        told = None if context.visible_ms is None else is_visible
        return Written(position, batch.next_offset, told, applied)

    async def _check_room(self, index: ServedIndex, name: str, context: WriteContext) -> None:
        try:
            await self._gates.fullness.check(index)
        except IndexFull:
            # What comes again may be what filled it.
            if not index.follower_of(name).is_open or not _is_repeated(index, name, context.idempotency_key):
                raise

    def _wait_ms(self, index: ServedIndex, context: WriteContext) -> int:
        """Return how long a write waits until it is visible: as its caller says, else its index, else the server."""
        waits = (context.visible_ms, index.spec.write_wait_ms, self._options.write_wait_ms)
        return next(wait_ms for wait_ms in waits if wait_ms is not None)


def _is_repeated(index: ServedIndex, name: str, key: bytes | None) -> bool:
    """Say whether a write comes again: it is answered as the first one, which may have deleted its namespace."""
    if key is None:
        return False
    digest = digest_of(name, key)
    use = index.follower_of(name).snapshot.keys.find([digest]).get(digest)
    return use is not None and within_window(use.offset, index.ends.known[index.follower_of(name).partition])


def _operation(events: Sequence[Event]) -> Operation:
    """Return what kind of request brings these events; those of one request are of one kind."""
    first = next(iter(events), None)
    if isinstance(first, Update | UpdateWhere):
        return Operation.UPDATE
    return Operation.DELETE if isinstance(first, Delete | DeleteWhere | DeleteNamespace) else Operation.UPSERT
