"""The work that benchmarks are made of: create, load, ask, wait."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import orjson

from schemas.partitions import partition_of
from tests.bench.client import Answer, Connection
from tests.bench.data import DataSet
from tests.bench.server import Server

__all__ = [
    "INDEX",
    "TAIL_ROWS_MAX",
    "Writes",
    "ask",
    "bodies",
    "calm",
    "connected",
    "create_index",
    "neighbour_namespace",
    "prefix_of",
    "recall",
    "remove_namespace",
    "settled",
    "stats",
    "upsert_all",
    "write_singly",
]

INDEX = "bench"
PREFIX = f"/i/{INDEX}"
# As many rows of a namespace may lie in no graph for good: it takes more for a graph of their own.
TAIL_ROWS_MAX = 2_048
_CALM_SHARE, _CALM_SECONDS = 0.1, 1.0


def prefix_of(index: str = INDEX) -> str:
    return f"/i/{index}"


@asynccontextmanager
async def connected(port: int, index: str | None = INDEX) -> AsyncIterator[Connection]:
    """Yield a connection to an index, or with None to the control plane."""
    connection = Connection(port, "" if index is None else prefix_of(index))
    try:
        yield connection
    finally:
        await connection.close()


def checked(answer: Answer, status: int = 200) -> Answer:
    """Return `answer`. Raises `RuntimeError` where its status is another."""
    if answer.status != status:
        raise RuntimeError(f"expected {status}, got {answer.status}: {answer.body[:500]!r}")
    return answer


async def create_index(port: int, dimension: int, name: str = INDEX) -> None:
    body = {
        "name": name,
        "dimension": dimension,
        "metric": "cosine",
        "spec": {"serverless": {"cloud": "aws", "region": "us-east-1"}},
    }
    async with connected(port, None) as control:
        checked(await control.call("POST", "/indexes", body), 201)


def bodies(
    data: DataSet, batch: int = 100, *, namespace: str = "", rows: Iterable[int] | None = None
) -> Iterator[bytes]:
    """Yield upsert bodies of `batch` rows each: of all rows, or of `rows`; ids are `row-<number>`."""
    chosen = list(range(len(data.vectors)) if rows is None else rows)
    for begin in range(0, len(chosen), batch):
        vectors = [
            {"id": f"row-{at}", "values": data.vectors[at], "metadata": data.metadata[at]}
            for at in chosen[begin : begin + batch]
        ]
        yield orjson.dumps({"vectors": vectors, "namespace": namespace}, option=orjson.OPT_SERIALIZE_NUMPY)


async def upsert_all(port: int, made: Iterable[bytes], *, writers: int = 8, index: str = INDEX) -> float:
    """Send upsert bodies over `writers` connections; return the seconds until the last answer.

    A 429 is obeyed. Hand over a list where making the bodies is not to be part of the time.
    """
    queue = iter(made)
    began = time.perf_counter()

    async def write() -> None:
        async with connected(port, index) as connection:
            for body in queue:
                await _upsert(connection, body)

    await asyncio.gather(*[write() for _ in range(writers)])
    return time.perf_counter() - began


async def _upsert(connection: Connection, body: bytes) -> Answer:
    while True:
        answer = await connection.call("POST", "/vectors/upsert", body)
        if answer.status != 429:
            return checked(answer)
        await asyncio.sleep(float(answer.headers.get("retry-after", 1)))


async def stats(port: int, index: str = INDEX) -> dict:
    async with connected(port, index) as connection:
        return checked(await connection.call("POST", "/describe_index_stats", {})).json()


async def settled(
    port: int, rows: int, *, index: str = INDEX, tail_rows_max: int = TAIL_ROWS_MAX, seconds_max: float = 900
) -> float:
    """Wait until `rows` rows are visible and at most `tail_rows_max` of them are in no graph; return the seconds."""
    began = time.perf_counter()
    async with connected(port, index) as connection:
        while time.perf_counter() - began < seconds_max:
            now = checked(await connection.call("POST", "/describe_index_stats", {})).json()
            tail = sum(part["tailRows"] for part in now["freshness"]["partitions"])
            if now["totalVectorCount"] == rows and tail <= tail_rows_max:
                return time.perf_counter() - began
            await asyncio.sleep(0.1)
    raise TimeoutError(f"{rows} rows were not in graphs within {seconds_max} s: {now}")


async def calm(server: Server, *, seconds: float = 12.0, seconds_max: float = 400) -> float:
    """Wait until the processes have been at rest for `seconds` without a break; return the seconds that took.

    By default that is longer than a partition must be quiet before its graphs are joined.
    """
    began = rested = time.perf_counter()
    before = server.cpu_seconds()
    while time.perf_counter() - began < seconds_max:
        await asyncio.sleep(_CALM_SECONDS)
        now = server.cpu_seconds()
        if abs(now - before) > _CALM_SHARE * _CALM_SECONDS:
            rested = time.perf_counter()
        before = now
        if time.perf_counter() - rested >= seconds:
            return time.perf_counter() - began
    raise TimeoutError(f"The server did not come to rest within {seconds_max} s.")


def question(vector: np.ndarray, *, top_k: int = 10, namespace: str = "", where: object = None) -> bytes:
    """Return the body of a query."""
    body: dict[str, object] = {"vector": vector, "topK": top_k, "namespace": namespace}
    if where is not None:
        body["filter"] = where
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


async def ask(
    port: int, queries: np.ndarray | list[bytes], *, connections: int, seconds: float, prefix: str = PREFIX
) -> list[float]:
    """Ask vectors, or bodies, for `seconds` over `connections`; return the latency of every answer in seconds."""
    encoded = _encoded(queries, 10)
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def one(number: int) -> None:
        connection = Connection(port, prefix)
        at = number
        while (began := time.perf_counter()) < end:
            answer = await connection.call("POST", "/query", encoded[at % len(encoded)])
            latencies.append(time.perf_counter() - began)
            checked(answer)
            at += connections
        await connection.close()

    await asyncio.gather(*[one(number) for number in range(connections)])
    return latencies


def _encoded(queries: np.ndarray | list[bytes], top_k: int) -> list[bytes]:
    return queries if isinstance(queries, list) else [question(query, top_k=top_k) for query in queries]


async def recall(port: int, queries: np.ndarray | list[bytes], truth: np.ndarray, *, prefix: str = PREFIX) -> float:
    """Return the share of true neighbours (row numbers, int [q, k]) among the answers to vectors or bodies."""
    encoded = _encoded(queries, truth.shape[1])
    connection = Connection(port, prefix)
    found = 0
    for body, rows in zip(encoded, truth, strict=True):
        matches = checked(await connection.call("POST", "/query", body)).json()["matches"]
        found += len({f"row-{row}" for row in rows.tolist()} & {match["id"] for match in matches})
    await connection.close()
    return found / truth.size


@dataclass(slots=True)
class Writes:
    """Seconds from the first byte of single upserts until they were durable, and until a read showed them."""

    durable: list[float] = field(default_factory=list)
    visible: list[float] = field(default_factory=list)


async def write_singly(
    port: int, vectors: np.ndarray, *, per_second: int, seconds: float, index: str = INDEX, namespace: str = ""
) -> Writes:
    """Upsert rows `probe-<n>` one at a time at a fixed rate and read each with `at_least` its own position."""
    seen = Writes()
    rng = random.Random(3)
    free: asyncio.Queue[Connection] = asyncio.Queue()
    pool = [Connection(port, prefix_of(index)) for _ in range(16)]
    for connection in pool:
        free.put_nowait(connection)

    async def write(number: int) -> None:
        connection = await free.get()
        row = {"id": f"probe-{number}", "values": vectors[rng.randrange(len(vectors))]}
        body = orjson.dumps({"vectors": [row], "namespace": namespace}, option=orjson.OPT_SERIALIZE_NUMPY)
        began = time.perf_counter()
        answer = checked(await connection.call("POST", "/vectors/upsert", body))
        seen.durable.append(time.perf_counter() - began)
        headers = {"x-freshet-at-least": answer.headers["x-freshet-position"], "x-freshet-wait-ms": "5000"}
        path = f"/vectors/fetch?ids=probe-{number}&namespace={namespace}"
        read = checked(await connection.call("GET", path, headers=headers))
        seen.visible.append(time.perf_counter() - began)
        if f"probe-{number}" not in read.json()["vectors"]:
            raise RuntimeError(f"probe-{number} is not shown at its own position: {read.body[:200]!r}")
        free.put_nowait(connection)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(seconds * per_second)):
            await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
            group.create_task(write(number))
    for connection in pool:
        await connection.close()
    return seen


async def remove_probes(port: int, count: int, *, index: str = INDEX, namespace: str = "") -> None:
    """Delete the rows that `write_singly` wrote."""
    async with connected(port, index) as connection:
        for begin in range(0, count, 1000):
            ids = [f"probe-{number}" for number in range(begin, min(begin + 1000, count))]
            checked(await connection.call("POST", "/vectors/delete", {"ids": ids, "namespace": namespace}))


async def remove_namespace(port: int, namespace: str, *, index: str = INDEX) -> None:
    async with connected(port, index) as connection:
        answer = await connection.call("DELETE", f"/namespaces/{namespace}")
        if answer.status not in (200, 202):
            checked(answer)


def neighbour_namespace(name: str, namespace: str = "__default__", partitions: int = 4) -> str:
    """Return a namespace that begins with `name` and lies in the same partition as `namespace`."""
    wanted = partition_of(namespace, partitions)
    return next(f"{name}-{n}" for n in range(10_000) if partition_of(f"{name}-{n}", partitions) == wanted)
