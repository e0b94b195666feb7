"""Tickers over REST: fields, lists, whole quotes."""

import asyncio
import json
from datetime import UTC, datetime

import aiohttp

from tests.eventually import eventually
from tests.manual_clock import ManualClock
from tests.simulator.rest_errors import MISSING, NOT_FOUND
from tests.simulator.worlds import Caller, listings, market, ms
from upbit_backbone.clock import DAY_MS
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.script import read_script
from upbit_backbone.simulator.settings import SimulatorSettings
from upbit_backbone.simulator.tickers import Tickers


async def test_a_ticker_says_what_the_candles_and_trades_say(
    caller: Caller, clock: ManualClock
) -> None:
    clock.advance(60_025.5)  # 16:40 UTC, the next day in Korea
    tickers = await caller.rows("/ticker", markets="KRW-BTC,BTC-ETH")
    assert [ticker["market"] for ticker in tickers] == ["KRW-BTC", "BTC-ETH"]
    ticker = tickers[0]
    day = (await caller.rows("/candles/days", market="KRW-BTC"))[0]
    trade = (await caller.rows("/trades/ticks", market="KRW-BTC"))[0]
    for name in ("opening_price", "high_price", "low_price", "trade_price", "prev_closing_price"):
        assert ticker[name] == day[name]
    assert ticker["acc_trade_volume"] == day["candle_acc_trade_volume"]
    assert ticker["acc_trade_price"] == day["candle_acc_trade_price"]
    assert ticker["trade_timestamp"] == trade["timestamp"] == day["timestamp"]
    assert ticker["trade_volume"] == trade["trade_volume"]
    assert ticker["signed_change_price"] == day["change_price"]
    assert ticker["change_price"] == abs(day["change_price"])
    assert ticker["signed_change_rate"] == day["change_rate"]
    assert ticker["change_rate"] == abs(day["change_rate"])
    assert ticker["change"] == ("RISE" if day["change_price"] > 0 else "FALL")
    assert ticker["timestamp"] == min(trade["timestamp"] + 38, clock.now_ms())
    stamp = datetime.fromtimestamp(trade["timestamp"] / 1_000, UTC)
    assert ticker["trade_date"] + ticker["trade_time"] == stamp.strftime("%Y%m%d%H%M%S")
    korean = datetime.fromtimestamp(trade["timestamp"] / 1_000 + 9 * 3_600, UTC)
    assert ticker["trade_date_kst"] + ticker["trade_time_kst"] == korean.strftime("%Y%m%d%H%M%S")


async def test_a_ticker_sums_24_hours_and_looks_back_52_weeks(
    caller: Caller, clock: ManualClock
) -> None:
    clock.set_wall(ms("2026-03-04T05:06:00"))
    ticker = (await caller.rows("/ticker", markets="KRW-ETH"))[0]
    minutes = []
    for to in ("2026-03-04T05:06:00", "2026-03-03T17:06:00"):
        page = await caller.rows("/candles/minutes/5", market="KRW-ETH", to=to, count=144)
        minutes += page
        clock.set_wall(ms("2026-03-04T05:06:00"))
    hours = await caller.rows("/candles/minutes/60", market="KRW-ETH", count=25)
    assert ticker["acc_trade_volume_24h"] > ticker["acc_trade_volume"]
    # From 05:06 on: the hours after it, and the rest of its own.
    whole = [row for row in hours if row["candle_date_time_utc"] >= "2026-03-03T06:00:00"]
    rest = await caller.rows(
        "/candles/minutes/1", market="KRW-ETH", to="2026-03-03T06:00:00", count=54
    )
    rest = [row for row in rest if row["candle_date_time_utc"] >= "2026-03-03T05:06:00"]
    volume = sum(row["candle_acc_trade_volume"] for row in (*whole, *rest))
    assert abs(ticker["acc_trade_volume_24h"] - volume) < 1e-6 * volume
    days = await caller.rows("/candles/days", market="KRW-ETH", count=200)
    assert ticker["highest_52_week_price"] >= max(day["high_price"] for day in days)
    assert ticker["lowest_52_week_price"] <= min(day["low_price"] for day in days)
    highest = next(
        day
        for day in days
        if day["candle_date_time_utc"].startswith(ticker["highest_52_week_date"])
    )
    assert highest["high_price"] == ticker["highest_52_week_price"]


async def test_a_market_without_a_trade_today_keeps_its_older_date(
    caller: Caller, clock: ManualClock
) -> None:
    clock.advance(1)
    ticker = (await caller.rows("/ticker", markets="BTC-SC"))[0]
    assert ticker["trade_date"] < "20250915"
    assert ticker["acc_trade_volume"] == 0
    assert ticker["change"] == "EVEN"
    assert ticker["opening_price"] == ticker["trade_price"] == ticker["prev_closing_price"]


