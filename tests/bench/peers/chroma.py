"""Chroma: its own server, started here with the command that its package brings."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.bench.peers.protocol import UNFILTERED, Absent
from tests.support.ports import free_port

_START_SECONDS = 60


class Chroma:
    name = "Chroma"
    remark = "server, HTTP client"
    # It takes the knob only when a collection is made or modified.
    knobs = (50, 100, 200, 400)

    def __init__(self, dimension: int) -> None:
        try:
            import chromadb  # noqa: PLC0415 # a peer that may be absent
        except ImportError as error:
            raise Absent("chromadb is not installed") from error
        self._folder = tempfile.mkdtemp(prefix="freshet-bench-")
        port = free_port()
        command = Path(sys.executable).with_name("chroma")
        if not command.exists():
            raise Absent(f"there is no command {command}")
        arguments = ["run", "--path", self._folder, "--port", str(port), "--host", "127.0.0.1"]
        self._process = subprocess.Popen([str(command), *arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._client = chromadb.HttpClient(host="127.0.0.1", port=port)
                break
            except Exception:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.close()
                    raise
                time.sleep(0.2)
        settings = {"hnsw": {"space": "cosine", "max_neighbors": 16, "ef_construction": 200}}
        self._collection = self._client.create_collection("bench", configuration=settings, embedding_function=None)

    def load(self, first: int, vectors: np.ndarray, draws: np.ndarray) -> None:
        ids = [str(first + number) for number in range(len(vectors))]
        self._collection.add(ids=ids, embeddings=vectors, metadatas=[{"draw": draw} for draw in draws.tolist()])

    def finish_load(self) -> None:
        """Nothing says whether it is indexed; what `add` returned from is found."""

    def tune(self, knob: int) -> None:
        self._collection.modify(configuration={"hnsw": {"ef_search": knob}})

    def search(self, query: np.ndarray, below: int | None) -> list[int]:
        where = None if below is None else {"draw": {"$lt": below}}
        found = self._collection.query(query_embeddings=[query], n_results=10, where=where, include=[])
        return [int(key) for key in found["ids"][0]]

    def write(self, row: int, vector: np.ndarray) -> None:
        self._collection.add(ids=[str(row)], embeddings=[vector], metadatas=[{"draw": UNFILTERED}])

    def has(self, row: int) -> bool:
        return bool(self._collection.get(ids=[str(row)], include=[])["ids"])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        shutil.rmtree(self._folder, ignore_errors=True)
