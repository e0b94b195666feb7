"""The REST side, over real sockets."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.simulator.worlds import PAYLOADS, Caller, listings, market, ms
from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.tickers import Tickers

MINUTES = "/candles/minutes/1"
INVALID = (400, 400, "Invalid parameter. Check the given value!")
MISMATCH = (400, 400, "Type mismatch error. Check the parameters type!")
MISSING = (400, 400, "Missing request parameter error. Check the required parameters!")
NOT_FOUND = (404, 404, "Code not found")


def payload(name: str) -> Mapping[str, Any]:
    """The first row of a recorded body."""
    body: list[Mapping[str, Any]] = json.loads((PAYLOADS / "rest" / name).read_text("utf-8"))
    return body[0]


async def starts(caller: Caller, **query: str | int) -> list[str]:
    return [row["candle_date_time_utc"] for row in await caller.rows(MINUTES, **query)]


@pytest.mark.parametrize(
    ("path", "query", "recorded"),
    [
        (MINUTES, "market=KRW-BTC", "candles_minutes_1.KRW-BTC.count20.20210130T134714Z.json"),
        ("/candles/days", "market=KRW-BTC", "doc.candles_days.KRW-BTC.20180418.json"),
        (
            "/trades/ticks",
            "market=KRW-BTC&days_ago=1",
            "doc.trades_ticks.KRW-BTC.20250627.json",
        ),
        ("/ticker", "markets=KRW-BTC", "doc.ticker.KRW-BTC_KRW-ETH.20250704.json"),
        ("/orderbook", "markets=KRW-BTC", "doc.orderbook_level10000.KRW-BTC.20250704.json"),
    ],
)
async def test_rows_have_the_recorded_fields(
    caller: Caller, clock: ManualClock, path: str, query: str, recorded: str
) -> None:
    clock.advance(90)
    row = (await caller.rows(f"{path}?{query}"))[0]
    assert set(row) == set(payload(recorded))
    for name, value in payload(recorded).items():
        number = isinstance(value, int | float) or name.endswith("_price")
        assert isinstance(row[name], (int, float) if number else type(value)), name
    if "orderbook_units" in row:
        assert len(row["orderbook_units"]) == 30
        assert set(row["orderbook_units"][0]) == set(payload(recorded)["orderbook_units"][0])


async def test_all_markets_are_listed_with_their_warnings_on_request(
    caller: Caller, clock: ManualClock
) -> None:
    clock.set_wall(ms("2026-09-01T00:00:00"))
    plain = await caller.rows("/market/all")
    assert [row["market"] for row in plain] == list(listings())
    assert plain[0] == {
        "market": "KRW-BTC",
        "korean_name": "비트코인",
        "english_name": "Bitcoin",
    }
    detailed = await caller.rows("/market/all", is_details="true")
    assert detailed == await caller.rows("/market/all", isDetails="true")
    assert detailed[0]["market_event"]["warning"] is False
    assert set(detailed[0]["market_event"]["caution"]) == {
        "PRICE_FLUCTUATIONS",
        "TRADING_VOLUME_SOARING",
        "DEPOSIT_AMOUNT_SOARING",
        "GLOBAL_PRICE_DIFFERENCES",
        "CONCENTRATION_OF_SMALL_ACCOUNTS",
    }


async def test_a_market_appears_with_its_listing(caller: Caller, clock: ManualClock) -> None:
    symbol = "KRW-SIM110"
    listed_ms = listings()[symbol].listed_ms
    clock.set_wall(listed_ms - 1)
    assert symbol not in {row["market"] for row in await caller.rows("/market/all")}
    assert await caller.rows(MINUTES, market=symbol) == []
    assert await caller.rows("/trades/ticks", market=symbol) == []
    assert (await caller.get("/ticker", markets=symbol)).error == NOT_FOUND
    assert (await caller.get("/orderbook", markets=symbol)).error == NOT_FOUND
    clock.set_wall(listed_ms + DAY_MS)
    assert symbol in {row["market"] for row in await caller.rows("/market/all")}
    assert len(await caller.rows(MINUTES, market=symbol, count=10)) == 10
    before = datetime.fromtimestamp(listed_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    assert await caller.rows(MINUTES, market=symbol, count=10, to=before) == []
    assert (await caller.rows("/ticker", markets=symbol))[0]["market"] == symbol


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
        row = (await caller.rows("/candles/minutes/60", market="KRW-BTC", to=to))[0]
        return str(row["candle_date_time_utc"])

    assert await newest("2025-09-14T00:00:00") == "2025-09-13T23:00:00"
    assert await newest("2025-09-14T00:00:01") == "2025-09-14T00:00:00"
    assert await newest("") == "2025-09-14T23:00:00"
    assert await newest("2031-01-01T00:00:00") == "2025-09-14T23:00:00"


async def test_an_unreadable_to_is_refused(caller: Caller) -> None:
    for to in ("soon", "2025-09-14", "2025-13-14T00:00:00", "1757894400000"):
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


async def test_at_most_200_rows_are_served_without_complaint(caller: Caller) -> None:
    exactly = await starts(caller, market="KRW-ETH", count=200)
    assert len(exactly) == 200
    assert exactly == sorted(set(exactly), reverse=True)
    for count in (201, 500, 1_000):
        assert await starts(caller, market="KRW-ETH", count=count) == exactly


async def test_pages_follow_each_other_by_the_oldest_start(caller: Caller) -> None:
    first = await starts(caller, market="KRW-DOGE", count=150)
    second = await starts(caller, market="KRW-DOGE", count=150, to=first[-1])
    whole = await starts(caller, market="KRW-DOGE", count=200)
    assert (first + second)[:200] == whole


async def test_codes_are_read_in_any_case(caller: Caller) -> None:
    lower = await caller.rows(MINUTES, market="krw-eth", count=3)
    assert lower == await caller.rows(MINUTES, market="KRW-ETH", count=3)


ERRORS: list[tuple[str, dict[str, str | int], tuple[int, int, str]]] = [
    ("/candles/minutes/2", {"market": "KRW-ETH"}, (400, 400, "specified unit is not valid.")),
    ("/candles/minutes/x", {"market": "KRW-ETH"}, MISMATCH),
    (MINUTES, {}, MISSING),
    (MINUTES, {"market": "KRW-NOPE"}, NOT_FOUND),
    (MINUTES, {"market": "KRW-ETH,KRW-XRP"}, NOT_FOUND),
    (MINUTES, {"market": "KRW-ETH", "count": "abc"}, MISMATCH),
    (MINUTES, {"market": "KRW-ETH", "count": 0}, INVALID),
    ("/candles/days", {}, MISSING),
    ("/candles/days", {"market": "KRW-ETH", "converting_price_unit": "USD"}, INVALID),
    ("/ticker", {}, MISSING),
    ("/ticker", {"markets": "KRW-ETH,KRW-NOPE"}, NOT_FOUND),
    ("/ticker/all", {"quote_currencies": "EUR"}, NOT_FOUND),
    ("/orderbook", {"markets": "KRW-ETH", "count": "many"}, MISMATCH),
    ("/orderbook", {"markets": "KRW-ETH", "level": "x"}, INVALID),
    ("/trades/ticks", {"market": "KRW-ETH", "days_ago": 8}, INVALID),
    ("/trades/ticks", {"market": "KRW-ETH", "to": "25:00:00"}, INVALID),
    ("/trades/ticks", {"market": "KRW-ETH", "cursor": "x"}, MISMATCH),
]


async def test_errors_are_the_exchanges(caller: Caller, clock: ManualClock) -> None:
    for path, query, error in ERRORS:
        answer = await caller.get(path, **query)
        assert answer.error == error, (path, query)
        assert set(answer.body["error"]) == {"name", "message"}
        assert answer.headers["remaining-req"].startswith("group=")
        clock.advance(1)


async def test_an_unrouted_path_is_the_gateways_404(caller: Caller) -> None:
    for path in ("", "/", "/candles", "/candles/minutes", "/candles/hours"):
        answer = await caller.get(path)
        assert answer.error == (404, "not_found", "no Route matched with those values"), path
        assert "remaining-req" not in answer.headers
        assert answer.headers["X-Simulated-Exchange"] == caller.simulator.name


async def test_ten_calls_a_second_and_group_are_served(caller: Caller, clock: ManualClock) -> None:
    left = []
    for _ in range(10):
        answer = await caller.get(MINUTES, market="KRW-ETH")
        assert answer.status == 200
        left.append(answer.headers["remaining-req"])
    assert left == [f"group=candles; min=600; sec={calls}" for calls in range(9, -1, -1)]
    refused = await caller.get("/candles/days", market="KRW-ETH")
    assert refused.error == (429, 429, "Too many requests")
    assert refused.headers["remaining-req"] == "group=candles; min=600; sec=0"
    assert (await caller.get("/ticker", markets="KRW-ETH")).status == 200
    clock.advance(1)
    answer = await caller.get(MINUTES, market="KRW-ETH")
    assert answer.headers["remaining-req"] == "group=candles; min=600; sec=9"


async def test_each_group_says_what_is_left_of_it(caller: Caller) -> None:
    for path, group in (
        ("/market/all", "market"),
        ("/trades/ticks?market=KRW-ETH", "trades"),
        ("/ticker?markets=KRW-ETH", "ticker"),
        ("/orderbook?markets=KRW-ETH", "orderbook"),
    ):
        answer = await caller.get(path)
        assert answer.headers["remaining-req"] == f"group={group}; min=600; sec=9"
        assert answer.headers["limit-by-ip"] == "Yes"
        assert answer.headers["Content-Type"] == "application/json;charset=UTF-8"


async def test_a_call_with_an_origin_is_served_once_in_ten_seconds(caller: Caller) -> None:
    origin = {"Origin": "http://localhost"}
    first = await caller.get_with(origin, "/ticker", markets="KRW-ETH")
    assert first.headers["remaining-req"] == "group=origin; min=6; sec=0"
    assert (await caller.get_with(origin, "/ticker", markets="KRW-ETH")).status == 429
    assert (await caller.get("/ticker", markets="KRW-ETH")).status == 200


async def test_dates_are_of_the_exchanges_clock(caller: Caller, clock: ManualClock) -> None:
    clock.set_wall(ms("2031-02-03T04:05:06") + 999)
    for path in ("/market/all", "/nope"):
        date = parsedate_to_datetime((await caller.get(path)).headers["Date"])
        assert date == datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)


async def test_long_answers_are_packed_for_who_accepts_it(caller: Caller) -> None:
    packed = await caller.get_with({"Accept-Encoding": "gzip"}, MINUTES, market="KRW-ETH", count=50)
    plain = await caller.get_with(
        {"Accept-Encoding": "identity"}, MINUTES, market="KRW-ETH", count=50
    )
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert packed.body == plain.body


async def test_a_day_is_compared_with_the_close_before_it(caller: Caller) -> None:
    days = await caller.rows("/candles/days", market="KRW-ETH", count=3)
    assert [day["candle_date_time_utc"] for day in days] == [
        "2025-09-14T00:00:00",
        "2025-09-13T00:00:00",
        "2025-09-12T00:00:00",
    ]
    for day, before in pairwise(days):
        assert day["prev_closing_price"] == before["trade_price"]
        assert day["change_price"] == day["trade_price"] - before["trade_price"]
        assert day["change_rate"] == round(day["change_price"] / before["trade_price"], 10)
        assert "unit" not in day


async def test_closes_are_converted_to_won_on_request(caller: Caller) -> None:
    levels = {"KRW-BTC": (1.4e8, 1.8e8), "BTC-ETH": (4e6, 8e6), "USDT-BTC": (1.4e8, 1.8e8)}
    for symbol, (low, high) in levels.items():
        days = await caller.rows("/candles/days", market=symbol, converting_price_unit="KRW")
        assert low < days[0]["converted_trade_price"] < high
    assert "converted_trade_price" not in (await caller.rows("/candles/days", market=symbol))[0]


async def test_a_ticker_says_what_the_candles_and_trades_say(
    caller: Caller, clock: ManualClock
) -> None:
    clock.advance(5_025.5)
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
    assert ticker["change"] == ("RISE" if day["change_price"] > 0 else "FALL")
    assert ticker["timestamp"] == clock.now_ms()
    stamp = datetime.fromtimestamp(trade["timestamp"] / 1_000, UTC)
    assert ticker["trade_date"] + ticker["trade_time"] == stamp.strftime("%Y%m%d%H%M%S")


async def test_all_tickers_of_a_quote_come_in_one_answer(
    caller: Caller, clock: ManualClock
) -> None:
    clock.set_wall(ms("2026-09-01T12:00:00"))
    tickers = await caller.rows("/ticker/all", quote_currencies="KRW,USDT")
    assert len(tickers) == 289 + 16
    now_ms = clock.now_ms()
    by_market = {ticker["market"]: ticker for ticker in tickers}
    for symbol in ("KRW-XRP", "KRW-SIM003", "USDT-BTC"):
        expected = Tickers(market(symbol)).at(now_ms)
        assert expected is not None
        assert by_market[symbol]["trade_timestamp"] == expected.last.time_ms
        assert by_market[symbol]["acc_trade_volume_24h"] == expected.volume_24h / 1e8


async def test_a_past_day_is_walked_by_cursor(caller: Caller, clock: ManualClock) -> None:
    clock.advance(3_600)
    page = await caller.rows("/trades/ticks", market="KRW-XRP", days_ago=1, count=500)
    assert len(page) == 500
    assert page[0]["trade_date_utc"] == "2025-09-14"
    assert page[0]["trade_time_utc"].startswith("23:59")
    cursor = page[249]["sequential_id"]
    rest = await caller.rows(
        "/trades/ticks", market="KRW-XRP", days_ago=1, count=250, cursor=cursor
    )
    assert rest == page[250:]
    assert len(await caller.rows("/trades/ticks", market="KRW-XRP", count=900, days_ago=1)) == 500


async def test_trades_before_a_time_of_day(caller: Caller, clock: ManualClock) -> None:
    clock.advance(HOUR_MS / 1_000)
    newest, same = [
        (await caller.rows("/trades/ticks", market="KRW-BTC", to=form))[0]
        for form in ("001000", "00:10:00")
    ]
    assert newest == same
    assert AUTUMN_2025_MS < newest["timestamp"] < AUTUMN_2025_MS + 10 * MINUTE_MS
    assert newest["trade_time_utc"].startswith("00:09:")


async def test_today_has_no_trades_until_somebody_trades(
    caller: Caller, clock: ManualClock
) -> None:
    assert await caller.rows("/trades/ticks", market="BTC-SC", count=500) == []
    clock.advance(23 * 3_600)
    today = await caller.rows("/trades/ticks", market="BTC-SC", count=500)
    assert today
    assert {trade["trade_date_utc"] for trade in today} == {"2025-09-15"}


async def test_a_book_is_cut_to_the_rows_asked_for_but_keeps_its_totals(caller: Caller) -> None:
    whole = (await caller.rows("/orderbook", markets="KRW-ETH", count=31))[0]
    top = (await caller.rows("/orderbook", markets="KRW-ETH", count=5))[0]
    assert len(whole["orderbook_units"]) == 30
    assert top["orderbook_units"] == whole["orderbook_units"][:5]
    assert top["total_ask_size"] == whole["total_ask_size"]
    sizes = [round(level["ask_size"] * 1e8) for level in whole["orderbook_units"]]
    assert round(whole["total_ask_size"] * 1e8) == sum(sizes)
    assert await caller.rows("/orderbook", markets="KRW-ETH", level="3") == []


async def test_only_a_table_that_is_not_ready_is_waited_for(clock: ManualClock) -> None:
    async with Simulator(clock=clock) as fresh, aiohttp.ClientSession() as session:
        caller = Caller(fresh, session)
        assert (await caller.get(MINUTES)).error == MISSING
        assert len(await caller.rows("/market/all")) > 400
        assert len(await caller.rows(MINUTES, market="KRW-SIM050", count=5)) == 5


async def test_control_tells_what_was_counted_and_traded(
    simulator: Simulator, caller: Caller, clock: ManualClock
) -> None:
    for _ in range(11):
        await caller.get("/ticker", markets="KRW-ETH")
    clock.advance(3_600)
    async with aiohttp.ClientSession() as session:
        async with session.get(simulator.control_url) as response:
            state = await response.json()
        url = f"{simulator.control_url}/trades?market=KRW-ETH&from_ms={AUTUMN_2025_MS}&to_ms="
        async with session.get(f"{url}{AUTUMN_2025_MS + MINUTE_MS}") as response:
            trades = await response.json()
        async with session.get(f"{url}{AUTUMN_2025_MS + 2 * DAY_MS}") as response:
            assert response.status == 400
    assert state == {
        "name": "simulator-1",
        "now_ms": clock.now_ms(),
        "connections": 0,
        "served": {"ticker": 10},
        "refused": {"ticker": 1},
    }
    first_minute = await caller.rows("/trades/ticks", market="KRW-ETH", to="00:01:00", count=500)
    assert trades == first_minute[::-1]
