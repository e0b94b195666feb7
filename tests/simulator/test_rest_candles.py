"""Candles over REST: pages, bounds, fields of each unit."""

import json
from datetime import date, datetime, timedelta
from itertools import pairwise

import aiohttp
import pytest
from yarl import URL

from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.simulator.rest_errors import INVALID, MISMATCH, MISSING, NOT_FOUND
from tests.simulator.worlds import Caller, listings, ms
from upbit_backbone.clock import DAY_MS
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.settings import SimulatorSettings

MINUTES = "/candles/minutes/1"
UNITS = (1, 3, 5, 10, 15, 30, 60, 240)
PATHS = (
    "/candles/seconds",
    *(f"/candles/minutes/{unit}" for unit in UNITS),
    "/candles/days",
    "/candles/weeks",
    "/candles/months",
    "/candles/years",
)
COMMON = {
    "market",
    "candle_date_time_utc",
    "candle_date_time_kst",
    "opening_price",
    "high_price",
    "low_price",
    "trade_price",
    "timestamp",
    "candle_acc_trade_price",
    "candle_acc_trade_volume",
}


async def starts(caller: Caller, path: str = MINUTES, **query: str | int) -> list[str]:
    return [row["candle_date_time_utc"] for row in await caller.rows(path, **query)]


async def test_a_row_has_the_fields_of_its_unit(caller: Caller, clock: ManualClock) -> None:
    for path in PATHS:
        clock.advance(1)
        clock.set_wall(ms("2026-03-04T05:06:30"))
        extra = {
            "/candles/seconds": set[str](),
            "/candles/days": {"prev_closing_price", "change_price", "change_rate"},
        }
        rows = await caller.rows(path, market="KRW-BTC", count=3)
        for row in rows:
            unit = {"unit"} if "minutes" in path else {"first_day_of_period"}
            assert set(row) == COMMON | extra.get(path, unit)
            start = datetime.fromisoformat(row["candle_date_time_utc"])
            korean = datetime.fromisoformat(row["candle_date_time_kst"])
            assert korean - start == timedelta(hours=9)
            assert row["low_price"] <= min(row["opening_price"], row["trade_price"])
            assert row["high_price"] >= max(row["opening_price"], row["trade_price"])
            assert row["candle_acc_trade_volume"] > 0
        if "minutes" in path:
            assert {row["unit"] for row in rows} == {int(path.rpartition("/")[2])}


async def test_a_unit_starts_on_its_own_grid_newest_first(
    caller: Caller, clock: ManualClock
) -> None:
    for path in PATHS:
        clock.advance(1)
        clock.set_wall(ms("2026-03-04T05:06:30"))
        page = await starts(caller, path, market="KRW-ETH", count=200)
        assert page == sorted(set(page), reverse=True)
        for text in page:
            start = datetime.fromisoformat(text)
            minute = start.hour * 60 + start.minute
            if "seconds" in path:
                assert start.microsecond == 0
                continue
            assert start.second == 0
            if "minutes" in path:
                assert minute % int(path.rpartition("/")[2]) == 0
                continue
            assert minute == 0
            assert start.weekday() == 0 or "weeks" not in path
            assert start.day == 1 or path not in ("/candles/months", "/candles/years")
            assert start.month == 1 or "years" not in path


async def test_a_period_says_its_first_day(caller: Caller, clock: ManualClock) -> None:
    for path in ("/candles/weeks", "/candles/months", "/candles/years"):
        clock.advance(1)
        for row in await caller.rows(path, market="KRW-BTC", count=5):
            first = row["first_day_of_period"]
            assert date.fromisoformat(first) <= date(2025, 9, 15)
            assert row["candle_date_time_utc"] == f"{first}T00:00:00"


async def test_a_period_adds_up_to_its_days(caller: Caller, clock: ManualClock) -> None:
    for path in ("/candles/weeks", "/candles/months"):
        clock.advance(1)
        clock.set_wall(ms("2026-03-04T05:06:30"))
        days = await caller.rows("/candles/days", market="KRW-ETH", count=60)
        row = (await caller.rows(path, market="KRW-ETH", count=2))[1]
        following = (await caller.rows(path, market="KRW-ETH", count=1))[0]
        inside = [
            day
            for day in days
            if row["candle_date_time_utc"]
            <= day["candle_date_time_utc"]
            < following["candle_date_time_utc"]
        ]
        assert len(inside) >= 7
        assert row["opening_price"] == inside[-1]["opening_price"]
        assert row["trade_price"] == inside[0]["trade_price"]
        assert row["high_price"] == max(day["high_price"] for day in inside)
        assert row["low_price"] == min(day["low_price"] for day in inside)
        assert row["timestamp"] == inside[0]["timestamp"]
        for name in ("candle_acc_trade_volume", "candle_acc_trade_price"):
            assert row[name] == pytest.approx(sum(day[name] for day in inside), rel=1e-12)


