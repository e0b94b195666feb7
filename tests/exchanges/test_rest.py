"""The adapter's calls over HTTP, against a scripted server."""

from __future__ import annotations

import asyncio
import gzip
import json
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote

import pytest
from aiohttp import ClientSession

from tests.eventually import eventually
from tests.exchanges.recordings import body
from tests.exchanges.scripted_rest import ScriptedRest
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from upbit_backbone.clock import DAY_MS, HOUR_MS, ExchangeClock, utc_datetime
from upbit_backbone.errors import (
    BackboneError,
    ClosedError,
    DataUnavailableError,
    InvalidRequestError,
    ProtocolError,
    RateLimitedError,
    StorageOriginError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.exchanges.upbit import REST_URL, WS_URL, UpbitAdapter
from upbit_backbone.exchanges.upbit.addresses import CANDLES
from upbit_backbone.models import Timeframe
from upbit_backbone.origin import MARK_HEADER, Origin

NOT_FOUND = {"error": {"name": 404, "message": "Code not found"}}
MINUTES = body("rest/candles_minutes_1.KRW-BTC.count20.20210130T134714Z.json")
[BOOK] = json.loads(body("rest/orderbook.BTC-ETH.20180702.json"))
[TICKER] = json.loads(body("rest/ticker.USDT-BTC.20240313.json"))
[TRADE] = json.loads(body("rest/doc.trades_ticks.KRW-BTC.20250627.json"))


def http_date(ms: int) -> dict[str, str]:
    return {"Date": format_datetime(utc_datetime(ms).replace(microsecond=0), usegmt=True)}


async def ask(adapter: UpbitAdapter) -> None:
    """Any call whose answer may be an empty list."""
    await adapter.markets()


def test_the_addresses_are_upbit_s() -> None:
    assert REST_URL == "https://api.upbit.com/v1"
    assert WS_URL == "wss://api.upbit.com/websocket/v1"
    assert set(CANDLES) == set(Timeframe)
    assert {endpoint.group for endpoint in CANDLES.values()} == {"candles"}


async def test_the_market_list_is_asked_with_its_designations(
    adapter: UpbitAdapter, rest: ScriptedRest
) -> None:
    rest.answer(body("market_all.json"))
    markets = await adapter.markets()
    assert len(markets) == 294
    assert rest.seen[0].raw_path == "/v1/market/all?is_details=true"


@pytest.mark.parametrize(
    ("timeframe", "path"),
    [
        ("1s", "seconds"),
        ("1m", "minutes/1"),
        ("3m", "minutes/3"),
        ("5m", "minutes/5"),
        ("10m", "minutes/10"),
        ("15m", "minutes/15"),
        ("30m", "minutes/30"),
        ("1h", "minutes/60"),
        ("4h", "minutes/240"),
        ("1d", "days"),
        ("1w", "weeks"),
        ("1M", "months"),
        ("1y", "years"),
    ],
)
async def test_each_timeframe_has_its_path(
    adapter: UpbitAdapter, rest: ScriptedRest, timeframe: str, path: str
) -> None:
    rest.answer([])
    series, stamp_ms = await adapter.candles(
        "KRW-BTC", Timeframe.parse(timeframe), to_ms=None, count=200
    )
    assert rest.seen[0].path == f"/v1/candles/{path}"
    assert rest.seen[0].query == {"market": "KRW-BTC", "count": "200"}
    assert (len(series), stamp_ms) == (0, None)


@pytest.mark.parametrize(
    ("to_ms", "sent"),
    [
        (1_612_014_420_000, "2021-01-30T13:47:00Z"),
        # A candle opens on a whole second: open < 13:47:00.001 is open < 13:47:01.
        (1_612_014_420_001, "2021-01-30T13:47:01Z"),
        (1_612_014_419_999, "2021-01-30T13:47:00Z"),
    ],
)
async def test_the_end_of_a_page_is_sent_as_utc_rounded_up_to_the_second(
    adapter: UpbitAdapter, rest: ScriptedRest, to_ms: int, sent: str
) -> None:
    rest.answer([])
    await adapter.candles("KRW-BTC", Timeframe.M1, to_ms=to_ms, count=1)
    assert rest.seen[0].query["to"] == sent
    # A raw colon or plus is read as something else by the exchange.
    raw = rest.seen[0].raw_path.partition("?")[2]
    assert not set(raw) & set(":+ ,")
    assert unquote(raw).endswith(f"to={sent}")


async def test_a_page_of_candles_says_which_are_closed_by_the_exchange_s_clock(
    adapter: UpbitAdapter, rest: ScriptedRest, clock: ManualClock
) -> None:
    exchange_ms = 1_612_014_434_000
    assert clock.now_ms() > exchange_ms + DAY_MS
    rest.answer(MINUTES, headers=http_date(exchange_ms))
    series, stamp_ms = await adapter.candles("KRW-BTC", Timeframe.M1, to_ms=None, count=20)
    assert series.closed.tolist() == [True] * 19 + [False]
    assert stamp_ms == 1_612_014_434_975
    assert series.source == "rest"


async def test_a_candle_read_while_it_formed_is_not_closed_because_its_page_came_late(
    adapter: UpbitAdapter, rest: ScriptedRest, clock: ManualClock
) -> None:
    # Asked for in the middle of 13:47, delivered two minutes later.
    clock.set_wall(1_612_014_434_000)
    rest.answer(MINUTES, headers=http_date(1_612_014_554_000), meanwhile=lambda: clock.advance(120))
    series, _ = await adapter.candles("KRW-BTC", Timeframe.M1, to_ms=None, count=20)
    assert series.closed.tolist() == [True] * 19 + [False]


@pytest.mark.parametrize("count", [0, -1, 201])
async def test_a_page_has_one_to_200_candles(adapter: UpbitAdapter, count: int) -> None:
    with pytest.raises(InvalidRequestError, match=rf"count must be 1\.\.200, was {count}"):
        await adapter.candles("KRW-BTC", Timeframe.M1, to_ms=None, count=count)


async def test_more_candles_than_asked_for_are_refused(
    adapter: UpbitAdapter, rest: ScriptedRest
) -> None:
    rest.answer(MINUTES)
    with pytest.raises(ProtocolError, match="answered 20 candles"):
        await adapter.candles("KRW-BTC", Timeframe.M1, to_ms=None, count=19)


async def test_candles_beyond_the_bound_are_refused(
    adapter: UpbitAdapter, rest: ScriptedRest
) -> None:
    """Paging back would otherwise never end."""
    for to_ms in (1_612_014_420_000, 1_612_014_420_001):
        rest.answer(MINUTES)
        page = adapter.candles("KRW-BTC", Timeframe.M1, to_ms=to_ms, count=20)
        if to_ms == 1_612_014_420_001:
            series, _ = await page
            assert series.time[-1] == 1_612_014_420_000
        else:
            with pytest.raises(ProtocolError, match="up to 2021-01-30T13:47:00Z"):
                await page


async def test_tickers_come_in_the_order_asked_for_by_one_request(
    adapter: UpbitAdapter, rest: ScriptedRest, clock: ManualClock
) -> None:
    rest.answer(body("rest/doc.ticker.KRW-BTC_KRW-ETH.20250704.json"))
    tickers = await adapter.tickers(["KRW-ETH", "KRW-BTC", "KRW-ETH"])
    assert [ticker.symbol for ticker in tickers] == ["KRW-ETH", "KRW-BTC", "KRW-ETH"]
    assert rest.seen[0].query == {"markets": "KRW-ETH,KRW-BTC,KRW-ETH"}
    assert tickers[0].received_time == utc_datetime(clock.now_ms())
    assert len(rest.seen) == 1


async def test_all_codes_of_the_exchange_fit_in_one_request(
    adapter: UpbitAdapter, rest: ScriptedRest
) -> None:
    symbols = [f"KRW-COIN{number:04d}" for number in range(450)]
    rest.answer([TICKER | {"market": symbol} for symbol in reversed(symbols)])
    tickers = await adapter.tickers(symbols)
    assert [ticker.symbol for ticker in tickers] == symbols


async def test_a_ticker_that_is_missing_in_the_answer_is_named(
    adapter: UpbitAdapter, rest: ScriptedRest
) -> None:
    rest.answer([TICKER])
    with pytest.raises(DataUnavailableError, match="no ticker for KRW-NEW, KRW-TOO: "):
        await adapter.tickers(["KRW-NEW", "USDT-BTC", "KRW-TOO"])


async def test_asking_for_no_symbol_is_refused_without_a_request(
    adapter: UpbitAdapter, rest: ScriptedRest
) -> None:
    for call in (adapter.tickers([]), adapter.orderbooks([], depth=30, level=0)):
        with pytest.raises(InvalidRequestError, match="at least one market"):
            await call
    assert rest.seen == []


@pytest.mark.parametrize(
    ("depth", "level", "sent"),
    [
        (30, 0, {"count": "30"}),
        (5, 0.0, {"count": "5"}),
        (15, 10_000.0, {"count": "15", "level": "10000"}),
        (1, 0.0001, {"count": "1", "level": "0.0001"}),
        (1, 100_000_000, {"count": "1", "level": "100000000"}),
    ],
)
async def test_depth_and_level_of_a_book_are_sent_as_the_exchange_reads_them(
    adapter: UpbitAdapter, rest: ScriptedRest, depth: int, level: float, sent: dict[str, str]
) -> None:
    rest.answer([BOOK])
    [book] = await adapter.orderbooks(["BTC-ETH"], depth=depth, level=level)
    assert rest.seen[0].query == {"markets": "BTC-ETH"} | sent
    assert len(book.asks) == len(book.bids) == min(depth, 10)


async def test_a_level_the_exchange_does_not_offer_is_unavailable(
    adapter: UpbitAdapter, rest: ScriptedRest
) -> None:
    rest.answer([])
    with pytest.raises(DataUnavailableError, match="no order book of level 7 for BTC-ETH"):
        await adapter.orderbooks(["BTC-ETH"], depth=30, level=7)


@pytest.mark.parametrize("depth", [0, 31])
async def test_a_book_has_one_to_30_rows(adapter: UpbitAdapter, depth: int) -> None:
    with pytest.raises(InvalidRequestError, match=r"depth must be 1\.\.30"):
        await adapter.orderbooks(["KRW-BTC"], depth=depth, level=0)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {}),
        ({"days_ago": 0}, {}),
        ({"days_ago": 7, "cursor": 2**60 + 1}, {"days_ago": "7", "cursor": str(2**60 + 1)}),
        ({"to_ms": 1_767_586_241_999}, {"to": "04:10:41"}),
        ({"to_ms": 1_767_571_200_000, "days_ago": 1}, {"to": "00:00:00", "days_ago": "1"}),
    ],
)
async def test_trades_are_paged_by_time_of_day_cursor_and_day(
    adapter: UpbitAdapter, rest: ScriptedRest, given: dict[str, Any], sent: dict[str, str]
) -> None:
    rest.answer([TRADE])
    [trade] = await adapter.trades("KRW-BTC", count=500, **given)
    assert trade.sequential_id == TRADE["sequential_id"]
    assert rest.seen[0].path == "/v1/trades/ticks"
    assert rest.seen[0].query == {"market": "KRW-BTC", "count": "500"} | sent


