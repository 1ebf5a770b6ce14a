"""How fresh an answer is, and waiting for the freshness that the caller asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from indexer.snapshots.snapshot import Snapshot
from query_api.access import granted
from query_api.follower import PartitionFollower
from query_api.levels import reach_bound, reach_ends, shown_by, token_text
from query_api.served import ServedIndex
from schemas.errors import ForeignPosition, InvalidRequest, PositionBeyondEnd, PositionNotReached
from schemas.limits import STALENESS_MS_MAX, WAIT_MS_MAX
from schemas.positions import Position, PositionToken

__all__ = [
    "EVENTUAL",
    "Freshness",
    "Level",
    "Shown",
    "Wanted",
    "decide_existence",
    "reach",
    "show",
    "snapshot_of",
    "snapshots_of_all",
]


class Level(StrEnum):
    """How new an answer must be beside a position: whatever there is, not staler than a bound, all that was written."""

    EVENTUAL = "eventual"
    BOUNDED = "bounded"
    STRONG = "strong"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reader asks for: at least the positions of `token`, at least `lsn`, within `wait_ms` (None = default).

    `max_staleness_ms` belongs to the level `BOUNDED` and to no other.
    """

    token: PositionToken | None = None
    lsn: int | None = None
    wait_ms: int | None = None
    level: Level = Level.EVENTUAL
    max_staleness_ms: int | None = None

    def __post_init__(self) -> None:
        """Check the bounds; raises `InvalidRequest`."""
        if self.wait_ms is not None and not 0 <= self.wait_ms <= WAIT_MS_MAX:
            raise InvalidRequest(f"Wait must be 0 to {WAIT_MS_MAX} milliseconds, got {self.wait_ms}", limit=WAIT_MS_MAX)
        if self.lsn is not None and self.lsn < 0:
            raise InvalidRequest(f"LSN must not be negative, got {self.lsn}")
        if (self.max_staleness_ms is None) is (self.level is Level.BOUNDED):
            raise InvalidRequest(
                "Consistency 'bounded' needs a staleness (maxStalenessMs, x-freshet-max-staleness-ms), and no other "
                f"level takes one; got '{self.level}' {'without' if self.max_staleness_ms is None else 'with'} one"
            )
        if self.max_staleness_ms is not None and not 0 <= self.max_staleness_ms <= STALENESS_MS_MAX:
            raise InvalidRequest(
                f"Staleness must be 0 to {STALENESS_MS_MAX} milliseconds, got {self.max_staleness_ms}",
                limit=STALENESS_MS_MAX,
            )


EVENTUAL = Wanted()
# Beyond every offset.
_NEVER = 2**63


@dataclass(frozen=True, slots=True)
class Shown:
    """What an answer shows: a token, the LSN where one namespace was read, the staleness (None = unknown)."""

    position: PositionToken
    lsn: int | None
    staleness_ms: int | None


@dataclass(frozen=True, slots=True)
class Freshness:
    """Waits, milliseconds: of a reader that names none; of anybody for readiness or for an outcome."""

    wait_ms_default: int = 2_000
    ready_wait_ms: int = 2_000
    outcome_wait_ms: int = 5_000


async def snapshot_of(index: ServedIndex, namespace: str, wanted: Wanted, options: Freshness) -> Snapshot:
    """Return the newest snapshot that holds `namespace`, once it shows what is wanted.

    Raises `SnapshotBehind` before readiness; `InvalidRequest`, `ForeignPosition`, `PositionBeyondEnd` for positions
    that cannot be reached, `PositionNotReached` for what was not reached in time, `LogUnavailable` where a strong read
    cannot learn where the log ends.
    """
    follower = index.follower_of(namespace)
    if wanted is EVENTUAL and index.is_ready(follower):
        return follower.snapshot
    await index.ready(follower, wait_ms=options.ready_wait_ms)
    token = wanted.token
    _check_log(index, token)
    positions = []
    if token is not None and follower.partition in token.positions:
        positions.append(token.positions[follower.partition])
    if wanted.lsn is not None:
        positions.append(Position(follower.snapshot.lineage, wanted.lsn))
    until = _until(wanted, options)
    snapshot = await _wait(index, follower, positions, until)
    return snapshot if wanted.level is Level.EVENTUAL else (await _leveled(index, [follower], wanted, until))[0]


async def snapshots_of_all(
    index: ServedIndex, wanted: Wanted, options: Freshness, *, is_filtered: bool = False
) -> Sequence[Snapshot]:
    """Return the newest snapshot of every partition, once each shows what is wanted. Raises as `snapshot_of`.

    `is_filtered` says that the caller shows of them only the namespaces that the request's key reaches; `Forbidden`
    where it does not and the key is scoped to some.
    """
    if not is_filtered:
        granted().check_whole_index()
    if wanted.lsn is not None:
        raise InvalidRequest(
            "An integer LSN means something in one namespace only; "
            "ask for a position token (response header x-freshet-position) when reading the whole index."
        )
    _check_log(index, wanted.token)
    for follower in index.followers:
        await index.ready(follower, wait_ms=options.ready_wait_ms)
    until = _until(wanted, options)
    positions = wanted.token.positions if wanted.token is not None else {}
    snapshots = [
        await _wait(index, follower, [positions[number]] if number in positions else [], until)
        for number, follower in enumerate(index.followers)
    ]
    return snapshots if wanted.level is Level.EVENTUAL else await _leveled(index, index.followers, wanted, until)


