"""The numbers of several processes on one page."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from compose import peers
from compose.peer_metrics import PeerMetrics
from compose.peers import door_of


def page(requests: int, rows: float, seconds: float) -> bytes:
    registry = CollectorRegistry()
    Counter("requests", "Requests.", ["operation"], registry=registry).labels(operation="query").inc(requests)
    Gauge("rows", "Rows.", registry=registry).set(rows)
    Histogram("seconds", "Seconds.", buckets=(0.1, 1.0), registry=registry).observe(seconds)
    return generate_latest(registry)


async def serve(path: str, body: bytes, status: str = "200 OK") -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /metrics?own=true ")
        writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode() + body)
        writer.close()

    return await asyncio.start_unix_server(answer, path)


def values(text: bytes) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, sample.labels.get("worker", ""), sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@pytest.mark.asyncio
async def test_every_number_stands_under_its_process(tmp_path, monkeypatch):
    """Counters, gauges and histograms keep their values; each family stands once; who is away is said to be."""
    servers = [
        await serve(door_of(tmp_path, 0), page(3, 7.5, 0.05)),
        await serve(door_of(tmp_path, 3), b"busy", "503 Service Unavailable"),
    ]
    monkeypatch.setattr(peers, "_ANSWER_SECONDS", 30)
    merged = await PeerMetrics(tmp_path, own=1, workers=4).merged(page(5, 0.25, 0.5))
    found = values(merged)
    assert (found["requests_total", "0", ""], found["requests_total", "1", ""]) == (3.0, 5.0)
    assert (found["rows", "0", ""], found["rows", "1", ""]) == (7.5, 0.25)
    assert (found["seconds_bucket", "0", "0.1"], found["seconds_bucket", "1", "0.1"]) == (1.0, 0.0)
    assert found["seconds_sum", "1", ""] == 0.5
    assert [found["freshet_api_worker_up", str(n), ""] for n in range(4)] == [1.0, 1.0, 0.0, 0.0]
    for family in (b"requests_total", b"rows", b"seconds"):
        assert merged.count(b"# TYPE " + family + b" ") == 1
    for server in servers:
        server.close()
