"""Qdrant: the server that answers at `QDRANT_URL` (default port 6333 on this machine)."""

from __future__ import annotations

import os
import time

import numpy as np

from tests.bench.peers.protocol import UNFILTERED, Absent

_COLLECTION = "freshet-bench"


class Qdrant:
    name = "Qdrant"
    remark = "server, gRPC client; no sync per write"
    knobs = (32, 64, 96, 128, 160, 256, 400)

    def __init__(self, dimension: int) -> None:
        try:
            from qdrant_client import QdrantClient, models  # noqa: PLC0415 # a peer that may be absent
        except ImportError as error:
            raise Absent("qdrant_client is not installed") from error
        url = os.environ.get("QDRANT_URL", "http://127.0.0.1:6333")
        self._models = models
        self._client = QdrantClient(url=url, prefer_grpc=True, timeout=600)
        try:
            self._client.get_collections()
        except Exception as error:
            raise Absent(f"no server answers at {url} (QDRANT_URL)") from error
        self._client.delete_collection(_COLLECTION)
        self._client.create_collection(
            _COLLECTION,
            vectors_config=models.VectorParams(size=dimension, distance=models.Distance.COSINE),
            hnsw_config=models.HnswConfigDiff(m=16, ef_construct=200),
        )
        self._client.create_payload_index(_COLLECTION, "draw", models.PayloadSchemaType.INTEGER)
        self._ef = self.knobs[0]

    def load(self, first: int, vectors: np.ndarray, draws: np.ndarray) -> None:
        models = self._models
        points = [
            models.PointStruct(id=first + n, vector=vector, payload={"draw": draw})
            for n, (vector, draw) in enumerate(zip(vectors.tolist(), draws.tolist(), strict=True))
        ]
        self._client.upsert(_COLLECTION, points, wait=False)

    def finish_load(self) -> None:
        while True:
            told = self._client.get_collection(_COLLECTION)
            if told.status == self._models.CollectionStatus.GREEN:
                return
            time.sleep(0.2)

    def tune(self, knob: int) -> None:
        self._ef = knob

    def search(self, query: np.ndarray, below: int | None) -> list[int]:
        models = self._models
        where = None
        if below is not None:
            where = models.Filter(must=[models.FieldCondition(key="draw", range=models.Range(lt=below))])
        found = self._client.query_points(
            _COLLECTION,
            query=query.tolist(),
            limit=10,
            query_filter=where,
            search_params=models.SearchParams(hnsw_ef=self._ef),
            with_payload=False,
        )
        return [int(point.id) for point in found.points]

    def write(self, row: int, vector: np.ndarray) -> None:
        point = self._models.PointStruct(id=row, vector=vector.tolist(), payload={"draw": UNFILTERED})
        self._client.upsert(_COLLECTION, [point], wait=True)

    def has(self, row: int) -> bool:
        return bool(self._client.retrieve(_COLLECTION, [row], with_payload=False))

    def close(self) -> None:
        self._client.delete_collection(_COLLECTION)
        self._client.close()
