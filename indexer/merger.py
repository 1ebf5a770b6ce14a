"""Carry out one merge: read frozen inputs, write new segments, and say where every row went.

Runs in a thread or in another process: it gets names and returns names and digests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from indexer.graphs import Base, BuiltGraph, GraphJob, build_graph
from indexer.segments.column_writer import lay_out_columns
from indexer.segments.container import Container, pack
from indexer.segments.graph import NO_LINK, GraphOptions, Links, links_of, sections_of
from indexer.segments.patches import Patches
from indexer.segments.reader import SegmentReader
from indexer.segments.rows import Rows, Sections, lay_out, lay_out_metadata
from indexer.segments.sparse import lay_out_postings
from indexer.segments.view import SegmentView
from indexer.snapshots.store import Store, new_object_name
from schemas.errors import CorruptData
from schemas.index_fields import filterable_in
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
    patches: Patches
    graph: ObjectRef | None = None


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
    # A graph with a larger share of dead elements is built anew instead of extended.
    dead_share_max: float = 0.2
    # It may take long: it is carried out beside the process that folds, not inside it.
    is_large: bool = False
    # The entry of the only input, where nothing but its records is written anew.
    rewritten: SegmentEntry | None = None
    # The schemas of those namespaces of the inputs that were made with one.
    schemas: Mapping[str, bytes] = field(default_factory=dict)


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
    """Live rows of one input with the number of their namespace among all names.

    `elements` are the vectors of all its rows and of what is dead in its graph (float32 [elements, d]); `links` that
    graph, where it has one.
    """

    view: SegmentView
    rows: npt.NDArray[np.int64]
    namespace: npt.NDArray[np.int64]
    elements: npt.NDArray[np.float32]
    links: Links | None


@dataclass(frozen=True, slots=True)
class _Merging:
    """A merge under way: all namespaces by their bytes, the live rows, and where they went so far."""

    names: Sequence[bytes]
    sources: Sequence[_Source]
    moves: Sequence[Moves]


def run_merge(store: Store, job: MergeJob) -> MergeResult:
    """Merge. Raises `CorruptData` where an input is damaged, `StoreUnavailable`."""
    if job.rewritten is not None:
        return _rewrite(store, job, job.rewritten)
    views = [_open(store, item) for item in job.inputs]
    names = sorted({name for view in views for name in view.reader.names})
    sources = [_source(store, item, view, names) for item, view in zip(job.inputs, views, strict=True)]
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


def _rewrite(store: Store, job: MergeJob, entry: SegmentEntry) -> MergeResult:
    """Write the records of one segment anew, with their patches and new columns; every row keeps its number.

    The dead keep theirs too, without metadata: whoever commits carries all kills over.
    """
    (item,) = job.inputs
    records = _container(store, item.records)
    vectors = records if item.vectors == item.records else Container(store.open(item.vectors, verify=False))
    reader = SegmentReader(item.segment_id, records, vectors)
    view = SegmentView(reader, entry, BitMap.deserialize(item.dead), (), item.patches)
    metadata = [view.metadata(row) if is_alive else b"" for row, is_alive in enumerate(view.alive.tolist())]
    kept = [name for name in records if not name.startswith(("metadata_", "filter_"))]
    sections: Sections = {name: records.column(name, "u1") for name in kept}
    names = [name.decode() for name in reader.names]
    sections |= lay_out_metadata(metadata) | lay_out_columns(metadata, _filterable(job, names))
    name = new_object_name(job.spec.index_id, job.partition, "records")
    ref = store.put(name, pack(sections, rows=records.rows, dimension=records.dimension))
    output = replace(entry, records=ref, changes=(), dead_rows=len(view.dead))
    moves = Moves(np.zeros(records.rows, np.int32), np.arange(records.rows, dtype=np.uint32))
    return MergeResult((output,), (moves,))


def _container(store: Store, ref: ObjectRef) -> Container:
    # A merge gives what it reads new digests: damage since it was opened would never be found again.
    return Container(store.open(ref, verify=True), name=ref.name)


def _open(store: Store, item: MergeInput) -> SegmentView:
    records = _container(store, item.records)
    vectors = records if item.vectors == item.records else _container(store, item.vectors)
    entry = SegmentEntry(item.segment_id, FLAT, item.records, item.vectors, None, records.rows)
    reader = SegmentReader(item.segment_id, records, vectors)
    return SegmentView(reader, entry, BitMap.deserialize(item.dead), (), item.patches)


def _source(store: Store, item: MergeInput, view: SegmentView, names: Sequence[bytes]) -> _Source:
    number = {name: at for at, name in enumerate(names)}
    rows = np.flatnonzero(view.alive)
    own = np.searchsorted(view.reader.starts.astype(np.int64), rows, "right") - 1
    mapping = np.array([number[name] for name in view.reader.names], np.int64)
    links = None
    if item.graph is not None:
        links = links_of(_container(store, item.graph))
        if links.elements != len(view.reader.elements):
            raise CorruptData(f"Segment {item.segment_id}: its graph does not fit its vectors.", name=item.graph.name)
    return _Source(view, rows, mapping[own], view.reader.elements, links)


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
    metadata = [rows.metadata[at] for at in permutation.tolist()]
    records |= lay_out_columns(metadata, _filterable(job, rows.names)) | lay_out_postings(records)
    place = np.empty(total, np.uint32)
    place[permutation] = np.arange(total, dtype=np.uint32)
    at = 0
    for source_rows, move in zip(chosen, moves, strict=True):
        move.output[source_rows] = output
        move.row[source_rows] = place[at : at + len(source_rows)]
        at += len(source_rows)
    namespace = rows.names[0] if rows.names[0] in job.graph_namespaces else ""
    built = None
    if namespace:
        built, vectors = _graph(job, vectors, total, _base(job, merging, output, total))

    def put(kind: str, sections: Sections, count: int, dimension: int = 0) -> ObjectRef:
        name = new_object_name(job.spec.index_id, job.partition, kind)
        return store.put(name, pack(sections, rows=count, dimension=dimension))

    dimension = job.spec.dimension
    entry = SegmentEntry(
        segment_id=0,
        kind=GRAPH if namespace else FLAT,
        records=put("records", records, total),
        vectors=put("vectors", vectors, total, dimension),
        graph=None,
        rows=total,
        offset_min=int(rows.offsets.min()),
        offset_max=int(rows.offsets.max()),
        namespace=namespace,
    )
    if built is None:
        return entry
    return replace(
        entry,
        graph=put("graph", sections_of(built.links, built.codes), built.links.elements, dimension),
        graph_m=job.graph.m,
        graph_ef_construction=job.graph.ef_construction,
        graph_ef_search=built.ef_search,
        graph_seed=job.graph.seed,
        graph_elements=built.links.elements,
        graph_recall=built.recall,
    )


def _filterable(job: MergeJob, names: Sequence[str]) -> frozenset[str] | None:
    """Return the fields that a filter may name in any of these namespaces, None for all."""
    found: frozenset[str] = frozenset()
    for schema in {job.schemas.get(name, b"") for name in names}:
        fields = filterable_in(job.spec, schema)
        if fields is None:
            return None
        found |= fields
    return found


def _graph(job: MergeJob, vectors: Sections, rows: int, base: Base | None) -> tuple[BuiltGraph, Sections]:
    """Build the graph of `rows` rows, extending `base` where that pays; return it and the vectors of its elements."""
    matrix = np.asarray(vectors["vectors"], np.float32)
    if base is not None and len(base.dead):
        matrix = np.concatenate([matrix, base.dead])
    built = build_graph(GraphJob(job.spec, job.graph, matrix, rows, base))
    # One that was built anew has no use for what died in the old one.
    elements = matrix[: built.links.elements]
    return built, {"vectors": elements, "norms": np.einsum("ij,ij->i", elements, elements)}


def _base(job: MergeJob, merging: _Merging, output: int, rows: int) -> Base | None:
    """Return the largest graph among the inputs, to extend; None where there is none, or too much of it is dead.

    What is dead in it keeps leading the way, numbered after the `rows` of the output.
    """
    best: Base | None = None
    for source, move in zip(merging.sources, merging.moves, strict=True):
        if source.links is None or source.links.m != job.graph.m:
            continue
        ids = np.full(len(source.elements), NO_LINK, np.uint32)
        stays = np.flatnonzero(move.output == output)
        ids[stays] = move.row[stays]
        dead = np.flatnonzero(ids == NO_LINK)
        ids[dead] = rows + np.arange(len(dead))
        is_larger = best is None or len(stays) > len(best.ids) - len(best.dead)
        if len(stays) and is_larger and len(dead) <= job.dead_share_max * (rows + len(dead)):
            best = Base(source.links, ids, source.elements[dead])
    return best


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
