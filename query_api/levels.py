"""Strong and bounded reads: waiting until a snapshot provably shows all that was written, or all but the newest.

Both are decided by ends of the log that were read after the request arrived (or, for a bound, not longer before it than
the bound): a write that was acknowledged before such a look-up began lies below the ends that it found, whichever
process took it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from indexer.snapshots.snapshot import Snapshot
from query_api.follower import PartitionFollower
from query_api.served import ServedIndex
from schemas.errors import LogUnavailable, PositionNotReached
from schemas.positions import Position, PositionToken

__all__ = ["reach_bound", "reach_ends", "shown_by", "token_text"]

# Beyond every offset.
_NEVER = 2**63
# A look-up is part of the request: it may take so long although the caller waits for nothing.
_LOOK_SECONDS = 2.0
# How long a bounded read rests before it asks a log again that did not say where it ends.
_AGAIN_SECONDS = 0.05


def shown_by(snapshot: Snapshot) -> Position:
    """Return the position that a snapshot shows."""
    return Position(snapshot.lineage, snapshot.next_offset)


def token_text(index: ServedIndex, partition: int, position: Position) -> str:
    """Return the token of a position in one partition."""
    return str(PositionToken(index.spec.log_id, {partition: position}))


async def reach_ends(index: ServedIndex, followers: Sequence[PartitionFollower], *, until: float) -> Sequence[Snapshot]:
    """Return a snapshot of each partition that shows all that the log held when this was called.

    One look-up of the ends serves all callers that came before it began. Raises `PositionNotReached` at the loop time
    `until`; `LogUnavailable` where the log does not say where it ends.
    """
    before = [shown_by(follower.snapshot) for follower in followers]
    ends = await _look(index, until)
    return [
        await _reach_end(index, follower, shown, ends[follower.partition], until)
        for follower, shown in zip(followers, before, strict=True)
    ]


async def reach_bound(
    index: ServedIndex, follower: PartitionFollower, *, max_staleness_ms: int, until: float
) -> Snapshot:
    """Return a snapshot that shows all that was acknowledged more than `max_staleness_ms` before this was called.

    It is the newest one at once where that can be proven of it. Raises `PositionNotReached` at the loop time `until`,
    also where the log does not say where it ends: how stale a snapshot is, is not known then.
    """
    loop = asyncio.get_running_loop()
    ends, number = index.ends, follower.partition
    while True:
        snapshot = follower.snapshot
        is_fresh = await ends.is_within(number, snapshot.next_offset, max_staleness_ms=max_staleness_ms)
        # A log that lost events may take others below what is shown.
        has_lost = index.is_recovering(number)
        if is_fresh and not has_lost:
            return snapshot
        if loop.time() >= until:
            end = Position(snapshot.lineage, max(ends.known[number], snapshot.next_offset))
            wanted, applied = token_text(index, number, end), token_text(index, number, shown_by(snapshot))
            why = "The log does not say where it ends" if is_fresh is None else "It is behind the log by more than that"
            raise PositionNotReached(
                f"The snapshot shows {applied} is not proven to be at most {max_staleness_ms} ms stale; "
                f"the log ended at {wanted} when it was last asked. {why}. "
                "Wait longer (waitMs, x-freshet-wait-ms), allow more, or ask again.",
                wanted=wanted,
                applied=applied,
                max_staleness_ms=max_staleness_ms,
            )
        if is_fresh is None:
            await asyncio.sleep(min(_AGAIN_SECONDS, max(0.0, until - loop.time())))
        else:
            await follower.reach(_NEVER if has_lost else snapshot.next_offset + 1, until=until)


async def _look(index: ServedIndex, until: float) -> Sequence[int]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout_at(max(until, loop.time() + _LOOK_SECONDS)):
            return await index.ends.read()
    except TimeoutError as error:
        raise LogUnavailable("The log did not say in time where it ends: a strong read cannot be answered.") from error


async def _reach_end(
    index: ServedIndex, follower: PartitionFollower, shown: Position, end: int, until: float
) -> Snapshot:
    """Wait for `end`, found by a look-up that began when the partition showed `shown`."""
    loop = asyncio.get_running_loop()
    number = follower.partition
    while True:
        snapshot = follower.snapshot
        if snapshot.lineage != shown.lineage:
            # The log was found shorter and is folded again: offsets of the life before say nothing now.
            shown = shown_by(snapshot)
            end = (await _look(index, until))[number]
            continue
        # A log that ends below what was shown has lost events, and may take others: only a new lineage shows them.
        has_lost = end < shown.next_offset
        if not has_lost and snapshot.next_offset >= end:
            return snapshot
        if loop.time() >= until:
            wanted = token_text(index, number, Position(snapshot.lineage + has_lost, end))
            applied = token_text(index, number, shown_by(snapshot))
            raise PositionNotReached(
                f"The log ended at {wanted} when the read came; the snapshot shows {applied} and did not get there in "
                "time; wait longer (waitMs, x-freshet-wait-ms) or ask again.",
                wanted=wanted,
                applied=applied,
            )
        await follower.reach(_NEVER if has_lost else end, until=until)
