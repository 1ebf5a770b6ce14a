"""The measurements behind the thresholds: what a scan, a scan over codes and a walk cost at which size."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from indexer.graphs import GraphJob, build_graph
from indexer.segments.graph import GraphOptions
from indexer.segments.native import SCAN, WALK, NativeGraph, load_engine, slices_of
from schemas.indexes import IndexSpec, Metric
from tests.bench import data

_SIZES = (512, 2_048, 8_192, 20_000, 50_000, 100_000)
_TOP_K = 10
_QUERIES = 100


def measure(rows: int, loaded: data.DataSet) -> dict[str, float]:
    """Return microseconds per query of each way to search `rows` rows, and rows looked at per candidate of a walk."""
    engine = load_engine()
    vectors = np.ascontiguousarray(loaded.vectors[:rows])
    norms = np.einsum("ij,ij->i", vectors, vectors)
    spec = IndexSpec("thresholds", "log", 1, vectors.shape[1], Metric.COSINE)
    began = time.perf_counter()
    built = build_graph(GraphJob(spec, GraphOptions(), vectors, rows))
    build_seconds = time.perf_counter() - began
    graph = NativeGraph(engine, built.links, rows, built.ef_search, built.codes)
    looked = 0

    def search(plan: int, *, codes: bool) -> Callable[[np.ndarray], None]:
        numbers = (rows, rows, plan, built.ef_search, 2**32 - 1)
        places = (vectors.ctypes.data, norms.ctypes.data, 0)
        slices = slices_of([(*places, graph.address, graph.codes_address if codes else 0, *numbers)])

        def ask(query: np.ndarray) -> None:
            nonlocal looked
            engine.search(slices, query, Metric.COSINE, _TOP_K)
            looked = int(slices["evaluated"][0])

        return ask

    found = {"rows": rows, "ef": built.ef_search, "build_rows_per_second": rows / build_seconds}
    for name, ask in (
        ("scan_us", search(SCAN, codes=False)),
        ("codes_us", search(SCAN, codes=True)),
        ("walk_us", search(WALK, codes=True)),
    ):
        taken, evaluated = [], []
        for query in loaded.queries[:_QUERIES]:
            began = time.perf_counter()
            ask(query)
            taken.append(time.perf_counter() - began)
            evaluated.append(looked)
        found[name] = float(np.median(taken)) * 1e6
        found[name.replace("_us", "_looked")] = float(np.mean(evaluated))
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=max(_SIZES))
    most = parser.parse_args().rows
    loaded = data.load(most, queries=_QUERIES)
    print(f"data: {loaded.name}; recall target 0.95, top {_TOP_K}, M 16, ef_construction 200, one thread")
    print("rows      ef   build/s   scan us   over codes us   walk us   rows looked at by the walk")
    for rows in (size for size in _SIZES if size <= most):
        found = measure(rows, loaded)
        print(
            f"{rows:<8,} {found['ef']:>4.0f} {found['build_rows_per_second']:>9,.0f} {found['scan_us']:>9,.0f} "
            f"{found['codes_us']:>15,.0f} {found['walk_us']:>9,.0f} {found['walk_looked']:>12,.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
