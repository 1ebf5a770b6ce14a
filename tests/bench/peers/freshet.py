"""Freshet itself through the same adapter, so that its figures stand beside the others' in one run."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time

import numpy as np
import orjson

from tests.bench import work
from tests.bench.peers.protocol import UNFILTERED
from tests.bench.server import running


class Freshet:
    name = "Freshet"
    remark = "server, HTTP; every write is synced; candidates by its own recall target"
    knobs = (0,)

    def __init__(self, dimension: int) -> None:
        self._stack = contextlib.ExitStack()
        self._server = self._stack.enter_context(running(graph_threads=2))
        self._local = threading.local()
        self._rows = 0
        body = {
            "name": work.INDEX,
            "dimension": dimension,
            "metric": "cosine",
            "spec": {"serverless": {"cloud": "aws", "region": "us-east-1"}},
        }
        self._call("POST", "/indexes", body)

    def load(self, first: int, vectors: np.ndarray, draws: np.ndarray) -> None:
        rows = [
            {"id": str(first + n), "values": vector, "metadata": {"draw": draw}}
            for n, (vector, draw) in enumerate(zip(vectors, draws.tolist(), strict=True))
        ]
        self._call("POST", f"{work.prefix_of()}/vectors/upsert", {"vectors": rows})
        self._rows = max(self._rows, first + len(vectors))

    def finish_load(self) -> None:
        while True:
            told = self._call("POST", f"{work.prefix_of()}/describe_index_stats", {})
            tail = sum(part["tailRows"] for part in told["freshness"]["partitions"])
            if told["totalVectorCount"] == self._rows and tail <= work.TAIL_ROWS_MAX:
                return
            time.sleep(0.2)

    def tune(self, knob: int) -> None:
        """The index chooses its candidates itself."""

    def search(self, query: np.ndarray, below: int | None) -> list[int]:
        body: dict[str, object] = {"vector": query, "topK": 10}
        if below is not None:
            body["filter"] = {"draw": {"$lt": below}}
        answer = self._call("POST", f"{work.prefix_of()}/query", body)
        return [int(match["id"]) for match in answer["matches"]]

    def write(self, row: int, vector: np.ndarray) -> None:
        rows = [{"id": str(row), "values": vector, "metadata": {"draw": UNFILTERED}}]
        self._call("POST", f"{work.prefix_of()}/vectors/upsert", {"vectors": rows})

    def has(self, row: int) -> bool:
        return bool(self._call("GET", f"{work.prefix_of()}/vectors/fetch?ids={row}")["vectors"])

    def close(self) -> None:
        self._stack.close()

    def _call(self, method: str, path: str, body: object = None) -> dict:
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=60)
        data = None if body is None else orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        self._local.connection.request(method, path, data, {"api-key": "bench", "content-type": "application/json"})
        answer = self._local.connection.getresponse()
        said = answer.read()
        if answer.status not in (200, 201):
            raise RuntimeError(f"{method} {path}: {answer.status} {said[:300]!r}")
        return orjson.loads(said)
