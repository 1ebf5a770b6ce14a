"""Open damaged segments with graphs as a reader does, and search, extend and build with what is accepted.

A program of its own, run under sanitizers, which end it at the first byte that is read from outside:
`python -m tests.support.graph_fuzz ENGINE --seed N --seconds S`. It prints what it did as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pyroaring import BitMap

from indexer.segments.container import Container, pack
from indexer.segments.engines import open_graph
from indexer.segments.graph import NO_LINK, GraphOptions, Links, encode_codes, sections_of
from indexer.segments.native import SCAN, SPARSE, WALK, Engine, NativeGraph, SearchJob, slices_of
from indexer.segments.reader import SegmentReader
from indexer.segments.rows import Rows, lay_out
from indexer.segments.search import NativeSearch, SearchQuery
from indexer.segments.sparse import lay_out_postings
from indexer.segments.view import SegmentView
from schemas.errors import CorruptData
from schemas.indexes import Metric
from schemas.manifest import GRAPH, ObjectRef, SegmentEntry
from schemas.records import Sparse
from tests.support.builders import words
from tests.support.engines import searched

Sections = dict[str, Any]
# Metric, dimension, links per element, rows, dead elements: tiny, odd, flat and with upper levels.
_SHAPES = [
    (Metric.COSINE, 1, 2, 40, 5),
    (Metric.COSINE, 3, 2, 200, 0),
    (Metric.COSINE, 33, 8, 300, 40),
    (Metric.DOTPRODUCT, 5, 3, 150, 10),
    (Metric.DOTPRODUCT, 64, 16, 400, 0),
    (Metric.EUCLIDEAN, 7, 4, 120, 30),
    (Metric.EUCLIDEAN, 40, 5, 250, 1),
    (Metric.EUCLIDEAN, 2, 16, 1, 0),
    (Metric.COSINE, 4, 6, 1, 1),
    (Metric.DOTPRODUCT, 1, 16, 9, 0),
]
_WORDS = [0, 1, 2, 2**31 - 1, 2**31, NO_LINK - 1, NO_LINK]
_FLOATS = np.array([0, -0.0, 1, np.nan, np.inf, -np.inf, 3e38, -3e38, 2e19, 1e-20, 1e-30, 1e-42, -1e-45], np.float32)
_FLOAT_SECTIONS = ("vectors", "norms", "code_scales", "code_errors")
_LINK_SECTIONS = ["graph_links", "graph_head", "graph_upper_nodes", "graph_upper_starts", "graph_upper_links"]
_SEARCHES = 6
# One build in so many trials.
_BUILDS = 4


@dataclass(frozen=True)
class Ground:
    """A sound segment: sections of its three objects, their row counts, and what its entry says."""

    metric: Metric
    dimension: int
    rows: int
    elements: int
    options: GraphOptions
    sections: tuple[Sections, Sections, Sections]  # records, vectors, graph
    counts: tuple[int, int, int]


class Apart(Container):
    """An object of which every column has memory of its own, so that a sanitizer sees its ends."""

    def column(self, name: str, dtype: str):
        return np.array(super().column(name, dtype))


def vectors_of(rng: np.random.Generator, rows: int, dimension: int) -> np.ndarray:
    """Return vectors of which some are equal, some zero; float32 [rows, dimension]."""
    vectors = rng.standard_normal((rows, dimension)).astype(np.float32)
    vectors[rng.random(rows) < 0.1] = vectors[:1]
    vectors[rng.random(rows) < 0.02] = 0
    return vectors


def ground_of(engine: Engine, rng: np.random.Generator, shape: tuple[Metric, int, int, int, int]) -> Ground:
    """Build a segment of a shape."""
    metric, dimension, m, rows, dead = shape
    options = GraphOptions(m=m, ef_construction=20, threads=int(rng.integers(1, 5)))
    elements = rows + dead
    plain = Rows(
        names=["films"],
        namespace=np.zeros(rows, np.int64),
        ids=[b"id-%d" % number for number in range(rows)],
        metadata=[b'{"n":%d}' % (number % 5) for number in range(rows)],
        offsets=np.arange(rows),
        times=np.arange(rows),
        sparse=[words(int(rng.integers(300))) if rng.random() < 0.7 else None for _ in range(rows)],
        vectors=vectors_of(rng, rows, dimension),
    )
    records, vectors, _ = lay_out(plain)
    if rng.random() < 0.7:
        records |= lay_out_postings(records)
    matrix = np.concatenate([np.asarray(vectors["vectors"]), vectors_of(rng, dead, dimension)])
    with engine.builder(matrix, metric, options, rows=rows) as builder:
        builder.add(rng.permutation(elements).astype(np.uint32))
        links = builder.links()
    vectors = {"vectors": matrix, "norms": np.einsum("ij,ij->i", matrix, matrix)}
    graph = sections_of(links, encode_codes(matrix[:rows]))
    return Ground(
        metric, dimension, rows, elements, options, (dict(records), vectors, graph), (rows, elements, elements)
    )


class Damage:
    """Random damage; each method changes the sections of one object in place."""

    def __init__(self, rng: np.random.Generator, grounds: list[Ground]) -> None:
        self._rng = rng
        self._grounds = grounds

    def some(self, ground: Ground) -> Ground:
        """Return a segment that was damaged in one to three places; now and then in none."""
        rng = self._rng
        sections = tuple({name: data_of(data) for name, data in part.items()} for part in ground.sections)
        counts = list(ground.counts)
        for _ in range(rng.integers(0, 4)):
            # Graphs most of all.
            at = int(rng.choice(3, p=[0.2, 0.2, 0.6]))
            part = sections[at]
            name = str(rng.choice(list(part)))
            kinds: list[Callable[[Ground, Sections, str], None]]
            kinds = [self.turn_bytes, self.put_words, self.put_floats, self.cut, self.exchange, self.relink]
            if rng.random() < 0.4:
                # Links are what leads outside, above all those of the few elements that every walk begins with.
                self.put_words(ground, sections[2], str(rng.choice(_LINK_SECTIONS)))
            elif rng.random() < 0.05:
                counts[at] = max(0, counts[at] + int(rng.integers(-2, 3)))
            else:
                kinds[rng.integers(len(kinds))](ground, part, name)
        rows = ground.rows + int(rng.integers(-1, 2)) * (rng.random() < 0.05)
        return replace(ground, sections=sections, counts=tuple(counts), rows=max(0, rows))

    def turn_bytes(self, _: Ground, part: Sections, name: str) -> None:
        """Put random bytes in random places."""
        data = part[name]
        if len(data):
            for at in self._rng.integers(0, len(data), self._rng.integers(1, 9)).tolist():
                data[at] = self._rng.integers(256)

    def put_words(self, ground: Ground, part: Sections, name: str) -> None:
        """Put numbers at the edges of what is allowed."""
        words = part[name][: len(part[name]) // 4 * 4].view(np.uint32)
        if len(words):
            edges = [*_WORDS, ground.elements - 1, ground.elements, ground.elements + 1, ground.rows]
            for at in self._rng.integers(0, len(words), self._rng.integers(1, 9)).tolist():
                words[at] = self._rng.choice(edges)

    def put_floats(self, _: Ground, part: Sections, name: str) -> None:
        """Put numbers that are none, or that overflow."""
        name = str(self._rng.choice([key for key in part if key.startswith(_FLOAT_SECTIONS)] or [name]))
        floats = part[name][: len(part[name]) // 4 * 4].view(np.float32)
        if len(floats):
            count = self._rng.choice([1, 8, len(floats)])
            floats[self._rng.integers(0, len(floats), count)] = self._rng.choice(_FLOATS, count)

    def cut(self, _: Ground, part: Sections, name: str) -> None:
        """Make a section shorter or longer by some bytes, or whole numbers, or a row."""
        data, step = part[name], int(self._rng.choice([1, 4, 8, 64, 4 * self._rng.integers(1, 65)]))
        part[name] = data[:-step] if self._rng.random() < 0.5 else np.concatenate([data, np.zeros(step, np.uint8)])

    def exchange(self, _: Ground, part: Sections, name: str) -> None:
        """Exchange a section with another one of the object, or take that of another segment."""
        if self._rng.random() < 0.5:
            other = str(self._rng.choice(list(part)))
            part[name], part[other] = part[other], part[name]
            return
        other = self._grounds[self._rng.integers(len(self._grounds))]
        for sections in other.sections:
            # All that belongs together, at times: the other graph is sound, but not of this segment.
            prefix = self._rng.choice([name, name.partition("_")[0]])
            for key in sections:
                if key.startswith(prefix) and key in part:
                    part[key] = data_of(sections[key])

    def relink(self, ground: Ground, part: Sections, name: str) -> None:
        """Put links to other elements that there are: a graph that is accepted, but leads anywhere."""
        if "graph_links" in part:
            key = str(self._rng.choice(["graph_links", "graph_links", "graph_upper_links"]))
            words = part[key][: len(part[key]) // 4 * 4].view(np.uint32)
            count = int(self._rng.integers(1, len(words) + 1)) if len(words) else 0
            nodes = part["graph_upper_nodes"]
            uppers = nodes[: len(nodes) // 4 * 4].view(np.uint32)
            # Above level 0 at times to elements that are not there: a walk would look for lists that they do not have.
            is_any = key == "graph_links" or self._rng.random() < 0.5
            choice = np.append(np.arange(ground.elements) if is_any else uppers, NO_LINK)
            words[self._rng.integers(0, len(words), count)] = self._rng.choice(choice, count)


def data_of(data: bytes | np.ndarray) -> np.ndarray:
    """Return the bytes of a section, to be changed: uint8 [n]."""
    return np.frombuffer(data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes(), np.uint8).copy()


def opened(engine: Engine, ground: Ground) -> SegmentReader:
    """Open a segment as a snapshot does. Raises `CorruptData`."""
    records, vectors, graph = (
        Apart(memoryview(b"".join(pack(sections, rows=count, dimension=ground.dimension))))
        for sections, count in zip(ground.sections, ground.counts, strict=True)
    )
    native = open_graph(engine, graph, vectors, rows=ground.rows, metric=ground.metric, ef=20)
    reader = SegmentReader(1, records, vectors, native)
    if reader.rows != ground.rows:
        raise CorruptData("Its entry says another number of rows.")
    return reader


def search_snapshot(engine: Engine, ground: Ground, reader: SegmentReader, rng: np.random.Generator) -> None:
    """Search through the door that snapshots use."""
    dead = BitMap(np.flatnonzero(rng.random(reader.rows) < rng.choice([0, 0.5, 0.99])).tolist())
    ref = ObjectRef("", 0, b"")
    view = SegmentView(reader, SegmentEntry(1, GRAPH, ref, ref, ref, reader.rows), dead)
    part = reader.slice_of("films")
    if part is None:
        return
    sparse = sparse_query(rng)
    vector = None if sparse is not None and rng.random() < 0.5 else query_of(rng, ground)
    query = SearchQuery(vector, int(rng.choice([1, 10, 1000])), None, sparse)
    searcher = NativeSearch(engine)
    hits = searched(searcher, [(view, part)], query, ground.metric).hits
    mask = view.alive
    if sparse is not None and vector is None:
        columns = reader.sparse_columns
        products, sharing = (None, False) if columns is None else columns.scores(0, reader.rows, sparse)
        mask = mask & sharing
        assert products is None or (hits["rank"] == products[hits["row"]]).all(), "a rank that is not numpy's"
    check(hits, mask, query.top_k)
    for row in hits["row"].tolist():
        reader.id_bytes(row)
        reader.metadata(row)


def query_of(rng: np.random.Generator, ground: Ground) -> np.ndarray:
    query = rng.standard_normal(ground.dimension).astype(np.float32)
    if rng.random() < 0.2:
        query *= rng.choice(np.array([0, 1e-42, 1e-30, 1e18, 1e37], np.float32))
    return query


def sparse_query(rng: np.random.Generator) -> Sparse | None:
    return words(int(rng.integers(300)), int(rng.integers(1, 25))) if rng.random() < 0.6 else None


def search_engine(engine: Engine, ground: Ground, reader: SegmentReader, seed: int) -> None:
    """Search by the engine with odd numbers: candidates, budgets, plans, wishes."""
    rng = np.random.default_rng(seed)
    graph = reader.graph
    assert isinstance(graph, NativeGraph)
    rows = reader.rows
    mask = rng.random(rows) < rng.choice([0.02, 0.5, 1])
    has_mask = rng.random() < 0.7
    if not has_mask:
        mask[:] = True
    allowed = int(np.count_nonzero(mask))
    sparse = sparse_query(rng)
    plan = int(rng.choice([SCAN, WALK] if sparse is None else [SCAN, WALK, SPARSE]))
    codes = graph.codes_address if rng.random() < 0.7 else 0
    numbers = (rows, allowed, plan, int(rng.choice([0, 1, 7, 200, NO_LINK])), int(rng.choice([0, 1, 50, NO_LINK])))
    places = (reader.vectors_address, reader.norms_address, mask.ctypes.data if has_mask else 0, graph.address, codes)
    top_k = int(rng.choice([0, 1, 3, 17, rows, rows + 5, 10_000]))
    query = None if plan == SPARSE else query_of(rng, ground)
    slices = slices_of([(*places, *numbers)] * int(rng.choice([1, 1, 2])))
    if reader.sparse_columns is not None:
        slices["sparse"] = reader.sparse_columns.address
    job = SearchJob(slices, query, ground.metric, top_k, sparse=sparse)
    engine.run(job)
    hits, _ = job.hits()
    ranks = engine.ranks(slices[:1], query, ground.metric, sparse)
    if plan == SPARSE:
        mask &= ~np.isnan(ranks)
    assert (hits["rank"] == ranks[hits["row"]]).all(), "a rank that is not the row's"
    assert (hits["slice"] < len(slices)).all(), "a slice that was not asked"
    if len(slices) == 1:
        check(hits, mask, top_k)


def check(hits: np.ndarray, mask: np.ndarray, top_k: int) -> None:
    """Every row inside, allowed and there once, best first, as many as there are."""
    rows, ranks = hits["row"], hits["rank"]
    assert (rows < len(mask)).all(), "a row from outside"
    assert mask[rows].all(), "a row that is not allowed"
    assert len(np.unique(rows)) == len(rows), "a row twice"
    assert not np.isnan(ranks).any(), "a rank that is no number"
    assert (ranks[:-1] >= ranks[1:]).all(), "ranks that do not fall"
    least = min(top_k, np.count_nonzero(mask))
    assert len(rows) >= least, f"{len(rows)} of {least} rows"
    assert len(rows) <= top_k or (top_k and (ranks[top_k - 1 :] == ranks[top_k - 1]).all()), "more than was asked for"


def extend(engine: Engine, ground: Ground, reader: SegmentReader, rng: np.random.Generator) -> bool:
    """Extend a graph that was accepted by new elements, with numbers that are at times wrong; say whether it was."""
    links = links_of_graph(reader.graph)
    new = int(rng.integers(0, 30))
    total = links.elements + new
    ids = rng.permutation(total)[: links.elements].astype(np.uint32)
    fresh = np.setdiff1d(np.arange(total), ids).astype(np.uint32)
    if rng.random() < 0.1:
        ids[rng.integers(len(ids))] = rng.choice([0, total, NO_LINK])
    if rng.random() < 0.1 and len(fresh):
        fresh[rng.integers(len(fresh))] = rng.choice([0, total, NO_LINK])
    options = replace(ground.options, m=int(rng.choice([links.m, links.m, links.m, 2, 31])))
    matrix = vectors_of(rng, total, ground.dimension)
    matrix[ids[ids < total]] = reader.elements[ids < total]
    is_right = len({*ids.tolist(), *fresh.tolist()}) == total and options.m == links.m
    is_right = is_right and max(*ids.tolist(), *fresh.tolist(), 0) < total
    try:
        # Few that live, at times: then there are places from which nothing leads to them.
        rows = int(rng.choice([1, total // 8 + 1, total // 2 + 1, total]))
        with engine.builder(matrix, ground.metric, options, rows=rows) as builder:
            builder.load(reader.graph, ids)
            builder.add(fresh)
            NativeGraph(engine, builder.links(), total, 0)
    except ValueError:
        assert not is_right, "right numbers were refused"
        return False
    assert is_right, "wrong numbers were accepted"
    return True


def links_of_graph(graph: object) -> Links:
    assert isinstance(graph, NativeGraph)
    return graph._memory[0]


def build(engine: Engine, rng: np.random.Generator) -> None:
    """Build from few or odd vectors, by more threads than there are rows."""
    rows, dimension = int(rng.integers(1, 40)), int(rng.choice([1, 2, 9, 31, 32, 65]))
    matrix = vectors_of(rng, rows, dimension)
    if rng.random() < 0.3:
        matrix[:] = matrix[0]
    if rng.random() < 0.3:
        matrix[rng.random(matrix.shape) < 0.1] = rng.choice(_FLOATS)
    options = GraphOptions(m=int(rng.choice([2, 3, 16, 64])), ef_construction=int(rng.choice([1, 10, 200])))
    options = replace(options, threads=int(rng.choice([1, 2, 2 * rows])), seed=int(rng.integers(1000)))
    with engine.builder(matrix, Metric(rng.choice(list(Metric))), options, rows=rows) as builder:
        builder.add(rng.permutation(rows).astype(np.uint32))
        links = builder.links()
    NativeGraph(engine, links, rows, 0)
    assert (links.level0 != NO_LINK).any(axis=1).all() or rows == 1, "an element without a link"


def run(engine: Engine, seed: int, seconds: float, trials_max: int) -> Counter[str]:
    """Do it for so long."""
    rng = np.random.default_rng(seed)
    grounds = [ground_of(engine, rng, shape) for shape in _SHAPES]
    damage = Damage(rng, grounds)
    counts: Counter[str] = Counter(seed=seed)
    end = time.monotonic() + seconds
    with ThreadPoolExecutor(4) as pool:
        while time.monotonic() < end and counts["trials"] < trials_max:
            counts["trials"] += 1
            ground = damage.some(grounds[rng.integers(len(grounds))])
            if counts["trials"] % _BUILDS == 0:
                build(engine, rng)
            try:
                reader = opened(engine, ground)
            except CorruptData:
                counts["refused"] += 1
                continue
            counts["opened"] += 1
            search_snapshot(engine, ground, reader, rng)
            jobs = [
                pool.submit(search_engine, engine, ground, reader, seed)
                for seed in rng.integers(0, 2**32, _SEARCHES).tolist()
            ]
            for job in jobs:
                job.result()
            counts["extended"] += extend(engine, ground, reader, rng)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--trials", type=int, default=10**9)
    asked = parser.parse_args()
    with np.errstate(all="ignore"):
        counts = run(Engine(asked.engine), asked.seed, asked.seconds, asked.trials)
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
