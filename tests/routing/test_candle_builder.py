from __future__ import annotations

import gzip
import json
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS
from tests.routing.fake_exchange import make_trade
from upbit_backbone.clock import MINUTE_MS, epoch_ms
from upbit_backbone.models import CLOSE_GRACE_MS, Candle, CandleSeries, Timeframe, Trade
from upbit_backbone.routing.candle_builder import REVISABLE_MS, CandleBuilder

BTC, NOON = "KRW-BTC", AUTUMN_2025_MS
FIXED = [timeframe for timeframe in Timeframe if timeframe.fixed_ms is not None]
RECORDING = (
    Path(__file__).parents[1] / "payloads/upbit/ws/ws_simple_trade_orderbook.20210405.jsonl.gz"
)


def at_ms(trade: Trade) -> int:
    return epoch_ms(trade.exchange_time)


def no_candles(timeframe: Timeframe = Timeframe.M1) -> CandleSeries:
    return CandleSeries.empty(BTC, timeframe, source="rest", simulated=False)


def page(open_ms: int, *row: float, timeframe: Timeframe = Timeframe.M1) -> CandleSeries:
    return CandleSeries.from_rows(
        BTC, timeframe, [(open_ms, *row)], closed_before_ms=open_ms, source="rest", simulated=False
    )


def new_builder(now_ms: int = NOON, timeframe: Timeframe = Timeframe.M1) -> CandleBuilder:
    """A builder that has seen everything since `now_ms`, where nothing was traded before."""
    builder = CandleBuilder(BTC, timeframe)
    assert builder.seed(no_candles(timeframe), None, now_ms) == []
    return builder


def by_grouping(trades: list[Trade], timeframe: Timeframe) -> dict[int, tuple[float, ...]]:
    """The oracle: sorted by time, grouped by bucket."""
    candles: dict[int, tuple[float, ...]] = {}
    ordered = sorted(trades, key=at_ms)
    for open_ms, group in groupby(ordered, key=lambda trade: timeframe.floor_ms(at_ms(trade))):
        bucket = list(group)
        prices = [trade.price for trade in bucket]
        candles[open_ms] = (
            prices[0],
            max(prices),
            min(prices),
            prices[-1],
            sum(trade.volume for trade in bucket),
            sum(trade.price * trade.volume for trade in bucket),
        )
    return candles


def built(
    trades: list[Trade], timeframe: Timeframe, now_ms: list[int] | None = None
) -> dict[int, Candle]:
    """The last state of each candle, when the trades arrive in this order at these times."""
    builder = new_builder(timeframe.floor_ms(min(map(at_ms, trades))), timeframe)
    candles: dict[int, Candle] = {}
    closed: list[int] = []

    def take(changed: list[Candle]) -> None:
        for candle in changed:
            candles[epoch_ms(candle.open_time)] = candle
            if candle.state == "closed":
                closed.append(epoch_ms(candle.open_time))

    for trade, now in zip(trades, now_ms or map(at_ms, trades), strict=True):
        take(builder.close_due(now))
        take(builder.add(trade))
    take(builder.close_due(max(map(at_ms, trades)) + 14 * 24 * 60 * MINUTE_MS))
    assert closed == sorted(set(candles)), "each candle closes once, oldest first"
    assert all(candle.closed for candle in candles.values())
    return candles


def assert_same(candles: dict[int, Candle], oracle: dict[int, tuple[float, ...]]) -> None:
    assert set(candles) == set(oracle)
    for open_ms, (open_, high, low, close, volume, value) in oracle.items():
        candle = candles[open_ms]
        assert (candle.open, candle.high, candle.low, candle.close) == (open_, high, low, close)
        assert candle.volume == pytest.approx(volume, rel=1e-9)
        assert candle.value == pytest.approx(value, rel=1e-9)


TRADES = st.lists(
    st.tuples(
        st.integers(0, 400_000),
        st.integers(1, 10**8).map(float),
        st.integers(1, 10**12).map(lambda units: units / 1e8),
    ),
    min_size=1,
    max_size=60,
)


