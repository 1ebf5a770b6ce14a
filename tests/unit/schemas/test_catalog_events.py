from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalog_events import (
    ConfigureIndexEvent,
    CreateIndexEvent,
    DeleteIndexEvent,
    check_spec,
    configured,
    decode_catalog,
    encode_catalog,
)
from schemas.errors import CorruptData, InvalidRequest, UnsupportedFormat
from schemas.indexes import IndexSpec, Metric, VectorType
from schemas.pb import event_pb2 as pb

DENSE = IndexSpec("movies", "A" * 22, 4, 8, Metric.COSINE, settings=b'{"tags":{"a":"b"}}')
SPARSE = IndexSpec("words", "B" * 22, 1, 0, Metric.DOTPRODUCT, VectorType.SPARSE)


@pytest.mark.parametrize(
    "event",
    [
        CreateIndexEvent(DENSE, (5081, 5082)),
        CreateIndexEvent(SPARSE, ()),
        CreateIndexEvent(replace(DENSE, metric=Metric.EUCLIDEAN, name="a", settings=b"{}"), (1, 65535)),
        CreateIndexEvent(replace(DENSE, recall_target=0.999), ()),
        CreateIndexEvent(replace(DENSE, write_wait_ms=0), ()),
        CreateIndexEvent(replace(DENSE, write_wait_ms=60_000), ()),
        DeleteIndexEvent("movies"),
        ConfigureIndexEvent("movies"),
        ConfigureIndexEvent("movies", 0.5, "disabled", {"a": "", "b": "c"}),
        ConfigureIndexEvent("movies", write_wait_ms=0),
    ],
)
def test_catalog_event_survives_its_bytes(event):
    """decode(encode(event)) equals event."""
    assert decode_catalog(encode_catalog(event), {}) == event


def test_port_is_not_part_of_the_event():
    """The fold assigns the port, so what is written has none."""
    event = CreateIndexEvent(replace(DENSE, port=5099), (5081,))
    assert decode_catalog(encode_catalog(event), {}) == CreateIndexEvent(DENSE, (5081,))


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=100) | st.binary(max_size=5).map(lambda tail: encode_catalog(DeleteIndexEvent("a")) + tail))
def test_any_bytes_are_a_catalog_event_or_corrupt(value):
    """decode_catalog raises nothing but its two errors."""
    try:
        event = decode_catalog(value, {})
    except (CorruptData, UnsupportedFormat):
        return
    assert decode_catalog(encode_catalog(event), {}) == event


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": ""}, "alphanumeric character"),
        ({"name": "x" * 46}, "alphanumeric character"),
        ({"name": "Movies"}, "alphanumeric character"),
        ({"name": "-a"}, "alphanumeric character"),
        ({"name": "a-"}, "alphanumeric character"),
        ({"name": "a_b"}, "alphanumeric character"),
        ({"name": "a\n"}, "alphanumeric character"),
        ({"log_id": "A" * 21}, "Log id must be 22"),
        ({"log_id": "A" * 21 + "/"}, "Log id must be 22"),
        ({"partitions": 0}, "Partitions must be 1 to 10000, got 0"),
        ({"partitions": 10_001}, "Partitions must be"),
        ({"dimension": 0}, "Dimension must be 1 to 20000, got 0"),
        ({"dimension": 20_001}, "Dimension must be 1 to 20000, got 20001"),
        ({"vector_type": VectorType.SPARSE}, "Sparse vector indexes must use the metric dotproduct"),
        (
            {"vector_type": VectorType.SPARSE, "metric": Metric.DOTPRODUCT},
            "dimension should not be specified for sparse indexes",
        ),
        ({"recall_target": 0.4}, "recall_target must be a number from 0.5 to 0.999, got 0.4"),
        ({"recall_target": 1.0}, "recall_target must be"),
        ({"write_wait_ms": 60_001}, "write_wait_ms must be 0 to 60000 milliseconds, got 60001"),
        ({"settings": b""}, "settings are not valid JSON"),
        ({"settings": b"[]"}, "settings must be a JSON object"),
    ],
)
def test_spec_that_cannot_be_is_refused_and_corrupt_in_the_log(change, reason):
    """The same rules hold for a create call and for a foreign record on the control log."""
    spec = replace(DENSE, **change)
    with pytest.raises(InvalidRequest, match=reason):
        check_spec(spec)
    with pytest.raises(CorruptData, match=reason):
        decode_catalog(encode_catalog(CreateIndexEvent(spec, ())), {})


@pytest.mark.parametrize("name", ["a", "0", "a-b", "x" * 45, "a--b"])
def test_name_that_is_a_dns_label_passes(name):
    """1 to 45 lower case letters, digits and inner hyphens."""
    check_spec(replace(DENSE, name=name))


def test_unknown_metric_and_vector_type_and_port_are_corrupt():
    """What this version does not know is not guessed."""
    message = pb.CatalogEvent.FromString(encode_catalog(CreateIndexEvent(DENSE, ())))
    for change in ({"metric": "hamming"}, {"vector_type": "image"}):
        spec = pb.IndexSpec()
        spec.CopyFrom(message.create_index.spec)
        for field, value in change.items():
            setattr(spec, field, value)
        wrong = pb.CatalogEvent(create_index=pb.CreateIndex(spec=spec))
        with pytest.raises(CorruptData, match="another version"):
            decode_catalog(wrong.SerializeToString(), {})
    message.create_index.ports.append(65_536)
    with pytest.raises(CorruptData, match="port outside"):
        decode_catalog(message.SerializeToString(), {})


def test_format_number_above_ours_is_unsupported():
    """The control log carries the same format header as any other."""
    with pytest.raises(UnsupportedFormat):
        decode_catalog(encode_catalog(DeleteIndexEvent("a")), {"freshet-format": b"2"})
    with pytest.raises(CorruptData):
        decode_catalog(b"", {})
    with pytest.raises(CorruptData):
        decode_catalog(b"\xff", {})


def test_create_without_a_recall_target_asks_for_the_one_that_every_version_means():
    """Absent bytes mean 0.95, whatever the default of new indexes will be."""
    value = encode_catalog(CreateIndexEvent(DENSE, ()))
    assert not pb.CatalogEvent.FromString(value).create_index.spec.recall_target
    assert decode_catalog(value, {}).spec.recall_target == 0.95


@pytest.mark.parametrize(
    "message",
    [
        pb.ConfigureIndex(name="Movies"),
        pb.ConfigureIndex(name="movies", recall_target=2),
        pb.ConfigureIndex(name="movies", write_wait_ms=60_001),
        pb.ConfigureIndex(name="movies", deletion_protection="maybe"),
    ],
)
def test_configure_that_cannot_be_is_corrupt_in_the_log(message):
    """A foreign record on the control log is held to the rules of a call."""
    with pytest.raises(CorruptData):
        decode_catalog(pb.CatalogEvent(configure_index=message).SerializeToString(), {})


def test_tags_of_a_foreign_create_that_are_none_are_replaced():
    """Whatever a foreign record put into the settings, a configure goes on."""
    odd = replace(DENSE, settings=b'{"tags":[1]}')
    assert configured(odd, ConfigureIndexEvent("movies", tags={"a": "b"})).settings == b'{"tags":{"a":"b"}}'
