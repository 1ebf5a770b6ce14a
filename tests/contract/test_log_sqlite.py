"""The embedded log keeps the contract, and what only it promises."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from producer.log import sqlite_commits
from producer.log.protocol import Log, LogRecord
from producer.log.sqlite import SqliteLogs
from producer.pokes import PokeReceiver, PokeSender
from schemas.errors import CorruptData, LogFull, LogUnavailable, NotFound
from tests.contract.log_contract import LogContract
from tests.support.appender import assert_whole, batch
from tests.support.log_reading import new_log_id, read_all

_MIB = 1024 * 1024


class TestSqliteLog(LogContract):
    """Everything that every log promises."""

    @pytest.fixture
    def spec(self, tmp_path: Path) -> str:
        return f"sqlite:{tmp_path / 'log.db'}"


def _stripped(record):
    return type(record)(record.offset, record.time_ms, record.key, record.value.rstrip(), record.headers)


async def _open(logs: SqliteLogs, partitions: int = 1) -> Log:
    return await logs.open("x", new_log_id(), partitions)


@pytest.mark.asyncio
async def test_time_is_the_clocks_but_never_falls(start):
    """A record's time is max(previous, now), per partition, also where the clock is set back."""
    now = iter([1_000, 5_000, 2_000, 2_500, 6_000])
    log = await _open(await start(clock=lambda: next(now)), 2)
    for partition in (0, 0, 0, 1, 0):
        await log.append(partition, [LogRecord(None, b"")])
    assert [r.time_ms for r in await read_all(log, 0)] == [1_000, 5_000, 5_000, 6_000]
    assert [r.time_ms for r in await read_all(log, 1)] == [2_500]


@pytest.mark.asyncio
async def test_waiting_appends_share_one_commit(start):
    """Whatever waits while a commit runs goes into the next one together, whichever log it is for."""
    release = threading.Event()
    entered = threading.Event()
    commits = []

    def step(name: str) -> None:
        if name == "append.before_commit":
            commits.append(name)
            if len(commits) == 1:
                entered.set()
                release.wait(10)

    logs = await start(step=step)
    opened = [await _open(logs, 2) for _ in range(3)]
    first = asyncio.create_task(opened[0].append(0, batch("first", 0, 1)))
    await asyncio.to_thread(entered.wait, 10)
    rest = [asyncio.create_task(log.append(p, batch("r", n, 2))) for n in range(10) for log in opened for p in (0, 1)]
    await asyncio.sleep(0.05)
    release.set()
    await asyncio.gather(first, *rest)
    assert len(commits) == 2
    for log in opened:
        for partition in (0, 1):
            assert len(await read_all(log, partition)) == 20 + (log is opened[0] and partition == 0)


@pytest.mark.asyncio
async def test_a_full_file_refuses_the_whole_commit_and_goes_on_later(start):
    """Where space runs out in the middle of a request, LogFull comes back, nothing of it is there, and reads go on."""
    logs = await start(file_bytes_max=2 * _MIB)
    log = await _open(logs)
    said = {}
    with pytest.raises(LogFull, match="nothing was written"):
        for number in range(100):
            appended = await log.append(0, [LogRecord(None, r.value.ljust(4_096)) for r in batch("f", number, 20)])
            said["f", number] = appended.begin_offset
    assert said
    records = await read_all(log, 0)
    assert_whole([_stripped(r) for r in records], said)
    await logs.close()
    log = await (await start()).open("x", log.log_id, 1)
    assert (await log.append(0, batch("g", 0, 1))).begin_offset == len(records)


