"""A log whose appends are handed to its owner keeps the contract, and says honestly what became of them."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from producer.log.forwarded import ForwardedLogs
from producer.log.forwarded_frames import (
    FRAME_BYTES_MAX,
    decode_append,
    decode_error,
    decode_words,
    encode_append,
    encode_error,
)
from producer.log.forwarded_link import LinkOptions
from producer.log.forwarded_owner import DoorOptions, OwnerDoor
from producer.log.protocol import Log, LogRecord
from producer.log.sqlite import SqliteLogOptions, SqliteLogs
from producer.log.sqlite_commits import AppendRequest
from producer.log.sqlite_rows import pack
from schemas.errors import CorruptData, LogFull, LogUnavailable, NotFound, PayloadTooLarge, TailFull
from tests.contract.log_contract import LogContract
from tests.support.appender import assert_whole, batch, clock_ms, door_of
from tests.support.log_owner import LogOwner
from tests.support.log_reading import killed_at_step, new_log_id, read_all

_MIB = 1024 * 1024


@pytest.mark.asyncio
class TestForwardedLog(LogContract):
    """Everything that every log promises, with a process of its own at the other end."""

    @pytest.fixture
    def spec(self, tmp_path: Path) -> Iterator[str]:
        owner = LogOwner(tmp_path / "log.db")
        yield f"forwarded:{tmp_path / 'log.db'}"
        owner.stop()

    @pytest.mark.parametrize("step", ["forward.before_send", "forward.after_send", "forward.before_answer"])
    async def test_a_kill_at_each_step_leaves_wholes(self, spec: str, log: Log, step: str) -> None:
        """Wherever a process dies that hands packs over, the request it worked on is there whole or not at all."""
        said, _ = await killed_at_step(spec, log, step)
        committed = len(said) + (step != "forward.before_send")
        deadline = time.monotonic() + 30
        while len(await read_all(log, 1)) < 5 * committed:
            # The owner may still be about to commit what it was sent.
            assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
        records = await read_all(log, 1)
        assert len(records) == 5 * committed, "neither earlier nor later than when it was sent is a request in the log"

    @pytest.mark.parametrize("step", ["append.before_commit", "append.after_commit", "append.before_answer"])
    async def test_an_owner_that_dies_leaves_wholes(self, tmp_path: Path, step: str) -> None:
        """What the owner had committed is there when the next one comes, and nothing else; what it was is unknown."""
        path = tmp_path / "dying" / "log.db"
        path.parent.mkdir()
        owner = LogOwner(path, step=step)
        logs = ForwardedLogs(path, SqliteLogOptions(), door=door_of(path))
        await logs.start()
        log = await logs.open("x", new_log_id(), 1)
        said = {}
        with pytest.raises(LogUnavailable) as died:
            for number in range(20):
                said["o", number] = (await log.append(0, batch("o", number, 3))).begin_offset
        assert died.value.outcome == "unknown"
        await asyncio.to_thread(owner.kill)
        owner = await asyncio.to_thread(LogOwner, path)
        said["o", 99] = (await log.append(0, batch("o", 99, 3))).begin_offset
        records = await read_all(log, 0)
        assert_whole(records, said)
        assert len(records) == 3 * (len(said) + (step != "append.before_commit"))
        await logs.close()
        owner.stop()


@pytest_asyncio.fixture
async def owned(tmp_path: Path) -> AsyncIterator[Callable[..., object]]:
    """Start an owner in this process, with given options of log and door; it is closed in the end."""
    started: list[tuple[OwnerDoor, SqliteLogs]] = []

    async def begin(*, door: DoorOptions | None = None, **options) -> SqliteLogs:
        logs = SqliteLogs(tmp_path / "log.db", SqliteLogOptions(**options), clock_ms=clock_ms)
        await logs.start()
        made = OwnerDoor(logs, door)
        await made.start(door_of(tmp_path / "log.db"))
        started.append((made, logs))
        return logs

    yield begin
    for door, logs in started:
        await door.close(0.1)
        await logs.close()


@pytest_asyncio.fixture
async def forward(tmp_path: Path) -> AsyncIterator[Callable[..., object]]:
    """Start logs that forward, with given options of the link; they are closed in the end."""
    started: list[ForwardedLogs] = []

    async def begin(**options) -> ForwardedLogs:
        path = tmp_path / "log.db"
        logs = ForwardedLogs(path, SqliteLogOptions(), door=door_of(path), link=LinkOptions(**options))
        await logs.start()
        started.append(logs)
        return logs

    yield begin
    for logs in started:
        await logs.close()


@pytest.mark.asyncio
async def test_an_owner_that_does_not_come_is_said_in_time(forward):
    """A start without an owner ends with an error that names its socket."""
    with pytest.raises(LogUnavailable, match="does not answer at /"):
        await forward(start_seconds=0.2)


@pytest.mark.asyncio
async def test_an_owner_that_is_gone_refuses_and_the_next_one_is_found(tmp_path, forward):
    """While nobody owns the log appends are refused after a while; when somebody does they go on by themselves."""
    owner = LogOwner(tmp_path / "log.db")
    logs = await forward(connect_seconds=2.0)
    log = await logs.open("x", new_log_id(), 1)
    await log.append(0, batch("a", 0, 2))
    await asyncio.to_thread(owner.stop)
    with pytest.raises(LogUnavailable, match="nothing was appended") as refused:
        await log.append(0, batch("a", 1, 2))
    assert refused.value.outcome == "refused"
    assert len(await read_all(log, 0)) == 2, "reads need no owner"
    again = await asyncio.to_thread(LogOwner, tmp_path / "log.db")
    assert (await log.append(0, batch("a", 2, 2))).begin_offset == 2
    await asyncio.to_thread(again.stop)


@pytest.mark.asyncio
async def test_appends_wait_in_order_for_an_owner_that_is_started_again(tmp_path, forward):
    """What could not be sent yet is sent to the next owner, in the order in which it was accepted."""
    owner = LogOwner(tmp_path / "log.db")
    logs = await forward(connect_seconds=30.0)
    log = await logs.open("x", new_log_id(), 1)
    owner.kill()
    await asyncio.sleep(0.1)
    tasks = [asyncio.create_task(log.append(0, batch("w", number, 2))) for number in range(50)]
    await asyncio.sleep(0.1)
    owner = await asyncio.to_thread(LogOwner, tmp_path / "log.db")
    begins = [(await task).begin_offset for task in tasks]
    assert begins == [2 * number for number in range(50)]
    owner.stop()


@pytest.mark.asyncio
async def test_an_owner_that_hangs_is_given_up(owned, forward, monkeypatch):
    """A request without an answer for too long has an unknown outcome, and so has everything behind it."""
    logs = await owned()
    forwarding = await forward(answer_seconds=3.0)
    log = await forwarding.open("x", new_log_id(), 1)
    accept = logs.accept
    monkeypatch.setattr(logs, "accept", lambda _: asyncio.get_running_loop().create_future())
    outcomes = await asyncio.gather(*(log.append(0, batch("h", n, 1)) for n in range(3)), return_exceptions=True)
    assert [getattr(outcome, "outcome", outcome) for outcome in outcomes] == ["unknown"] * 3
    monkeypatch.setattr(logs, "accept", accept)
    assert (await log.append(0, batch("h", 9, 1))).begin_offset == 0


@pytest.mark.asyncio
async def test_errors_of_the_owner_come_through(owned, forward):
    """A full disk and a dropped log are told as the owner tells them: kind, message, facts, when to try again."""
    owner = await owned(reserve_bytes=1 << 60)
    logs = await forward()
    log_id = new_log_id()
    log = await logs.open("x", log_id, 1)
    with pytest.raises(LogFull, match="below the reserve") as full:
        await log.append(0, batch("a", 0, 1))
    assert full.value.retry_after_seconds == 5.0
    assert full.value.facts["free_bytes"] > 0
    await owner.drop("x", log_id, 1)
    owner._writer._commits._options = SqliteLogOptions()
    with pytest.raises(NotFound, match="was dropped"):
        await log.append(0, batch("a", 0, 1))


@pytest.mark.asyncio
async def test_little_is_in_flight_and_all_of_it_arrives(owned, forward):
    """Both ends bound what is under way; what is over the bounds waits, and keeps its order."""
    await owned(door=DoorOptions(under_way_max=2, under_way_bytes_max=1_000))
    logs = await forward(in_flight_max=3, in_flight_bytes_max=2_000)
    log = await logs.open("x", new_log_id(), 1)
    tasks = [asyncio.create_task(log.append(0, [LogRecord(b"k", bytes(700))])) for _ in range(200)]
    await asyncio.sleep(0)
    assert len(logs._link._connection.sent) <= 3
    assert [(await task).begin_offset for task in tasks] == list(range(200))


@pytest.mark.asyncio
async def test_more_than_the_queue_takes_is_refused(owned, forward):
    """Bytes that wait are bounded: what is over the bound was never appended."""
    await owned()
    logs = await forward(queue_bytes_max=_MIB)
    log = await logs.open("x", new_log_id(), 1)
    appends = [log.append(0, [LogRecord(None, bytes(400_000))]) for _ in range(5)]
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, LogUnavailable)]
    assert 1 <= len(refused) <= 3
    assert {error.outcome for error in refused} == {"refused"}
    assert (await log.ends())[0] == 5 - len(refused)


@pytest.mark.asyncio
async def test_two_who_forward_share_commits_and_never_mix(owned, forward):
    """Packs of several processes lie whole beside the owner's own."""
    owner = await owned()
    log_id = new_log_id()
    logs = [owner, await forward(), await forward()]
    opened = [await where.open("x", log_id, 1) for where in logs]
    said = {}

    async def write(number: int) -> None:
        for at in range(30):
            said[f"w{number}", at] = (await opened[number].append(0, batch(f"w{number}", at, 1 + number))).begin_offset

    await asyncio.gather(*(write(number) for number in range(3)))
    assert_whole(await read_all(opened[1], 0), said)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "garbage",
    [
        struct.pack("<IBQ", FRAME_BYTES_MAX + 1, 1, 1),
        struct.pack("<IBQ", 0, 77, 1),
        struct.pack("<IBQ", 3, 1, 1) + b"abc",
        struct.pack("<IBQ", 3, 2, 1) + b"abc",
        struct.pack("<IBQ", 2, 3, 1) + b"[]",
    ],
    ids=["too large", "unknown kind", "torn append", "no json", "too few words"],
)
async def test_garbage_ends_its_connection_and_no_other(tmp_path, owned, forward, garbage):
    """Who says what means nothing is cut off; the others go on."""
    await owned()
    logs = await forward()
    log = await logs.open("x", new_log_id(), 1)
    reader, writer = await asyncio.open_unix_connection(door_of(tmp_path / "log.db"))
    assert await reader.readexactly(13) == struct.pack("<IBQ", 0, 4, 0), "the owner greets"
    writer.write(garbage)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    assert (await log.append(0, batch("a", 0, 1))).begin_offset == 0


