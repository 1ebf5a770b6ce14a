"""A segment with a graph keeps the contract of segments under both engines, and what only it promises.

Searches of these small graphs walk the graph whatever it costs, with as many candidates as there are rows, so they must
be exact.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.graphs import Base, GraphJob, build_graph
from indexer.merge_policy import MergeOptions
from indexer.segments import hnsw
from indexer.segments.container import Container, pack
from indexer.segments.engines import choose_engine, open_graph
from indexer.segments.graph import (
    NO_LINK,
    GraphOptions,
    Links,
    codes_lead,
    codes_of,
    encode_codes,
    links_of,
    sections_of,
)
from indexer.segments.native import SCAN, WALK, NativeGraph, slices_of
from indexer.segments.scoring import ranks
from indexer.snapshots.snapshot import Snapshot
from schemas.errors import ConfigError, CorruptData
from schemas.indexes import Metric
from schemas.manifest import GRAPH
from tests.contract.segment_contract import SegmentContract
from tests.support.builders import spec_of
from tests.support.driver import EXACT, Pipeline
from tests.support.engines import ENGINES, walks_always

_ROWS = 2000
_DIMENSION = 16


class TestGraphSegment(SegmentContract):
    """Everything that every kind of segment promises."""

    # A walk ends with half as many candidates again as were asked for, and eight.
    ties_max = 20

    @pytest.fixture(autouse=True)
    def walks(self, monkeypatch) -> list[int]:
        return walks_always(monkeypatch)

    @pytest.fixture
    def merge(self) -> MergeOptions:
        return MergeOptions(rollup_deltas=3, graph_rows_min=16, dead_share_max=0.99)

    @pytest.fixture(params=ENGINES)
    def engine(self, request) -> str:
        return request.param

    @pytest.fixture
    def pipeline(self, tmp_path: Path, merge: MergeOptions, metric: Metric, engine: str) -> Pipeline:
        return Pipeline(tmp_path, spec_of(metric), merge=merge, graph=replace(EXACT, engine=engine))

    def check_kind(self, snapshot: Snapshot) -> None:
        assert snapshot.views[0].source.kind == GRAPH
        assert snapshot.views[0].reader.graph is not None


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((_ROWS, _DIMENSION)).astype(np.float32)


def spec(metric: Metric = Metric.COSINE, **changes: object):
    return replace(spec_of(metric), dimension=_DIMENSION, **changes)


def job_of(vectors: np.ndarray, *, metric: Metric = Metric.COSINE, options: GraphOptions | None = None, **more):
    return GraphJob(spec(metric, **more), options or GraphOptions(), vectors, len(vectors))


def containers_of(built, vectors: np.ndarray, elements: int | None = None) -> tuple[Container, Container]:
    """Return the opened graph object and vector object of a graph, as they are written."""
    elements = elements or built.links.elements
    sections = sections_of(built.links, built.codes)
    norms = np.einsum("ij,ij->i", vectors, vectors)
    graph = b"".join(pack(sections, rows=elements, dimension=vectors.shape[1]))
    matrix = b"".join(pack({"vectors": vectors, "norms": norms}, rows=len(vectors), dimension=vectors.shape[1]))
    return Container(memoryview(graph)), Container(memoryview(matrix))


def search(links: Links, vectors: np.ndarray, metric: Metric, query: np.ndarray, **how) -> list[int]:
    """Walk by the native engine; `ef`, `mask`, `rows`, `top_k` as wanted."""
    engine = choose_engine("native")
    rows = how.get("rows", len(vectors))
    mask = how.get("mask")
    graph = NativeGraph(engine, links, rows, 0, encode_codes(vectors[:rows]))
    norms = np.einsum("ij,ij->i", vectors, vectors)
    allowed = rows if mask is None else int(mask.sum())
    places = (vectors.ctypes.data, norms.ctypes.data, 0 if mask is None else mask.ctypes.data)
    numbers = (rows, allowed, how.get("plan", WALK), how.get("ef", 200), 2**32 - 1)
    slices = slices_of([(*places, graph.address, graph.codes_address, *numbers)])
    hits, _ = engine.search(slices, query, metric, how.get("top_k", 10))
    return hits["row"].tolist()


def nearest(vectors: np.ndarray, metric: Metric, query: np.ndarray, count: int = 10) -> list[int]:
    rank = ranks(metric, vectors, np.einsum("ij,ij->i", vectors, vectors), query)
    return np.argsort(-rank, kind="stable")[:count].tolist()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("metric", list(Metric))
def test_graph_of_either_engine_is_found_by_both(vectors, metric, engine):
    """Recall at 10 over 200 queries is at least 0.95, the target of every index, whoever built and whoever walks."""
    built = build_graph(job_of(vectors, metric=metric, options=GraphOptions(engine=engine)))
    graph, matrix = containers_of(built, vectors)
    stock = open_graph(None, graph, matrix, rows=_ROWS, metric=metric, ef=built.ef_search)
    by_stock = by_native = 0
    for query in np.random.default_rng(6).standard_normal((200, _DIMENSION)).astype(np.float32):
        wanted = set(nearest(vectors, metric, query))
        by_stock += len(wanted & set(stock.search(query, 10).tolist()))
        by_native += len(wanted & set(search(built.links, vectors, metric, query, ef=built.ef_search)))
    assert by_stock >= 0.95 * 2000
    assert by_native >= 0.95 * 2000


@pytest.mark.parametrize("target", [0.7, 0.95, 0.99])
def test_candidates_follow_the_recall_target(vectors, target):
    """The index says what recall it wants; the graph says how many candidates that takes, and what they reach."""
    built = build_graph(job_of(vectors, recall_target=target))
    assert built.recall >= target
    found = sum(
        len(
            set(nearest(vectors, Metric.COSINE, query))
            & set(search(built.links, vectors, Metric.COSINE, query, ef=built.ef_search))
        )
        for query in np.random.default_rng(7).standard_normal((100, _DIMENSION)).astype(np.float32)
    )
    assert found / 1000 >= target - 0.03


def test_higher_target_takes_more_candidates(vectors):
    """Recall is paid for with candidates."""
    low, high = (build_graph(job_of(vectors, recall_target=target)).ef_search for target in (0.5, 0.99))
    assert low < high


def test_graph_that_cannot_reach_its_target_is_built_more_carefully():
    """A graph with too few links is built again, and the best there is is kept with its measured recall."""
    vectors = np.random.default_rng(8).standard_normal((4000, 64)).astype(np.float32)
    poor = GraphOptions(m=2, ef_construction=2)
    job = GraphJob(replace(spec(), dimension=64, recall_target=0.999), poor, vectors, 4000)
    built = build_graph(job)
    assert 0 < built.recall < 0.999
    assert built.ef_search == 1024


@pytest.mark.parametrize("engine", ENGINES)
def test_same_rows_and_seed_make_the_same_bytes(vectors, engine):
    """One builder thread and a fixed seed: a graph can be built again and compared."""
    first, second = (build_graph(job_of(vectors, options=GraphOptions(engine=engine))) for _ in range(2))
    assert b"".join(pack(sections_of(first.links, first.codes))) == b"".join(
        pack(sections_of(second.links, second.codes))
    )


def test_both_engines_build_the_same_quality(vectors):
    """Same algorithm, same parameters: about the same number of links."""
    native, stock = (build_graph(job_of(vectors, options=GraphOptions(engine=engine))).links for engine in ENGINES)
    assert native.top_level == stock.top_level
    assert np.count_nonzero(native.level0 + 1) == pytest.approx(np.count_nonzero(stock.level0 + 1), rel=0.02)


def test_many_threads_build_a_graph_as_good(vectors):
    """Threads change the order of insertion, not what is found."""
    built = build_graph(job_of(vectors, options=GraphOptions(threads=4)))
    assert built.recall >= 0.95
    assert (built.links.level0 != 0xFFFFFFFF).any(axis=1).all()


def test_extended_graph_finds_old_and_new_rows_and_never_the_dead(vectors):
    """Rows change their numbers, some die, as many come: recall stays, and the dead only lead the way."""
    old, ids = vectors[:1200], np.random.default_rng(9).permutation(1200)
    base = build_graph(job_of(old)).links
    # Of the old rows 200 die; those that stay get new numbers among 1800 rows.
    rows = 1800
    numbers = np.random.default_rng(10).permutation(rows)
    matrix = np.empty((rows + 200, _DIMENSION), np.float32)
    moved = np.empty(1200, np.uint32)
    moved[ids[:1000]] = numbers[:1000]
    moved[ids[1000:]] = rows + np.arange(200)
    matrix[moved] = old
    matrix[numbers[1000:]] = vectors[1200:]
    job = GraphJob(spec(), GraphOptions(), matrix, rows, Base(base, moved, matrix[rows:]))
    built = build_graph(job)
    assert built.links.elements == rows + 200
    assert len(built.codes.values) == rows
    assert built.recall >= 0.95
    graph, vectors_object = containers_of(built, matrix)
    stock = open_graph(None, graph, vectors_object, rows=rows, metric=Metric.COSINE, ef=built.ef_search)
    found = by_stock = 0
    for query in np.random.default_rng(11).standard_normal((200, _DIMENSION)).astype(np.float32):
        wanted = set(nearest(matrix[:rows], Metric.COSINE, query))
        hits = search(built.links, matrix, Metric.COSINE, query, rows=rows, ef=built.ef_search)
        assert max(hits) < rows
        found += len(wanted & set(hits))
        by_stock += len(wanted & set(stock.search(query, 10).tolist()))
    assert found >= 0.95 * 2000
    assert by_stock >= 0.95 * 2000


def test_extension_by_few_rows_is_measured_too(vectors):
    """Too few new rows to leave some out: then questions lie between rows that the graph holds."""
    base = build_graph(job_of(vectors[:1990])).links
    job = GraphJob(spec(), GraphOptions(), vectors, _ROWS, Base(base, np.arange(1990, dtype=np.uint32), vectors[:0]))
    built = build_graph(job)
    assert built.recall >= 0.95
    assert (built.links.level0[1990:] != 0xFFFFFFFF).any(axis=1).all()


def test_new_rows_of_an_extended_graph_get_levels_of_their_own(vectors):
    """A level generator that began again would lift the new rows as it lifted the old ones."""
    base = build_graph(job_of(vectors[:1000])).links
    job = GraphJob(spec(), GraphOptions(), vectors, _ROWS, Base(base, np.arange(1000, dtype=np.uint32), vectors[:0]))
    links = build_graph(job).links
    old = set(links.upper_nodes[links.upper_nodes < 1000].tolist())
    new = {node - 1000 for node in links.upper_nodes[links.upper_nodes >= 1000].tolist()}
    assert len(old & new) < len(new) / 2


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.01])
@pytest.mark.parametrize("metric", list(Metric))
def test_scan_over_codes_is_exact(vectors, metric, share):
    """Codes only say where to look: what is found is what the vectors say, to the last row."""
    rng = np.random.default_rng(12)
    built = build_graph(job_of(vectors, metric=metric))
    for _ in range(30):
        mask = rng.random(_ROWS) < share
        query = rng.standard_normal(_DIMENSION).astype(np.float32)
        rows = np.flatnonzero(mask)
        wanted = rows[nearest(vectors[rows], metric, query)].tolist()
        assert search(built.links, vectors, metric, query, mask=mask, plan=SCAN) == wanted


def test_walk_that_finds_too_little_looks_at_everything(vectors):
    """However far from the query the allowed rows lie, min(k, allowed) come back, exact where the walk gave up."""
    built = build_graph(job_of(vectors))
    query = vectors[0]
    order = nearest(vectors, Metric.COSINE, query, _ROWS)
    for count in (1, 5, 30):
        mask = np.zeros(_ROWS, np.bool_)
        mask[order[-count:]] = True
        hits = search(built.links, vectors, Metric.COSINE, query, mask=mask, ef=10)
        assert hits == order[-count:][:10]


def test_rows_that_tie_with_the_last_one_are_all_known(vectors):
    """A scan says that there were more rows of the last one's rank than it returned."""
    same = np.repeat(vectors[:1], 500, axis=0)
    engine = choose_engine("native")
    norms = np.einsum("ij,ij->i", same, same)
    slices = slices_of([(same.ctypes.data, norms.ctypes.data, 0, 0, 0, 500, 500, SCAN, 0, 0)])
    hits, is_tied = engine.search(slices, vectors[1], Metric.COSINE, 10)
    assert is_tied
    assert len(set(hits["rank"].tolist())) == 1
    ranks_of_all = engine.ranks(slices, vectors[1], Metric.COSINE)
    assert set(ranks_of_all.tolist()) == set(hits["rank"].tolist())


