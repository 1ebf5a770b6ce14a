"""What the product is measured against: the least program that answers the same query, and bare hnswlib."""

from __future__ import annotations

import sys
import time

import hnswlib
import numpy as np
import orjson
import uvicorn


def build(vectors: np.ndarray, *, threads: int, m: int = 16, ef_construction: int = 200) -> tuple[hnswlib.Index, float]:
    """Build one graph over `vectors`; return it and the seconds."""
    index = hnswlib.Index(space="cosine", dim=vectors.shape[1])
    began = time.perf_counter()
    index.init_index(max_elements=len(vectors), M=m, ef_construction=ef_construction, random_seed=100)
    index.add_items(vectors, num_threads=threads)
    return index, time.perf_counter() - began


def serve(file: str, dimension: int, port: int, ef: int) -> None:
    """Answer queries from a saved graph: bare ASGI, orjson, knn_query; nothing else."""
    index = hnswlib.Index(space="cosine", dim=dimension)
    index.load_index(file)
    index.set_ef(ef)
    index.set_num_threads(1)

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        question = orjson.loads(body)
        vector = np.array(question["vector"], np.float32)
        labels, distances = index.knn_query(vector[np.newaxis], k=question["topK"])
        matches = [
            {"id": f"row-{label}", "score": 1 - distance}
            for label, distance in zip(labels[0].tolist(), distances[0].tolist(), strict=True)
        ]
        data = orjson.dumps({"matches": matches, "namespace": ""})
        length = str(len(data)).encode()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"application/json"), (b"content-length", length)],
            }
        )
        await send({"type": "http.response.body", "body": data})

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