async def show(index: ServedIndex, snapshots: Sequence[Snapshot], *, is_one_namespace: bool) -> Shown:
    """Return what an answer from `snapshots` shows."""
    positions: dict[int, Position] = {}
    staleness: int | None = 0
    for snapshot in snapshots:
        number = snapshot.manifest.partition
        positions[number] = Position(snapshot.lineage, snapshot.next_offset)
        one = await index.ends.staleness_ms(number, snapshot.next_offset)
        staleness = None if one is None or staleness is None else max(staleness, one)
    lsn = snapshots[0].next_offset if is_one_namespace else None
    return Shown(PositionToken(index.spec.log_id, positions), lsn, staleness)


async def reach(follower: PartitionFollower, offset: int, *, until: float) -> Snapshot:
    """Return the newest snapshot once it shows all events below `offset`, or at the loop time `until`."""
    while True:
        snapshot = await follower.reach(offset, until=until)
        if snapshot.next_offset >= offset or asyncio.get_running_loop().time() >= until:
            return snapshot


async def decide_existence(index: ServedIndex, namespace: str, *, wait_ms: int) -> bool | None:
    """Say whether a namespace exists; no only from a snapshot that reached the end as read after this call began.

    None where no such snapshot came in time. Raises `LogUnavailable`.
    """
    follower = index.follower_of(namespace)
    until = asyncio.get_running_loop().time() + wait_ms / 1000
    if not await follower.opened(until=until):
        return None
    if follower.snapshot.namespace_exists(namespace):
        return True
    end = (await index.ends.read())[follower.partition]
    snapshot = await reach(follower, end, until=until)
    if snapshot.namespace_exists(namespace):
        return True
    return False if snapshot.next_offset >= end else None


async def _leveled(
    index: ServedIndex, followers: Sequence[PartitionFollower], wanted: Wanted, until: float
) -> Sequence[Snapshot]:
    """Return the snapshots of a strong or bounded read; what they showed before they still show."""
    if wanted.level is Level.STRONG:
        return await reach_ends(index, followers, until=until)
    assert wanted.max_staleness_ms is not None
    return [
        await reach_bound(index, follower, max_staleness_ms=wanted.max_staleness_ms, until=until)
        for follower in followers
    ]


async def _wait(
    index: ServedIndex, follower: PartitionFollower, positions: Sequence[Position], until: float
) -> Snapshot:
    snapshot = follower.snapshot
    for position in positions:
        snapshot = await _wait_for(index, follower, position, until)
    return snapshot


async def _wait_for(index: ServedIndex, follower: PartitionFollower, position: Position, until: float) -> Snapshot:
    number, offset = follower.partition, position.next_offset
    end = index.ends.known[number]
    if follower.snapshot.next_offset < offset and end < offset:
        end = (await index.ends.read())[number]
    loop = asyncio.get_running_loop()
    while True:
        snapshot = follower.snapshot
        if snapshot.lineage > position.lineage:
            raise ForeignPosition(
                f"Position {token_text(index, number, position)} is of an earlier life of this log, which was restored "
                f"from an older copy since; the snapshot shows {token_text(index, number, shown_by(snapshot))}. "
                "Forget the old position and read without it.",
                wanted=token_text(index, number, position),
                applied=token_text(index, number, shown_by(snapshot)),
            )
        if shown_by(snapshot) >= position:
            return snapshot
        if snapshot.lineage == position.lineage and offset > max(end, snapshot.next_offset):
            raise PositionBeyondEnd(
                f"Position {token_text(index, number, position)} lies beyond the end of the log, which is {end}.",
                wanted=token_text(index, number, position),
                end=end,
            )
        if loop.time() >= until:
            raise PositionNotReached(
                f"The snapshot shows {token_text(index, number, shown_by(snapshot))} and did not reach "
                f"{token_text(index, number, position)} in time; wait longer (waitMs, x-freshet-wait-ms) or ask again.",
                wanted=token_text(index, number, position),
                applied=token_text(index, number, shown_by(snapshot)),
            )
        # A later lineage is wanted than the one shown: only a change of lineage can bring it.
        await follower.reach(offset if snapshot.lineage == position.lineage else _NEVER, until=until)


def _until(wanted: Wanted, options: Freshness) -> float:
    wait_ms = options.wait_ms_default if wanted.wait_ms is None else wanted.wait_ms
    return asyncio.get_running_loop().time() + wait_ms / 1000


def _check_log(index: ServedIndex, token: PositionToken | None) -> None:
    if token is None:
        return
    if token.log_id != index.spec.log_id:
        raise ForeignPosition(
            f"Position {token} is of another log than that of index '{index.spec.name}' ({index.spec.log_id}).",
            wanted=str(token),
            log_id=index.spec.log_id,
        )
    wrong = [number for number in token.positions if number >= index.spec.partitions]
    if wrong:
        raise InvalidRequest(
            f"Position {token} names partition {wrong[0]}; the log has {index.spec.partitions} partitions, from 0."
        )