@pytest.mark.parametrize("engine", ENGINES)
def test_links_that_point_outside_are_refused(vectors, engine):
    """A damaged graph is told before it is walked, under each engine."""
    built = build_graph(job_of(vectors[:300]))
    chosen = choose_engine(engine)
    for field, index, value in [
        ("level0", (5, 3), 300),
        ("level0", (299, 31), 0xFFFFFFFE),
        ("upper", (0, 0), 300),
        ("upper_nodes", 0, 5000),
        ("upper_starts", 0, 1),
        ("upper_starts", -1, 99_999),
        ("entry", None, 300),
        ("top_level", None, 7),
    ]:
        if index is None:
            links = replace(built.links, **{field: value})
        else:
            array = getattr(built.links, field).copy()
            array[index] = value
            links = replace(built.links, **{field: array})
        graph, matrix = containers_of(replace(built, links=links), vectors[:300])
        with pytest.raises(CorruptData):
            open_graph(chosen, graph, matrix, rows=300, metric=Metric.COSINE, ef=10)


def test_sections_that_do_not_fit_each_other_are_refused(vectors):
    """A graph of another number of rows would point anywhere."""
    built = build_graph(job_of(vectors[:300]))
    graph, _ = containers_of(built, vectors[:300], elements=299)
    with pytest.raises(CorruptData):
        links_of(graph)
    graph, _ = containers_of(built, vectors[:300])
    with pytest.raises(CorruptData):
        codes_of(graph, 299, _DIMENSION)
    with pytest.raises(CorruptData):
        links_of(Container(memoryview(b"".join(pack({})))))


