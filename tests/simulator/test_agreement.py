"""For any market, instant and timeframe: candles, tickers and pages follow from the trades."""

from __future__ import annotations

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.test_market import candle_of, trades_between
from tests.simulator.worlds import listings, market, ms
from upbit_backbone.clock import DAY_MS, MINUTE_MS, SECOND_MS
from upbit_backbone.simulator.candles import (
    DAY_UNIT,
    MINUTE_UNITS,
    Candle,
    candles,
    period_candles,
    second_candles,
)
from upbit_backbone.simulator.market import Market
from upbit_backbone.simulator.tickers import Tickers

INSTANTS = st.integers(ms("2017-09-01"), ms("2031-01-01"))
SYMBOLS = st.sampled_from(sorted(listings()))
TIMEFRAMES = ("second", *MINUTE_UNITS, DAY_UNIT, "week", "month", "year")


@cache
def known(symbol: str) -> Market:
    return market(symbol)


def page(of: Market, timeframe: int | str, before_ms: int, now_ms: int, count: int) -> list[Candle]:
    """The newest candles of any timeframe."""
    bounds = {"start_before_ms": before_ms, "now_ms": now_ms, "count": count}
    if timeframe == "second":
        return second_candles(of, **bounds)
    if isinstance(timeframe, int):
        return candles(of, timeframe, **bounds)
    return period_candles(of, timeframe, **bounds)  # type: ignore[arg-type]


@settings(max_examples=200)
@given(
    symbol=SYMBOLS,
    now_ms=INSTANTS,
    timeframe=st.sampled_from(["second", *MINUTE_UNITS]),
    back_ms=st.integers(0, 20 * DAY_MS),
)
def test_a_candle_is_the_aggregate_of_its_trades(
    symbol: str, now_ms: int, timeframe: int | str, back_ms: int
) -> None:
    of = known(symbol)
    span_ms = timeframe * MINUTE_MS if isinstance(timeframe, int) else SECOND_MS
    for candle in page(of, timeframe, now_ms + 1 - back_ms, now_ms, 3):
        end_ms = min(candle.start_ms + span_ms, now_ms + 1)
        trades = trades_between(of, candle.start_ms, end_ms)
        assert candle == candle_of(candle.start_ms, trades)


@settings(max_examples=200)
@given(
    symbol=SYMBOLS,
    now_ms=INSTANTS,
    pair=st.sampled_from([(1, 5), (5, 15), (15, 60), (60, 240), (240, DAY_UNIT)]),
)
def test_a_larger_candle_is_the_aggregate_of_smaller_ones(
    symbol: str, now_ms: int, pair: tuple[int, int]
) -> None:
    of, (small, large) = known(symbol), pair
    for whole in page(of, large, now_ms + 1, now_ms, 3):
        end_ms = whole.start_ms + large * MINUTE_MS
        parts = [
            part
            for part in page(of, small, end_ms, now_ms, large // small)
            if part.start_ms >= whole.start_ms
        ]
        assert (whole.open, whole.close) == (parts[-1].open, parts[0].close)
        assert whole.high == max(part.high for part in parts)
        assert whole.low == min(part.low for part in parts)
        assert whole.volume == sum(part.volume for part in parts)
        assert whole.value == sum(part.value for part in parts)


@settings(max_examples=200)
@given(symbol=SYMBOLS, now_ms=INSTANTS)
def test_a_ticker_is_the_last_trade_and_rolling_sums(symbol: str, now_ms: int) -> None:
    of = known(symbol)
    shown = Tickers(of).at(now_ms)
    newest = of.trades_back(from_ms=0, before_ms=now_ms + 1, before_id=None, count=1)
    assert (shown is None) == (not newest)
    if shown is None:
        return
    assert shown.last == newest[0]
    from_ms, day_ms = now_ms + 1 - DAY_MS, now_ms // DAY_MS * DAY_MS
    first_minute_ms = -(-from_ms // MINUTE_MS) * MINUTE_MS
    minutes = [
        minute
        for minute in page(of, 1, now_ms + 1, now_ms, DAY_UNIT + 1)
        if minute.start_ms >= first_minute_ms
    ]
    edge = trades_between(of, from_ms, min(first_minute_ms, now_ms + 1))
    in_minutes = sum(minute.volume for minute in minutes)
    assert shown.volume_24h == in_minutes + sum(trade.volume for trade in edge)
    today = [minute for minute in minutes if minute.start_ms >= day_ms]
    assert shown.volume_today == sum(minute.volume for minute in today)
    if today:
        assert shown.high == max(minute.high for minute in today)
        assert shown.low == min(minute.low for minute in today)
        assert shown.open == today[-1].open


@settings(max_examples=200)
@given(
    symbol=SYMBOLS,
    now_ms=INSTANTS,
    timeframe=st.sampled_from(TIMEFRAMES),
    to_ms=st.integers(0, 30 * DAY_MS),
    count=st.integers(1, 200),
    more=st.integers(1, 200),
)
def test_pages_join_without_loss_or_overlap_for_every_count_and_to(
    symbol: str, now_ms: int, timeframe: int | str, to_ms: int, count: int, more: int
) -> None:
    of, before_ms = known(symbol), now_ms - to_ms
    whole = page(of, timeframe, before_ms, now_ms, count + more)
    first = page(of, timeframe, before_ms, now_ms, count)
    assert first == whole[:count]
    if len(whole) > count:
        assert page(of, timeframe, first[-1].start_ms, now_ms, more) == whole[count:]
    starts = [candle.start_ms for candle in whole]
    assert starts == sorted(set(starts), reverse=True)
    assert all(start_ms < before_ms for start_ms in starts)


@settings(max_examples=200)
@given(symbol=SYMBOLS, now_ms=INSTANTS, count=st.integers(1, 500), more=st.integers(1, 100))
def test_pages_of_trades_join_without_loss_or_overlap(
    symbol: str, now_ms: int, count: int, more: int
) -> None:
    of, day_ms = known(symbol), now_ms // DAY_MS * DAY_MS
    bounds = {"from_ms": day_ms, "before_ms": now_ms + 1}
    whole = of.trades_back(**bounds, before_id=None, count=count + more)
    first = of.trades_back(**bounds, before_id=None, count=count)
    assert first == whole[:count]
    if first:
        cursor = first[-1].sequential_id
        assert of.trades_back(**bounds, before_id=cursor, count=more) == whole[count:]
