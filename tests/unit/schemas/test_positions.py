import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ForeignPosition, InvalidRequest
from schemas.positions import Position, PositionToken

POSITIONS = st.builds(Position, lineage=st.integers(0, 10**9 - 1), next_offset=st.integers(0, 10**19 - 1))
TOKENS = st.builds(
    PositionToken,
    st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    st.dictionaries(st.integers(0, 99_999), POSITIONS, min_size=1, max_size=5),
)


@settings(deadline=None)
@given(TOKENS)
def test_token_survives_its_text(token):
    """The text form says all of a token."""
    assert PositionToken.parse(str(token)) == token


@settings(deadline=None)
@given(st.text() | st.from_regex(r"[a-z]{1,3}:[0-9=~,]{0,12}", fullmatch=True))
def test_any_text_is_a_token_or_refused(text):
    """Nothing but InvalidRequest is raised, and what is read has one text form."""
    try:
        token = PositionToken.parse(text)
    except InvalidRequest:
        return
    assert PositionToken.parse(str(token)) == token


def test_text_form_is_pinned():
    """`<log_id>:<partition>=<next_offset>[~<lineage>]`, partitions ascending, lineage 0 left out."""
    token = PositionToken("abc", {2: Position(0, 7), 0: Position(3, 0)})
    assert str(token) == "abc:0=0~3,2=7"


@pytest.mark.parametrize(
    "text",
    ["", "abc", "abc:", ":0=1", "abc:0", "abc:0=1,", "abc:0=1,0=2", "abc:0=-1", "abc:0=1~", "a b:0=1", "abc:٣=1"],
)
def test_malformed_token_is_refused(text):
    """Malformed parts and a partition named twice are the caller's mistake."""
    with pytest.raises(InvalidRequest, match="Invalid position token"):
        PositionToken.parse(text)


def test_tokens_of_one_log_merge_by_maximum_per_partition():
    """The merged token includes both; a later lineage is later whatever its offset."""
    one = PositionToken("abc", {0: Position(0, 5), 1: Position(0, 9)})
    other = PositionToken("abc", {0: Position(1, 2), 1: Position(0, 3), 2: Position(0, 0)})
    merged = PositionToken("abc", {0: Position(1, 2), 1: Position(0, 9), 2: Position(0, 0)})
    assert one.merge(other) == other.merge(one) == merged


def test_tokens_of_different_logs_do_not_merge():
    """A position of another log means nothing here."""
    with pytest.raises(ForeignPosition, match="different logs"):
        PositionToken("abc", {}).merge(PositionToken("abd", {}))