def test_graph_never_gives_more_than_it_has(vectors):
    """Asking for more rows than there are is no error."""
    built = build_graph(job_of(vectors[:5]))
    graph, matrix = containers_of(built, vectors[:5])
    stock = open_graph(None, graph, matrix, rows=5, metric=Metric.COSINE, ef=10)
    assert sorted(stock.search(vectors[0], 100).tolist()) == [0, 1, 2, 3, 4]
    assert sorted(search(built.links, vectors[:5], Metric.COSINE, vectors[0], top_k=100)) == [0, 1, 2, 3, 4]


def test_graph_that_was_saved_short_is_an_error(vectors, monkeypatch):
    """The library ignores write errors: the size of what it saved is checked."""
    stock = hnsw.hnswlib.Index

    class Short(stock):
        def save_index(self, path: str) -> None:
            super().save_index(path)
            with open(path, "r+b") as file:  # noqa: PTH123 # as the library does
                file.truncate(100)

    monkeypatch.setattr(hnsw.hnswlib, "Index", Short)
    with pytest.raises(CorruptData):
        build_graph(job_of(vectors[:50], options=GraphOptions(engine="stock")))


def test_missing_engine_falls_back_loudly_unless_it_was_asked_for(monkeypatch, tmp_path, capsys):
    """`auto` goes on with the stock module and says so; `native` is an error with what to do."""
    from indexer.segments import engines, native  # noqa: PLC0415 # what is patched

    monkeypatch.setattr(engines, "load_engine", lambda: native.Engine(tmp_path / "missing.so"))
    choose_engine.cache_clear()
    try:
        assert choose_engine("auto") is None
        assert "native_engine_missing" in capsys.readouterr().out
        with pytest.raises(ConfigError):
            choose_engine("native")
    finally:
        choose_engine.cache_clear()


