import pytest

from producer.admission import admit
from schemas.errors import InvalidRequest
from schemas.indexes import IndexSpec, Metric
from schemas.limits import BATCH_RECORDS_MAX
from schemas.operations import Delete, Upsert
from schemas.records import dense_bytes

SPEC = IndexSpec("movies", "A" * 22, 4, 3, Metric.COSINE)
GOOD = Upsert("a", dense_bytes([1, 2, 3]), None, b"")


def test_events_that_fit_enter():
    """Events of any kind that fit pass, in any namespace that can be."""
    admit(SPEC, "", [GOOD])
    admit(SPEC, "n", [GOOD, Delete("b")] * (BATCH_RECORDS_MAX // 2))


def test_first_event_that_does_not_fit_is_named():
    """The error says what was wrong in Pinecone's words, and which event it was."""
    with pytest.raises(
        InvalidRequest, match="Vector dimension 2 does not match the dimension of the index 3"
    ) as caught:
        admit(SPEC, "n", [GOOD, Upsert("b", dense_bytes([1, 2]), None, b""), Delete("")])
    assert caught.value.facts["event"] == 1


def test_empty_batch_is_refused():
    """An empty batch is a mistake, not a write of nothing."""
    with pytest.raises(InvalidRequest, match="Invalid request"):
        admit(SPEC, "n", [])


def test_batch_limit_is_exact():
    """1,000 records pass, 1,001 do not."""
    admit(SPEC, "n", [GOOD] * BATCH_RECORDS_MAX)
    with pytest.raises(InvalidRequest, match="1001 records in one batch; the limit is 1000"):
        admit(SPEC, "n", [GOOD] * (BATCH_RECORDS_MAX + 1))


@pytest.mark.parametrize("namespace", ["x" * 513, "é", "a\0"])
def test_namespace_that_cannot_be_is_refused(namespace):
    """Namespaces are ASCII without NUL, up to 512 characters."""
    with pytest.raises(InvalidRequest, match=r"^Namespace"):
        admit(SPEC, namespace, [GOOD])