async def test_pages_follow_each_other_by_the_oldest_start(
    caller: Caller, clock: ManualClock
) -> None:
    for path in PATHS:
        clock.advance(1)
        clock.set_wall(ms("2026-03-04T05:06:30"))
        first = await starts(caller, path, market="KRW-DOGE", count=4)
        second = await starts(caller, path, market="KRW-DOGE", count=7, to=first[-1])
        assert first + second == await starts(caller, path, market="KRW-DOGE", count=11)


async def test_to_is_exclusive_in_every_accepted_form(caller: Caller) -> None:
    for form in (
        "2025-09-14T11:00:00Z",
        "2025-09-14T11:00:00",
        "2025-09-14 11:00:00",
        "2025-09-14T20:00:00+09:00",
    ):
        page = await starts(caller, market="KRW-BTC", count=2, to=form)
        assert page == ["2025-09-14T10:59:00", "2025-09-14T10:58:00"], form


async def test_to_is_compared_with_the_start_of_a_candle(caller: Caller) -> None:
    async def newest(to: str) -> str:
        return (await starts(caller, "/candles/minutes/60", market="KRW-BTC", to=to))[0]

    assert await newest("2025-09-14T00:00:00") == "2025-09-13T23:00:00"
    assert await newest("2025-09-14T00:00:01") == "2025-09-14T00:00:00"
    assert await newest("") == "2025-09-14T23:00:00"
    assert await newest("2031-01-01T00:00:00") == "2025-09-14T23:00:00"


async def test_an_unreadable_to_is_refused(caller: Caller) -> None:
    for to in (
        "soon",
        "2025-09-14",
        "2025-13-14T00:00:00",
        "1757894400000",
        "2025-09-14T00:00",
        "٢٠٢٥-09-14T00:00:00",
    ):
        assert (await caller.get(MINUTES, market="KRW-ETH", to=to)).error == INVALID, to


async def test_a_plus_left_unencoded_is_refused(simulator: Simulator) -> None:
    query = "market=KRW-BTC&to=2025-09-14T20:00:00+09:00"
    url = URL(f"{simulator.rest_url}{MINUTES}?{query}", encoded=True)
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 400
        assert (await response.json())["error"]["message"] == INVALID[2]


async def test_the_candle_in_progress_is_the_first_row_once_somebody_traded(
    caller: Caller, clock: ManualClock
) -> None:
    assert (await starts(caller, market="KRW-BTC"))[0] == "2025-09-14T23:59:00"
    clock.advance(30)
    row = (await caller.rows(MINUTES, market="KRW-BTC"))[0]
    assert row["candle_date_time_utc"] == "2025-09-15T00:00:00"
    assert row["candle_date_time_kst"] == "2025-09-15T09:00:00"
    assert AUTUMN_2025_MS <= row["timestamp"] <= clock.now_ms()
    clock.advance(29)
    grown = (await caller.rows(MINUTES, market="KRW-BTC"))[0]
    assert grown["candle_acc_trade_volume"] > row["candle_acc_trade_volume"]
    assert grown["opening_price"] == row["opening_price"]


async def test_at_most_200_rows_are_served_without_complaint(
    caller: Caller, clock: ManualClock
) -> None:
    for path in ("/candles/seconds", MINUTES, "/candles/days"):
        clock.advance(1)
        exactly = await starts(caller, path, market="KRW-ETH", count=200)
        assert len(exactly) == 200
        for count in (201, 500, 1_000):
            assert await starts(caller, path, market="KRW-ETH", count=count) == exactly
        assert await starts(caller, path, market="KRW-ETH") == exactly[:1]


async def test_buckets_without_a_trade_are_left_out(caller: Caller) -> None:
    page = await starts(caller, "/candles/minutes/15", market="BTC-SC", count=200)
    times = [datetime.fromisoformat(text) for text in page]
    assert len(times) == 200
    assert times[0] - times[-1] > timedelta(minutes=15 * 220)
    assert all(newer > older for newer, older in pairwise(times))


async def test_before_the_first_candle_there_is_nothing(caller: Caller, clock: ManualClock) -> None:
    for path in PATHS:
        clock.advance(1)
        assert await caller.rows(path, market="KRW-BTC", to="2017-01-01T00:00:00") == []


async def test_a_younger_market_has_fewer_rows_than_asked_for(
    caller: Caller, clock: ManualClock
) -> None:
    symbol = "KRW-SIM110"
    clock.set_wall(listings()[symbol].listed_ms + 3 * DAY_MS)
    assert 3 <= len(await caller.rows("/candles/days", market=symbol, count=200)) <= 4


async def test_seconds_are_kept_for_three_months(caller: Caller) -> None:
    recent = await caller.rows("/candles/seconds", market="KRW-BTC", to="2025-06-25T00:00:00Z")
    assert recent[0]["candle_date_time_utc"].startswith("2025-06-24T")
    assert await caller.rows("/candles/seconds", market="KRW-BTC", to="2025-06-01T00:00:00") == []
    assert await caller.rows(MINUTES, market="KRW-BTC", to="2025-06-01T00:00:00")


