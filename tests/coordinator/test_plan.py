"""Plans, as pure functions of what is missing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS
from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from upbit_backbone.coordinator.plan import (
    SECONDS_DEPTH_MS,
    UNCONFIRMED,
    plan_candles,
    plan_lists,
    plan_trades,
)
from upbit_backbone.coordinator.ranges import Range, periods_between, unknown, without
from upbit_backbone.models import Timeframe

NOW = AUTUMN_2025_MS + 10 * HOUR_MS
TIMEFRAMES = st.sampled_from(list(Timeframe))


@pytest.mark.parametrize(("count", "pages"), [(1, 1), (200, 1), (201, 2), (400, 2), (1_000, 5)])
def test_a_dense_range_takes_as_many_pages_as_it_has_two_hundreds(count: int, pages: int) -> None:
    start_ms = NOW - count * MINUTE_MS
    plan = plan_candles(Timeframe.M1, [unknown(start_ms, NOW, "")], now_ms=NOW)
    assert (plan.pages, plan.periods) == (pages, count)


def test_a_plan_prints_itself() -> None:
    holes = [(NOW - 400 * MINUTE_MS, NOW - 100 * MINUTE_MS), (NOW - 10 * MINUTE_MS, NOW)]
    plan = plan_candles(Timeframe.M1, [unknown(*hole, "") for hole in holes], now_ms=NOW)
    assert str(plan) == (
        "3 pages of 1m: 2025-09-15 03:20:00 … 2025-09-15 08:20:00 (300),"
        " 2025-09-15 09:50:00 … 2025-09-15 10:00:00 (10)"
    )
    assert str(plan_candles(Timeframe.D1, [], now_ms=NOW)) == "nothing to ask of 1d"
    many = [unknown(NOW - n * HOUR_MS, NOW - n * HOUR_MS + MINUTE_MS, "") for n in range(9, 0, -1)]
    assert str(plan_candles(Timeframe.M1, many, now_ms=NOW)).endswith(", and 4 more")


def test_what_the_exchange_showed_nothing_of_before_is_asked_with_doubt() -> None:
    spans = [unknown(NOW - HOUR_MS, NOW, reason) for reason in (UNCONFIRMED, "not asked yet")]
    doubts = [plan_candles(Timeframe.M1, [span], now_ms=NOW).holes[0].doubtful for span in spans]
    assert doubts == [True, False]


def test_seconds_of_more_than_three_months_ago_are_not_planned() -> None:
    start_ms, border_ms = NOW - 365 * DAY_MS, NOW - SECONDS_DEPTH_MS
    plan = plan_candles(Timeframe.S1, [unknown(start_ms, NOW, "")], now_ms=NOW)
    assert plan.beyond == (Range(start_ms, border_ms),)
    assert [hole[:2] for hole in plan.holes] == [(border_ms, NOW)]
    old = plan_candles(Timeframe.S1, [unknown(start_ms, border_ms - DAY_MS, "")], now_ms=NOW)
    assert (old.pages, len(old.beyond)) == (0, 1)
    minutes = plan_candles(Timeframe.M1, [unknown(start_ms, NOW, "")], now_ms=NOW)
    assert minutes.beyond == ()


@given(timeframe=TIMEFRAMES, back=st.integers(0, 300), periods=st.integers(0, 300))
def test_periods_are_counted_as_they_lie_in_the_calendar(
    timeframe: Timeframe, back: int, periods: int
) -> None:
    end_ms = timeframe.back_ms(timeframe.floor_ms(AUTUMN_2025_MS), back)
    start_ms = at_ms = timeframe.back_ms(end_ms, periods)
    counted = 0
    while at_ms < end_ms:
        at_ms = timeframe.next_ms(at_ms)
        counted += 1
    assert periods_between(timeframe, start_ms, end_ms) == counted == periods


SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8)


@given(holes=SPANS, answered=SPANS)
def test_what_answers_do_not_reach_is_left(
    holes: list[tuple[int, int]], answered: list[tuple[int, int]]
) -> None:
    left = without(holes, answered)
    points = {at for low, high in left for at in range(low, high)}
    assert points == {at for low, high in holes for at in range(low, high)} - {
        at for low, high in answered for at in range(low, high)
    }
    assert left == sorted(left)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(left))


@given(symbols=st.integers(1, 400), size=st.none() | st.integers(1, 50))
def test_lists_hold_every_symbol_once_in_order(symbols: int, size: int | None) -> None:
    codes = [f"KRW-{n}" for n in range(symbols)]
    lists = plan_lists(codes, size)
    assert [code for part in lists for code in part] == codes
    assert len(lists) == (1 if size is None else -(-symbols // size))


def test_189_symbols_in_tens_are_19_requests() -> None:
    assert len(plan_lists([f"KRW-{n}" for n in range(189)], 10)) == 19


def test_trades_are_planned_by_utc_days_from_the_newest_down() -> None:
    plan = plan_trades(AUTUMN_2025_MS - 30 * HOUR_MS, None, now_ms=NOW)
    assert len(plan.days) == 3
    assert (plan.to_ms, plan.beyond) == (None, None)
    assert str(plan) == "trades of 3 days: 2025-09-13 … 2025-09-15"
    until = plan_trades(AUTUMN_2025_MS, AUTUMN_2025_MS + 1_500, now_ms=NOW)
    assert until.to_ms == AUTUMN_2025_MS + 2 * SECOND_MS
    assert plan_trades(None, AUTUMN_2025_MS, now_ms=NOW).days[0] == AUTUMN_2025_MS // DAY_MS - 1
    long_ago = plan_trades(AUTUMN_2025_MS - 30 * DAY_MS, None, now_ms=NOW)
    assert len(long_ago.days) == 8
    assert long_ago.beyond == Range(AUTUMN_2025_MS - 30 * DAY_MS, AUTUMN_2025_MS - 7 * DAY_MS)
    assert plan_trades(None, AUTUMN_2025_MS - 8 * DAY_MS, now_ms=NOW).days == ()
