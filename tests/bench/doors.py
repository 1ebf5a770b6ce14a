"""The hot routes from socket to socket: how long upserts hold the event loop, and answers with many numbers in them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import orjson

from tests.bench import paused, work
from tests.bench.figures import Row, figure, note, percentiles
from tests.bench.harness import Bench, scenario

_SECONDS_MAX = 10.0


@scenario("doors", "hold_100", "hold_1000")
async def doors(bench: Bench) -> Sequence[Row]:
    """Ask for many records, then send large bodies, each against the plain way in the same run."""
    return [*await _records(bench), await _hold("hold_100", 100), await _hold("hold_1000", 1_000)]


async def _hold(key: str, rows: int, dimension: int = 384) -> Row:
    ours, plain = await paused.held(rows, dimension)
    said = (
        f"{ours.typical_ms:.1f} ms, worst {ours.worst_ms:.1f}, answer {ours.answer_ms:.0f}, idle {ours.idle_ms:.1f} "
        f"(parsed on the loop: {plain.typical_ms:.1f}, {plain.worst_ms:.1f}, {plain.answer_ms:.0f})"
    )
    facts = {"worst_ms": ours.worst_ms, "plain_ms": plain.typical_ms, "plain_worst_ms": plain.worst_ms}
    return figure(key, ours.typical_ms, said, **facts)


async def _records(bench: Bench) -> list[Row]:
    """Measure a fetch of 100 ids, and the best 100 with values and metadata, against printing the same answer."""
    ids = "&".join(f"ids=row-{at}" for at in range(100))
    wide = {"topK": 100, "includeValues": True, "includeMetadata": True}
    bodies = [
        orjson.dumps({"vector": query, **wide}, option=orjson.OPT_SERIALIZE_NUMPY) for query in bench.data.queries[:50]
    ]
    rows = []
    async with work.connected((await bench.loaded()).server.port) as connection:
        for key, name, method, path, sent in (
            ("fetch_100", "fetch of 100 ids, against printing it", "GET", f"/vectors/fetch?{ids}", [b""]),
            ("wide_100", "topK 100 with values and metadata, against printing it", "POST", "/query", bodies),
        ):
            taken: list[float] = []
            end = time.perf_counter() + min(_SECONDS_MAX, bench.options.seconds / 4)
            while time.perf_counter() < end:
                began = time.perf_counter()
                answer = work.checked(await connection.call(method, path, sent[len(taken) % len(sent)]))
                taken.append(time.perf_counter() - began)
            printed = _printed_ms(answer.json())
            p50, p99 = percentiles(taken)
            said = f"{p50 / printed:.2f} x (p50 {p50:.2f} ms, p99 {p99:.2f} ms; printing {printed:.2f} ms)"
            rows.append(note(key, name, said, p50_ms=p50, p99_ms=p99, printing_ms=printed))
    return rows


def _printed_ms(document: dict) -> float:
    """Return how long the JSON library alone takes to print an answer, here and now."""
    found = document.get("vectors", document.get("matches"))
    items = list(found.values()) if isinstance(found, dict) else found
    arrays = {"v": [{**item, "values": np.array(item["values"], np.float32)} for item in items]}
    taken = []
    for _ in range(20):
        began = time.perf_counter()
        orjson.dumps(arrays, option=orjson.OPT_SERIALIZE_NUMPY)
        taken.append(time.perf_counter() - began)
    return min(taken) * 1000