@pytest.mark.parametrize(
    "given",
    [{"count": 0}, {"count": 501}, {"count": 1, "days_ago": 8}, {"count": 1, "days_ago": -1}],
)
async def test_trades_beyond_a_page_or_a_week_are_refused_without_a_request(
    adapter: UpbitAdapter, rest: ScriptedRest, given: dict[str, int]
) -> None:
    with pytest.raises(InvalidRequestError, match=r"must be .*, was "):
        await adapter.trades("KRW-BTC", **given)
    assert rest.seen == []


async def test_no_request_says_who_sent_it(adapter: UpbitAdapter, rest: ScriptedRest) -> None:
    """`Origin` alone would cut the allowance to one call in ten seconds."""
    for _ in range(2):
        rest.answer([])
        await ask(adapter)
    assert not {"origin", "cookie", "referer"} & {
        name.lower() for seen in rest.seen for name in seen.headers
    }


async def test_a_compressed_answer_is_read(adapter: UpbitAdapter, rest: ScriptedRest) -> None:
    rest.answer(gzip.compress(body("market_all.json")), headers={"Content-Encoding": "gzip"})
    assert len(await adapter.markets()) == 294


# Statuses and bodies: upbit-api.md §4 and §6; the bodies of 429 and 418 are not documented,
# so each form that clients in the field expect is tried.