@pytest.mark.asyncio
async def test_a_request_that_fits_is_refused_with_the_one_that_does_not(start):
    """All requests of a commit that ran out of space are told so; none of them is half there."""
    release = threading.Event()
    entered = threading.Event()

    def step(name: str) -> None:
        if name == "append.before_commit" and not entered.is_set():
            entered.set()
            release.wait(10)

    log = await _open(await start(step=step, file_bytes_max=2 * _MIB))
    first = asyncio.create_task(log.append(0, batch("a", 0, 1)))
    await asyncio.to_thread(entered.wait, 10)
    small = asyncio.create_task(log.append(0, batch("small", 0, 1)))
    large = asyncio.create_task(log.append(0, [LogRecord(None, bytes(4 * _MIB))]))
    await asyncio.sleep(0.05)
    release.set()
    await first
    for task in (small, large):
        with pytest.raises(LogFull):
            await task
    assert (await log.append(0, batch("b", 0, 1))).begin_offset == 1


@pytest.mark.asyncio
async def test_below_the_reserve_appends_are_refused_and_reads_go_on(start):
    """Free space under the reserve gives LogFull before anything is written."""
    log_id = new_log_id()
    log = await (await start()).open("x", log_id, 1)
    await log.append(0, batch("a", 0, 1))
    full = await (await start(reserve_bytes=1 << 60)).open("x", log_id, 1)
    with pytest.raises(LogFull, match="reserve") as refused:
        await full.append(0, batch("b", 0, 1))
    assert refused.value.retry_after_seconds
    assert len(await read_all(full, 0)) == 1
    assert (await log.append(0, batch("c", 0, 1))).begin_offset == 1


@pytest.mark.asyncio
async def test_a_log_held_by_another_process_refuses_in_time(path, start):
    """An append that does not get its turn is refused, was never written, and the next one works."""
    log = await _open(await start(busy_seconds=0.2))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with asyncio.timeout(10):
        with pytest.raises(LogUnavailable, match="another process") as refused:
            await log.append(0, batch("a", 0, 3))
    assert refused.value.outcome == "refused"
    assert list(await log.ends()) == [0], "reads do not wait for a writer"
    other.execute("ROLLBACK")
    other.close()
    assert (await log.append(0, batch("b", 0, 1))).begin_offset == 0


class _Faulty:
    """A connection whose COMMIT fails with a SQLite error code, before or after it happened."""

    def __init__(self, connection: sqlite3.Connection, code: int, *, after: bool) -> None:
        self._connection = connection
        self._code = code
        self._after = after
        self.executed_after: list[str] = []
        self.failed = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def execute(self, statement: str, *parameters: object) -> object:
        if self.failed:
            self.executed_after.append(statement)
        if statement != "COMMIT":
            return self._connection.execute(statement, *parameters)
        if self._after:
            self._connection.execute(statement)
        self.failed = True
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = self._code
        raise error


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("code", "after", "outcome"),
    [
        (sqlite3.SQLITE_IOERR_FSYNC, False, "unknown"),
        (sqlite3.SQLITE_IOERR_FSYNC, True, "unknown"),
        (sqlite3.SQLITE_IOERR_SHMMAP, True, "unknown"),
        (sqlite3.SQLITE_IOERR_WRITE, False, "refused"),
    ],
)
async def test_a_failed_commit_says_truthfully_what_became_of_it(start, monkeypatch, code, after, outcome):
    """A failed fsync leaves the outcome unknown, a failed write is refused; either way the connection is replaced."""
    logs = await start()
    log = await _open(logs)
    await log.append(0, batch("a", 0, 2))
    commits = logs._writer._commits
    faulty = _Faulty(commits._connection, code, after=after)
    monkeypatch.setattr(commits, "_connection", faulty)
    with pytest.raises(LogUnavailable) as failed:
        await log.append(0, batch("b", 0, 2))
    assert failed.value.outcome == outcome
    assert commits._connection is not faulty
    assert [s for s in faulty.executed_after if s != "ROLLBACK"] == []
    said = await log.append(0, batch("c", 0, 2))
    assert said.begin_offset == (4 if after else 2)
    assert_whole(await read_all(log, 0), {("a", 0): 0, ("c", 0): said.begin_offset})


