"""The work that benchmarks are made of: create, load, ask, measure."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import numpy as np
import orjson

from tests.bench.client import Connection
from tests.bench.data import DataSet

INDEX = "bench"
PREFIX = f"/i/{INDEX}"


@dataclass
class Row:
    """One line of the table: what, the figure, the target and whether it was met (None = no target)."""

    name: str
    figure: str
    target: str = ""
    met: bool | None = None
    values: dict = field(default_factory=dict)


async def create_index(port: int, dimension: int) -> None:
    control = Connection(port)
    spec = {"serverless": {"cloud": "aws", "region": "us-east-1"}}
    body = {"name": INDEX, "dimension": dimension, "metric": "cosine", "spec": spec}
    answer = await control.call("POST", "/indexes", body)
    assert answer.status == 201, answer.body
    await control.close()


def bodies(data: DataSet, batch: int) -> list[bytes]:
    """Return upsert bodies of `batch` rows each, encoded before anything is timed."""
    made = []
    for begin in range(0, len(data.vectors), batch):
        vectors = [
            {"id": f"row-{at}", "values": data.vectors[at], "metadata": data.metadata[at]}
            for at in range(begin, min(begin + batch, len(data.vectors)))
        ]
        made.append(orjson.dumps({"vectors": vectors}, option=orjson.OPT_SERIALIZE_NUMPY))
    return made


async def load(port: int, data: DataSet, *, batch: int = 100, writers: int = 8) -> float:
    """Upsert everything over `writers` connections; return the seconds until the last answer."""
    queue = bodies(data, batch)
    began = time.perf_counter()

    async def write() -> None:
        connection = Connection(port, PREFIX)
        while queue:
            body = queue.pop()
            while (answer := await connection.call("POST", "/vectors/upsert", body)).status == 429:  # noqa: ASYNC110 # the server says how long to wait
                await asyncio.sleep(float(answer.headers.get("retry-after", 1)))
            assert answer.status == 200, answer.body
        await connection.close()

    await asyncio.gather(*[write() for _ in range(writers)])
    return time.perf_counter() - began


async def stats(port: int) -> dict:
    connection = Connection(port, PREFIX)
    answer = (await connection.call("POST", "/describe_index_stats", {})).json()
    await connection.close()
    return answer


async def settled(port: int, rows: int, *, tail_rows_max: int, seconds_max: float = 600) -> float:
    """Wait until all rows are visible and at most `tail_rows_max` of them are in no graph; return the seconds."""
    began = time.perf_counter()
    while time.perf_counter() - began < seconds_max:
        now = await stats(port)
        tail = sum(part["tailRows"] for part in now["freshness"]["partitions"])
        if now["totalVectorCount"] == rows and tail <= tail_rows_max:
            return time.perf_counter() - began
        await asyncio.sleep(0.1)
    raise TimeoutError(f"{rows} rows did not settle: {now}")


async def quiet(port: int, *, seconds: float = 25, seconds_max: float = 400) -> None:
    """Wait until no merge has committed for `seconds`: the graphs of a quiet partition are joined by then."""
    began = changed = time.perf_counter()
    last: list[int] = []
    while time.perf_counter() - changed < seconds and time.perf_counter() - began < seconds_max:
        now = [part["snapshotVersion"] for part in (await stats(port))["freshness"]["partitions"]]
        if now != last:
            last, changed = now, time.perf_counter()
        await asyncio.sleep(1)


async def ask(port: int, queries: np.ndarray, *, connections: int, seconds: float, top_k: int = 10) -> list[float]:
    """Query for `seconds` over `connections`; return the latency of every answer in seconds."""
    encoded = [orjson.dumps({"vector": query, "topK": top_k}, option=orjson.OPT_SERIALIZE_NUMPY) for query in queries]
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def one(number: int) -> None:
        connection = Connection(port, PREFIX)
        at = number
        while time.perf_counter() < end:
            began = time.perf_counter()
            answer = await connection.call("POST", "/query", encoded[at % len(encoded)])
            latencies.append(time.perf_counter() - began)
            assert answer.status == 200, answer.body
            at += connections
        await connection.close()

    await asyncio.gather(*[one(number) for number in range(connections)])
    return latencies


async def recall(port: int, queries: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of true neighbours among the answers."""
    connection = Connection(port, PREFIX)
    found = 0
    for query, rows in zip(queries, truth, strict=True):
        body = orjson.dumps({"vector": query, "topK": len(rows)}, option=orjson.OPT_SERIALIZE_NUMPY)
        matches = (await connection.call("POST", "/query", body)).json()["matches"]
        found += len({f"row-{row}" for row in rows.tolist()} & {match["id"] for match in matches})
    await connection.close()
    return found / truth.size


def percentiles(values: list[float]) -> tuple[float, float]:
    """Return p50 and p99 in milliseconds."""
    p50, p99 = np.percentile(np.array(values) * 1000, [50, 99])
    return float(p50), float(p99)
