"""The doctor's look at one partition: what is sound, what is named when it is not, and that nothing is touched."""

from __future__ import annotations

import asyncio
import os

import numpy as np
import pytest

from indexer.checkup import Level
from indexer.doctor import DoctorOptions, examine
from indexer.gc import RetentionOptions
from indexer.recall_sample import SampleOptions
from indexer.segments.graph import GraphOptions
from indexer.snapshots.store import checkpoint_name, manifest_name, new_object_name
from producer.log.protocol import LogBatch
from schemas.indexes import Metric
from schemas.operations import Delete, Upsert
from tests.support.builders import spec_of, upserts
from tests.support.driver import Pipeline, manifest_objects

SPACE = "films"


class BookLog:
    """The driver's log behind the contract of a log, for reading."""

    def __init__(self, book) -> None:
        self._book = book

    async def ends(self):
        return [self._book.end]

    async def read(self, partition, offset, *, bytes_max, wait_seconds):
        records, next_offset = self._book.read(offset, 10)
        return LogBatch(records, next_offset, self._book.end)


@pytest.fixture
def pipeline(tmp_path):
    return Pipeline(tmp_path, spec_of())


def filled(pipeline):
    """Fold, merge and checkpoint until every kind of object is there; return the worker."""
    worker = pipeline.worker()
    for batch in range(6):
        pipeline.book.append_all(SPACE, upserts([f"r{n}" for n in range(batch * 20, batch * 20 + 20)]))
        worker.publish()
    worker.merge_all()
    pipeline.book.append_all(SPACE, [Delete("r3"), *upserts(["late"])])
    worker.publish()
    worker.checkpoint()
    pipeline.book.append_all(SPACE, [Delete("r4"), *upserts(["later"])])
    worker.publish()
    worker.collect()
    return worker


def options_of(pipeline, **sample):
    return DoctorOptions(pipeline.options, pipeline.retention, SampleOptions(**sample))


def look(pipeline, **sample):
    """Examine the partition; what lies in the store is the same before and after."""
    before = pipeline.files()
    log = BookLog(pipeline.book)
    found = asyncio.run(
        examine(log, pipeline.store, pipeline.spec, 0, options_of(pipeline, **sample), clock_ms=pipeline.clock)
    )
    assert pipeline.files() == before
    return found


def flip(path):
    """Turn one byte in the middle of a file round."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.unlink()
    path.write_bytes(data)


def worse_than_notes(found):
    return [finding for finding in found.findings if finding.level is not Level.NOTE]


def test_sound_partition_has_no_findings(pipeline):
    """Everything is counted, measured against the log's end, and nothing is to be repaired."""
    worker = filled(pipeline)
    found = look(pipeline)
    assert found.findings == []
    assert found.repairs == []
    assert found.is_sound
    assert (found.version, found.next_offset) == (worker.snapshot.version, pipeline.book.end)
    assert found.log_end == pipeline.book.end
    assert found.live_rows == 120
    assert found.checkpoint_version == worker.janitor.marker().version
    assert found.objects_bytes > 0
    graphs = [segment for segment in found.segments if segment.has_graph]
    assert [graph.namespace for graph in graphs] == [SPACE]
    assert graphs[0].dead_share == pytest.approx(2 / graphs[0].rows)
    assert graphs[0].recall == 1.0


@pytest.mark.parametrize("kind", ["delta", "table", "records", "vectors", "graph", "changes"])
def test_flipped_byte_in_an_object_is_named(pipeline, kind):
    """An object that does not match its digest is damage, and the worker's answer to it is foretold."""
    worker = filled(pipeline)
    ref = manifest_objects(pipeline.store, worker.snapshot.manifest)[kind][0]
    flip(pipeline.root / ref.name)
    found = look(pipeline)
    assert [(finding.kind, finding.name) for finding in worse_than_notes(found)] == [("object", ref.name)]
    assert not found.is_sound
    assert f"The worker will set aside {ref.name} when it next takes over." in found.repairs
    assert any("fold again from offset" in repair for repair in found.repairs)


@pytest.mark.parametrize("kind", ["delta", "table", "records", "vectors", "graph", "changes"])
def test_removed_object_is_named(pipeline, kind):
    """What a retained manifest names and nobody finds at two looks is damage."""
    worker = filled(pipeline)
    ref = manifest_objects(pipeline.store, worker.snapshot.manifest)[kind][0]
    (pipeline.root / ref.name).unlink()
    found = look(pipeline)
    assert [(finding.kind, finding.name) for finding in worse_than_notes(found)] == [("missing", ref.name)]
    assert any("fold again from offset" in repair for repair in found.repairs)


def test_what_was_foretold_is_what_the_worker_does(pipeline):
    """The offset in the doctor's sentence is the one that a take-over goes on from."""
    worker = filled(pipeline)
    newest = worker.snapshot.manifest.recent[-1].object
    flip(pipeline.root / newest.name)
    found = look(pipeline)
    after = pipeline.worker()
    assert found.next_offset == after.snapshot.next_offset < pipeline.book.end
    assert f"fold again from offset {after.snapshot.next_offset} to the log's end" in "\n".join(found.repairs)
    after.catch_up()
    after.checkpoint()
    after.collect()
    assert look(pipeline).is_sound