@pytest.mark.parametrize(
    "content",
    [
        {"error": {"name": 429, "message": "Too many requests"}},
        {"error": {"name": "too_many_requests", "message": "요청 수 제한을 초과했습니다."}},
        b"",
        b"Too many API requests.",
    ],
)
async def test_a_429_says_to_wait_for_the_next_second(
    adapter: UpbitAdapter, rest: ScriptedRest, remaining: list[tuple[str, int]], content: object
) -> None:
    headers = {"Remaining-Req": "group=candles; min=600; sec=0"}
    rest.answer(content, status=429, headers=headers)
    with pytest.raises(RateLimitedError, match="429") as caught:
        await adapter.candles("KRW-BTC", Timeframe.M1, to_ms=None, count=1)
    assert caught.value.retry_after_s == 1.0
    assert not caught.value.blocked
    assert remaining == [("candles", 0)]


@pytest.mark.parametrize(
    ("content", "wait_s"),
    [
        ({"error": {"name": 418, "message": "blocked for 37 seconds (rule 5)"}}, 37),
        ({"error": {"name": "banned", "message": "418: 300초 후 다시 시도해 주세요."}}, 300),
        ({"error": {"name": 418, "message": "You are a teapot"}}, None),
        ({"error": {"name": 418, "message": ""}}, None),
        (b"", None),
        (b"<html><meta charset=utf-8><h1>418 I'm a teapot</h1></html>", None),
    ],
)
async def test_a_418_says_how_long_this_address_is_blocked(
    adapter: UpbitAdapter, rest: ScriptedRest, content: object, wait_s: float | None
) -> None:
    rest.answer(content, status=418)
    with pytest.raises(RateLimitedError, match="418") as caught:
        await ask(adapter)
    assert caught.value.retry_after_s == wait_s
    assert caught.value.blocked


