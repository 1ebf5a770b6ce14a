"""Milvus Lite: a file, opened in this process through pymilvus."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

import numpy as np

from tests.bench.peers.protocol import UNFILTERED, Absent

_COLLECTION = "bench"


class MilvusLite:
    name = "Milvus Lite"
    remark = "one local process behind pymilvus"
    knobs = (32, 64, 96, 128, 160, 256, 400)

    def __init__(self, dimension: int) -> None:
        self._folder = tempfile.mkdtemp(prefix="freshet-bench-")
        # It writes once more when the interpreter ends: what is registered before its import runs after that.
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        try:
            import milvus_lite  # noqa: F401, PLC0415 # a peer that may be absent
            from pymilvus import DataType, MilvusClient  # noqa: PLC0415
        except ImportError as error:
            raise Absent(f"{error.name or error} is not installed") from error
        self._client = MilvusClient(str(Path(self._folder) / "bench.db"))
        schema = self._client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("draw", DataType.INT64)
        schema.add_field("v", DataType.FLOAT_VECTOR, dim=dimension)
        index = self._client.prepare_index_params()
        # Lite offers what its release offers; the answers' recall is printed beside their speed.
        index.add_index("v", index_type="HNSW", metric_type="COSINE", params={"M": 16, "efConstruction": 200})
        self._client.create_collection(_COLLECTION, schema=schema, index_params=index)
        self._ef = self.knobs[0]

    def load(self, first: int, vectors: np.ndarray, draws: np.ndarray) -> None:
        rows = [
            {"id": first + n, "draw": draw, "v": vector}
            for n, (vector, draw) in enumerate(zip(vectors, draws.tolist(), strict=True))
        ]
        self._client.insert(_COLLECTION, rows)

    def finish_load(self) -> None:
        self._client.flush(_COLLECTION)
        self._client.load_collection(_COLLECTION)

    def tune(self, knob: int) -> None:
        self._ef = knob

    def search(self, query: np.ndarray, below: int | None) -> list[int]:
        where = "" if below is None else f"draw < {below}"
        params = {"metric_type": "COSINE", "params": {"ef": self._ef}}
        found = self._client.search(_COLLECTION, [query], filter=where, limit=10, search_params=params, anns_field="v")
        return [int(match["id"]) for match in found[0]]

    def write(self, row: int, vector: np.ndarray) -> None:
        self._client.insert(_COLLECTION, [{"id": row, "draw": UNFILTERED, "v": vector}])

    def has(self, row: int) -> bool:
        return bool(self._client.get(_COLLECTION, ids=[row]))

    def close(self) -> None:
        self._client.close()
        shutil.rmtree(self._folder, ignore_errors=True)
