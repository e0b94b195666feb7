"""Scripted markets: what happens, when, and that everything still agrees with the trades."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.test_market import candle_of, trades_between
from tests.simulator.worlds import RECORDED, SEED, listings, ms, unscripted
from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, FrozenClock
from upbit_backbone.errors import InvalidRequestError
from upbit_backbone.simulator.candles import (
    DAY_UNIT,
    MINUTE_UNITS,
    Candle,
    candles,
    period_candles,
    second_candles,
)
from upbit_backbone.simulator.exchange import Exchange
from upbit_backbone.simulator.market import Market, prepare
from upbit_backbone.simulator.regime import Trade
from upbit_backbone.simulator.script import Move, Script, read_script, scripted_listings
from upbit_backbone.simulator.tickers import Tickers

NOW_MS = ms("2026-03-04T11:00:00")
AT_MS = ms("2026-03-04T12:00:30")
XRP, DOGE, THIN, SATOSHI = "KRW-XRP", "KRW-DOGE", "KRW-SIM003", "BTC-SC"


Happening = Mapping[str, object]
_BUILT: dict[str, Market] = {}


def script(*events: Happening) -> Script:
    return read_script(msgspec.json.encode({"events": events}), NOW_MS)


def fall(symbol: str, at: str = "2026-03-04T12:00:30Z", **more: object) -> Happening:
    return {"type": "move", "symbol": symbol, "at": at, "over_s": 40, "change": -0.06, **more}


async def scripted(symbol: str, *events: Happening) -> Market:
    """A market as a script has it; built once, since it is a function of seed and script."""
    name = f"{symbol} {events}"
    if name in _BUILT:
        return _BUILT[name]
    exchange = Exchange(
        seed=SEED,
        clock=FrozenClock(NOW_MS),
        as_recorded=False,
        first_symbol=None,
        script=script(*events),
    )
    try:
        desk = await exchange.desk(symbol)
    finally:
        exchange.close()
    assert desk is not None
    return _BUILT.setdefault(name, desk.market)


EVERYTHING = (
    fall(XRP),
    fall(XRP, "2026-03-04T14:10:00Z", change=0.1, over_s=300),
    {"type": "tick_size", "symbol": XRP, "at": "2026-03-04T16:00:00Z", "tick_size": "5"},
    {
        "type": "silence",
        "symbol": XRP,
        "from": "2026-03-04T12:30:00Z",
        "until": "2026-03-04T13:30Z",
    },
    {"type": "maintenance", "from": "2026-03-04T17:00:00Z", "until": "2026-03-04T21:00:00Z"},
    {"type": "tick_size", "symbol": XRP, "at": "2026-03-05T01:00:00Z", "tick_size": "0.5"},
    fall(XRP, "2026-03-05T23:59:50Z", change=-0.03),
)


async def test_the_price_falls_as_far_and_as_fast_as_the_script_says() -> None:
    usual = unscripted(listings()[XRP])
    moved = await scripted(XRP, fall(XRP))
    before = usual.last_trade(usual.cut(AT_MS))
    assert before is not None
    wanted = before.price * -0.06
    ended = moved.last_trade(moved.cut(AT_MS + 40_001))
    assert ended is not None
    usual_then = usual.last_trade(usual.cut(ended.time_ms + 1))
    assert usual_then is not None
    assert ended.price - usual_then.price == pytest.approx(wanted, abs=1)
    half = moved.last_trade(moved.cut(AT_MS + 20_001))
    assert half is not None
    assert half.price / before.price == pytest.approx(0.97, abs=0.005)


async def test_before_a_move_nothing_is_changed_and_after_it_all_prices_are_as_far_away() -> None:
    usual, moved = unscripted(listings()[XRP]), await scripted(XRP, fall(XRP))
    assert trades_between(moved, AT_MS - DAY_MS, AT_MS) == trades_between(
        usual, AT_MS - DAY_MS, AT_MS
    )
    later = AT_MS + 30_000 + MINUTE_MS, AT_MS + DAY_MS
    pairs = list(zip(trades_between(moved, *later), trades_between(usual, *later), strict=True))
    assert len({one.price - other.price for one, other in pairs}) == 1
    assert all(one[3:] == other[3:] and one[:2] == other[:2] for one, other in pairs)


@pytest.mark.parametrize("symbol", [THIN, SATOSHI])
async def test_on_a_quiet_market_somebody_trades_each_second_of_a_move(symbol: str) -> None:
    moved = await scripted(symbol, fall(symbol, change=0.5))
    trades = trades_between(moved, AT_MS + SECOND_MS, AT_MS + 41 * SECOND_MS)
    assert {trade.time_ms // SECOND_MS for trade in trades} == {
        AT_MS // SECOND_MS + second for second in range(1, 41)
    }
    prices = [trade.price for trade in trades]
    assert prices[-1] > prices[0]
    assert all(price % moved.scale.grid == 0 for price in prices)


async def test_a_move_without_a_length_is_one_jump() -> None:
    moved = await scripted(XRP, fall(XRP, over_s=0))
    before, after = moved.last_trade(moved.cut(AT_MS)), moved.last_trade(moved.cut(AT_MS + 1))
    assert before is not None
    assert after is not None
    assert after.price / before.price == pytest.approx(0.94, abs=0.001)


@pytest.mark.parametrize("symbol", [XRP, THIN])
@pytest.mark.parametrize("at", ["2026-03-04T23:59:00", "2026-03-04T12:03:00"])
async def test_a_move_that_ends_with_a_minute_is_over_by_then(symbol: str, at: str) -> None:
    moved = await scripted(symbol, fall(symbol, at, over_s=60))
    usual = unscripted(listings()[symbol])
    end_ms = ms(at) + MINUTE_MS
    last, usual_last = (of.last_trade(of.cut(end_ms)) for of in (moved, usual))
    assert last is not None
    assert usual_last is not None
    assert last.time_ms == end_ms - 1
    later = moved.next_trades(end_ms - 1)[0]
    usual_later = usual.next_trades(end_ms - 1)[0]
    assert later.sequential_id == usual_later.sequential_id
    assert last.price - usual_last.price == later.price - usual_later.price
    # What is done before an instant, and what from it on, are told apart there too.
    page = candles(moved, 1, start_before_ms=end_ms, now_ms=end_ms + MINUTE_MS, count=1)
    assert page == [candle_of(ms(at), trades_between(moved, ms(at), end_ms))]
    assert moved.last_trade(moved.cut(end_ms)) == last


@pytest.mark.parametrize(
    ("symbol", "events"),
    [
        # A tick of ten thousandths of a won: prices of nine digits.
        (XRP, [{"type": "tick_size", "at": "2026-03-04T11:30:00Z", "tick_size": "0.00001"}]),
        # 3e19 hundred-millionths change hands in an hour.
        (
            "KRW-BTT",
            [{"type": "move", "at": "2026-03-04T11:30:00Z", "over_s": 3600, "change": 0.1}],
        ),
    ],
)
async def test_sums_stay_exact_however_many_digits_they_have(
    symbol: str, events: list[dict[str, object]]
) -> None:
    happening = [{**event, "symbol": symbol} for event in events]
    of = await scripted(symbol, *happening, fall(symbol, "2026-03-04T13:00:00Z"))
    start_ms, now_ms = ms("2026-03-04T11:00:00"), ms("2026-03-04T13:59:59")
    trades = trades_between(of, start_ms, now_ms + 1)
    for unit in (1, 60):
        expected = candles_by_trades(trades, unit * MINUTE_MS)
        page = candles(of, unit, start_before_ms=now_ms, now_ms=now_ms, count=len(expected))
        assert page == expected


def candles_by_trades(trades: list[Trade], span_ms: int) -> list[Candle]:
    buckets: dict[int, list[Trade]] = {}
    for trade in trades:
        buckets.setdefault(trade.time_ms // span_ms * span_ms, []).append(trade)
    return [candle_of(start, inside) for start, inside in sorted(buckets.items(), reverse=True)]


async def test_candles_of_a_scripted_market_are_what_its_trades_add_up_to() -> None:
    of = await scripted(XRP, *EVERYTHING)
    start_ms, now_ms = ms("2026-03-04"), ms("2026-03-06T00:03:17")
    trades = trades_between(of, start_ms, now_ms + 1)
    assert [trade.sequential_id for trade in trades] == sorted(
        {trade.sequential_id for trade in trades}
    )
    for unit in (*MINUTE_UNITS, DAY_UNIT):
        expected = candles_by_trades(trades, unit * MINUTE_MS)
        page = candles(of, unit, start_before_ms=now_ms + 1, now_ms=now_ms, count=len(expected))
        assert page == expected
    expected = candles_by_trades(trades[-400:], SECOND_MS)[:-1]
    page = second_candles(of, start_before_ms=now_ms + 1, now_ms=now_ms, count=len(expected))
    assert page == expected


async def test_weeks_and_months_of_a_scripted_market_are_what_its_days_add_up_to() -> None:
    of = await scripted(XRP, *EVERYTHING)
    now_ms = ms("2026-03-18T12:00:00")
    days = candles(of, DAY_UNIT, start_before_ms=now_ms, now_ms=now_ms, count=60)
    for period, start in (("week", "2026-03-02"), ("month", "2026-03-01")):
        inside = [day for day in days if ms(start) <= day.start_ms < ms("2026-03-09")]
        if period == "month":
            inside = [day for day in days if day.start_ms >= ms(start)]
        page = period_candles(of, period, start_before_ms=now_ms, now_ms=now_ms, count=9)  # type: ignore[arg-type]
        found = next(row for row in page if row.start_ms == ms(start))
        assert found.volume == sum(day.volume for day in inside)
        assert found.value == sum(day.value for day in inside)
        assert (found.open, found.close) == (inside[-1].open, inside[0].close)
        assert found.high == max(day.high for day in inside)
        assert found.low == min(day.low for day in inside)


@pytest.mark.parametrize(
    "at",
    ["2026-03-04T12:01:00", "2026-03-04T13:00:00", "2026-03-04T22:00:05", "2026-03-06T00:00:30"],
)
async def test_a_ticker_of_a_scripted_market_agrees_with_its_trades(at: str) -> None:
    of = await scripted(XRP, *EVERYTHING)
    now_ms = ms(at)
    shown = Tickers(of).at(now_ms)
    assert shown is not None
    last_day = trades_between(of, now_ms + 1 - DAY_MS, now_ms + 1)
    today = [trade for trade in last_day if trade.time_ms >= now_ms // DAY_MS * DAY_MS]
    assert shown.last == last_day[-1]
    assert shown.high == max(trade.price for trade in today)
    assert shown.low == min(trade.price for trade in today)
    assert shown.volume_today == sum(trade.volume for trade in today)
    assert shown.value_24h == sum(trade.price * trade.volume for trade in last_day)
    assert shown.sold_today == sum(trade.volume for trade in today if not trade.taker_buys)


@settings(max_examples=30)
@given(data=st.data())
async def test_the_last_trade_is_found_with_or_without_its_sums(data: st.DataObject) -> None:
    of = await scripted(XRP, *EVERYTHING)
    edges = [regime.from_ms for regime in of.regimes[1:]]
    near = st.builds(int.__add__, st.sampled_from(edges), st.integers(-2, 2))
    anywhere = st.integers(of.listing.listed_ms - DAY_MS, ms("2026-03-07"))
    instant_ms = data.draw(near | anywhere)
    newest = of.trades_back(from_ms=0, before_ms=instant_ms, before_id=None, count=1)
    assert of.last_trade_before(instant_ms) == (newest[0] if newest else None)
    assert of.last_trade(of.cut(instant_ms)) == (newest[0] if newest else None)


@settings(max_examples=30)
@given(data=st.data())
async def test_pages_of_a_scripted_market_join(data: st.DataObject) -> None:
    of = await scripted(XRP, *EVERYTHING)
    before_ms = data.draw(st.integers(ms("2026-03-04T11:00:00"), ms("2026-03-06T02:00:00")))
    unit = data.draw(st.sampled_from([*MINUTE_UNITS, DAY_UNIT]))
    count = data.draw(st.integers(1, 200))
    now_ms = ms("2026-03-06T02:00:00")
    whole = candles(of, unit, start_before_ms=before_ms, now_ms=now_ms, count=2 * count)
    first = candles(of, unit, start_before_ms=before_ms, now_ms=now_ms, count=count)
    second = candles(of, unit, start_before_ms=first[-1].start_ms, now_ms=now_ms, count=count)
    assert first + second == whole


async def test_in_a_silence_nobody_trades_and_the_last_price_stands() -> None:
    of = await scripted(XRP, *EVERYTHING)
    start_ms, end_ms = ms("2026-03-04T12:30:00"), ms("2026-03-04T13:30:00")
    assert trades_between(of, start_ms, end_ms) == []
    before, within = of.last_trade(of.cut(start_ms)), of.last_trade(of.cut(start_ms + HOUR_MS // 2))
    assert before == within
    assert of.next_trades(start_ms)[0].time_ms >= end_ms
    page = candles(of, 1, start_before_ms=end_ms, now_ms=end_ms, count=1)
    assert page[0].start_ms == start_ms - MINUTE_MS


async def test_a_maintenance_is_a_hole_on_every_market() -> None:
    closed = {"type": "maintenance", "from": "+3600", "until": "2026-03-04T16:00:00Z"}
    start_ms, end_ms = NOW_MS + HOUR_MS, ms("2026-03-04T16:00:00")
    for symbol in (*RECORDED, THIN):
        of = await scripted(symbol, closed)
        assert trades_between(of, start_ms, end_ms) == []
        assert trades_between(of, start_ms - HOUR_MS, start_ms)
        assert trades_between(of, end_ms, end_ms + 4 * HOUR_MS)
    assert [script(closed).in_maintenance(at) for at in (start_ms - 1, start_ms, end_ms - 1)] == [
        False,
        True,
        True,
    ]
    assert not script(closed).in_maintenance(end_ms)


async def test_after_a_tick_size_change_all_prices_are_multiples_of_the_new_tick() -> None:
    of = await scripted(XRP, *EVERYTHING)
    coarse = trades_between(of, ms("2026-03-04T16:00:00"), ms("2026-03-05T01:00:00"))
    fine = trades_between(of, ms("2026-03-05T01:00:00"), ms("2026-03-05T23:59:00"))
    unit = of.scale.unit
    assert all((trade.price * unit) % 5 == 0 for trade in coarse)
    assert all((trade.price * unit * 2).denominator == 1 for trade in fine)
    assert any((trade.price * unit) % 5 for trade in fine)
    assert of.grid_at(ms("2026-03-04T16:00:00")) * unit == 5
    assert of.grid_at(ms("2026-03-05T02:00:00")) * unit == 0.5
    assert of.grid_at(NOW_MS) * unit == 1
    # It goes on where it was: no jump but the rounding.
    jump = abs(coarse[0].price - trades_between(of, AT_MS, ms("2026-03-04T16:00:00"))[-1].price)
    assert jump * unit < 30


async def test_preparing_scripted_markets_changes_no_answer() -> None:
    alone = await scripted(XRP, *EVERYTHING)
    prepared = Market(alone.listing, alone.regimes)
    instant_ms = ms("2026-03-04T15:00:00")
    for regime in alone.regimes:
        regime._minutes.clear()
    expected = Tickers(alone).at(instant_ms)
    for regime in alone.regimes:
        regime._minutes.clear()
    prepare([prepared], (instant_ms, instant_ms - DAY_MS))
    assert Tickers(prepared).at(instant_ms) == expected


def test_a_new_code_is_listed_and_a_known_one_later() -> None:
    changed = scripted_listings(
        list(listings().values()),
        script(
            {"type": "listing", "symbol": "KRW-NEW", "at": "2026-03-04T12:00Z", "price": 1500.0},
            {"type": "listing", "symbol": THIN, "at": "2026-03-04T13:00Z"},
        ),
    )
    by_symbol = {listing.symbol: listing for listing in changed}
    noon_ms = ms("2026-03-04T12:00:00")
    new = by_symbol["KRW-NEW"]
    assert [new.is_listed(noon_ms - 1), new.is_listed(noon_ms)] == [False, True]
    first = trades_between(unscripted(new), noon_ms, noon_ms + DAY_MS)[0]
    assert 1_000 < first.price * new.scale.unit < 2_000
    assert by_symbol[THIN].listed_ms == noon_ms + HOUR_MS
    assert [one.symbol for one in changed][: len(listings())] == list(listings())


async def test_a_delisting_is_announced_and_ends_everything() -> None:
    event = {"type": "delisting", "symbol": THIN, "at": "2026-03-04T12:00Z"}
    of = await scripted(THIN, event)
    at_ms = ms("2026-03-04T12:00:00")
    listing = of.listing
    assert [listing.is_known(at_ms - 1), listing.is_known(at_ms)] == [True, False]
    assert listing.announced_delisting_ms(at_ms - 15 * DAY_MS) is None
    assert listing.announced_delisting_ms(at_ms - 13 * DAY_MS) == at_ms
    assert listing.state(at_ms) == "DELISTED"
    assert trades_between(of, at_ms, at_ms + DAY_MS) == []
    assert of.next_trades(at_ms) == []


async def test_what_happens_after_a_delisting_does_not_bring_a_market_back() -> None:
    delisting = {"type": "delisting", "symbol": THIN, "at": "2026-03-04T12:00Z"}
    silence = {"type": "silence", "symbol": THIN, "from": "2026-03-05T12:00Z", "until": "+200040"}
    of = await scripted(THIN, delisting, silence)
    assert of.next_trades(ms("2026-03-04T12:00:00") - 1) == []


def test_warnings_and_cautions_are_switched_on_and_off() -> None:
    hour = "2026-03-04T{}:00:00Z".format
    changed = scripted_listings(
        list(listings().values()),
        script(
            {"type": "designation", "symbol": THIN, "at": hour(12)},
            {"type": "designation", "symbol": THIN, "at": hour(13), "on": False},
            {
                "type": "designation",
                "symbol": THIN,
                "at": hour(14),
                "name": "TRADING_VOLUME_SOARING",
            },
        ),
    )
    listing = next(one for one in changed if one.symbol == THIN)
    before = listings()[THIN]
    at = [ms("2026-03-04T11:00:00") + hours * HOUR_MS for hours in range(5)]
    assert [listing.has_warning(one) for one in at] == [
        before.has_warning(at[0]),
        True,
        False,
        False,
        False,
    ]
    assert listing.cautions(at[2]) == before.cautions(at[2])
    assert listing.cautions(at[4]) == before.cautions(at[4]) | {"TRADING_VOLUME_SOARING"}


def test_without_a_script_flags_are_about_as_common_as_on_the_exchange() -> None:
    flagged = [one for one in listings().values() if one.cautions(NOW_MS)]
    warned = [one for one in listings().values() if one.has_warning(NOW_MS)]
    assert 0.15 < len(flagged) / len(listings()) < 0.4
    assert 0 < len(warned) / len(listings()) < 0.06


def test_times_are_read_as_absolute_of_today_or_from_now() -> None:
    def at(text: str) -> int:
        (event,) = script(fall(XRP, text)).events
        return round(event.at.timestamp() * 1_000)  # type: ignore[union-attr]

    assert at("2026-03-04T12:00:30") == AT_MS
    assert at("2026-03-04T21:00:30+09:00") == AT_MS
    assert at("12:00:30") == AT_MS
    assert at("10:00") == ms("2026-03-05T10:00:00")
    assert at("+90.5") == NOW_MS + 90_500


def test_equal_scripts_have_one_name_and_others_another() -> None:
    def name(*events: Happening) -> str:
        exchange = Exchange(
            seed=1,
            clock=FrozenClock(NOW_MS),
            as_recorded=False,
            first_symbol=None,
            script=script(*events),
        )
        exchange.close()
        return exchange.name

    assert name() == "simulator-1"
    one, other = fall(XRP), fall(DOGE)
    assert name(one, other) == name(other, one) != name(one)
    assert name(fall(XRP, "+3630")) == name(one)
    assert name(one).startswith("simulator-1-")


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        ([{"type": "mvoe"}], "Invalid value 'mvoe'"),
        ([fall("KRW-XRB")], "did you mean KRW-XRP"),
        ([fall(XRP, "noon")], r"events\[0\].at of the script was 'noon': expected a time such as"),
        ([fall(XRP, change=-1)], "Expected `float` > -1"),
        ([fall(XRP, over_s=4_000)], "Expected `float` <= 3600"),
        ([fall(XRP, speed=3)], "unknown field `speed`"),
        ([fall(XRP), fall(XRP, "2026-03-04T12:01:00Z")], "another event is under way"),
        ([fall(THIN, "2019-01-01")], "before the market is listed"),
        ([{"type": "silence", "symbol": XRP, "from": "+60", "until": "+30"}], "ends before it"),
        ([{"type": "maintenance", "from": "+30", "until": "+90"}], "give a whole minute"),
        ([{"type": "listing", "symbol": "KRW-NEW", "at": "+60"}], "without its price"),
        ([{"type": "tick_size", "symbol": XRP, "at": "+60", "tick_size": "x"}], "decimal number"),
        ([fall(XRP, change=-0.99)], "takes its lowest price to nothing"),
        ([fall(XRP, change=1.0)] * 1_001, "expected at most 1000"),
        ([{"type": "tick_size", "symbol": XRP, "at": "+60", "tick_size": "1/0"}], "decimal number"),
        ([{"type": "tick_size", "symbol": XRP, "at": "+60", "tick_size": "1/2"}], "decimal number"),
        (
            [{"type": "tick_size", "symbol": XRP, "at": "+60", "tick_size": "0.00000001"}],
            "give a larger tick_size",
        ),
        (
            [{"type": "tick_size", "symbol": XRP, "at": "+60", "tick_size": "10000"}],
            "give a smaller tick_size",
        ),
        (
            # It costs 8 to 11 won: nothing could be bid below its only price.
            [{"type": "tick_size", "symbol": THIN, "at": "+60", "tick_size": "8"}],
            "give a smaller tick_size",
        ),
        ([fall(XRP, "9999-12-31T23:59:59-09:00")], "expected a time such as"),
        ([fall(XRP, "0001-01-01T00:00:00+09:00")], "expected a time such as"),
        (
            [{"type": "listing", "symbol": "ETH-NEW", "at": "+60", "price": 1}],
            "has the quote asset ETH: expected one of KRW, BTC, USDT",
        ),
        (
            [{"type": "listing", "symbol": "KRW-NEW", "at": "+60", "price": 1e300}],
            "give one of at most 1000000000000 KRW",
        ),
        (
            [
                {"type": "delisting", "symbol": XRP, "at": "+60"},
                {"type": "listing", "symbol": XRP, "at": "+120"},
            ],
            "closes the market before it is listed",
        ),
    ],
)
async def test_a_script_that_cannot_happen_is_refused_in_one_sentence(
    events: list[Happening], sentence: str
) -> None:
    with pytest.raises(InvalidRequestError, match=sentence) as caught:
        await check(events)
    assert "\n" not in str(caught.value)


async def check(events: list[Happening]) -> None:
    """What a starting simulator does with a script."""
    exchange = Exchange(
        seed=1,
        clock=FrozenClock(NOW_MS),
        as_recorded=False,
        first_symbol=None,
        script=script(*events),
    )
    try:
        await exchange.check_script()
    finally:
        exchange.close()


def test_times_of_events_made_in_python_need_a_zone() -> None:
    with pytest.raises(InvalidRequestError, match="2026-03-04T12:00:00 without a zone"):
        Move(symbol=XRP, at=datetime(2026, 3, 4, 12), change=0.1)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"events": 3}', "null", '{"events": [7]}'])
def test_what_is_no_script_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="script"):
        read_script(text, NOW_MS)