async def test_an_unknown_code_names_the_symbol(adapter: UpbitAdapter, rest: ScriptedRest) -> None:
    for call, symbol in (
        (adapter.candles("KRW-NOPE", Timeframe.D1, to_ms=None, count=1), "KRW-NOPE"),
        (adapter.trades("KRW-GONE", count=1), "KRW-GONE"),
        (adapter.tickers(["KRW-BTC", "KRW-NOPE"]), "KRW-BTC,KRW-NOPE"),
        (adapter.orderbooks(["KRW-NOPE"], depth=30, level=0), "KRW-NOPE"),
    ):
        rest.answer(NOT_FOUND, status=404)
        with pytest.raises(UnknownSymbolError, match=symbol) as caught:
            await call
        assert caught.value.symbol == symbol


@pytest.mark.parametrize(
    ("status", "content", "error", "words"),
    [
        (400, {"error": {"name": 400, "message": "specified unit is not valid."}},
         InvalidRequestError, "candles of KRW-BTC 1m: .*specified unit is not valid"),
        (400, b"Bad Request", InvalidRequestError, "Bad Request"),
        (404, {"error": {"name": "not_found", "message": "no Route matched with those values"}},
         ProtocolError, "404 to /candles/minutes/1: no Route matched"),
        (404, b"<html>nginx</html>", ProtocolError, "check the address"),
        (401, {"error": {"name": "no_authorization_token", "message": "?"}}, ProtocolError, "401"),
        (403, b"", ProtocolError, "403"),
        (204, b"", ProtocolError, "204"),
        (408, b"", TransportError, "408"),
        (500, {"error": {"name": 500, "message": "server error"}}, TransportError, "answered 500"),
        (502, b"<html>", TransportError, "answered 502"),
        (503, b"", TransportError, "maintenance"),
        (504, b"", TransportError, "answered 504"),
        (302, b"", TransportError, "answered 302"),
        (200, b"<html>maintenance</html>", ProtocolError, "not understood.*maintenance"),
        (200, b"", ProtocolError, "not understood"),
        (200, NOT_FOUND, ProtocolError, "not understood"),
    ],
)  # fmt: skip
async def test_an_answer_that_is_no_success_raises_the_error_that_fits(
    adapter: UpbitAdapter,
    rest: ScriptedRest,
    status: int,
    content: object,
    error: type[BackboneError],
    words: str,
) -> None:
    # Followed, the redirect would be a second request.
    rest.answer(content, status=status, headers={"Location": "/v1/elsewhere"})
    with pytest.raises(error, match=words) as caught:
        await adapter.candles("KRW-BTC", Timeframe.M1, to_ms=None, count=1)
    assert type(caught.value) is error
    assert len(rest.seen) == 1


