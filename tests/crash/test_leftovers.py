"""What a process leaves half-written when it dies is deleted by the next one, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.gc import RetentionOptions
from indexer.snapshots.store import partition_prefix
from tests.support.builders import spec_of, upserts
from tests.support.driver import Pipeline


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """Return a partition with a publish in it."""
    pipeline = Pipeline(tmp_path, spec_of(), retention=RetentionOptions(grace_seconds=0, unfinished_seconds=0))
    pipeline.book.append_all("films", upserts([f"id-{n}" for n in range(4)], 1))
    pipeline.worker().publish()
    return pipeline


def hidden(pipeline: Pipeline) -> set[str]:
    """Return the names of unfinished files."""
    return {name for name in pipeline.files() if name.rpartition("/")[2].startswith(".")}


@pytest.mark.parametrize("folder", ["", "/objects", "/manifests"])
def test_an_unfinished_file_is_collected(pipeline: Pipeline, folder: str) -> None:
    """A file whose writer died before it got its name goes with the next collection; everything else stays."""
    (pipeline.root / f"{pipeline.prefix}{folder}/.0123.delta.4567").write_bytes(b"half")
    worker = pipeline.worker()
    worker.checkpoint()
    assert len(hidden(pipeline)) == 1
    worker.collect()
    assert not hidden(pipeline)
    assert worker.snapshot.count("films") == 4
    assert pipeline.fresh_snapshot().count("films") == 4


def test_an_unfinished_file_of_a_living_writer_stays(tmp_path: Path) -> None:
    """It may still get its name."""
    pipeline = Pipeline(tmp_path, spec_of(), retention=RetentionOptions(grace_seconds=0, unfinished_seconds=60))
    worker = pipeline.worker()
    pipeline.book.append_all("films", upserts(["a"], 1))
    worker.publish()
    path = pipeline.root / partition_prefix(pipeline.spec.index_id, 0) / "objects" / ".0123.graph.4567"
    path.write_bytes(b"half")
    worker.collect()
    assert path.exists()
