"""Searches in native threads, from socket to socket: the same answers, whoever goes away meanwhile."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import numpy as np
import pytest

from query_api.reads import ReadOptions
from query_api.searches import SearchOptions
from tests.support.api_server import PATIENT, ApiServer

DIMENSION, ROWS = 8, 600


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server whose event loop carries out no search itself."""
    reads = ReadOptions(searches=SearchOptions(inline_us=0, alone_us=0))
    options = replace(PATIENT, reads=reads)
    with ApiServer(tmp_path_factory.mktemp("searches"), options=options) as running:
        yield running


@pytest.fixture(scope="module")
def vectors(server):
    made = np.random.default_rng(2).standard_normal((ROWS, DIMENSION)).astype(np.float32)
    spec = {"serverless": {"cloud": "aws", "region": "us-east-1"}}
    created = {"name": "some", "dimension": DIMENSION, "metric": "dotproduct", "spec": spec}
    with httpx.Client(base_url=server.url, timeout=30) as client:
        client.post("/indexes", json=created).raise_for_status()
        records = [{"id": f"{at}", "values": row.tolist(), "metadata": {"n": at}} for at, row in enumerate(made)]
        headers = {"x-freshet-wait-visible-ms": "20000"}
        answer = client.post("/i/some/vectors/upsert", json={"vectors": records}, headers=headers).raise_for_status()
        assert answer.json()["visible"]
    return made


def test_answers_from_native_threads_are_exact(server, vectors):
    """Many at once, each to who asked for it."""
    queries = np.random.default_rng(3).standard_normal((200, DIMENSION)).astype(np.float32)
    with httpx.Client(base_url=server.url, timeout=30) as client, ThreadPoolExecutor(8) as asking:

        def ask(query: np.ndarray) -> list[dict]:
            body = {"vector": query.tolist(), "topK": 5, "includeMetadata": True}
            return client.post("/i/some/query", json=body).raise_for_status().json()["matches"]

        answers = list(asking.map(ask, queries))
    for query, matches in zip(queries, answers, strict=True):
        best = np.argsort(-(vectors @ query))[:5].tolist()
        assert [match["id"] for match in matches] == [f"{at}" for at in best]
        assert [match["metadata"] for match in matches] == [{"n": at} for at in best]


def test_a_client_that_goes_away_disturbs_nobody(server, vectors):
    """Its search is carried out all the same, and the next answers are right."""

    async def ask() -> list[str]:
        query = vectors[7]
        body = {"vector": query.tolist(), "topK": 3}
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            for _ in range(20):
                leaving = [asyncio.create_task(client.post("/i/some/query", json=body)) for _ in range(8)]
                await asyncio.sleep(0.002)
                for task in leaving:
                    task.cancel()
                await asyncio.wait(leaving)
            answer = (await client.post("/i/some/query", json=body)).raise_for_status()
        return [match["id"] for match in answer.json()["matches"]]

    best = np.argsort(-(vectors @ vectors[7]))[:3].tolist()
    assert asyncio.run(ask()) == [f"{at}" for at in best]