async def test_a_ticker_is_made_some_tens_of_milliseconds_after_its_trade(
    caller: Caller, clock: ManualClock
) -> None:
    clock.advance(0.5)
    idle = (await caller.rows("/ticker", markets="BTC-SC"))[0]
    assert idle["timestamp"] - idle["trade_timestamp"] == 38
    clock.set_wall(idle["trade_timestamp"] + 5)
    assert (await caller.rows("/ticker", markets="BTC-SC"))[0]["timestamp"] == clock.now_ms()


async def test_one_bad_code_fails_the_whole_list(caller: Caller) -> None:
    assert (await caller.get("/ticker", markets="KRW-ETH,KRW-NOPE")).error == NOT_FOUND
    assert (await caller.get("/ticker", markets="KRW-NOPE,KRW-NIX")).error == NOT_FOUND
    assert (await caller.get("/ticker", markets="KRW-ETH,")).error == NOT_FOUND
    assert (await caller.get("/ticker")).error == MISSING


async def test_a_list_is_answered_in_its_own_order_each_code_once(caller: Caller) -> None:
    rows = await caller.rows("/ticker", markets="krw-xrp,KRW-BTC,KRW-XRP")
    assert [row["market"] for row in rows] == ["KRW-XRP", "KRW-BTC"]


async def test_all_tickers_of_a_quote_come_in_one_answer(
    caller: Caller, clock: ManualClock
) -> None:
    clock.set_wall(ms("2026-09-01T12:00:00"))
    tickers = await caller.rows("/ticker/all", quote_currencies="KRW,usdt")
    listed = [symbol for symbol in listings() if not symbol.startswith("BTC-")]
    assert [ticker["market"] for ticker in tickers] == listed
    assert len(listed) >= 289 + 16
    now_ms = clock.now_ms()
    by_market = {ticker["market"]: ticker for ticker in tickers}
    for symbol in ("KRW-XRP", "KRW-SIM003", "USDT-BTC"):
        expected = Tickers(market(symbol)).at(now_ms)
        assert expected is not None
        assert by_market[symbol]["trade_timestamp"] == expected.last.time_ms
        assert by_market[symbol]["acc_trade_volume_24h"] == expected.volume_24h / 1e8


async def test_a_delisting_while_all_tickers_are_collected_does_not_cost_the_others(
    clock: ManualClock,
) -> None:
    delisted = [symbol for symbol in listings() if symbol.startswith("KRW-")][200]
    event = {"type": "delisting", "symbol": delisted, "at": "2025-09-15T00:01:00Z"}
    script = read_script(json.dumps({"events": [event]}), clock.now_ms())
    async with (
        Simulator(clock=clock, script=script) as simulator,
        aiohttp.ClientSession() as session,
    ):
        caller = Caller(simulator, session)
        asked = asyncio.create_task(caller.rows("/ticker/all", quote_currencies="KRW"))
        await eventually(lambda: simulator._exchange._tables)
        clock.advance(120)
        assert len(await asked) > 200


async def test_a_quote_nobody_knows_is_not_found(caller: Caller, clock: ManualClock) -> None:
    assert (await caller.get("/ticker/all")).error == MISSING
    assert (await caller.get("/ticker/all", quote_currencies="EUR")).error == NOT_FOUND
    assert (await caller.get("/ticker/all", quote_currencies="USDT,EUR")).error == NOT_FOUND
    settings = SimulatorSettings(ticker_all_unknown_quote="empty")
    async with (
        Simulator(clock=clock, settings=settings) as simulator,
        aiohttp.ClientSession() as session,
    ):
        other = Caller(simulator, session)
        assert await other.rows("/ticker/all", quote_currencies="EUR") == []
        rows = await other.rows("/ticker/all", quote_currencies="USDT,EUR")
        assert {row["market"].partition("-")[0] for row in rows} == {"USDT"}


async def test_a_market_listed_but_not_traded_yet_has_no_ticker(
    caller: Caller, clock: ManualClock
) -> None:
    symbol = "KRW-SIM110"
    clock.set_wall(listings()[symbol].listed_ms)
    assert await caller.rows("/ticker", markets=symbol) == []
    rows = await caller.rows("/ticker", markets=f"KRW-BTC,{symbol}")
    assert [row["market"] for row in rows] == ["KRW-BTC"]
    clock.set_wall(listings()[symbol].listed_ms + DAY_MS)
    assert len(await caller.rows("/ticker", markets=symbol)) == 1
