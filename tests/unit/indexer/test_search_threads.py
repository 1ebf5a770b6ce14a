"""Searches on the engine's own threads: the same rows as here and now, each called back once."""

from __future__ import annotations

import select
import weakref

import numpy as np

from indexer.segments.native import SCAN, SearchJob, load_engine, slices_of
from indexer.segments.searching import SearchThreads
from schemas.indexes import Metric

_ROWS, _DIMENSION = 2_000, 16
ENGINE = load_engine()


def jobs_of(count: int) -> tuple[list[SearchJob], list[SearchJob], object]:
    """Return the same searches twice, and what they point to."""
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((_ROWS, _DIMENSION)).astype(np.float32)
    norms = np.einsum("ij,ij->i", vectors, vectors)
    queries = rng.standard_normal((count, _DIMENSION)).astype(np.float32)
    numbers = (vectors.ctypes.data, norms.ctypes.data, 0, 0, 0, _ROWS, _ROWS, SCAN, 0, 0)
    here, there = ([SearchJob(slices_of([numbers]), query, Metric.COSINE, 10) for query in queries] for _ in range(2))
    return here, there, (vectors, norms, queries)


def test_searches_on_threads_find_what_searches_here_find():
    """All of them come back, however many are under way, and each is called back once."""
    here, there, _memory = jobs_of(300)
    threads = SearchThreads(ENGINE, 2)
    done: list[int] = []
    for number, job in enumerate(there):
        threads.submit(job, lambda number=number: done.append(number))
    while len(done) < len(there):
        assert select.select([threads.fileno()], [], [], 10)[0], "searches that are done say so"
        threads.collect()
    threads.close()
    assert sorted(done) == list(range(300))
    for one, other in zip(here, there, strict=True):
        ENGINE.run(one)
        assert one.hits()[0].tolist() == other.hits()[0].tolist()


def test_closing_waits_for_what_was_submitted():
    """Nobody's memory is written to afterwards, and whoever waits is called back."""
    _, there, _memory = jobs_of(50)
    threads = SearchThreads(ENGINE, 1)
    done: list[SearchJob] = []
    for job in there:
        threads.submit(job, lambda job=job: done.append(job))
    threads.close()
    assert done == there
    assert all(len(job.hits()[0]) >= 10 for job in done)
    threads.close()


def test_collecting_with_nothing_done_calls_nobody():
    """A wake-up too many is no harm."""
    threads = SearchThreads(ENGINE, 1)
    threads.collect()
    threads.close()


class _Rows(np.ndarray):
    """An array that can be watched."""


def test_what_a_search_reads_outlives_its_caller():
    """A client that goes away takes nothing from under a thread that still reads it."""
    rows = np.ones((_ROWS, _DIMENSION), np.float32).view(_Rows)
    norms = np.full(_ROWS, _DIMENSION, np.float32)
    query = np.ones(_DIMENSION, np.float32)
    numbers = (rows.ctypes.data, norms.ctypes.data, 0, 0, 0, _ROWS, _ROWS, SCAN, 0, 0)
    watched = weakref.ref(rows)
    threads = SearchThreads(ENGINE, 1)
    threads.submit(SearchJob(slices_of([numbers]), query, Metric.COSINE, 10, owner=rows), lambda: None)
    del rows
    assert watched() is not None
    threads.close()
    assert watched() is None
