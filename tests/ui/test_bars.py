"""The bars of a chart: what is merged where, and which index it has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.ui.samples import BTC, M1, NOON_MS, minutes, row, series
from ui.chart.bars import Bars
from upbit_backbone.clock import MINUTE_MS


def loaded(first: int, count: int) -> Bars:
    bars = Bars(BTC, M1)
    bars.merge(minutes(first, count))
    return bars


def test_history_gets_negative_indices_and_moves_nothing() -> None:
    bars = loaded(0, 10)
    third = bars.bar(3)
    assert third is not None
    bars.merge(minutes(-400, 400))
    assert (bars.first, bars.last) == (-400, 9)
    after = bars.bar(3)
    assert after is not None
    assert after.tolist() == third.tolist()


def test_a_live_candle_replaces_the_newest_and_a_new_one_follows_it() -> None:
    bars = loaded(0, 3)
    bars.merge(series([row(2, 1_000.0, to=1_234.0), row(3, 7.0)]))
    assert len(bars) == 4
    newest, before = bars.bar(3), bars.bar(2)
    assert newest is not None
    assert before is not None
    assert (before[4], newest[4]) == (1_234.0, 7.0)


def test_a_candle_found_between_known_ones_leaves_the_newest_where_it_is() -> None:
    bars = Bars(BTC, M1)
    bars.merge(series([row(0, 1.0), row(2, 3.0)]))
    bars.merge(series([row(1, 2.0)]))
    assert (bars.first, bars.last) == (-1, 1)
    newest = bars.bar(1)
    assert newest is not None
    assert newest[1] == 3.0


def test_indices_are_found_by_time() -> None:
    bars = loaded(0, 5)
    assert bars.index_at(NOON_MS + 2 * MINUTE_MS) == 2
    assert bars.index_at(NOON_MS + 2 * MINUTE_MS + 1) == 3
    assert bars.bar(5) is None
    assert bars.bar(-1) is None


def test_rows_outside_are_left_out() -> None:
    bars = loaded(0, 5)
    assert bars.rows(-10, 3).shape == (6, 3)
    assert bars.rows(4, 99).shape == (6, 1)
    assert bars.rows(50, 60).shape == (6, 0)


@given(
    st.lists(
        st.lists(st.integers(-3_000, 3_000), min_size=1, max_size=40, unique=True), max_size=12
    )
)
def test_whatever_comes_in_whichever_order_is_sorted_and_single(pages: list[list[int]]) -> None:
    bars, expected = Bars(BTC, M1), {}
    for number, page in enumerate(pages):
        bars.merge(series([row(minute, float(number + 1)) for minute in sorted(page)]))
        expected.update(dict.fromkeys(page, float(number + 1)))
    rows = bars.rows(bars.first, bars.last + 1)
    times = [NOON_MS + minute * MINUTE_MS for minute in sorted(expected)]
    assert rows[0].tolist() == times
    assert rows[1].tolist() == [expected[minute] for minute in sorted(expected)]