@pytest.mark.parametrize("timeframe", FIXED, ids=str)
@given(rows=TRADES)
def test_candles_of_sorted_trades_are_their_groups(
    timeframe: Timeframe, rows: list[tuple[int, float, float]]
) -> None:
    # Gaps grow with the timeframe, so that every one of them sees borders.
    stretch = max(1, (timeframe.fixed_ms or 1) // 60_000)
    trades = [
        make_trade(BTC, NOON + offset * stretch, number, price, volume)
        for number, (offset, price, volume) in enumerate(sorted(rows))
    ]
    assert_same(built(trades, timeframe), by_grouping(trades, timeframe))


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 200_000), st.integers(0, 900), st.integers(1, 1000)),
        min_size=1,
        max_size=60,
        unique_by=lambda row: row[0],
    )
)
def test_trades_that_are_late_by_less_than_the_grace_change_no_candle(
    rows: list[tuple[int, int, int]],
) -> None:
    arrivals = sorted(
        (NOON + offset + late_ms, NOON + offset, float(price)) for offset, late_ms, price in rows
    )
    trades = [make_trade(BTC, at, number, price) for number, (_, at, price) in enumerate(arrivals)]
    candles = built(trades, Timeframe.S1, [arrived for arrived, _, _ in arrivals])
    assert_same(candles, by_grouping(trades, Timeframe.S1))
    assert {candle.state for candle in candles.values()} == {"closed"}


def recorded_trades() -> dict[str, list[tuple[int, Trade]]]:
    """(arrival, trade) by symbol, in order of arrival."""
    trades: dict[str, list[tuple[int, Trade]]] = {}
    with gzip.open(RECORDING, "rt", encoding="utf-8") as lines:
        for line in lines:
            frame = json.loads(line)
            wire = json.loads(frame["raw"])
            if frame["dir"] == "in" and wire["ty"] == "trade":
                trade = make_trade(BTC, wire["ttms"], wire["sid"], wire["tp"], wire["tv"])
                arrived_ms = int(frame["recv_ts"] * 1_000)
                trades.setdefault(wire["cd"], []).append((arrived_ms, trade))
    return trades


def test_recorded_trades_give_the_same_candles_sorted_and_as_they_came() -> None:
    recorded = recorded_trades()
    assert sum(map(len, recorded.values())) == 672
    for arrivals in recorded.values():
        trades = [trade for _, trade in arrivals]
        for timeframe in (Timeframe.S1, Timeframe.M1):
            candles = built(trades, timeframe, [arrived for arrived, _ in arrivals])
            assert_same(candles, by_grouping(trades, timeframe))


def test_a_trade_that_the_page_holds_is_not_counted_again() -> None:
    builder = CandleBuilder(BTC, Timeframe.M1)
    (seeded,) = builder.seed(page(NOON, 10, 12, 9, 11, 5, 50), NOON + 30_000, NOON + 31_000)
    assert (seeded.state, seeded.close, seeded.volume) == ("forming", 11, 5)
    assert builder.add(make_trade(BTC, NOON + 29_000, 1, 99.0)) == []
    assert builder.add(make_trade(BTC, NOON + 30_000, 2, 99.0)) == []
    (grown,) = builder.add(make_trade(BTC, NOON + 30_001, 3, 13.0, 2.0))
    assert (grown.open, grown.high, grown.low, grown.close) == (10, 13, 9, 13)
    assert (grown.volume, grown.value) == (7, 76)


def test_an_old_page_seeds_no_candle_but_its_stamp_counts() -> None:
    builder = CandleBuilder(BTC, Timeframe.M1)
    assert builder.seed(page(NOON - MINUTE_MS, 1, 1, 1, 1, 1, 1), NOON - 5_000, NOON + 10) == []
    assert builder.add(make_trade(BTC, NOON - 5_000, 1)) == []
    (first,) = builder.add(make_trade(BTC, NOON + 5, 2, 7.0))
    assert (first.open, first.volume, first.state) == (7.0, 1.0, "forming")


def test_a_stamp_after_the_end_of_its_candle_hides_no_trade_of_the_next() -> None:
    # The stamp is when the last trade was stored, up to 54 ms after the end (2026) or more.
    builder = CandleBuilder(BTC, Timeframe.M1)
    builder.seed(page(NOON - MINUTE_MS, 1, 1, 1, 1, 1, 1), NOON + 54, NOON + 100)
    (first,) = builder.add(make_trade(BTC, NOON + 30, 1, 7.0))
    assert first.open == 7.0


def test_before_a_seed_nothing_is_built() -> None:
    builder = CandleBuilder(BTC, Timeframe.M1)
    assert builder.add(make_trade(BTC, NOON, 1)) == []
    assert builder.close_due(NOON + 10 * MINUTE_MS) == []


