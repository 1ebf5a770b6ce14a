import pytest

from schemas.catalog_events import decode_catalog, encode_catalog
from schemas.events import decode, encode
from tests.golden.datagen import CATALOG_EVENTS, CATALOG_FOLDER, EVENTS, EVENTS_FOLDER, JSON_FOLDER


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_event_bytes_of_format_1_mean_what_they_meant(name):
    """Bytes of a released format stay readable for ever, and events are still written as them."""
    value = (EVENTS_FOLDER / f"{name}.bin").read_bytes()
    assert decode(value, {}) == decode(value, {"freshet-format": b"1"}) == EVENTS[name]
    assert encode(EVENTS[name]) == value


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_json_events_of_format_1_mean_what_they_meant(name):
    """Every event has a JSON form that means the same as its protobuf form."""
    value = (JSON_FOLDER / f"{name}.json").read_bytes()
    assert decode(value, {"content-type": b"application/json"}) == EVENTS[name]


@pytest.mark.parametrize("name", sorted(CATALOG_EVENTS))
def test_catalog_bytes_of_format_1_mean_what_they_meant(name):
    """The control log is folded from its beginning at every start, so its oldest bytes must stay readable."""
    value = (CATALOG_FOLDER / f"{name}.bin").read_bytes()
    assert decode_catalog(value, {}) == CATALOG_EVENTS[name]
    assert encode_catalog(CATALOG_EVENTS[name]) == value


def test_no_golden_file_is_without_its_test():
    """A file that nothing reads would guard nothing."""
    assert {path.stem for path in EVENTS_FOLDER.iterdir()} == set(EVENTS)
    assert {path.stem for path in JSON_FOLDER.iterdir()} == set(EVENTS)
    assert {path.stem for path in CATALOG_FOLDER.iterdir()} == set(CATALOG_EVENTS)
