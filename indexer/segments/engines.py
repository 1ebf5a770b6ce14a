"""Which engine opens graphs and searches: the native one, or the stock module where that is missing or asked for."""

from __future__ import annotations

from functools import lru_cache

import structlog

from indexer.segments.container import Container
from indexer.segments.graph import codes_of, links_of
from indexer.segments.hnsw import StockGraph
from indexer.segments.native import ENGINE_FILE, Engine, NativeGraph, load_engine
from indexer.segments.reader import GraphReader
from indexer.segments.search import NativeSearch, Searcher
from indexer.segments.stock_search import StockSearch
from schemas.errors import ConfigError, CorruptData
from schemas.indexes import Metric

__all__ = ["choose_engine", "open_graph", "searcher_of"]

_log = structlog.get_logger(__name__)


@lru_cache(maxsize=8)
def choose_engine(name: str) -> Engine | None:
    """Return the engine for `native`, `stock` (None) or `auto`, once per process. Raises `ConfigError`."""
    if name == "stock":
        return None
    try:
        return load_engine()
    except OSError as error:
        if name != "auto":
            raise ConfigError(f"The native graph engine cannot be loaded: {error}.") from error
        _log.warning(
            "native_engine_missing",
            reason=str(error),
            file=str(ENGINE_FILE),
            effect="graphs are searched by the hnswlib module instead: slower, and loading one stops all else",
            remedy="`make up` compiles it; `graph_engine=stock` in the settings silences this",
        )
        return None


def searcher_of(engine: Engine | None) -> Searcher:
    """Return what snapshots search with."""
    return StockSearch() if engine is None else NativeSearch(engine)


def open_graph(
    engine: Engine | None, container: Container, vectors: Container, *, rows: int, metric: Metric, ef: int
) -> GraphReader:
    """Return the graph of a segment with `rows` rows, checked. Raises `CorruptData`."""
    links = links_of(container)
    matrix, norms = vectors.column("vectors", "<f4"), vectors.column("norms", "<f4")
    if len(matrix) != links.elements * vectors.dimension or len(norms) != links.elements:
        raise CorruptData(f"A graph of {links.elements} elements does not fit its vectors.")
    if engine is not None:
        codes = codes_of(container, rows, vectors.dimension)
        return NativeGraph(engine, links, rows, ef, codes)
    return StockGraph(links, matrix.reshape(-1, vectors.dimension), rows, metric, ef)