@pytest.mark.asyncio
async def test_an_owner_that_closes_waits_for_its_guests(tmp_path, forward):
    """A stop of the owner leaves those who still write the time to finish."""
    owner = SqliteLogs(tmp_path / "log.db", SqliteLogOptions(), clock_ms=clock_ms)
    await owner.start()
    door = OwnerDoor(owner)
    await door.start(door_of(tmp_path / "log.db"))
    logs = await forward()
    log = await logs.open("x", new_log_id(), 1)
    closing = asyncio.create_task(door.close(20.0))
    await asyncio.sleep(0.05)
    assert (await log.append(0, batch("a", 0, 1))).begin_offset == 0
    assert not closing.done()
    await logs.close()
    await asyncio.wait_for(closing, 5)
    await owner.close()


def test_frames_say_what_they_were_given():
    """Appends and errors come out as they went in; what can't be read is an error of ours."""
    records = [LogRecord(b"k", bytes(n), (("h", b"v"),)) for n in (0, 10, 300_000)]
    request = AppendRequest("log", 7, pack(records, run_bytes=1_000), 300_010)
    assert decode_append(encode_append(request)) == request
    with pytest.raises(CorruptData):
        decode_append(encode_append(request)[:-1])
    full = decode_error(encode_error(TailFull("too much", retry_after_seconds=2.0, rows=3)))
    assert (type(full), full.message, full.retry_after_seconds, full.facts) == (TailFull, "too much", 2.0, {"rows": 3})
    unknown = decode_error(encode_error(LogUnavailable("gone", outcome="unknown")))
    assert isinstance(unknown, LogUnavailable)
    assert (unknown.outcome, unknown.retry_after_seconds) == ("unknown", 1.0)
    for body in (b"{", b'["Exception", "m", null, {}]', b'["annotations", "m", null, {}]', b"[1]"):
        with pytest.raises(CorruptData):
            decode_error(body)
    with pytest.raises(CorruptData):
        decode_words(b"[1, 2]", 3)


def test_an_append_of_too_many_tiny_records_is_refused():
    """Where the frames of the records outweigh them, the bound of a frame is told."""
    with pytest.raises(PayloadTooLarge, match="fewer records"):
        encode_append(AppendRequest("log", 1, pack([LogRecord(None, b"")] * 1_500_000, run_bytes=_MIB), 0))
