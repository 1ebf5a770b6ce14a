"""Pokes wake whoever waits, cost nothing when lost, and never get in the way of the one who pokes."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from producer.pokes import PokeReceiver, PokeSender, log_topic, manifest_topic, socket_path
from schemas.errors import ConfigError


@pytest_asyncio.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[PokeReceiver]:
    receiver = PokeReceiver(tmp_path, "api")
    await receiver.start()
    yield receiver
    await receiver.close()


@pytest.fixture
def sender(tmp_path: Path):
    sender = PokeSender(tmp_path, "api")
    yield sender
    sender.close()


async def _is_set(event: asyncio.Event, seconds: float = 10.0) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def test_topics_are_spelled_in_one_place():
    """Whoever pokes and whoever listens agree on the words."""
    assert log_topic("abc") == "log:abc"
    assert manifest_topic("xyz", 3) == "manifest:xyz/3"


@pytest.mark.asyncio
async def test_a_poke_sets_the_events_of_its_topic_only(receiver, sender):
    """Every subscriber of the topic is woken, each by an event of its own; others are not."""
    first, second, other = (receiver.subscribe(topic) for topic in ("log:a", "log:a", "log:b"))
    sender.poke("log:a")
    assert await _is_set(first)
    assert await _is_set(second)
    first.clear()
    assert second.is_set(), "one subscriber's arming takes nothing from another"
    assert not other.is_set()


@pytest.mark.asyncio
async def test_a_poke_between_arming_and_waiting_is_not_lost(receiver, sender):
    """Clear, then read, then wait: a poke at any moment after the clear ends the wait."""
    event = receiver.subscribe("log:a")
    event.clear()
    sender.poke("log:a")
    await asyncio.sleep(0.05)
    assert await _is_set(event)


@pytest.mark.asyncio
async def test_an_unsubscribed_topic_is_silent(receiver, sender):
    """After unsubscribe no event of the topic is set."""
    gone, kept = receiver.subscribe("log:a"), receiver.subscribe("log:b")
    receiver.unsubscribe("log:a")
    receiver.unsubscribe("log:never")
    sender.poke("log:a")
    sender.poke("log:b")
    assert await _is_set(kept)
    assert not gone.is_set()


@pytest.mark.asyncio
async def test_a_burst_that_overflows_wakes_everybody(receiver, sender):
    """Where the queue may have refused a poke, every topic is woken: the refused one may be any of them."""
    event = receiver.subscribe("manifest:x/0")
    for number in range(2_000):
        sender.poke(f"log:{number}")
    assert await _is_set(event)


def test_poking_nobody_is_harmless(sender):
    """Without a receiver, with a dead one, or after closing, a poke is lost in silence."""
    sender.poke("log:a")
    sender.close()
    sender.poke("log:a")


def test_a_full_queue_does_not_block_the_sender(tmp_path, sender):
    """A receiver that does not read costs the sender nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(socket_path(tmp_path, "api"))
        for _ in range(5_000):
            sender.poke("log:a")


@pytest.mark.asyncio
async def test_another_process_is_heard(receiver, tmp_path):
    """Pokes cross processes."""
    event = receiver.subscribe("log:a")
    program = (
        "import sys; from pathlib import Path; from producer.pokes import PokeSender;"
        "s = PokeSender(Path(sys.argv[1]), 'api'); s.poke('log:a'); s.close()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    await asyncio.to_thread(subprocess.run, command, check=True, cwd=Path(__file__).parents[2])
    assert await _is_set(event)


@pytest.mark.asyncio
async def test_a_socket_left_by_a_dead_process_is_replaced(tmp_path, sender):
    """A receiver starts where one was killed, and hears senders that were there before."""
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.bind(socket_path(tmp_path, "api"))
    left.close()
    sender.poke("log:a")
    receiver = PokeReceiver(tmp_path, "api")
    await receiver.start()
    event = receiver.subscribe("log:a")
    sender.poke("log:a")
    assert await _is_set(event)
    await receiver.close()
    assert not list(tmp_path.glob("*.sock"))


@pytest.mark.asyncio
async def test_a_deep_data_directory_works_too(tmp_path):
    """A path too long for a socket's address is replaced by a short one that both sides compute."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    receiver, sender = PokeReceiver(deep, "api"), PokeSender(deep, "api")
    await receiver.start()
    event = receiver.subscribe("log:a")
    sender.poke("log:a")
    assert await _is_set(event)
    assert len(os.fsencode(socket_path(deep, "api"))) <= 100
    assert socket_path(deep, "api") != socket_path(deep, "indexer")
    sender.close()
    await receiver.close()


@pytest.mark.asyncio
async def test_a_folder_that_takes_no_sockets_is_a_setting_error(tmp_path):
    """The error names the socket and what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="local disk"):
        await PokeReceiver(tmp_path / "file", "api").start()


@pytest.mark.asyncio
async def test_closing_twice_is_harmless(tmp_path):
    """Close may be called in any state."""
    receiver = PokeReceiver(tmp_path, "api")
    await receiver.close()
    await receiver.start()
    await receiver.close()
    await receiver.close()
