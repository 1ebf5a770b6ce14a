import dataclasses

import pytest

from query_api.pace import GraphPace


@dataclasses.dataclass(frozen=True)
class _Shown:
    """What a pace looks at of a snapshot."""

    live_rows: int
    tail_rows: int


def _pace(*shown: tuple[float, int, int]) -> GraphPace:
    """Show (now, rows in graphs, rows in none) one after another."""
    pace = GraphPace(pressed_rows=100)
    for now, in_graphs, tail in shown:
        pace.note(_Shown(in_graphs + tail, tail), now)
    return pace


def test_pace_is_measured_over_all_steps_since_the_tail_grew_long():
    pace = _pace((0, 0, 50), (10, 0, 500), (14, 0, 9_000), (15, 1_000, 9_000), (20, 4_000, 8_000))
    assert pace.rows_per_second == pytest.approx(400)
    assert pace.seconds_for(1_000, unknown=2, most=60) == 3


def test_idle_time_between_two_crowds_does_not_slow_the_pace():
    pace = _pace((0, 0, 500), (1, 1_000, 500), (2, 1_500, 0), (1_000, 1_500, 500), (1_001, 2_500, 500))
    assert pace.rows_per_second == pytest.approx(1_000)


def test_rows_that_die_in_graphs_leave_the_pace_as_it_was():
    pace = _pace((0, 1_000, 500), (1, 2_000, 500), (2, 500, 500))
    assert pace.rows_per_second == pytest.approx(1_000)


@pytest.mark.parametrize(("rows", "wanted"), [(1, 1), (10_000, 10), (10_000_000, 60)])
def test_wait_has_a_least_and_a_greatest_length(rows, wanted):
    pace = _pace((0, 0, 500), (1, 1_000, 500))
    assert pace.seconds_for(rows, unknown=2, most=60) == wanted


def test_nothing_measured_yet_gives_the_wait_for_that_case():
    assert _pace((0, 0, 50)).seconds_for(5, unknown=2, most=60) == 2
