"""What all REST endpoints share, and the list of markets; over real sockets."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Any

import aiohttp
from yarl import URL

from tests.manual_clock import ManualClock
from tests.simulator.rest_errors import INVALID, MISMATCH, MISSING, NO_ROUTE, NOT_FOUND
from tests.simulator.worlds import PAYLOADS, Caller, listings, ms
from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.script import read_script
from upbit_backbone.simulator.settings import SimulatorSettings

MINUTES = "/candles/minutes/1"
GROUPS = {
    "/market/all": "market",
    "/candles/seconds?market=KRW-ETH": "candles",
    "/candles/minutes/1?market=KRW-ETH": "candles",
    "/candles/days?market=KRW-ETH": "candles",
    "/candles/weeks?market=KRW-ETH": "candles",
    "/candles/months?market=KRW-ETH": "candles",
    "/candles/years?market=KRW-ETH": "candles",
    "/trades/ticks?market=KRW-ETH&days_ago=1": "trades",
    "/ticker?markets=KRW-ETH": "ticker",
    "/ticker/all?quote_currencies=USDT": "ticker",
    "/orderbook?markets=KRW-ETH": "orderbook",
    "/orderbook/instruments?markets=KRW-ETH": "orderbook",
    "/orderbook/supported_levels?markets=KRW-ETH": "orderbook",
}
"""A call of every endpoint, and the group it is counted in."""


def payload(name: str) -> Mapping[str, Any]:
    """The first row of a recorded body."""
    body: list[Mapping[str, Any]] = json.loads((PAYLOADS / "rest" / name).read_text("utf-8"))
    return body[0]


@asynccontextmanager
async def other_exchange(
    clock: ManualClock, settings: SimulatorSettings | None = None, events: str = "[]"
) -> AsyncIterator[Caller]:
    """A caller of an exchange with other settings, or on which something happens."""
    script = read_script(f'{{"events": {events}}}', clock.now_ms())
    async with (
        Simulator(clock=clock, settings=settings, script=script) as simulator,
        aiohttp.ClientSession() as session,
    ):
        yield Caller(simulator, session)


async def test_every_success_is_an_array_in_its_group(
    simulator: Simulator, clock: ManualClock
) -> None:
    for call, group in GROUPS.items():
        clock.advance(1)
        async with (
            aiohttp.ClientSession() as session,
            session.get(simulator.rest_url + call) as response,
        ):
            assert response.status == 200
            assert response.headers["remaining-req"] == f"group={group}; min=600; sec=9"
            assert response.headers["limit-by-ip"] == "Yes"
            assert response.headers["Content-Type"] == "application/json;charset=UTF-8"
            cache = "no-cache, no-store, max-age=0, must-revalidate"
            assert response.headers["cache-control"] == cache
            assert re.fullmatch('W/"[0-9a-f]+"', response.headers["etag"])
            assert isinstance(await response.json(), list)


RECORDED_ROWS = [
    (
        f"{MINUTES}?market=KRW-BTC",
        "candles_minutes_1.KRW-BTC.count20.20210130T134714Z.json",
    ),
    ("/candles/seconds?market=KRW-BTC", "doc.candles_seconds.KRW-BTC.20250630.json"),
    ("/candles/days?market=KRW-BTC", "doc.candles_days.KRW-BTC.20180418.json"),
    (
        "/candles/weeks?market=KRW-BTC",
        "doc.candles_weeks.KRW-BTC.20180416_20210104.json",
    ),
    (
        "/trades/ticks?market=KRW-BTC&days_ago=1",
        "doc.trades_ticks.KRW-BTC.20250627.json",
    ),
    ("/ticker?markets=KRW-BTC", "doc.ticker.KRW-BTC_KRW-ETH.20250704.json"),
    (
        "/orderbook?markets=KRW-BTC&level=10000",
        "doc.orderbook_level10000.KRW-BTC.20250704.json",
    ),
]


async def test_rows_have_the_recorded_fields(caller: Caller, clock: ManualClock) -> None:
    for call, recorded in RECORDED_ROWS:
        clock.advance(1)
        clock.advance(90)
        row = (await caller.rows(call))[0]
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
    assert plain == await caller.rows("/market/all", is_details="false")
    detailed = await caller.rows("/market/all", is_details="true")
    assert detailed == await caller.rows("/market/all", isDetails="true")
    for row in detailed:
        listing, event = listings()[row["market"]], row["market_event"]
        assert event["warning"] == listing.has_warning(clock.now_ms())
        assert set(event["caution"]) == {
            "PRICE_FLUCTUATIONS",
            "TRADING_VOLUME_SOARING",
            "DEPOSIT_AMOUNT_SOARING",
            "GLOBAL_PRICE_DIFFERENCES",
            "CONCENTRATION_OF_SMALL_ACCOUNTS",
        }
        on = {name for name, set_ in event["caution"].items() if set_}
        assert on == listing.cautions(clock.now_ms())
    # The normal state: upbit-api, section 7.
    cautioned = [row for row in detailed if any(row["market_event"]["caution"].values())]
    assert 0.1 < len(cautioned) / len(detailed) < 0.5


async def test_warnings_are_switched_on_and_off(clock: ManualClock) -> None:
    events = """[
        {"type": "designation", "symbol": "KRW-ETH", "at": "+60"},
        {"type": "designation", "symbol": "KRW-ETH", "at": "+120", "on": false},
        {"type": "designation", "symbol": "KRW-ETH", "at": "+120", "name": "PRICE_FLUCTUATIONS"}
    ]"""
    async with other_exchange(clock, events=events) as caller:

        async def flags() -> tuple[bool, bool]:
            rows = await caller.rows("/market/all", is_details="true")
            event = next(row for row in rows if row["market"] == "KRW-ETH")["market_event"]
            return event["warning"], event["caution"]["PRICE_FLUCTUATIONS"]

        seen = []
        for _ in range(3):
            seen.append(await flags())
            clock.advance(60)
    assert seen == [(False, False), (True, False), (False, True)]


async def test_a_market_appears_with_its_listing(caller: Caller, clock: ManualClock) -> None:
    symbol = "KRW-SIM110"
    listed_ms = listings()[symbol].listed_ms
    clock.set_wall(listed_ms - 1)
    assert symbol not in {row["market"] for row in await caller.rows("/market/all")}
    assert await caller.rows(MINUTES, market=symbol) == []
    assert await caller.rows("/trades/ticks", market=symbol) == []
    for path in ("/ticker", "/orderbook", "/orderbook/instruments"):
        assert (await caller.get(path, markets=symbol)).error == NOT_FOUND
    clock.set_wall(listed_ms + DAY_MS)
    assert symbol in {row["market"] for row in await caller.rows("/market/all")}
    assert len(await caller.rows(MINUTES, market=symbol, count=10)) == 10
    before = datetime.fromtimestamp(listed_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    assert await caller.rows(MINUTES, market=symbol, count=10, to=before) == []
    assert (await caller.rows("/ticker", markets=symbol))[0]["market"] == symbol


async def test_a_delisted_market_is_as_unknown_as_one_that_never_was(clock: ManualClock) -> None:
    events = '[{"type": "delisting", "symbol": "KRW-ETH", "at": "+60"}]'
    async with other_exchange(clock, events=events) as caller:
        assert await caller.rows(MINUTES, market="KRW-ETH")
        clock.advance(60)
        assert "KRW-ETH" not in {row["market"] for row in await caller.rows("/market/all")}
        symbols = {
            row["market"] for row in await caller.rows("/ticker/all", quote_currencies="KRW")
        }
        assert "KRW-ETH" not in symbols
        for call in GROUPS:
            if "KRW-ETH" in call:
                gone = await caller.get(call)
                never = await caller.get(call.replace("KRW-ETH", "KRW-NOPE"))
                assert gone.error == never.error == NOT_FOUND, call
                clock.advance(1)


async def test_a_half_won_tick_is_told_and_kept(clock: ManualClock) -> None:
    events = '[{"type": "listing", "symbol": "KRW-USDT", "at": "+0", "price": 1400}]'
    async with other_exchange(clock, events=events) as caller:
        clock.advance(DAY_MS / 1_000)
        told = (await caller.rows("/orderbook/instruments", markets="KRW-USDT"))[0]
        book = (await caller.rows("/orderbook", markets="KRW-USDT"))[0]
    assert told["tick_size"] == "0.5"
    assert told["supported_levels"] == ["0", "10", "100", "1000"]
    asks = [row["ask_price"] for row in book["orderbook_units"]]
    assert {after - before for before, after in pairwise(asks[1:])} == {0.5}


async def test_orders_from_before_a_change_of_ticks_stay_for_a_while(clock: ManualClock) -> None:
    events = '[{"type": "tick_size", "symbol": "KRW-ETH", "at": "+60", "tick_size": "5000"}]'
    async with other_exchange(clock, events=events) as caller:

        async def off_tick(now_ms: int) -> int:
            clock.set_wall(now_ms)
            book = (await caller.rows("/orderbook", markets="KRW-ETH"))[0]
            prices = [row[side] for row in book["orderbook_units"] for side in row if "pri" in side]
            assert len(set(prices)) == 60
            return sum(price % 5_000 != 0 for price in prices)

        async def tick() -> object:
            rows = await caller.rows("/orderbook/instruments", markets="KRW-ETH")
            return rows[0]["tick_size"]

        changed_ms = clock.now_ms() + MINUTE_MS
        clock.advance(59)
        assert await tick() == "1000"
        clock.advance(2)
        assert await tick() == "5000"
        assert await off_tick(changed_ms + 2_000) > 10
        assert 1 < await off_tick(changed_ms + 5 * MINUTE_MS) < 20
        # An hour later only a last price from between the ticks could be one.
        assert await off_tick(changed_ms + HOUR_MS) <= 1


async def test_codes_are_read_in_any_case_and_echoed_in_upper(caller: Caller) -> None:
    for path, name in (
        (MINUTES, "market"),
        ("/candles/days", "market"),
        ("/ticker", "markets"),
        ("/orderbook", "markets"),
        ("/orderbook/instruments", "markets"),
    ):
        lower = await caller.rows(path, **{name: "krw-Eth"})
        assert lower == await caller.rows(path, **{name: "KRW-ETH"})
        assert lower[0]["market"] == "KRW-ETH"


async def test_errors_name_their_status_and_count_as_calls(
    caller: Caller, clock: ManualClock
) -> None:
    for path, query, error in (
        ("/market/all", {"is_details": "maybe"}, MISMATCH),
        (MINUTES, {}, MISSING),
        ("/candles/days", {"market": "KRW-ETH", "converting_price_unit": "USD"}, INVALID),
        ("/ticker", {"markets": "KRW-NOPE"}, NOT_FOUND),
    ):
        answer = await caller.get(path, **query)
        assert answer.error == error, (path, query)
        assert type(answer.body["error"]["name"]) is int
        assert set(answer.body) == {"error"}
        assert set(answer.body["error"]) == {"name", "message"}
        assert answer.headers["remaining-req"].endswith("sec=9")
        assert "etag" not in answer.headers
        clock.advance(1)


async def test_an_unrouted_path_is_the_gateways_404(caller: Caller) -> None:
    for path in (
        "",
        "/",
        "/candles",
        "/candles/minutes",
        "/candles/minutes/1/2",
        "/candles/hours",
        "/ticker/",
        "/Ticker",
        "/orderbook/levels",
    ):
        answer = await caller.get(path, markets="KRW-ETH")
        assert answer.error == NO_ROUTE, path
        assert "remaining-req" not in answer.headers
        assert answer.headers["X-Simulated-Exchange"] == caller.simulator.name


async def test_only_get_is_routed(simulator: Simulator) -> None:
    url = f"{simulator.rest_url}/ticker?markets=KRW-ETH"
    async with aiohttp.ClientSession() as session:
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            async with session.request(method, url) as response:
                assert response.status == 404, method
                assert (await response.json())["error"]["name"] == "not_found"
                assert "remaining-req" not in response.headers
        async with session.head(url) as response:
            assert response.status == 200
            assert response.headers["remaining-req"] == "group=ticker; min=600; sec=9"
            assert await response.read() == b""


async def test_old_names_of_parameters_are_understood_unless_switched_off(
    clock: ManualClock,
) -> None:
    async with other_exchange(clock) as caller:
        assert "market_event" in (await caller.rows("/market/all", isDetails="true"))[0]
        assert await caller.rows("/ticker/all", quoteCurrencies="USDT")
    async with other_exchange(clock, SimulatorSettings(old_names_accepted=False)) as caller:
        assert "market_event" not in (await caller.rows("/market/all", isDetails="true"))[0]
        assert (await caller.get("/ticker/all", quoteCurrencies="USDT")).error == MISSING


async def test_parameters_given_twice_or_unknown_do_no_harm(simulator: Simulator) -> None:
    async def get(query: str) -> tuple[int, Any]:
        url = URL(f"{simulator.rest_url}/{query}", encoded=True)
        async with session.get(url) as response:
            return response.status, await response.json()

    async with aiohttp.ClientSession() as session:
        status, rows = await get("ticker?markets=KRW-ETH&markets=KRW-XRP&unknown=1")
        assert (status, [row["market"] for row in rows]) == (200, ["KRW-ETH", "KRW-XRP"])
        assert (await get("candles/days?market=KRW-ETH&market=KRW-XRP"))[0] == 404
        assert len((await get("candles/days?market=KRW-ETH&count=2&count=3"))[1]) == 2
        for garbage in ("%ff%fe", "%00", "KRW-ETH%0d%0aX:1", "%E2%82%A9", "a" * 4_000):
            assert (await get(f"candles/days?market={garbage}"))[0] == 404, garbage


STRANGE = (
    "",
    " ",
    "-1",
    "+1",
    "1e3",
    "1_0",
    "１",
    "NaN",
    "-Infinity",
    "true",
    "null",
    "[]",
    "2147483648",
    str(-(1 << 63)),
    "9" * 400,
    "0001-01-01T00:00:00",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "2025-02-30T00:00:00",
    "2025-09-14T00:00:00+99:99",
    "KRW-ETH,",
    ",,",
    "KRW-",
    "\x00",
    "💰",
)


async def test_no_parameter_brings_an_endpoint_down(caller: Caller, clock: ManualClock) -> None:
    for call in GROUPS:
        clock.advance(1)
        path, _, query = call.partition("?")
        usual = dict(pair.split("=") for pair in query.split("&") if pair)
        names = (
            "to",
            "count",
            "cursor",
            "days_ago",
            "level",
            "is_details",
            "converting_price_unit",
        )
        for name in (*usual, *names):
            for value in STRANGE:
                answer = await caller.get(path, **{**usual, name: value})
                assert answer.status in (200, 400, 404), (name, value)
                clock.advance(0.2)


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


async def test_an_unchanged_answer_keeps_its_etag(caller: Caller, clock: ManualClock) -> None:
    first = await caller.get("/candles/days", market="KRW-ETH")
    again = await caller.get_with(
        {"If-None-Match": first.headers["etag"]}, "/candles/days", market="KRW-ETH"
    )
    assert (again.status, again.headers["etag"]) == (200, first.headers["etag"])
    other = await caller.get("/candles/days", market="KRW-ETH", count=2)
    assert other.headers["etag"] != first.headers["etag"]


async def test_only_a_table_that_is_not_ready_is_waited_for(clock: ManualClock) -> None:
    async with Simulator(clock=clock) as fresh, aiohttp.ClientSession() as session:
        caller = Caller(fresh, session)
        assert (await caller.get(MINUTES)).error == MISSING
        assert len(await caller.rows("/market/all")) > 400
        assert len(await caller.rows(MINUTES, market="KRW-SIM050", count=5)) == 5