def test_extension_that_begins_at_dead_elements_only_is_built(vectors):
    """What is dead may lead to nothing but what is dead: new rows near it are linked all the same."""
    # An entry that lives, with a dead neighbour above; that one leads to another dead one and nowhere else.
    none = NO_LINK
    level0 = np.full((3, 4), none, np.uint32)
    level0[:, 0] = [2, 2, 1]
    upper = np.array([[1, none], [none, none]], np.uint32)
    base = Links(level0, np.array([0, 1], np.uint32), np.array([0, 1, 2], np.uint32), upper, 0, 1)
    rows = 60
    matrix = np.concatenate([-vectors[:1], vectors[:1] + vectors[1:rows] / 100, vectors[:2] / 2])
    job = GraphJob(spec(), GraphOptions(m=2), matrix, rows, Base(base, np.array([0, rows, rows + 1]), matrix[rows:]))
    built = build_graph(job)
    assert (built.links.level0[1:rows] != none).any(axis=1).all()
    found = search(built.links, matrix, Metric.COSINE, vectors[0], rows=rows, top_k=rows)
    assert sorted(found) == list(range(rows))


@pytest.mark.parametrize(("metric", "away", "apart"), [(Metric.EUCLIDEAN, 100, 0.05), (Metric.COSINE, 1, 0.005)])
def test_rows_that_codes_do_not_tell_apart_are_found_by_their_vectors(vectors, metric, away, apart):
    """Close together and far from zero, where one byte a number loses more than lies between neighbours."""
    close = (np.float32(away) + np.float32(apart) * vectors).astype(np.float32)
    built = build_graph(job_of(close, metric=metric))
    assert not codes_lead(built.codes, built.links)
    found = wanted = 0
    for query in close[:100]:
        best = set(nearest(close, metric, query))
        found += len(best & set(search(built.links, close, metric, query)))
        wanted += len(best)
    assert found >= 0.9 * wanted


def test_codes_lead_where_they_lose_little_of_what_lies_between_neighbours(vectors):
    """As with embeddings; a graph of one row has no neighbours to tell apart."""
    built = build_graph(job_of(vectors))
    assert codes_lead(built.codes, built.links)
    one = build_graph(job_of(vectors[:1]))
    assert not codes_lead(one.codes, one.links)
