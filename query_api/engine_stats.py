"""What a snapshot is made of, for `describe_index_stats`: graphs with their recall, dead rows, bytes."""

from __future__ import annotations

from indexer.segments.view import SegmentView
from indexer.snapshots.snapshot import Snapshot
from schemas.manifest import SegmentEntry

__all__ = ["GRAPHS_SHOWN_MAX", "bytes_of", "engine_stats"]

# The largest graphs of a partition: an answer stays small, however many namespaces have one.
GRAPHS_SHOWN_MAX = 100


def engine_stats(snapshot: Snapshot) -> dict[str, object]:
    """Return the state of a partition's segments as JSON values; it costs no more than a look at each segment.

    `snapshotBytes` counts what the newest snapshot names, each object once. Of `graphs` the `GRAPHS_SHOWN_MAX` with the
    most rows are listed, `graphsTotal` counts all. `recall` is what was measured when the graph was built, null where
    it was not; `efSearch` the candidates that reach it.
    """
    graphs = [view for view in snapshot.views if view.in_graph]
    largest = sorted(graphs, key=lambda view: (-view.live_rows, view.segment_id))[:GRAPHS_SHOWN_MAX]
    rows = sum(view.reader.rows for view in snapshot.views)
    dead = rows - snapshot.live_rows
    return {
        "snapshotBytes": bytes_of(snapshot),
        "rows": snapshot.live_rows,
        "deadRows": dead,
        "deadShare": _share(dead, rows),
        "graphRows": sum(view.live_rows for view in graphs),
        "graphsTotal": len(graphs),
        "graphs": [_graph(view, view.source) for view in largest if isinstance(view.source, SegmentEntry)],
    }


def _graph(view: SegmentView, entry: SegmentEntry) -> dict[str, object]:
    dead = len(view.dead)
    return {
        "segment": entry.segment_id,
        "namespace": entry.namespace,
        "rows": view.live_rows,
        "deadRows": dead,
        "deadShare": _share(dead, entry.rows),
        "bytes": sum(ref.size_bytes for ref in (entry.records, entry.vectors, entry.graph) if ref is not None),
        "efSearch": entry.graph_ef_search or None,
        "recall": entry.graph_recall or None,
    }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def bytes_of(snapshot: Snapshot) -> int:
    """Return the bytes of the objects that a snapshot names, each once."""
    manifest = snapshot.manifest
    refs = [delta.object for delta in manifest.recent] + snapshot.table.objects()
    if manifest.table is not None:
        refs.append(manifest.table)
    return sum({ref.name: ref.size_bytes for ref in refs}.values())