async def test_a_page_is_no_symbol_so_a_404_of_the_market_list_is_a_wrong_address(
    adapter: UpbitAdapter, rest: ScriptedRest
) -> None:
    rest.answer(NOT_FOUND, status=404)
    with pytest.raises(ProtocolError, match="market list"):
        await adapter.markets()


@pytest.mark.parametrize("cut_after", [0, 1, 4_000])
async def test_an_answer_cut_off_is_a_transport_error_with_its_cause(
    adapter: UpbitAdapter, rest: ScriptedRest, cut_after: int
) -> None:
    rest.answer(MINUTES, cut_after=cut_after)
    with pytest.raises(TransportError, match="cut the answer off") as caught:
        await adapter.candles("KRW-BTC", Timeframe.M1, to_ms=None, count=20)
    assert caught.value.__cause__ is not None


async def test_an_exchange_that_is_not_there_is_a_transport_error(
    session: ClientSession, refusing_port: int, origin: Origin, clock: ManualClock
) -> None:
    adapter = UpbitAdapter(
        session,
        rest_url=f"http://127.0.0.1:{refusing_port}/v1",
        ws_url="ws://127.0.0.1:1",
        origin=origin,
        clock=ExchangeClock(clock),
        local=clock,
    )
    with pytest.raises(
        TransportError, match=rf"127\.0\.0\.1:{refusing_port} was not reached"
    ) as caught:
        await ask(adapter)
    assert isinstance(caught.value.__cause__, OSError)
    assert not origin.known


async def test_an_exchange_that_never_answers_is_given_up_in_time(
    session: ClientSession, rest: ScriptedRest, origin: Origin, clock: ManualClock
) -> None:
    adapter = UpbitAdapter(
        session,
        rest_url=rest.url,
        ws_url="ws://127.0.0.1:1",
        origin=origin,
        clock=ExchangeClock(clock),
        local=clock,
        timeout_s=0.05,
    )
    with pytest.raises(TransportError, match=r"no answer from .* within 0\.05 s"):
        await ask(adapter)
    await eventually(lambda: rest.waiting == 0)


