"""Foreign records on a real Kafka topic: one bad record never stops a partition, a newer format does, loudly."""

from __future__ import annotations

import asyncio
import json
import secrets
import struct

import pytest
from aiokafka import AIOKafkaProducer

from schemas.events import encode
from schemas.operations import Upsert
from schemas.partitions import partition_of
from tests.support.freshet import Freshet, wait_until

SPEC = {"serverless": {"cloud": "aws", "region": "x"}}
NAMESPACE = "poison"
PARTITION = partition_of(NAMESPACE, 4)


@pytest.fixture
def server(kafka, tmp_path):
    with Freshet(tmp_path, {"FRESHET_LOG": f"kafka://{kafka.bootstrap}"}) as running:
        # The broker is shared, and with it the catalog: a name of its own for each test.
        running.index = f"poison-{secrets.token_hex(4)}"
        body = {"name": running.index, "dimension": 4, "metric": "cosine", "spec": SPEC}
        running.call("POST", "/indexes", body)
        yield running


def freshness(server):
    stats = server.call("POST", f"/i/{server.index}/describe_index_stats", {})
    return stats["freshness"]["logId"], stats["freshness"]["partitions"]


def send(server, kafka, records):
    """Produce (key, value, headers, partition) to the index's topic as any other program would."""
    topic = f"freshet.{server.index}.{freshness(server)[0]}"

    async def produce():
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all")
        await producer.start()
        try:
            for key, value, headers, partition in records:
                await producer.send_and_wait(topic, value, key=key, headers=headers, partition=partition)
        finally:
            await producer.stop()

    asyncio.run(produce())


def good(name, *values):
    return encode(Upsert(name, struct.pack("<4f", *(values or (1, 2, 3, 4))), None, b""))


KEY = NAMESPACE.encode()


def record(value, *, key=KEY, headers=(), partition=PARTITION):
    return key, value, list(headers), partition


def caught_up(server):
    _, partitions = freshness(server)
    return all(part["lagEvents"] == 0 for part in partitions)


def fetched(server, *ids):
    query = "&".join(f"ids={name}" for name in ids)
    return set(server.call("GET", f"/i/{server.index}/vectors/fetch?namespace={NAMESPACE}&{query}")["vectors"])


def test_a_mix_of_poison_is_counted_exactly_and_the_partition_moves_on(server, kafka):
    """Every bad record becomes a dead letter with its reason, every good one around it is visible."""
    elsewhere = (PARTITION + 1) % 4
    json_header = [("content-type", b"application/json")]
    poison = [
        record(good("x"), headers=[("freshet-format", b"one")]),
        record(b"\xff\xff not protobuf"),
        record(encode(Upsert("x", struct.pack("<3f", 1, 2, 3), None, b""))),
        record(good("x", 1, float("nan"), 3, 4)),
        record(good("x"), key=None),
        record(good("x"), partition=elsewhere),
        record(b'{"upsert": {"id": "x", "values": "many"}}', headers=json_header),
    ]
    written = json.dumps({"upsert": {"id": "json", "values": [4, 3, 2, 1], "metadata": {"by": "hand"}}}).encode()
    mix = [record(good("first"))]
    for number, bad in enumerate(poison):
        mix += [bad, record(good(f"good-{number}"))]
    send(server, kafka, [*mix, record(written, headers=json_header)])

    wait_until(lambda: fetched(server, "json") == {"json"})
    wait_until(lambda: caught_up(server))

    names = ["first", "json", *(f"good-{number}" for number in range(len(poison)))]
    assert set(names) == fetched(server, *names, "x")
    letters = {part["partition"]: part["deadLetters"] for part in freshness(server)[1]}
    assert {PARTITION: len(poison) - 1, elsewhere: 1} == {key: count for key, count in letters.items() if count}
    shown = server.cli("dead-letters", "list", "--index", server.index, "--partition", str(PARTITION), "--json")
    reasons = [letter["reason"] for letter in json.loads(shown.stdout)]
    assert len(poison) - 1 == len(reasons)
    assert any("dimension 3" in reason for reason in reasons)
    assert any("no key" in reason for reason in reasons)


def test_a_newer_format_stops_its_partition_until_the_operator_skips_it(server, kafka):
    """What comes before it is visible, what comes after waits; after the skip all is, and the record is kept."""
    newer = record(good("newer"), headers=[("freshet-format", b"2")])
    other = next(f"ns{n}" for n in range(100) if partition_of(f"ns{n}", 4) != PARTITION)
    send(server, kafka, [record(good("before")), newer, record(good("after"))])
    wait_until(lambda: fetched(server, "before") == {"before"})
    server.call(
        "POST",
        f"/i/{server.index}/vectors/upsert",
        {"namespace": other, "vectors": [{"id": "o", "values": [1, 2, 3, 4]}]},
    )
    wait_until(lambda: server.call("GET", f"/i/{server.index}/vectors/fetch?namespace={other}&ids=o")["vectors"])

    wait_until(lambda: "worker_stopped" in server.log_text)
    wait_until(lambda: freshness(server)[1][PARTITION]["lagEvents"] == 2)
    assert fetched(server, "after") == set()

    done = server.cli(
        "dead-letters",
        "skip",
        "--index",
        server.index,
        "--partition",
        str(PARTITION),
        "--offset",
        str(freshness(server)[1][PARTITION]["applied"]),
    )
    assert done.returncode == 0, done.stderr
    wait_until(lambda: fetched(server, "after") == {"after"})
    wait_until(lambda: caught_up(server))
    assert freshness(server)[1][PARTITION]["deadLetters"] == 1
    assert fetched(server, "newer") == set()
