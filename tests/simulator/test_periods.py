"""Seconds, weeks, months and years: from the trades and the days that they are made of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulator.test_market import SYMBOLS, candle_of, trades_between
from tests.simulator.worlds import BUSY, IDLE, THIN, market, ms
from upbit_backbone.clock import DAY_MS, HOUR_MS, SECOND_MS, epoch_ms
from upbit_backbone.simulator.candles import (
    DAY_UNIT,
    SECONDS_DEPTH_MS,
    Candle,
    Period,
    candles,
    period_candles,
    second_candles,
)
from upbit_backbone.simulator.market import Market

NOW_MS = ms("2026-11-18T13:14:15.678")

STARTS: dict[Period, Callable[[date], date]] = {
    "week": lambda day: day - timedelta(day.weekday()),
    "month": lambda day: day.replace(day=1),
    "year": lambda day: day.replace(month=1, day=1),
}


def from_days(of: Market, period: Period, now_ms: int) -> list[Candle]:
    """All candles of a period, newest first, from the market's days."""
    days = candles(of, DAY_UNIT, start_before_ms=now_ms + 1, now_ms=now_ms, count=10_000)
    buckets: dict[date, list[Candle]] = {}
    for day in reversed(days):
        start = STARTS[period](datetime.fromtimestamp(day.start_ms / 1_000, UTC).date())
        buckets.setdefault(start, []).append(day)
    return [
        Candle(
            start_ms=epoch_ms(datetime(start.year, start.month, start.day, tzinfo=UTC)),
            open=inside[0].open,
            high=max(day.high for day in inside),
            low=min(day.low for day in inside),
            close=inside[-1].close,
            volume=sum(day.volume for day in inside),
            value=sum(day.value for day in inside),
            last_trade_ms=inside[-1].last_trade_ms,
        )
        for start, inside in sorted(buckets.items(), reverse=True)
    ]


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("period", ["week", "month", "year"])
@pytest.mark.parametrize(
    "now_ms", [NOW_MS, ms("2026-03-02T00:00:00"), ms("2025-12-31T23:59:59.999")]
)
def test_weeks_months_and_years_are_what_their_days_add_up_to(
    symbol: str, period: Period, now_ms: int
) -> None:
    of = market(symbol)
    expected = from_days(of, period, now_ms)
    page = period_candles(of, period, start_before_ms=now_ms + 1, now_ms=now_ms, count=10_000)
    assert page == expected
    assert len(page) > 3 or period == "year"


@given(
    symbol=st.sampled_from(SYMBOLS),
    period=st.sampled_from(["week", "month", "year"]),
    back_ms=st.integers(0, 900 * DAY_MS),
    count=st.integers(1, 60),
)
def test_a_page_of_periods_is_a_piece_of_all_of_them(
    symbol: str, period: Period, back_ms: int, count: int
) -> None:
    of = market(symbol)
    before_ms = NOW_MS - back_ms
    everything = [row for row in from_days(of, period, NOW_MS) if row.start_ms < before_ms]
    page = period_candles(of, period, start_before_ms=before_ms, now_ms=NOW_MS, count=count)
    assert page == everything[:count]


@pytest.mark.parametrize("symbol", ["KRW-BTC", "KRW-DOGE", BUSY, THIN])
def test_seconds_are_what_their_trades_add_up_to(symbol: str) -> None:
    of = market(symbol)
    start_ms = (NOW_MS - 2 * HOUR_MS) // SECOND_MS * SECOND_MS
    trades = trades_between(of, start_ms, NOW_MS + 1)
    buckets: dict[int, list[object]] = {}
    for trade in trades:
        buckets.setdefault(trade.time_ms // SECOND_MS * SECOND_MS, []).append(trade)
    expected = [candle_of(start, inside) for start, inside in buckets.items()]  # type: ignore[arg-type]
    page = second_candles(of, start_before_ms=NOW_MS + 1, now_ms=NOW_MS, count=len(expected))
    assert page == expected[::-1]


@given(
    symbol=st.sampled_from(["KRW-BTC", BUSY, THIN, IDLE]),
    back_ms=st.integers(0, 60 * DAY_MS),
    count=st.integers(1, 200),
)
def test_pages_of_seconds_join_without_overlap_or_hole(
    symbol: str, back_ms: int, count: int
) -> None:
    of, before_ms = market(symbol), NOW_MS - back_ms
    whole = second_candles(of, start_before_ms=before_ms, now_ms=NOW_MS, count=2 * count)
    first = second_candles(of, start_before_ms=before_ms, now_ms=NOW_MS, count=count)
    assert first == whole[:count]
    if len(first) == count:
        oldest_ms = first[-1].start_ms
        second = second_candles(of, start_before_ms=oldest_ms, now_ms=NOW_MS, count=count)
        assert first + second == whole
    assert all(row.start_ms < before_ms for row in whole)


def test_seconds_are_kept_for_three_months() -> None:
    of = market("KRW-BTC")
    edge_ms = NOW_MS - SECONDS_DEPTH_MS
    assert second_candles(of, start_before_ms=edge_ms, now_ms=NOW_MS, count=200) == []
    oldest = second_candles(of, start_before_ms=edge_ms + HOUR_MS, now_ms=NOW_MS, count=10_000)
    assert 0 < len(oldest) < 3_600
    assert oldest[-1].start_ms >= edge_ms


def test_the_second_in_progress_holds_what_was_traded_so_far() -> None:
    of = market("KRW-BTC")
    trade = trades_between(of, NOW_MS, NOW_MS + HOUR_MS)[0]
    newest = second_candles(of, start_before_ms=trade.time_ms + 1, now_ms=trade.time_ms, count=1)
    assert newest == [candle_of(trade.time_ms // SECOND_MS * SECOND_MS, [trade])]
    before = second_candles(of, start_before_ms=trade.time_ms, now_ms=trade.time_ms - 1, count=1)
    assert before[0].start_ms < newest[0].start_ms