async def test_a_cancelled_call_closes_its_connection(
    adapter: UpbitAdapter, rest: ScriptedRest, session: ClientSession
) -> None:
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(ask(adapter))
        await eventually(lambda: rest.waiting == 1)
        call.cancel()
    await eventually(lambda: rest.waiting == 0)
    # The pool is whole: the next call goes through.
    rest.answer([])
    await ask(adapter)


async def test_a_call_after_the_session_was_closed_is_our_own_bug(
    adapter: UpbitAdapter, session: ClientSession
) -> None:
    await session.close()
    with pytest.raises(ClosedError):
        await ask(adapter)


async def test_many_calls_at_once_each_get_their_own_answer(
    adapter: UpbitAdapter, rest: ScriptedRest
) -> None:
    for _ in range(30):
        rest.answer([TICKER])
    answers = await asyncio.gather(*(adapter.tickers(["USDT-BTC"]) for _ in range(30)))
    assert {ticker.symbol for [ticker] in answers} == {"USDT-BTC"}


@pytest.mark.parametrize(
    ("header", "reported"),
    [
        ("group=candles; min=600; sec=9", [("candles", 9)]),
        ("group=candle; min=1800; sec=0", [("candles", 0)]),
        ("group=trade; min=600; sec=4", [("trades", 4)]),
        ("group=something-new; sec=12; min=600", [("something-new", 12)]),
        ("group=origin;min=6;sec=0", [("origin", 0)]),
        ("", []),
        ("nothing of the kind", []),
        ("group=candles", []),
        ("group=candles; sec=many", []),
        (None, []),
    ],
)
async def test_what_is_left_of_an_allowance_is_reported_by_group(
    adapter: UpbitAdapter,
    rest: ScriptedRest,
    remaining: list[tuple[str, int]],
    header: str | None,
    reported: list[tuple[str, int]],
) -> None:
    rest.answer([], headers={} if header is None else {"Remaining-Req": header})
    await ask(adapter)
    assert remaining == reported


async def test_nobody_has_to_listen_to_what_is_left(
    session: ClientSession, rest: ScriptedRest, origin: Origin, clock: ManualClock
) -> None:
    adapter = UpbitAdapter(
        session,
        rest_url=rest.url + "/",
        ws_url="ws://127.0.0.1:1",
        origin=origin,
        clock=ExchangeClock(clock),
        local=clock,
    )
    rest.answer([], headers={"Remaining-Req": "group=market; min=600; sec=9"})
    assert await adapter.markets() == ()
    assert rest.seen[0].path == "/v1/market/all"


@pytest.mark.parametrize(("ahead_ms", "taken_ms"), [(60_000, 60_000), (60_001, 0), (10**12, 0)])
async def test_a_candle_stamped_in_the_future_was_stamped_as_it_was_asked(
    adapter: UpbitAdapter, rest: ScriptedRest, clock: ManualClock, ahead_ms: int, taken_ms: int
) -> None:
    rows = json.loads(MINUTES)
    rows[0]["timestamp"] = clock.now_ms() + ahead_ms
    rest.answer(rows, headers=http_date(clock.now_ms()))
    _, stamp_ms = await adapter.candles("KRW-BTC", Timeframe.M1, to_ms=None, count=20)
    assert stamp_ms == clock.now_ms() + taken_ms


async def test_the_date_of_an_answer_teaches_the_exchange_s_clock(
    adapter: UpbitAdapter, rest: ScriptedRest, exchange_clock: ExchangeClock
) -> None:
    assert exchange_clock.offset_ms == 0
    rest.answer([], headers=http_date(AUTUMN_2025_MS + HOUR_MS))
    await ask(adapter)
    # Least that fits: the date is floored to the second.
    assert exchange_clock.offset_ms == HOUR_MS


async def test_a_date_within_the_second_leaves_the_clock_alone(
    adapter: UpbitAdapter, rest: ScriptedRest, exchange_clock: ExchangeClock, clock: ManualClock
) -> None:
    clock.advance(0.7)
    rest.answer([], headers=http_date(AUTUMN_2025_MS))
    await ask(adapter)
    assert exchange_clock.offset_ms == 0


