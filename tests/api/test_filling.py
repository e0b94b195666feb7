"""Flat candles, only where nobody traded for certain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS
from tests.storage.fake_exchange import series_of
from upbit_backbone.api.filling import fill_known, fill_previous
from upbit_backbone.clock import utc_datetime
from upbit_backbone.models import CandleSeries, Span, Timeframe

LONG_AFTER = 2**51


def candles(timeframe: Timeframe, periods: set[int]) -> CandleSeries:
    return series_of(timeframe, [at(timeframe, n) for n in periods], LONG_AFTER)


def at(timeframe: Timeframe, period: int) -> int:
    return timeframe.back_ms(timeframe.floor_ms(AUTUMN_2025_MS), -period)


def unknown(timeframe: Timeframe, low: int | None, high: int | None) -> Span:
    ends = [None if n is None else utc_datetime(at(timeframe, n)) for n in (low, high)]
    return Span(ends[0], ends[1], "unknown")


@given(
    timeframe=st.sampled_from(list(Timeframe)),
    existing=st.sets(st.integers(0, 40)),
    end=st.integers(0, 45),
    hole=st.none() | st.tuples(st.integers(0, 40), st.integers(1, 9)),
)
def test_every_known_empty_period_after_a_candle_is_flat_and_no_other(
    timeframe: Timeframe, existing: set[int], end: int, hole: tuple[int, int] | None
) -> None:
    missing: set[int] = set()
    spans: tuple[Span, ...] = ()
    if hole is not None:
        missing = set(range(hole[0], sum(hole)))
        spans = (unknown(timeframe, hole[0], sum(hole)),)
    existing -= missing
    series = candles(timeframe, existing)
    filled = fill_known(series, at(timeframe, 0), at(timeframe, end), spans)
    expected: dict[int, int] = {}
    previous: int | None = None
    for period in range(46):
        if period in missing:
            previous = None
        elif period in existing:
            previous = expected[period] = period
        elif previous is not None and period < end:
            expected[period] = previous
    assert filled.time.tolist() == [at(timeframe, period) for period in expected]
    closes = dict(zip(series.time.tolist(), series.close.tolist(), strict=True))
    for candle, (period, source) in zip(filled, expected.items(), strict=True):
        assert candle.filled is (period != source)
        if candle.filled:
            close = closes[at(timeframe, source)]
            assert (candle.open, candle.high, candle.low, candle.close) == (close,) * 4
            assert (candle.volume, candle.value, candle.closed) == (0.0, 0.0, True)
    kept = [candle for candle in filled if not candle.filled]
    assert kept == list(series)


def test_what_is_open_on_a_side_is_unknown_to_that_side() -> None:
    minute = Timeframe.M1
    series = candles(minute, {5, 8})
    whole = at(minute, 0), at(minute, 10)
    below = fill_known(series, *whole, (unknown(minute, None, 5),))
    assert len(below) == 5
    above = fill_known(series, *whole, (unknown(minute, 9, None),))
    assert above.time.tolist() == [at(minute, n) for n in (5, 6, 7, 8)]


def test_nothing_is_made_of_nothing() -> None:
    assert len(fill_previous(candles(Timeframe.M1, set()), 0, LONG_AFTER)) == 0