@pytest.mark.asyncio
async def test_a_log_comes_back_when_its_file_can_be_opened_again(start, monkeypatch):
    """While the file cannot be opened appends are refused; when it can, they go on by themselves."""
    logs = await start()
    log = await _open(logs)
    commits = logs._writer._commits
    commits.close()

    def broken(*_: object) -> sqlite3.Connection:
        raise LogUnavailable("no file")

    monkeypatch.setattr(sqlite_commits, "connect_writer", broken)
    for _ in range(2):
        with pytest.raises(LogUnavailable):
            await log.append(0, batch("a", 0, 1))
    monkeypatch.undo()
    assert (await log.append(0, batch("b", 0, 1))).begin_offset == 0


@pytest.mark.asyncio
async def test_too_much_waiting_is_refused(start):
    """The queue has a bound in bytes; above it an append is refused at once."""
    release = threading.Event()
    logs = await start(queue_bytes_max=3 * _MIB, step=lambda _: release.wait(10) and None)
    log = await _open(logs)
    tasks = [asyncio.create_task(log.append(0, [LogRecord(None, bytes(_MIB))])) for _ in range(5)]
    await asyncio.sleep(0.05)
    release.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(outcome, LogUnavailable) for outcome in outcomes] == [False, False, False, True, True]
    assert list(await log.ends()) == [3]


