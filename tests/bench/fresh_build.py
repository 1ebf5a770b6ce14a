"""The recall of a graph that is built anew, at once, from given rows: what a graph with a history is compared with."""

from __future__ import annotations

import numpy as np

from indexer.graphs import GraphJob, build_graph
from indexer.segments.engines import choose_engine
from indexer.segments.graph import GraphOptions
from indexer.segments.native import WALK, NativeGraph, slices_of
from schemas.indexes import Metric
from tests.support.builders import spec_of

__all__ = ["fresh_recall"]


def fresh_recall(vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray, *, threads: int) -> float:
    """Build one graph over `vectors` (float32 [n, d]) as the indexer does; return its recall against `truth` [q, k].

    It is walked with the candidates that its own measurement chose. Raises `RuntimeError` without the native engine.
    """
    engine = choose_engine("native")
    if engine is None:
        raise RuntimeError("the native engine is missing")
    spec, count = spec_of(Metric.COSINE, dimension=vectors.shape[1]), len(vectors)
    rows = np.ascontiguousarray(vectors, np.float32)
    built = build_graph(GraphJob(spec, GraphOptions(threads=threads), rows, count))
    graph = NativeGraph(engine, built.links, count, built.ef_search, built.codes)
    norms, alive = np.einsum("ij,ij->i", rows, rows), np.ones(count, np.bool_)
    places = (rows.ctypes.data, norms.ctypes.data, alive.ctypes.data, graph.address, graph.codes_address)
    found = 0
    for query, nearest in zip(np.ascontiguousarray(queries, np.float32), truth, strict=True):
        part = slices_of([(*places, count, count, WALK, built.ef_search, 2**32 - 1)])
        hits, _ = engine.search(part, query, Metric.COSINE, len(nearest))
        found += len(set(hits["row"][: len(nearest)].tolist()) & set(nearest.tolist()))
    return found / truth.size