async def test_a_second_is_made_of_its_trades(caller: Caller, clock: ManualClock) -> None:
    clock.advance(600)
    trades = await caller.rows("/trades/ticks", market="KRW-BTC", count=200)
    for row in await caller.rows("/candles/seconds", market="KRW-BTC", count=10):
        second = row["candle_date_time_utc"].partition("T")[2]
        inside = [trade for trade in trades if trade["trade_time_utc"] == second]
        prices = [trade["trade_price"] for trade in inside]
        assert row["opening_price"] == prices[-1]
        assert row["trade_price"] == prices[0]
        assert (row["low_price"], row["high_price"]) == (min(prices), max(prices))
        assert row["timestamp"] == inside[0]["timestamp"]
        volume = sum(trade["trade_volume"] for trade in inside)
        assert row["candle_acc_trade_volume"] == pytest.approx(volume, rel=1e-12)


async def test_a_day_is_compared_with_the_close_before_it(caller: Caller) -> None:
    days = await caller.rows("/candles/days", market="KRW-ETH", count=10)
    for day, before in pairwise(days):
        assert day["prev_closing_price"] == before["trade_price"]
        assert day["change_price"] == day["trade_price"] - before["trade_price"]
        assert day["change_rate"] == round(day["change_price"] / before["trade_price"], 10)
    assert min(day["change_price"] for day in days) < 0 < max(day["change_price"] for day in days)
    # The oldest row of a page too, whose day before is not in it.
    assert (await caller.rows("/candles/days", market="KRW-ETH", count=1))[0] == days[0]


async def test_the_first_day_is_compared_with_its_own_open(
    caller: Caller, clock: ManualClock
) -> None:
    symbol = "KRW-SIM110"
    clock.set_wall(listings()[symbol].listed_ms + 3 * DAY_MS)
    first = (await caller.rows("/candles/days", market=symbol, count=200))[-1]
    assert first["prev_closing_price"] == first["opening_price"]


async def test_closes_are_converted_to_won_on_request(caller: Caller) -> None:
    levels = {"KRW-BTC": (1.4e8, 1.8e8), "BTC-ETH": (4e6, 8e6), "USDT-BTC": (1.4e8, 1.8e8)}
    for symbol, (low, high) in levels.items():
        days = await caller.rows("/candles/days", market=symbol, converting_price_unit="KRW")
        assert low < days[0]["converted_trade_price"] < high
        assert "converted_trade_price" not in (await caller.rows("/candles/days", market=symbol))[0]
    old = await caller.rows("/candles/days", market="BTC-ETH", convertingPriceUnit="KRW")
    assert "converted_trade_price" in old[0]


async def test_a_won_market_is_converted_to_its_own_close(caller: Caller) -> None:
    days = await caller.rows("/candles/days", market="KRW-ETH", converting_price_unit="KRW")
    assert days[0]["converted_trade_price"] == days[0]["trade_price"]


async def test_wrong_parameters_of_candles_are_refused(caller: Caller, clock: ManualClock) -> None:
    for path in PATHS:
        clock.advance(1)
        assert (await caller.get(path)).error == MISSING
        assert (await caller.get(path, market="")).error == MISSING
        assert (await caller.get(path, market="KRW-NOPE")).error == NOT_FOUND
        assert (await caller.get(path, market="KRW-ETH,KRW-XRP")).error == NOT_FOUND
        assert (await caller.get(path, market="KRW-ETH", count="abc")).error == MISMATCH
        assert (await caller.get(path, market="KRW-ETH", count=0)).error == INVALID
        assert (await caller.get(path, market="KRW-ETH", to="x")).error == INVALID


async def test_only_eight_minute_units_are_offered(caller: Caller, clock: ManualClock) -> None:
    for unit in (2, 7, 120, 480, 0, -1):
        answer = await caller.get(f"/candles/minutes/{unit}", market="KRW-ETH")
        assert answer.error == (400, 400, "specified unit is not valid."), unit
        clock.advance(1)
    assert (await caller.get("/candles/minutes/x", market="KRW-ETH")).error == MISMATCH


async def test_the_last_trade_of_a_candle_can_be_stored_late(clock: ManualClock) -> None:
    async def minute(late: bool) -> list[dict[str, object]]:
        settings = SimulatorSettings(late_last_trade=late)
        async with (
            Simulator(clock=clock, settings=settings) as simulator,
            aiohttp.ClientSession() as session,
        ):
            return await Caller(simulator, session).rows(MINUTES, market="KRW-BTC", count=2)

    clock.set_wall(AUTUMN_2025_MS + 60_001)
    punctual = (await minute(late=False))[0]
    early = (await minute(late=True))[0]
    assert early["candle_date_time_utc"] == punctual["candle_date_time_utc"]
    clock.advance(3)
    settled = next(
        row
        for row in await minute(late=True)
        if row["candle_date_time_utc"] == punctual["candle_date_time_utc"]
    )
    assert settled["timestamp"] == int(json.dumps(punctual["timestamp"])) + 1_000
    assert {**settled, "timestamp": 0} == {**punctual, "timestamp": 0}
    assert json.dumps(early["candle_acc_trade_volume"]) != json.dumps(
        punctual["candle_acc_trade_volume"]
    )