@pytest.mark.asyncio
async def test_the_write_ahead_log_stays_bounded(path, start):
    """Checkpoints keep the write-ahead log near its mark, also while somebody reads all the time."""
    steps = []
    logs = await start(step=steps.append, checkpoint_bytes=_MIB, restart_bytes=4 * _MIB, reserve_bytes=0)
    log = await _open(logs)
    wal = path.with_name("log.db-wal")
    largest = 0
    for _ in range(60):
        await log.append(0, [LogRecord(None, os.urandom(_MIB // 2))])
        await log.read(0, 0, bytes_max=1, wait_seconds=0)
        largest = max(largest, wal.stat().st_size)
    assert steps.count("log.checkpoint") >= 15
    assert largest < 8 * _MIB
    assert path.stat().st_size > 25 * _MIB, "what was checkpointed is in the file itself"


@pytest.mark.asyncio
async def test_a_reader_that_holds_on_does_not_stop_appends(path, start):
    """An open read transaction of somebody else delays checkpoints, never appends."""
    log = await _open(await start(checkpoint_bytes=_MIB, restart_bytes=2 * _MIB, busy_seconds=0.1))
    await log.append(0, batch("a", 0, 1))
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN")
    holder.execute("SELECT count(*) FROM logs").fetchone()
    for _ in range(12):
        await log.append(0, [LogRecord(None, bytes(_MIB // 2))])
    holder.close()
    assert list(await log.ends()) == [13]


@pytest.mark.asyncio
async def test_damage_is_noticed(path, start):
    """A row whose bytes changed on the disk is an error, never a record."""
    logs = await start()
    log = await _open(logs)
    await log.append(0, [LogRecord(b"ns", b"precious" * 100)])
    slot = log.slots[0]
    other = sqlite3.connect(path)
    data = bytearray(other.execute(f"SELECT data FROM events_{slot}").fetchone()[0])
    data[50] ^= 1
    other.execute(f"UPDATE events_{slot} SET data = ?", (bytes(data),))
    other.commit()
    other.close()
    with pytest.raises(CorruptData, match="offset 0"):
        await log.read(0, 0, bytes_max=_MIB, wait_seconds=0)


@pytest.mark.asyncio
async def test_an_offset_below_the_first_one_kept_is_an_error(path, start):
    """Where the start of a log was cut off, reading from there says so instead of skipping."""
    log = await _open(await start())
    await log.append(0, batch("a", 0, 5))
    await log.append(0, batch("b", 0, 5))
    other = sqlite3.connect(path)
    other.execute(f"DELETE FROM events_{log.slots[0]} WHERE final < 5")
    other.commit()
    other.close()
    with pytest.raises(CorruptData, match="first one kept is 5"):
        await log.read(0, 2, bytes_max=_MIB, wait_seconds=0)
    assert len((await log.read(0, 5, bytes_max=_MIB, wait_seconds=0)).records) == 5


@pytest.mark.asyncio
async def test_a_dropped_log_answers_that_it_is_gone(start):
    """Appends, reads, waiting reads and ends of a dropped log raise NotFound, also in the process that did not drop."""
    logs, others = await start(), await start()
    log = await _open(logs)
    other = await others.open("x", log.log_id, 1)
    await other.append(0, batch("a", 0, 1))
    waiting = asyncio.create_task(other.read(0, 1, bytes_max=_MIB, wait_seconds=20))
    await asyncio.sleep(0.05)
    await logs.drop("x", log.log_id, 1)
    async with asyncio.timeout(10):
        with pytest.raises(NotFound):
            await waiting
    for stale in (log, other):
        with pytest.raises(NotFound):
            await stale.append(0, batch("b", 0, 1))
        with pytest.raises(NotFound):
            await stale.read(0, 0, bytes_max=_MIB, wait_seconds=0)
        with pytest.raises(NotFound):
            await stale.ends()


@pytest.mark.asyncio
async def test_a_drop_cut_short_is_finished_at_the_next_start(path, start):
    """Rows of a log that was dropped by a process that died over it are deleted later, and others' are kept."""
    logs = await start()
    doomed, kept = await _open(logs), await _open(logs)
    for log in (doomed, kept):
        await log.append(0, batch("a", 0, 1))
    await logs.close()
    other = sqlite3.connect(path)
    other.execute("DELETE FROM logs WHERE log_id = ?", (doomed.log_id,))
    other.execute("DELETE FROM partitions WHERE log_id = ?", (doomed.log_id,))
    other.commit()
    again = await start()
    await again._sweep
    tables = {name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE name GLOB 'events_*'")}
    other.close()
    assert f"events_{doomed.slots[0]}" not in tables
    assert len(await read_all(await again.open("x", kept.log_id, 1), 0)) == 1


@pytest.mark.asyncio
async def test_a_large_log_is_dropped_whole(path, start):
    """A drop of more rows than one transaction deletes leaves nothing behind."""
    logs = await start(row_bytes=1)
    log = await _open(logs)
    await log.append(0, [LogRecord(None, b"x")] * 500)
    await log.append(0, [LogRecord(None, b"x")] * 500)
    await logs.drop("x", log.log_id, 1)
    other = sqlite3.connect(path)
    names = [name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE name GLOB 'events_*'")]
    other.close()
    assert len(names) == 1, "only the control log's"


@pytest.mark.asyncio
async def test_a_poke_ends_a_wait_of_another_process(tmp_path, start):
    """An append pokes the other processes; the one that waits reads at once, long before its poll."""
    receiver = PokeReceiver(tmp_path, "indexer")
    await receiver.start()
    reader = await start(receiver=receiver, poll_seconds_min=60.0, poll_seconds_max=60.0)
    senders = [PokeSender(tmp_path, "indexer"), PokeSender(tmp_path, "nobody")]
    writer = await start(senders=senders)
    log_id = new_log_id()
    reading = await reader.open("x", log_id, 1)
    writing = await writer.open("x", log_id, 1)
    read = asyncio.create_task(reading.read(0, 0, bytes_max=_MIB, wait_seconds=50))
    await asyncio.sleep(0.1)
    await writing.append(0, batch("a", 0, 1))
    async with asyncio.timeout(10):
        assert len((await read).records) == 1
    await receiver.close()
    for sender in senders:
        sender.close()


@pytest.mark.asyncio
async def test_a_lost_poke_costs_one_poll(start):
    """Without any poke a waiting read still ends: the poll finds the other process's commit."""
    reader, writer = await start(), await start()
    log_id = new_log_id()
    reading, writing = await reader.open("x", log_id, 1), await writer.open("x", log_id, 1)
    for number in range(3):
        read = asyncio.create_task(reading.read(0, number, bytes_max=_MIB, wait_seconds=50))
        await asyncio.sleep(0.3)
        await writing.append(0, batch("a", number, 1))
        async with asyncio.timeout(10):
            assert len((await read).records) == 1