def test_damaged_newest_manifest_is_named_and_is_a_scar_after_the_repair(pipeline):
    """Before the worker went past it, it is damage; afterwards a note."""
    worker = filled(pipeline)
    version = worker.snapshot.version
    name = manifest_name(pipeline.spec.index_id, 0, version)
    flip(pipeline.root / name)
    found = look(pipeline)
    assert [finding.name for finding in worse_than_notes(found)] == [name]
    assert f"The worker will set aside manifest {version} when it next takes over." in found.repairs
    pipeline.worker().catch_up()
    after = look(pipeline)
    assert after.is_sound
    assert [finding.name for finding in after.findings if finding.kind == "manifest"] == [name]


def test_manifest_beyond_the_end_of_the_log_is_named(pipeline):
    """A log that lost events is told with both offsets, and that the lineage will rise."""
    filled(pipeline)
    pipeline.book.cut(pipeline.book.end - 1)
    found = look(pipeline)
    texts = [finding.text for finding in worse_than_notes(found)]
    assert any(f"but the log ends at {pipeline.book.end}" in text for text in texts)
    assert any("raise the lineage to 1" in repair for repair in found.repairs)
    pipeline.worker().catch_up()
    after = look(pipeline)
    assert after.is_sound
    assert after.lineage == 1


def test_orphan_is_told_with_its_size_and_does_not_count_as_damage(pipeline):
    """Garbage that waits for the collection is ordinary; a young object is not even that."""
    filled(pipeline)
    name = new_object_name(pipeline.spec.index_id, 0, "records")
    pipeline.store.put(name, [b"x" * 4321])
    pipeline.retention = RetentionOptions(manifests_kept=2, grace_seconds=60)
    assert look(pipeline).orphans == 0
    os.utime(pipeline.root / name, (1, 1))
    found = look(pipeline)
    assert found.is_sound
    assert (found.orphans, found.orphans_bytes) == (1, 4321)
    assert [(finding.kind, finding.name) for finding in found.findings] == [("orphan", name)]
    assert any("will delete 1 objects, 4,321 bytes" in repair for repair in found.repairs)


def test_damaged_checkpoint_marker_is_named(pipeline):
    """The floor of every repair is checked too."""
    worker = filled(pipeline)
    name = checkpoint_name(pipeline.spec.index_id, 0, worker.snapshot.epoch)
    flip(pipeline.root / name)
    assert [finding.name for finding in worse_than_notes(look(pipeline))] == [name]


def test_checkpoint_of_a_manifest_that_is_gone_is_named(pipeline):
    """A marker that names nothing promises what does not hold."""
    worker = filled(pipeline)
    marker = worker.janitor.marker()
    (pipeline.root / manifest_name(pipeline.spec.index_id, 0, marker.version)).unlink()
    kinds = {(finding.kind, finding.level) for finding in worse_than_notes(look(pipeline))}
    assert ("missing", Level.DAMAGE) in kinds


def test_manifest_of_another_index_is_named(pipeline):
    """A manifest that was copied into the wrong folder is told apart."""
    filled(pipeline)
    version = pipeline.worker().snapshot.version
    other = Pipeline(pipeline.root, spec_of(name="books"))
    worker = filled(other)
    source = other.root / manifest_name(other.spec.index_id, 0, worker.snapshot.version)
    (pipeline.root / manifest_name(pipeline.spec.index_id, 0, version + 1)).write_bytes(source.read_bytes())
    texts = [finding.text for finding in worse_than_notes(look(pipeline))]
    assert any(f"belongs to {other.spec.index_id}/0" in text for text in texts)
    assert any("its name says another version" in text for text in texts)


def test_partition_without_events_is_sound(pipeline):
    """Nothing written, nothing to say."""
    found = look(pipeline)
    assert found.is_sound
    assert found.findings == found.repairs == []


def graphed(root, metric, *, graph=None):
    """Return a partition with one graph of 2,200 random rows."""
    dimension, rows = 24, 2_200
    pipeline = Pipeline(root, spec_of(metric, dimension=dimension), graph=graph)
    vectors = np.random.default_rng(3).standard_normal((rows, dimension)).astype(np.float32)
    worker = pipeline.worker()
    pipeline.book.append_all(SPACE, [Upsert(f"r{n}", vectors[n].tobytes(), None, b"") for n in range(rows)])
    for _ in range(4):
        worker.publish(records_max=rows // 4)
    worker.merge_all(is_quiet=True)
    return pipeline


@pytest.mark.parametrize("engine", ["native", "stock"])
@pytest.mark.parametrize("metric", list(Metric))
def test_recall_of_a_fine_graph_is_measured(tmp_path, metric, engine):
    """In a graph of the default quality nearly all neighbours are found; without queries nothing is measured."""
    pipeline = graphed(tmp_path, metric, graph=GraphOptions(engine=engine))
    found = look(pipeline, queries=30)
    (graph,) = [segment for segment in found.segments if segment.has_graph]
    assert (graph.rows, graph.queries) == (2_200, 30)
    assert graph.recall >= 0.95
    assert graph.ef_search > 0
    assert found.is_sound
    assert [segment.recall for segment in look(pipeline, queries=0).segments] == [None]


def test_bad_graph_is_a_warning(tmp_path):
    """A graph with too few links misses neighbours: that is told with both numbers."""
    found = look(graphed(tmp_path, Metric.EUCLIDEAN, graph=GraphOptions(m=2, ef_construction=2, ef_search=10)))
    (warning,) = worse_than_notes(found)
    assert (warning.level, warning.kind) == (Level.WARNING, "recall")
    assert "the index asks for 0.950" in warning.text
    (graph,) = [segment for segment in found.segments if segment.has_graph]
    assert 0 < graph.recall < 0.9
    assert not found.is_sound
