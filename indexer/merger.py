"""Carry out one merge: read frozen inputs, write new segments, and say where every row went.

Runs in a thread or in another process: it gets names and returns names and digests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson
from pyroaring import BitMap

from indexer.segments.container import Container, pack
from indexer.segments.hnsw import GraphOptions, build_graph
from indexer.segments.reader import SegmentReader
from indexer.segments.rows import Rows, lay_out
from indexer.segments.view import AppliedPatch, SegmentView
from indexer.snapshots.store import Store, new_object_name
from schemas.changes import Patch
from schemas.indexes import IndexSpec
from schemas.manifest import FLAT, GRAPH, ObjectRef, SegmentEntry

__all__ = ["MergeInput", "MergeJob", "MergeResult", "Moves", "run_merge"]


@dataclass(frozen=True, slots=True)
class MergeInput:
    """A segment as it was frozen: its objects, its dead rows (serialised bitmap) and its patches."""

    segment_id: int
    records: ObjectRef
    vectors: ObjectRef
    dead: bytes
    patches: tuple[Patch, ...]


@dataclass(frozen=True, slots=True)
class MergeJob:
    """All that a merge needs. `frozen_offset` is the position at which the inputs were frozen."""

    spec: IndexSpec
    partition: int
    inputs: tuple[MergeInput, ...]
    graph_namespaces: frozenset[str]
    graph: GraphOptions
    frozen_offset: int
    # Names of the recent deltas' objects that are rolled up by this merge.
    deltas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Moves:
    """Where the rows of one input went: output number (int32 [rows], -1 = dead) and row there (uint32 [rows])."""

    output: npt.NDArray[np.int32]
    row: npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class MergeResult:
    """New segments, not numbered yet, and the moves of every input."""

    outputs: tuple[SegmentEntry, ...]
    moves: tuple[Moves, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """Live rows of one input with the number of their namespace among all names."""

    view: SegmentView
    rows: npt.NDArray[np.int64]
    namespace: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Merging:
    """A merge under way: all namespaces by their bytes, the live rows, and where they went so far."""

    names: Sequence[bytes]
    sources: Sequence[_Source]
    moves: Sequence[Moves]


def run_merge(store: Store, job: MergeJob) -> MergeResult:
    """Merge. Raises `CorruptData` where an input is damaged, `StoreUnavailable`."""
    views = [_open(store, item) for item in job.inputs]
    names = sorted({name for view in views for name in view.reader.names})
    sources = [_source(view, names) for view in views]
    moves = [Moves(np.full(view.reader.rows, -1, np.int32), np.zeros(view.reader.rows, np.uint32)) for view in views]
    merging = _Merging(names, sources, moves)
    outputs: list[SegmentEntry] = []
    graphs = [number for number, name in enumerate(names) if name.decode() in job.graph_namespaces]
    flats = sorted(set(range(len(names))) - set(graphs))
    for group in [flats, *([number] for number in graphs)]:
        entry = _write(store, job, merging, group, len(outputs))
        if entry is not None:
            outputs.append(entry)
    return MergeResult(tuple(outputs), tuple(moves))


def _open(store: Store, item: MergeInput) -> SegmentView:
    # A merge gives what it reads new digests: damage since it was opened would never be found again.
    records = Container(store.open(item.records, verify=True), name=item.records.name)
    vectors = (
        records
        if item.vectors == item.records
        else Container(store.open(item.vectors, verify=True), name=item.vectors.name)
    )
    patches = tuple(
        AppliedPatch(p.offset, BitMap.deserialize(p.rows), orjson.loads(p.set_metadata), p.set_metadata)
        for p in item.patches
    )
    entry = SegmentEntry(item.segment_id, FLAT, item.records, item.vectors, None, records.rows)
    reader = SegmentReader(item.segment_id, records, vectors)
    return SegmentView(reader, entry, BitMap.deserialize(item.dead), (), patches)


def _source(view: SegmentView, names: Sequence[bytes]) -> _Source:
    number = {name: at for at, name in enumerate(names)}
    rows = np.flatnonzero(view.alive)
    own = np.searchsorted(view.reader.starts.astype(np.int64), rows, "right") - 1
    mapping = np.array([number[name] for name in view.reader.names], np.int64)
    return _Source(view, rows, mapping[own])


def _write(store: Store, job: MergeJob, merging: _Merging, group: Sequence[int], output: int) -> SegmentEntry | None:
    """Write the rows of the namespaces in `group` as one segment; note their moves."""
    names, sources, moves = merging.names, merging.sources, merging.moves
    wanted = np.zeros(len(names), np.bool_)
    wanted[list(group)] = True
    chosen = [source.rows[wanted[source.namespace]] for source in sources]
    total = sum(len(rows) for rows in chosen)
    if not total:
        return None
    present = np.unique(np.concatenate([s.namespace[wanted[s.namespace]] for s in sources]))
    rows = _gather(sources, chosen, wanted, present, [names[i].decode() for i in present.tolist()])
    records, vectors, permutation = lay_out(rows)
    place = np.empty(total, np.uint32)
    place[permutation] = np.arange(total, dtype=np.uint32)
    at = 0
    for source_rows, move in zip(chosen, moves, strict=True):
        move.output[source_rows] = output
        move.row[source_rows] = place[at : at + len(source_rows)]
        at += len(source_rows)
    spec, partition = job.spec, job.partition
    dimension = spec.dimension
    record_ref = store.put(new_object_name(spec.index_id, partition, "records"), pack(records, rows=total))
    vector_ref = store.put(
        new_object_name(spec.index_id, partition, "vectors"), pack(vectors, rows=total, dimension=dimension)
    )
    entry = {
        "segment_id": 0,
        "records": record_ref,
        "vectors": vector_ref,
        "rows": total,
        "offset_min": int(rows.offsets.min()),
        "offset_max": int(rows.offsets.max()),
    }
    name = rows.names[0]
    if name not in job.graph_namespaces:
        return SegmentEntry(kind=FLAT, graph=None, **entry)  # type: ignore[arg-type] # values as declared above
    file = store.scratch(spec.index_id, partition)
    try:
        matrix = np.asarray(vectors["vectors"], np.float32)
        build_graph(matrix, spec.metric, job.graph, file)
        graph_ref = store.adopt(new_object_name(spec.index_id, partition, "graph"), file)
    finally:
        file.unlink(missing_ok=True)
    return SegmentEntry(
        kind=GRAPH,
        graph=graph_ref,
        namespace=name,
        graph_m=job.graph.m,
        graph_ef_construction=job.graph.ef_construction,
        graph_ef_search=job.graph.ef_search,
        graph_seed=job.graph.seed,
        **entry,  # type: ignore[arg-type] # values as declared above
    )


def _gather(
    sources: Sequence[_Source],
    chosen: Sequence[npt.NDArray[np.int64]],
    wanted: npt.NDArray[np.bool_],
    present: npt.NDArray[np.int64],
    names: list[str],
) -> Rows:
    pairs = [(source.view, rows.tolist()) for source, rows in zip(sources, chosen, strict=True) if len(rows)]
    renumber = np.full(len(wanted), -1, np.int64)
    renumber[present] = np.arange(len(present))
    vectors = [view.reader.vectors[rows] for view, rows in pairs]
    return Rows(
        names=names,
        namespace=np.concatenate([renumber[s.namespace[wanted[s.namespace]]] for s in sources]),
        ids=[view.reader.id_bytes(row) for view, rows in pairs for row in rows],
        metadata=[view.metadata(row) for view, rows in pairs for row in rows],
        offsets=np.concatenate([view.reader.offsets[rows] for view, rows in pairs]),
        times=np.concatenate([view.reader.times[rows] for view, rows in pairs]),
        sparse=[view.reader.sparse(row) for view, rows in pairs for row in rows],
        vectors=np.concatenate(vectors) if vectors[0].shape[1] else None,
    )