@pytest.mark.parametrize(
    "date",
    ["", "soon", "Mon, 15 Sep 2025", "Mon, 99 Sep 2025 00:00:00 GMT", "Mon, 15 Sep 2025 01:00:00"],
)
async def test_a_date_that_cannot_be_read_is_passed_over(
    adapter: UpbitAdapter, rest: ScriptedRest, exchange_clock: ExchangeClock, date: str
) -> None:
    rest.answer([], headers={"Date": date})
    await ask(adapter)
    assert exchange_clock.offset_ms == 0


async def test_the_mark_of_a_simulator_is_on_all_that_it_sends(
    adapter: UpbitAdapter, rest: ScriptedRest, origin: Origin
) -> None:
    mark = {MARK_HEADER: "simulator-1"}
    rest.answer(MINUTES, headers=mark)
    rest.answer([TICKER], headers=mark)
    rest.answer([BOOK], headers=mark)
    rest.answer([TRADE], headers=mark)
    series, _ = await adapter.candles("KRW-BTC", Timeframe.M1, to_ms=None, count=20)
    [ticker] = await adapter.tickers(["USDT-BTC"])
    [book] = await adapter.orderbooks(["BTC-ETH"], depth=30, level=0)
    [trade] = await adapter.trades("KRW-BTC", count=1)
    assert origin.mark == "simulator-1"
    assert series.simulated
    assert ticker.simulated
    assert book.simulated
    assert trade.simulated


@pytest.mark.parametrize(
    ("first", "second"), [("simulator-1", "simulator-2"), ("sim", None), (None, "sim")]
)
async def test_an_answer_under_another_mark_is_refused(
    adapter: UpbitAdapter, rest: ScriptedRest, first: str | None, second: str | None
) -> None:
    for mark in (first, second):
        rest.answer([], headers={} if mark is None else {MARK_HEADER: mark})
    await ask(adapter)
    with pytest.raises(StorageOriginError):
        await ask(adapter)


async def test_an_unknown_code_of_another_simulator_is_not_believed(
    adapter: UpbitAdapter, rest: ScriptedRest, origin: Origin
) -> None:
    origin.observe(None)
    rest.answer(NOT_FOUND, status=404, headers={MARK_HEADER: "simulator-9"})
    with pytest.raises(StorageOriginError):
        await adapter.tickers(["KRW-BTC"])


async def test_the_exchange_s_own_address_never_answers_with_a_mark(
    session: ClientSession, rest: ScriptedRest, clock: ManualClock
) -> None:
    adapter = UpbitAdapter(
        session,
        rest_url=rest.url,
        ws_url="ws://127.0.0.1:1",
        origin=Origin("upbit", accepts_mark=False),
        clock=ExchangeClock(clock),
        local=clock,
    )
    rest.answer([], headers={MARK_HEADER: "simulator-1"})
    with pytest.raises(StorageOriginError, match="real data only"):
        await ask(adapter)


@pytest.mark.parametrize("status", [302, 500, 502])
async def test_the_failure_of_something_in_between_fixes_neither_origin_nor_clock(
    adapter: UpbitAdapter,
    rest: ScriptedRest,
    origin: Origin,
    exchange_clock: ExchangeClock,
    status: int,
) -> None:
    """A proxy knows nothing of the simulator behind it."""
    rest.answer(b"", status=status, headers=http_date(AUTUMN_2025_MS + HOUR_MS))
    with pytest.raises(TransportError):
        await ask(adapter)
    assert not origin.known
    assert exchange_clock.offset_ms == 0
    rest.answer([], headers={MARK_HEADER: "simulator-1"} | http_date(AUTUMN_2025_MS))
    await ask(adapter)
    assert origin.mark == "simulator-1"
