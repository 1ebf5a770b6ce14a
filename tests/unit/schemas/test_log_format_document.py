import re
from pathlib import Path

from schemas import limits
from schemas.events import FORMAT, decode, encode, validate
from schemas.indexes import VectorType
from schemas.operations import Delete, Event, Upsert
from schemas.partitions import partition_of
from schemas.records import dense_bytes

DOCUMENT = (Path(__file__).parents[3] / "docs" / "log-format.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, flags=re.DOTALL)


def test_every_json_example_is_an_event():
    """The document shows each operation once, and each example can be written as it stands."""
    events = [decode(text.encode(), {"content-type": b"application/json"}) for text in blocks("json")]
    for event in events:
        validate(event, dimension=3, vector_type=VectorType.DENSE)
    assert {type(event) for event in events} == set(Event.__args__)
    assert len(events) == len(Event.__args__)


def test_every_byte_example_is_what_is_written():
    """The bytes that the document shows are the bytes of the events that it names."""
    delete, upsert = (bytes.fromhex(text) for text in blocks("hex"))
    assert delete == encode(Delete("movie-1"))
    assert upsert == encode(Upsert("m", dense_bytes([1, -2.5, 0.1]), None, b""))


def test_partition_examples_are_true():
    """The document's examples of placement are those of the code."""
    rows = re.findall(r"^\| `(\S+)` \| (\d+) \| (\d+) \|$", DOCUMENT, flags=re.MULTILINE)
    assert len(rows) == 2
    for namespace, of_4, of_16 in rows:
        assert (partition_of(namespace, 4), partition_of(namespace, 16)) == (int(of_4), int(of_16))


def test_document_states_the_limits_of_the_code():
    """A limit that changes changes the document."""
    table = DOCUMENT[DOCUMENT.index("## Limits") : DOCUMENT.index("## Records that")]
    for limit in (
        limits.ID_BYTES_MAX,
        limits.NAMESPACE_BYTES_MAX,
        limits.DIMENSION_MAX,
        limits.SPARSE_NONZEROS_MAX,
        limits.METADATA_BYTES_MAX,
        limits.FILTER_DEPTH_MAX,
        limits.FILTER_IN_MAX,
        limits.FILTER_NODES_MAX,
        limits.BATCH_RECORDS_MAX,
        limits.APPEND_BYTES_MAX,
    ):
        assert re.search(rf"\b{limit:,}\b", table)
    assert f"describes format {FORMAT}." in DOCUMENT
