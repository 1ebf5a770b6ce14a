"""Snapshots of format 1 stay readable: manifests, tables, segments, graphs, changes."""

import hashlib
import json
import shutil

import pytest

from indexer.partition import PartitionIndexer, PartitionOptions
from indexer.snapshots.store import LocalStore
from schemas.errors import UnsupportedFormat
from schemas.manifest import decode_manifest, encode_manifest
from schemas.pb import manifest_pb2
from tests.golden.store_datagen import EXPECTED_FILE, SPEC, STORE_FOLDER, shown


@pytest.fixture
def folder(tmp_path):
    """A copy, since opening a damaged store sets objects aside."""
    return shutil.copytree(STORE_FOLDER, tmp_path / "store")


def test_a_store_of_format_1_shows_what_it_showed(folder):
    """Every record, count, outcome and dead letter, through flat and graph segments alike."""
    expected = json.loads(EXPECTED_FILE.read_text())

    assert expected == shown(folder)
    assert expected["in_graphs"] > 0


def test_every_kind_of_object_is_there(folder):
    """A kind that is missing would be guarded by nothing."""
    kinds = {path.suffix for path in folder.rglob("objects/*")}

    assert {".changes", ".delta", ".graph", ".records", ".table", ".vectors"} == kinds


def test_a_worker_goes_on_from_a_store_of_format_1(folder):
    """A take-over commits the same state again, and shows the same afterwards."""
    expected = json.loads(EXPECTED_FILE.read_text())
    partition = PartitionIndexer(
        LocalStore(folder), SPEC, 0, PartitionOptions(), clock_ms=lambda: 2_000_000, writer="later"
    )

    partition.take_over(expected["next_offset"])

    assert partition.fallbacks == 0
    assert expected == shown(folder)


def test_manifest_bytes_of_format_1_are_still_written_so(folder):
    """Encoding what was decoded gives the same bytes."""
    for path in sorted(folder.rglob("manifests/*")):
        data = path.read_bytes()

        assert data == encode_manifest(decode_manifest(data))[1]


def test_a_manifest_of_a_newer_format_is_refused(folder):
    """Written by a newer version: told apart from damage, whatever else has changed in it."""
    path = max(folder.rglob("manifests/*"))
    message = manifest_pb2.Manifest.FromString(path.read_bytes())
    message.format = 2
    message.ClearField("self_digest")
    message.self_digest = hashlib.sha256(message.SerializeToString(deterministic=True)).digest()

    with pytest.raises(UnsupportedFormat, match="format 2"):
        decode_manifest(message.SerializeToString())