def test_a_candle_closes_by_the_clock_and_grace_and_never_by_a_trade() -> None:
    builder = new_builder()
    builder.add(make_trade(BTC, NOON, 1))
    (next_one,) = builder.add(make_trade(BTC, NOON + MINUTE_MS, 2))
    assert next_one.state == "forming"
    due_ms = NOON + MINUTE_MS + CLOSE_GRACE_MS
    assert builder.next_close_ms(NOON + 5) == due_ms
    assert builder.close_due(due_ms - 1) == []
    (closed,) = builder.close_due(due_ms)
    assert (closed.state, closed.closed, epoch_ms(closed.open_time)) == ("closed", True, NOON)
    assert builder.close_due(due_ms) == []
    assert builder.next_close_ms(due_ms) == due_ms + MINUTE_MS


def test_nothing_is_closed_where_nobody_traded() -> None:
    builder = new_builder()
    assert builder.close_due(NOON + 10 * MINUTE_MS) == []
    assert builder.next_close_ms(NOON + 10 * MINUTE_MS) == NOON + 11 * MINUTE_MS + CLOSE_GRACE_MS


def test_a_late_trade_within_the_grace_belongs_to_its_own_candle() -> None:
    builder = new_builder()
    builder.add(make_trade(BTC, NOON + 10, 1, 10.0))
    builder.add(make_trade(BTC, NOON + MINUTE_MS + 10, 2, 20.0))
    (late,) = builder.add(make_trade(BTC, NOON + 59_000, 3, 11.0))
    assert (late.state, late.close, late.high) == ("forming", 11.0, 11.0)
    closed, _ = builder.close_due(NOON + 3 * MINUTE_MS)
    assert (closed.open, closed.close, closed.volume) == (10.0, 11.0, 2.0)


def test_a_trade_late_by_less_than_the_newest_does_not_become_the_close() -> None:
    builder = new_builder()
    builder.add(make_trade(BTC, NOON + 500, 1, 10.0))
    (late,) = builder.add(make_trade(BTC, NOON + 400, 2, 9.0))
    assert (late.open, late.high, late.low, late.close) == (9.0, 10.0, 9.0, 10.0)


def test_a_late_trade_does_not_become_the_open_of_a_seeded_candle() -> None:
    builder = CandleBuilder(BTC, Timeframe.M1)
    builder.seed(page(NOON, 10, 12, 9, 11, 5, 50), NOON + 100, NOON + 200)
    builder.add(make_trade(BTC, NOON + 500, 1, 11.0))
    (late,) = builder.add(make_trade(BTC, NOON + 400, 2, 9.5))
    assert (late.open, late.close) == (10, 11.0)


def test_a_trade_after_the_grace_revises_the_candle_just_closed() -> None:
    builder = new_builder()
    builder.add(make_trade(BTC, NOON, 1, 10.0))
    builder.close_due(NOON + 2 * MINUTE_MS)
    (revised,) = builder.add(make_trade(BTC, NOON + 59_000, 2, 12.0))
    assert (revised.state, revised.closed, revised.close, revised.volume) == (
        "revised",
        True,
        12.0,
        2.0,
    )
    assert builder.add(make_trade(BTC, NOON - MINUTE_MS, 3)) == []


def test_a_trade_that_comes_after_two_later_closings_revises_its_candle() -> None:
    builder = new_builder()
    for minute in range(3):
        builder.add(make_trade(BTC, NOON + minute * MINUTE_MS, minute, 10.0))
        builder.close_due(NOON + (minute + 2) * MINUTE_MS)
    (revised,) = builder.add(make_trade(BTC, NOON + 30_000, 9, 12.0))
    assert (revised.state, epoch_ms(revised.open_time)) == ("revised", NOON)
    assert (revised.open, revised.close, revised.volume) == (10.0, 12.0, 2.0)
    (again,) = builder.add(make_trade(BTC, NOON + 20_000, 8, 13.0))
    assert (again.high, again.close, again.volume) == (13.0, 12.0, 3.0)
    assert builder.close_due(NOON + 9 * MINUTE_MS) == []


