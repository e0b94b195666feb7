"""Trades over REST: days, times of day, cursors."""

import aiohttp
import pytest

from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.simulator.rest_errors import INVALID, MISMATCH, MISSING, NOT_FOUND
from tests.simulator.streams import stream
from tests.simulator.worlds import Caller, listings
from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.settings import SimulatorSettings

TICKS = "/trades/ticks"


async def ids(caller: Caller, **query: str | int) -> list[int]:
    rows = await caller.rows(TICKS, **{"market": "KRW-XRP", **query})
    return [row["sequential_id"] for row in rows]


async def test_a_trade_is_compared_with_the_close_of_the_day_before(
    caller: Caller, clock: ManualClock
) -> None:
    clock.advance(HOUR_MS / 1_000)
    yesterday = (await caller.rows("/candles/days", market="KRW-XRP", count=2))[1]
    trades = await caller.rows(TICKS, market="KRW-XRP", count=100)
    for trade in trades:
        assert trade["prev_closing_price"] == yesterday["trade_price"]
        change = trade["trade_price"] - trade["prev_closing_price"]
        assert trade["change_price"] == change
        assert trade["sequential_id"] // 10_000 == trade["timestamp"]
        assert trade["sequential_id"] > 1 << 53
    assert {trade["ask_bid"] for trade in trades} == {"ASK", "BID"}
    assert trades == sorted(trades, key=lambda trade: -trade["sequential_id"])
    assert await caller.rows(TICKS, market="KRW-XRP") == trades[:1]


async def test_on_the_first_day_trade_ticker_and_candle_are_compared_with_the_same_price(
    caller: Caller, clock: ManualClock
) -> None:
    symbol = "KRW-SIM110"
    clock.set_wall(listings()[symbol].listed_ms + 6 * HOUR_MS)
    (ticker,) = await caller.rows("/ticker", markets=symbol)
    (day,) = await caller.rows("/candles/days", market=symbol)
    trades = await caller.rows(TICKS, market=symbol, count=500)
    assert len({trade["trade_price"] for trade in trades}) > 1
    assert {row["prev_closing_price"] for row in (*trades, ticker, day)} == {day["opening_price"]}
    assert trades[0]["change_price"] == ticker["signed_change_price"] == day["change_price"]
    async with stream(caller.simulator) as client:
        await client.ask(
            {"type": "trade", "codes": [symbol]}, {"type": "ticker", "codes": [symbol]}
        )
        for frame in await client.frames(2):
            assert frame["prev_closing_price"] == day["opening_price"]


async def test_a_past_day_is_walked_by_cursor(caller: Caller, clock: ManualClock) -> None:
    clock.advance(3_600)
    page = await caller.rows(TICKS, market="KRW-XRP", days_ago=1, count=500)
    assert len(page) == 500
    assert page[0]["trade_date_utc"] == "2025-09-14"
    assert page[0]["trade_time_utc"].startswith("23:59")
    cursor = page[249]["sequential_id"]
    rest = await caller.rows(TICKS, market="KRW-XRP", days_ago=1, count=250, cursor=cursor)
    assert rest == page[250:]


