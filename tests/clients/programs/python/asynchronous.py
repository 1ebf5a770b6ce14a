"""Steps of the asyncio clients: the same operations awaited, and many at once."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from walk import PATIENCE_SECONDS, counts, passed

NAME = "asynchronous"
EIGHTHS = [(f"a{n}", [1.0, n / 8], {"n": n}) for n in range(8)]


@dataclass
class AsyncWalk:
    """What the steps work with: the client module, an asyncio client, and its index."""

    module: Any
    client: Any
    index: Any = None


async def until(read: Callable[[], Awaitable[Any]], is_so: Callable[[Any], bool]) -> Any:
    """Read again and again until the answer shows what was written."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so(answer := await read()):
        assert time.monotonic() < deadline, f"waited in vain; the last answer was {answer!r}"
        await asyncio.sleep(0.01)
    return answer


async def create_an_index_asynchronously(walk: AsyncWalk) -> None:
    spec = walk.module.ServerlessSpec(cloud="aws", region="us-east-1")
    await walk.client.create_index(name=NAME, dimension=2, metric="cosine", spec=spec)
    described = await walk.client.describe_index(NAME)
    assert described.dimension == 2
    assert described.status.ready
    assert NAME in (await walk.client.list_indexes()).names()
    assert await walk.client.has_index(NAME)


async def upsert_many_at_once(walk: AsyncWalk) -> None:
    writes = [walk.index.upsert(vectors=EIGHTHS, namespace=f"ns{n}") for n in range(20)]
    assert [answer.upserted_count for answer in await asyncio.gather(*writes)] == [8] * 20
    wanted = {f"ns{n}": 8 for n in range(20)}
    stats = await until(walk.index.describe_index_stats, lambda stats: counts(stats) == wanted)
    assert stats.total_vector_count == 160


async def query_many_at_once(walk: AsyncWalk) -> None:
    asked = [walk.index.query(vector=[1.0, 0.0], top_k=2, namespace=f"ns{n}") for n in range(20)]
    for answer in await asyncio.gather(*asked):
        assert [match.id for match in answer.matches] == ["a0", "a1"]
        assert answer.matches[0].score == 1.0


async def query_with_a_filter_asynchronously(walk: AsyncWalk) -> None:
    answer = await walk.index.query(
        vector=[1.0, 0.0], top_k=8, namespace="ns0", filter={"n": {"$gte": 6}}, include_metadata=True
    )
    assert {match.id: match.metadata["n"] for match in answer.matches} == {"a6": 6, "a7": 7}


async def fetch_asynchronously(walk: AsyncWalk) -> None:
    answer = await walk.index.fetch(ids=["a3", "never"], namespace="ns1")
    assert set(answer.vectors) == {"a3"}
    assert list(answer.vectors["a3"].values) == [1.0, 0.375]
    assert answer.namespace == "ns1"


async def list_asynchronously(walk: AsyncWalk) -> None:
    found = [getattr(item, "id", item) async for page in walk.index.list(prefix="a", namespace="ns2") for item in page]
    assert found == [f"a{n}" for n in range(8)]


async def update_asynchronously(walk: AsyncWalk) -> None:
    await walk.index.update(id="a1", set_metadata={"m": "new"}, namespace="ns3")

    async def read() -> Any:
        return (await walk.index.fetch(ids=["a1"], namespace="ns3")).vectors["a1"].metadata

    await until(read, lambda shown: dict(shown) == {"n": 1, "m": "new"})


async def delete_asynchronously(walk: AsyncWalk) -> None:
    index = walk.index
    await asyncio.gather(
        index.delete(ids=["a0", "a1"], namespace="ns4"),
        index.delete(filter={"n": {"$lt": 3}}, namespace="ns5"),
        index.delete(delete_all=True, namespace="ns6"),
    )
    wanted = {"ns4": 6, "ns5": 5, "ns6": 0, "ns7": 8}
    await until(index.describe_index_stats, lambda stats: {name: counts(stats).get(name) for name in wanted} == wanted)


async def delete_the_index_asynchronously(walk: AsyncWalk) -> None:
    await walk.client.delete_index(NAME)
    assert not await walk.client.has_index(NAME)


OPERATIONS = (
    upsert_many_at_once,
    query_many_at_once,
    query_with_a_filter_asynchronously,
    fetch_asynchronously,
    list_asynchronously,
    update_asynchronously,
    delete_asynchronously,
)


async def by_host(client: Any) -> Any:
    """Open the index as generations 7 and 8 do."""
    return client.IndexAsyncio(host=(await client.describe_index(NAME)).host)


async def by_name(client: Any) -> Any:
    """Open the index as generations from 9 on do."""
    return await client.index(NAME)


async def take(module: Any, client: Any, open_index: Callable[[Any], Awaitable[Any]]) -> None:
    """Take all steps with an asyncio client."""
    async with client:
        walk = AsyncWalk(module, client)
        await create_an_index_asynchronously(walk)
        passed(create_an_index_asynchronously.__name__)
        async with await open_index(client) as index:
            walk.index = index
            for step in OPERATIONS:
                await step(walk)
                passed(step.__name__)
        await delete_the_index_asynchronously(walk)
        passed(delete_the_index_asynchronously.__name__)
