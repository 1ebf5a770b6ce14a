"""gRPC against REST: the same queries and upserts on one index in one run, by clients that are equally lean."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import orjson

from query_api.grpc import vector_service_pb2 as pb
from tests.bench import work
from tests.bench.client import Connection
from tests.bench.figures import Row, figure, percentiles
from tests.bench.grpc_client import GrpcConnection
from tests.bench.harness import Bench, scenario

# By turns, so that a busy neighbour on the machine meets both.
_TURNS = 4
_SECONDS_MAX = 24.0
_CHECKED = 100
_BATCH, _BATCHES = 100, 40
_SPACE = "transports"

Call = Callable[[int], Awaitable[object]]


@scenario("transports", "grpc_query_1", "grpc_query_16", "grpc_upsert_1", "grpc_upsert_4")
async def transports(bench: Bench) -> Sequence[Row]:
    """Ask, then write, over both; before that both must give the same answers."""
    server = (await bench.loaded()).server
    seconds = min(_SECONDS_MAX, bench.options.seconds / 2) / (2 * _TURNS)
    port = server.port
    asked = [pb.QueryRequest(vector=query, top_k=10).SerializeToString() for query in bench.data.queries.tolist()]
    found = await _checked(port, bench.questions, asked, bench.truth)
    sent = (("/query", bench.questions), ("Query", asked))
    rows = [
        await _compared(key, port, sent, (connections, seconds), found)
        for key, connections in (("grpc_query_1", 1), ("grpc_query_16", 16))
    ]
    chosen = range(min(_BATCH * _BATCHES, len(bench.data.vectors)))
    bodies = list(work.bodies(bench.data, _BATCH, namespace=_SPACE, rows=chosen))
    messages = [_as_message(body) for body in bodies]
    sent = (("/vectors/upsert", bodies), ("Upsert", messages))
    rows += [
        await _compared(key, port, sent, (writers, seconds))
        for key, writers in (("grpc_upsert_1", 1), ("grpc_upsert_4", 4))
    ]
    await work.remove_namespace(port, _SPACE)
    return rows


async def _compared(
    key: str,
    port: int,
    sent: Sequence[tuple[str, Sequence[bytes]]],
    window: tuple[int, float],
    recall: float | None = None,
) -> Row:
    """Return the line: calls per second over gRPC by those over REST, with so many connections and seconds a turn."""
    connections, seconds = window
    rest, grpc = sent
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(_TURNS):
        by_rest = [Connection(port, work.prefix_of()) for _ in range(connections)]
        theirs += await _calling([_rest_call(one, *rest) for one in by_rest], seconds)
        by_grpc = [GrpcConnection(port, work.INDEX) for _ in range(connections)]
        ours += await _calling([_grpc_call(one, *grpc) for one in by_grpc], seconds)
        for one in (*by_rest, *by_grpc):
            await one.close()
    ratio = len(ours) / len(theirs)
    rates = [len(taken) / (_TURNS * seconds) for taken in (ours, theirs)]
    (p50, p99), (rest_p50, rest_p99) = percentiles(ours), percentiles(theirs)
    said = (
        f"{ratio:.2f} ({rates[0]:,.0f}/s, REST {rates[1]:,.0f}; p50 {p50:.2f} ms, p99 {p99:.1f}; "
        f"REST {rest_p50:.2f}, {rest_p99:.1f})"
    )
    facts = {"per_second": rates[0], "rest_per_second": rates[1], "p50_ms": p50, "p99_ms": p99}
    return figure(key, ratio, said, recall=recall, **facts)


async def _calling(calls: Sequence[Call], seconds: float) -> list[float]:
    """Call one after the other on every connection; return the latency of every call in seconds."""
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def one(call: Call, at: int) -> None:
        while (began := time.perf_counter()) < end:
            await call(at)
            taken.append(time.perf_counter() - began)
            at += len(calls)

    await asyncio.gather(*[one(call, number) for number, call in enumerate(calls)])
    return taken


def _rest_call(connection: Connection, path: str, sent: Sequence[bytes]) -> Call:
    async def call(at: int) -> None:
        work.checked(await connection.call("POST", path, sent[at % len(sent)]))

    return call


def _grpc_call(connection: GrpcConnection, method: str, sent: Sequence[bytes]) -> Call:
    async def call(at: int) -> None:
        await connection.call(method, sent[at % len(sent)])

    return call


async def _checked(port: int, questions: Sequence[bytes], asked: Sequence[bytes], truth: np.ndarray) -> float:
    """Return the recall over gRPC. Raises `RuntimeError` where both doors do not give the same matches."""
    rest, grpc = Connection(port, work.prefix_of()), GrpcConnection(port, work.INDEX)
    found = 0
    for place in range(_CHECKED):
        answer = pb.QueryResponse.FromString(await grpc.call("Query", asked[place]))
        one = [(match.id, match.score) for match in answer.matches]
        matches = work.checked(await rest.call("POST", "/query", questions[place])).json()["matches"]
        other = [(match["id"], float(np.float32(match["score"]))) for match in matches]
        if one != other:
            raise RuntimeError(f"gRPC found {one}, REST {other}")
        found += len({name for name, _ in one} & {f"row-{row}" for row in truth[place].tolist()})
    await rest.close()
    await grpc.close()
    return found / (_CHECKED * truth.shape[1])


def _as_message(body: bytes) -> bytes:
    document = orjson.loads(body)
    request = pb.UpsertRequest(namespace=document["namespace"])
    for vector in document["vectors"]:
        made = request.vectors.add(id=vector["id"], values=vector["values"])
        made.metadata.update(vector["metadata"])
    return request.SerializeToString()