async def test_a_walk_by_cursor_ends_with_the_day(caller: Caller, clock: ManualClock) -> None:
    walked: list[int] = []
    cursor = 0
    while page := await ids(
        caller,
        market="KRW-SIM003",
        days_ago=2,
        count=500,
        **({"cursor": cursor} if cursor else {}),
    ):
        walked += page
        cursor = page[-1]
        clock.advance(1)
    assert len(walked) > 400
    assert walked == sorted(set(walked), reverse=True)
    day_ms = AUTUMN_2025_MS - 2 * DAY_MS
    assert all(0 <= one // 10_000 - day_ms < DAY_MS for one in walked)
    candles = await caller.rows(
        "/candles/days", market="KRW-SIM003", to="2025-09-14T00:00:00", count=1
    )
    assert walked[0] // 10_000 == candles[0]["timestamp"]


async def test_more_than_500_trades_are_cut(caller: Caller) -> None:
    exactly = await ids(caller, days_ago=1, count=500)
    assert len(exactly) == 500
    assert await ids(caller, days_ago=1, count=501) == exactly
    assert await ids(caller, days_ago=1, count=9_000) == exactly


async def test_trades_before_a_time_of_day(caller: Caller, clock: ManualClock) -> None:
    clock.advance(HOUR_MS / 1_000)
    newest, same = [
        (await caller.rows(TICKS, market="KRW-BTC", to=form))[0] for form in ("001000", "00:10:00")
    ]
    assert newest == same
    assert AUTUMN_2025_MS < newest["timestamp"] < AUTUMN_2025_MS + 10 * MINUTE_MS
    assert newest["trade_time_utc"].startswith("00:09:")


async def test_a_time_of_day_is_of_the_chosen_day_and_exclusive(
    caller: Caller, clock: ManualClock
) -> None:
    clock.advance(5)
    page = await caller.rows(TICKS, market="KRW-BTC", days_ago=3, to="12:00:10", count=500)
    assert page[0]["trade_date_utc"] == "2025-09-12"
    assert page[0]["trade_time_utc"] < "12:00:10"
    second = page[5]["trade_time_utc"]
    earlier = await caller.rows(TICKS, market="KRW-BTC", days_ago=3, to=second, count=400)
    assert earlier == [row for row in page if row["trade_time_utc"] < second][: len(earlier)]
    # Later than now there is nothing yet.
    today = await caller.rows(TICKS, market="KRW-BTC", to="23:59:59", count=500)
    assert today == await caller.rows(TICKS, market="KRW-BTC", count=500)


async def test_the_earlier_of_time_and_cursor_counts(caller: Caller) -> None:
    page = await caller.rows(TICKS, market="KRW-XRP", days_ago=1, to="12:00:00", count=500)
    middle = page[200]
    after_cursor = await ids(
        caller, days_ago=1, to="12:00:00", cursor=middle["sequential_id"], count=100
    )
    assert after_cursor == [row["sequential_id"] for row in page[201:301]]
    late = (AUTUMN_2025_MS + DAY_MS) * 10_000
    assert await ids(caller, days_ago=1, to="12:00:00", cursor=late, count=100) == [
        row["sequential_id"] for row in page[:100]
    ]


async def test_seven_days_are_kept(caller: Caller, clock: ManualClock) -> None:
    for days in range(8):
        clock.set_wall(AUTUMN_2025_MS + HOUR_MS)
        rows = await caller.rows(TICKS, market="KRW-BTC", days_ago=days, count=2)
        assert {row["trade_date_utc"] for row in rows} == {f"2025-09-{15 - days:02}"}
        clock.advance(1)
    assert await ids(caller, days_ago=0) == await ids(caller)
    for days in (8, -1):
        assert (await caller.get(TICKS, market="KRW-BTC", days_ago=days)).error == INVALID
    assert await ids(caller, daysAgo=7) == await ids(caller, days_ago=7)


async def test_a_cursor_does_not_leave_the_day(caller: Caller) -> None:
    yesterday = await ids(caller, days_ago=1, count=1)
    assert await ids(caller, days_ago=2, cursor=yesterday[0]) == await ids(caller, days_ago=2)
    older = await ids(caller, days_ago=2, count=1)
    assert await ids(caller, days_ago=1, cursor=older[0]) == []
    assert await ids(caller, cursor=0) == []
    assert await ids(caller, cursor=-5) == []


async def test_today_has_no_trades_until_somebody_trades(
    caller: Caller, clock: ManualClock
) -> None:
    assert await caller.rows(TICKS, market="BTC-SC", count=500) == []
    clock.advance(23 * 3_600)
    today = await caller.rows(TICKS, market="BTC-SC", count=500)
    assert today
    assert {trade["trade_date_utc"] for trade in today} == {"2025-09-15"}


async def test_wrong_parameters_of_trades_are_refused(caller: Caller, clock: ManualClock) -> None:
    for query, error in (
        ({}, MISSING),
        ({"market": "KRW-NOPE"}, NOT_FOUND),
        ({"market": "KRW-ETH,KRW-XRP"}, NOT_FOUND),
        ({"market": "KRW-ETH", "to": "25:00:00"}, INVALID),
        ({"market": "KRW-ETH", "to": "2025-09-15T00:00:00"}, INVALID),
        ({"market": "KRW-ETH", "cursor": "x"}, MISMATCH),
        ({"market": "KRW-ETH", "cursor": str(1 << 63)}, MISMATCH),
        ({"market": "KRW-ETH", "days_ago": "x"}, MISMATCH),
        ({"market": "KRW-ETH", "count": "1.5"}, MISMATCH),
    ):
        assert (await caller.get(TICKS, **query)).error == error, query
        clock.advance(1)


@pytest.mark.parametrize("variant", [False, True])
async def test_open_points_of_trades_are_settings(clock: ManualClock, variant: bool) -> None:
    settings = SimulatorSettings()
    if variant:
        settings = SimulatorSettings(trades_over_500="error", days_ago_out_of_range="empty")
    async with (
        Simulator(clock=clock, settings=settings) as simulator,
        aiohttp.ClientSession() as session,
    ):
        caller = Caller(simulator, session)
        many = await caller.get(TICKS, market="KRW-ETH", count=501, days_ago=1)
        old = await caller.get(TICKS, market="KRW-ETH", days_ago=8)
    assert (many.status, old.status) == ((400, 200) if variant else (200, 400))
    assert old.body == [] or not variant
