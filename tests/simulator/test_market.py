"""A market as a function of time: every figure against its own trades."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.worlds import (
    BUSY,
    FINE,
    IDLE,
    RECORDED,
    THIN,
    market,
    ms,
    recorded_lines,
    unscripted,
)
from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS
from upbit_backbone.simulator import regime as regime_module
from upbit_backbone.simulator.candles import DAY_UNIT, MINUTE_UNITS, Candle, candles
from upbit_backbone.simulator.market import Market, prepare, whole_regime
from upbit_backbone.simulator.regime import Trade
from upbit_backbone.simulator.table import Table
from upbit_backbone.simulator.tickers import Extreme, Tickers

NOON_MS = ms("2025-11-05T12:00:00")
TILE_MS = 28 * DAY_MS
INSTANTS = st.integers(ms("2025-08-20"), ms("2025-10-20"))
# Two recordings, and invented markets from busy to all but idle.
SYMBOLS = ["KRW-BTC", "KRW-DOGE", BUSY, THIN, IDLE, FINE]


def trades_between(of: Market, start_ms: int, end_ms: int) -> list[Trade]:
    """All trades of a span, oldest first."""
    found = of.trades_back(from_ms=start_ms, before_ms=end_ms, before_id=None, count=10**6)
    return found[::-1]


def candle_of(start_ms: int, trades: list[Trade]) -> Candle:
    """What the trades of a bucket add up to."""
    prices = [trade.price for trade in trades]
    return Candle(
        start_ms=start_ms,
        open=prices[0],
        high=max(prices),
        low=min(prices),
        close=prices[-1],
        volume=sum(trade.volume for trade in trades),
        value=sum(trade.price * trade.volume for trade in trades),
        last_trade_ms=trades[-1].time_ms,
    )


def candles_of(trades: list[Trade], unit: int) -> list[Candle]:
    """The candles that trades make, newest first."""
    span_ms = unit * MINUTE_MS
    buckets: dict[int, list[Trade]] = {}
    for trade in trades:
        buckets.setdefault(trade.time_ms // span_ms * span_ms, []).append(trade)
    return [candle_of(start, trades) for start, trades in sorted(buckets.items(), reverse=True)]


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_candles_of_every_unit_are_what_their_trades_add_up_to(symbol: str) -> None:
    # Five hours into a day: candles in progress and the whole day before.
    day_ms = ms("2025-11-05")
    start_ms, now_ms = day_ms - DAY_MS, day_ms + 5 * HOUR_MS + 31_416
    of = market(symbol)
    trades = trades_between(of, start_ms, now_ms + 1)
    for unit in (*MINUTE_UNITS, DAY_UNIT):
        expected = candles_of(trades, unit)
        page = candles(of, unit, start_before_ms=now_ms + 1, now_ms=now_ms, count=len(expected))
        assert page == expected
        assert 0 < len(page) <= 2 * DAY_UNIT // unit


@pytest.mark.parametrize("symbol", ["KRW-BTC", "KRW-DOGE", THIN])
@settings(max_examples=50)
@given(unit=st.sampled_from([*MINUTE_UNITS[1:], DAY_UNIT]), now_ms=INSTANTS)
def test_larger_candles_agree_with_the_minutes_in_them(symbol: str, unit: int, now_ms: int) -> None:
    of = market(symbol)
    newest = candles(of, unit, start_before_ms=now_ms + 1, now_ms=now_ms, count=1)[0]
    minutes = [
        minute
        for minute in candles(of, 1, start_before_ms=now_ms + 1, now_ms=now_ms, count=unit)
        if newest.start_ms <= minute.start_ms < newest.start_ms + unit * MINUTE_MS
    ]
    assert newest == Candle(
        start_ms=newest.start_ms,
        open=minutes[-1].open,
        high=max(minute.high for minute in minutes),
        low=min(minute.low for minute in minutes),
        close=minutes[0].close,
        volume=sum(minute.volume for minute in minutes),
        value=sum(minute.value for minute in minutes),
        last_trade_ms=minutes[0].last_trade_ms,
    )


@given(
    symbol=st.sampled_from(SYMBOLS),
    unit=st.sampled_from([*MINUTE_UNITS, DAY_UNIT]),
    before_ms=INSTANTS,
    count=st.integers(1, 200),
)
def test_pages_join_without_overlap_or_hole(
    symbol: str, unit: int, before_ms: int, count: int
) -> None:
    of, now_ms = market(symbol), NOON_MS
    whole = candles(of, unit, start_before_ms=before_ms, now_ms=now_ms, count=2 * count)
    first = candles(of, unit, start_before_ms=before_ms, now_ms=now_ms, count=count)
    second = candles(of, unit, start_before_ms=first[-1].start_ms, now_ms=now_ms, count=count)
    assert first + second == whole
    assert all(candle.start_ms < before_ms for candle in first)
    assert [c.start_ms for c in whole] == sorted({c.start_ms for c in whole}, reverse=True)


@given(symbol=st.sampled_from(SYMBOLS), now_ms=INSTANTS, later_ms=st.integers(0, 10**9))
def test_what_is_over_does_not_change(symbol: str, now_ms: int, later_ms: int) -> None:
    of = market(symbol)
    minute_ms = now_ms // MINUTE_MS * MINUTE_MS
    over = candles(of, 1, start_before_ms=minute_ms, now_ms=now_ms, count=50)
    again = candles(of, 1, start_before_ms=minute_ms, now_ms=now_ms + later_ms, count=50)
    assert over == again


def test_the_candle_in_progress_grows_trade_by_trade() -> None:
    of = market("KRW-BTC")
    trades = trades_between(of, NOON_MS, NOON_MS + MINUTE_MS)
    assert len(trades) > 3
    for done, trade in enumerate(trades, 1):
        if done < len(trades) and trades[done].time_ms == trade.time_ms:
            continue
        now_ms = trade.time_ms
        newest = candles(of, 60, start_before_ms=now_ms + 1, now_ms=now_ms, count=1)
        assert newest == [candle_of(NOON_MS, trades[:done])]
    before_ms = trades[0].time_ms - 1
    newest = candles(of, 1, start_before_ms=before_ms + 1, now_ms=before_ms, count=1)
    assert [candle.start_ms for candle in newest] == [NOON_MS - MINUTE_MS]


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("now_ms", [NOON_MS + 7_777, ms("2025-09-29T00:00:30")])
def test_a_ticker_agrees_with_the_trades_and_the_candles(symbol: str, now_ms: int) -> None:
    of = market(symbol)
    day_ms = now_ms // DAY_MS * DAY_MS
    shown = Tickers(of).at(now_ms)
    assert shown is not None
    last_day = trades_between(of, now_ms + 1 - DAY_MS, now_ms + 1)
    today = [trade for trade in last_day if trade.time_ms >= day_ms]
    assert shown.last == last_day[-1]
    prices = [trade.price for trade in today] or [shown.last.price]
    assert (shown.open, shown.high, shown.low) == (prices[0], max(prices), min(prices))
    assert shown.volume_today == sum(trade.volume for trade in today)
    assert shown.value_today == sum(trade.price * trade.volume for trade in today)
    assert shown.sold_today == sum(trade.volume for trade in today if not trade.taker_buys)
    assert shown.volume_24h == sum(trade.volume for trade in last_day)
    assert shown.value_24h == sum(trade.price * trade.volume for trade in last_day)

    days = candles(of, DAY_UNIT, start_before_ms=now_ms + 1, now_ms=now_ms, count=364)
    assert shown.previous_close == next(day.close for day in days if day.start_ms < day_ms)
    highest = max(days, key=lambda day: (day.high, day.start_ms))
    lowest = min(days, key=lambda day: (day.low, -day.start_ms))
    assert shown.highest == Extreme(highest.high, highest.start_ms)
    assert shown.lowest == Extreme(lowest.low, lowest.start_ms)


def test_a_day_without_a_trade_so_far_shows_the_last_price() -> None:
    of = market(FINE)
    first = next(trade for trade in trades_between(of, ms("2025-11-05"), ms("2025-11-06")))
    shown = Tickers(of).at(first.time_ms - 1)
    assert shown is not None
    assert shown.last.time_ms < ms("2025-11-05")
    assert {shown.open, shown.high, shown.low, shown.previous_close} == {shown.last.price}
    assert (shown.volume_today, shown.value_today) == (0, 0)
    assert shown.volume_24h > 0


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_trades_page_back_without_overlap_or_hole(symbol: str) -> None:
    of = market(symbol)
    start_ms, end_ms = NOON_MS - HOUR_MS, NOON_MS + 1_234
    everything = trades_between(of, start_ms, end_ms)
    assert [trade.sequential_id for trade in everything] == sorted(
        {trade.sequential_id for trade in everything}
    )
    paged: list[Trade] = []
    cursor = None
    while page := of.trades_back(from_ms=start_ms, before_ms=end_ms, before_id=cursor, count=7):
        paged += page
        cursor = page[-1].sequential_id
    assert paged == everything[::-1]


@given(symbol=st.sampled_from(SYMBOLS), after_ms=INSTANTS)
def test_the_next_trades_are_those_that_follow(symbol: str, after_ms: int) -> None:
    of = market(symbol)
    coming = of.next_trades(after_ms)
    end_ms = coming[-1].time_ms // MINUTE_MS * MINUTE_MS + MINUTE_MS
    assert coming == trades_between(of, after_ms + 1, end_ms)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_the_market_repeats_after_28_days_with_ids_of_its_own(symbol: str) -> None:
    of = market(symbol)
    now = trades_between(of, NOON_MS - HOUR_MS, NOON_MS)
    later = trades_between(of, NOON_MS - HOUR_MS + TILE_MS, NOON_MS + TILE_MS)
    assert [trade._replace(time_ms=trade.time_ms + TILE_MS, sequential_id=0) for trade in now] == [
        trade._replace(sequential_id=0) for trade in later
    ]
    assert not {trade.sequential_id for trade in now} & {trade.sequential_id for trade in later}


def test_the_seam_between_two_tiles_is_no_crash() -> None:
    seam_ms = ms("2025-09-29T00:00:00")
    for symbol in RECORDED:
        around = candles(
            market(symbol), 1, start_before_ms=seam_ms + HOUR_MS, now_ms=NOON_MS, count=120
        )
        jumps = [abs(b.close / a.close - 1) for a, b in pairwise(around)]
        assert max(jumps) < 0.01


@pytest.mark.parametrize("symbol", ["KRW-BTC", "KRW-SIM110", FINE])
def test_before_its_listing_a_market_has_nothing(symbol: str) -> None:
    of = market(symbol)
    listed_ms = of.listing.listed_ms
    for unit in (*MINUTE_UNITS, DAY_UNIT):
        span_ms = unit * MINUTE_MS
        first_start = listed_ms // span_ms * span_ms
        assert candles(of, unit, start_before_ms=first_start, now_ms=NOON_MS, count=200) == []
    assert candles(of, 1, start_before_ms=NOON_MS, now_ms=listed_ms - 1, count=200) == []
    assert trades_between(of, listed_ms - DAY_MS, listed_ms) == []
    assert of.last_trade(of.cut(listed_ms)) is None
    assert Tickers(of).at(listed_ms - 1) is None


@pytest.mark.parametrize("symbol", ["KRW-BTC", "KRW-SIM110", FINE])
def test_the_first_candle_holds_what_was_traded_since_the_listing(symbol: str) -> None:
    of = market(symbol)
    listed_ms = of.listing.listed_ms
    end_ms = listed_ms - listed_ms % DAY_MS + DAY_MS + HOUR_MS
    trades = trades_between(of, listed_ms, end_ms)
    for unit in (1, 60, 240, DAY_UNIT):
        page = candles(of, unit, start_before_ms=end_ms, now_ms=end_ms - 1, count=9_999)
        assert page == candles_of(trades, unit)
        assert page[-1].start_ms <= trades[0].time_ms < page[-1].start_ms + unit * MINUTE_MS
    # A ticker of these days knows no prices from before the listing either.
    shown = Tickers(of).at(end_ms - 1)
    assert shown is not None
    assert shown.highest.price == max(trade.price for trade in trades)
    assert shown.lowest.price == min(trade.price for trade in trades)


def test_a_ticker_does_not_depend_on_what_was_asked_before() -> None:
    of = market("KRW-SIM110")
    first_day_ms = of.listing.listed_ms + 6 * HOUR_MS
    asked = Tickers(of)
    asked.at(first_day_ms + 100 * DAY_MS)
    assert asked.at(first_day_ms) == Tickers(of).at(first_day_ms)


class CountingTable(Table):
    """Counts the minutes whose trades are looked at."""

    looked_at = 0

    def trades(self, positions):  # type: ignore[no-untyped-def]
        self.looked_at += len(positions)
        return super().trades(positions)

    def last_offsets(self, positions):  # type: ignore[no-untyped-def]
        self.looked_at += len(positions)
        return super().last_offsets(positions)


@pytest.fixture
def counted() -> tuple[Market, CountingTable]:
    of = market("KRW-BTC")
    counting = CountingTable.__new__(CountingTable)
    counting.__dict__.update(of.table.__dict__)
    return Market(of.listing, [whole_regime(of.listing, counting, repeats=True)]), counting


@pytest.mark.parametrize("year", [2018, 2025, 2040])
def test_the_work_for_an_answer_does_not_grow_with_its_distance(
    counted: tuple[Market, CountingTable], year: int
) -> None:
    of, counting = counted
    now_ms = ms(f"{year}-07-01T12:34:56")
    for unit in (*MINUTE_UNITS, DAY_UNIT):
        counting.looked_at = 0
        page = candles(of, unit, start_before_ms=now_ms, now_ms=ms("2041-01-01"), count=200)
        assert len(page) == 200
        assert counting.looked_at <= 202
    counting.looked_at = 0
    assert Tickers(of).at(now_ms) is not None
    assert counting.looked_at <= 40
    counting.looked_at = 0
    assert len(of.trades_back(from_ms=0, before_ms=now_ms, before_id=None, count=500)) == 500
    assert counting.looked_at <= 65


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_preparing_many_markets_changes_no_answer(symbol: str) -> None:
    alone, prepared = market(symbol), market(symbol)
    other = unscripted(prepared.listing)
    prepare([prepared, other], (NOON_MS, NOON_MS - DAY_MS))
    for instant_ms in (NOON_MS, NOON_MS + 30_000, NOON_MS - DAY_MS, NOON_MS + 1 - DAY_MS):
        assert prepared.cut(instant_ms) == alone.cut(instant_ms) == other.cut(instant_ms)
    assert Tickers(prepared).at(NOON_MS) == Tickers(alone).at(NOON_MS)


def test_remembered_minutes_stay_few() -> None:
    of = market("KRW-BTC")
    for minute in range(50):
        of.cut(NOON_MS + minute * MINUTE_MS + 1)
    assert len(of.regimes[0]._minutes) <= regime_module._MINUTES_KEPT


@pytest.mark.parametrize("symbol", RECORDED)
def test_as_recorded_every_minute_equals_the_file(symbol: str) -> None:
    of = market(symbol, as_recorded=True)
    expected = recorded_lines(symbol)
    now_ms = ms("2025-12-01")
    rows: list[Candle] = []
    before_ms = now_ms
    while page := candles(of, 1, start_before_ms=before_ms, now_ms=now_ms, count=5_000):
        rows += page
        before_ms = page[-1].start_ms
    unit = of.scale.unit
    served = {
        row.start_ms: (
            *(
                units * unit.numerator / unit.denominator
                for units in (row.open, row.high, row.low, row.close)
            ),
            row.volume / 1e8,
        )
        for row in reversed(rows)
    }
    assert served == expected


def test_as_recorded_nothing_is_traded_before_or_after_the_recording() -> None:
    of = market("KRW-BTC", as_recorded=True)
    assert candles(of, 1, start_before_ms=ms("2025-09-01"), now_ms=NOON_MS, count=9) == []
    assert of.next_trades(NOON_MS) == []
    last = of.last_trade(of.cut(NOON_MS))
    assert last is not None
    assert ms("2025-10-04T01:19:00") <= last.time_ms < ms("2025-10-04T01:20:00")
    shown = Tickers(of).at(NOON_MS)
    assert shown is not None
    assert shown.last == last
    assert shown.volume_24h == 0
    assert shown.highest.price * 1_000 == max(row[1] for row in recorded_lines("KRW-BTC").values())