def test_a_late_trade_makes_the_candle_of_a_minute_in_which_nobody_seemed_to_trade() -> None:
    builder = new_builder()
    builder.add(make_trade(BTC, NOON, 1, 10.0))
    builder.close_due(NOON + 3 * MINUTE_MS)
    (late,) = builder.add(make_trade(BTC, NOON + MINUTE_MS + 30_000, 2, 12.0))
    assert (late.state, epoch_ms(late.open_time)) == ("closed", NOON + MINUTE_MS)
    assert (late.open, late.close, late.volume) == (12.0, 12.0, 1.0)
    (later,) = builder.add(make_trade(BTC, NOON + MINUTE_MS + 40_000, 3, 13.0))
    assert (later.state, later.close, later.volume) == ("revised", 13.0, 2.0)
    assert builder.close_due(NOON + 9 * MINUTE_MS) == [], "it is closed already"


def test_a_candle_can_be_revised_for_ten_minutes_after_its_end_and_the_newest_longer() -> None:
    builder = new_builder()
    ends_ms = NOON + MINUTE_MS
    builder.add(make_trade(BTC, NOON, 1, 10.0))
    builder.close_due(ends_ms + 2 * REVISABLE_MS)
    assert builder.add(make_trade(BTC, NOON + 1, 2)), "no other has closed since"
    builder = new_builder()
    builder.add(make_trade(BTC, NOON, 1, 10.0))
    builder.add(make_trade(BTC, NOON + MINUTE_MS, 2, 10.0))
    builder.close_due(ends_ms + REVISABLE_MS - 1)
    assert builder.add(make_trade(BTC, NOON + 1, 3))
    builder.close_due(ends_ms + REVISABLE_MS)
    assert builder.add(make_trade(BTC, NOON + 2, 4)) == []
    assert builder.add(make_trade(BTC, NOON + MINUTE_MS + 1, 5))


def test_closed_candles_are_not_kept_for_ever() -> None:
    builder = new_builder(timeframe=Timeframe.S1)
    most = REVISABLE_MS // 1_000
    for second in range(3 * most):
        builder.add(make_trade(BTC, NOON + second * 1_000, second))
        builder.close_due(NOON + second * 1_000 + 500)
        assert len(builder._closed) <= most


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 300_000), st.integers(0, 300_000), st.integers(1, 1000)),
        min_size=1,
        max_size=60,
        unique_by=lambda row: row[0],
    )
)
def test_trades_that_are_late_by_minutes_are_all_in_their_candles_in_the_end(
    rows: list[tuple[int, int, int]],
) -> None:
    arrivals = sorted(
        (NOON + offset + late_ms, NOON + offset, float(price)) for offset, late_ms, price in rows
    )
    trades = [make_trade(BTC, at, number, price) for number, (_, at, price) in enumerate(arrivals)]
    builder = new_builder(timeframe=Timeframe.S1)
    candles: dict[int, Candle] = {}
    for trade, (arrived_ms, _, _) in zip(trades, arrivals, strict=True):
        for candle in [*builder.close_due(arrived_ms), *builder.add(trade)]:
            candles[epoch_ms(candle.open_time)] = candle
    for candle in builder.close_due(NOON + 700_000):
        candles[epoch_ms(candle.open_time)] = candle
    assert_same(candles, by_grouping(trades, Timeframe.S1))
    assert all(candle.closed for candle in candles.values())


def test_an_interruption_forgets_what_is_no_longer_whole() -> None:
    builder = new_builder()
    builder.add(make_trade(BTC, NOON, 1))
    builder.interrupt()
    assert builder.close_due(NOON + 10 * MINUTE_MS) == []
    assert builder.add(make_trade(BTC, NOON + 1_000, 2)) == []
    builder.seed(page(NOON, 5, 5, 5, 5, 3, 15), NOON + 5_000, NOON + 6_000)
    (candle,) = builder.add(make_trade(BTC, NOON + 7_000, 3, 6.0))
    assert (candle.open, candle.volume) == (5, 4)


@pytest.mark.parametrize("timeframe", [Timeframe.MO1, Timeframe.Y1])
def test_months_and_years_close_at_their_own_end(timeframe: Timeframe) -> None:
    builder = new_builder(NOON, timeframe)
    builder.add(make_trade(BTC, NOON, 1))
    end_ms = timeframe.next_ms(timeframe.floor_ms(NOON))
    assert builder.close_due(end_ms + CLOSE_GRACE_MS - 1) == []
    assert len(builder.close_due(end_ms + CLOSE_GRACE_MS)) == 1
