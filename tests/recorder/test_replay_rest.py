"""REST of a replay: the recorded bytes, and pages of recorded rows."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.manual_clock import ManualClock
from tests.recorder.clients import get
from tests.recorder.conftest import ReplayOf
from tests.recorder.samples import answer, begin, book, candle, ended, page
from upbit_backbone.recorder.known_answers import (
    MOST_CANDLES,
    MOST_TRADES,
    CandleRows,
    TradeRows,
)
from upbit_backbone.recorder.records import AnyRecord

MINUTES = "/candles/minutes/1"
DETAILED = b'[ {"market":"KRW-BTC", "market_event":{"warning":false}} ]\n'
PLAIN = b'[{"market":"KRW-BTC"}]'
OPENING: list[AnyRecord] = [
    answer(-4.0, "/market/all?is_details=true", DETAILED),
    answer(
        -3.0, "/market/all", PLAIN, headers=(("remaining-req", "group=market; min=600; sec=7"),)
    ),
    answer(
        -2.0,
        f"{MINUTES}?market=KRW-BTC&count=200",
        page([candle("2025-09-15T00:03:00", "3.00"), candle("2025-09-15T00:01:00", "1.00")]),
        headers=(("remaining-req", "group=candles; min=600; sec=5"),),
    ),
    answer(
        -1.0,
        f"{MINUTES}?market=KRW-BTC&count=200&to=2025-09-15T00%3A01%3A00Z",
        page([candle("2025-09-15T00:00:00", "0.0"), candle("2025-09-14T23:58:00", "-2.0")]),
    ),
]


def rows(*closes: str) -> bytes:
    """The recorded rows of these closes as one page."""
    starts = {
        "4.00": "2025-09-15T00:04:00",
        "3.50": "2025-09-15T00:03:00",
        "3.00": "2025-09-15T00:03:00",
        "1.00": "2025-09-15T00:01:00",
        "0.0": "2025-09-15T00:00:00",
        "-2.0": "2025-09-14T23:58:00",
    }
    return page(candle(starts[close], close) for close in closes).encode()


async def test_the_same_question_gets_the_recorded_bytes(replay_of: ReplayOf) -> None:
    async with replay_of([*OPENING, begin()]) as server:
        assert (await get(server, "/market/all?is_details=true")).body == DETAILED
        plain = await get(server, "/market/all")
        assert plain.body == PLAIN
        assert plain.headers["remaining-req"] == "group=market; min=600; sec=7"
        got = await get(server, f"{MINUTES}?count=200&market=KRW-BTC")
    assert got.body == rows("3.00", "1.00")
    assert got.headers["remaining-req"] == "group=candles; min=600; sec=5"
    assert got.headers["Content-Type"] == "application/json;charset=UTF-8"
    assert got.headers["X-Simulated-Exchange"] == server.name


async def test_the_market_list_with_another_query_is_that_of_its_details(
    replay_of: ReplayOf,
) -> None:
    async with replay_of([*OPENING, begin()]) as server:
        assert (await get(server, "/market/all?isDetails=true")).body == DETAILED
        assert (await get(server, "/market/all?isDetails=false")).body == PLAIN


@pytest.mark.parametrize(
    ("query", "closes"),
    [
        ("market=KRW-BTC", ["3.00"]),
        ("market=krw-btc&count=3", ["3.00", "1.00", "0.0"]),
        ("market=KRW-BTC&count=500", ["3.00", "1.00", "0.0", "-2.0"]),
        ("market=KRW-BTC&count=9&to=2025-09-15T00:03:00Z", ["1.00", "0.0", "-2.0"]),
        ("market=KRW-BTC&count=2&to=2025-09-15T00:03:00.5Z", ["3.00", "1.00"]),
        ("market=KRW-BTC&count=1&to=2025-09-15T09:00:01%2B09:00", ["0.0"]),
        ("market=KRW-BTC&count=1&to=2025-09-15%2000:00:00", ["-2.0"]),
        ("market=KRW-BTC&to=2020-01-01T00:00:00Z", []),
    ],
)
async def test_another_page_is_cut_of_the_recorded_rows(
    replay_of: ReplayOf, query: str, closes: list[str]
) -> None:
    async with replay_of([*OPENING, begin()]) as server:
        got = await get(server, f"{MINUTES}?{query}")
    assert (got.status, got.body) == (200, rows(*closes))


async def test_an_answer_is_the_last_one_before_the_present(
    replay_of: ReplayOf, clock: ManualClock
) -> None:
    question = f"{MINUTES}?market=KRW-BTC&count=200"
    later = answer(
        60.0, question, page([candle("2025-09-15T00:04:00", "4.00"),
                              candle("2025-09-15T00:03:00", "3.50")]),
    )  # fmt: skip
    async with replay_of([*OPENING, begin(), later, ended(61.0)]) as server:
        assert (await get(server, question)).body == rows("3.00", "1.00")
        clock.advance(59.9)
        assert (await get(server, question)).headers["Date"] == "Mon, 15 Sep 2025 00:00:59 GMT"
        assert (await get(server, question)).body == rows("3.00", "1.00")
        clock.advance(0.2)
        async with asyncio.timeout(5):
            while (await get(server, question)).body != rows("4.00", "3.50"):
                pass
        everything = await get(server, f"{MINUTES}?market=KRW-BTC&count=10")
        assert everything.body == rows("4.00", "3.50", "1.00", "0.0", "-2.0")
        clock.advance(1_000)
        assert (await get(server, question)).headers["Date"] == "Mon, 15 Sep 2025 00:01:01 GMT"


async def test_the_clock_waits_for_the_first_question(
    replay_of: ReplayOf, clock: ManualClock
) -> None:
    async with replay_of([*OPENING, begin(), ended(100.0)], speed=10) as server:
        clock.advance(5)
        assert (await get(server, "/market/all")).headers["Date"] == "Mon, 15 Sep 2025 00:00:00 GMT"
        clock.advance(3)
        assert (await get(server, "/market/all")).headers["Date"] == "Mon, 15 Sep 2025 00:00:30 GMT"


def trades(*numbers: int) -> str:
    return json.dumps(
        [
            {
                "market": "KRW-BTC",
                "timestamp": 1_757_894_400_000 + number * 1_000,
                "sequential_id": 100 + number,
            }
            for number in numbers
        ]
    )


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", [99]),
        ("&count=600", [99, 98, 97, 96]),
        ("&count=2&cursor=98", [97, 96]),
        ("&count=9&to=23:59:58", [97, 96]),
        ("&count=9&to=235959&cursor=97", [96]),
        ("&count=1&days_ago=2", []),
    ],
)
async def test_trades_are_cut_by_time_cursor_and_day(
    replay_of: ReplayOf, query: str, ids: list[int]
) -> None:
    opening = [
        answer(-2.0, "/trades/ticks?market=KRW-BTC&count=500", trades(-2, -3, -4)),
        answer(-1.0, "/trades/ticks?market=KRW-BTC&count=500", trades(-1, -2, -3)),
    ]
    async with replay_of([*opening, begin()]) as server:
        days = "" if "days_ago" in query else "&days_ago=1"
        got = await get(server, f"/trades/ticks?market=KRW-BTC{query}{days}")
    assert [row["sequential_id"] for row in json.loads(got.body)] == ids


def test_the_oldest_trades_of_a_long_recording_are_forgotten() -> None:
    kept = TradeRows()
    for number in range(MOST_TRADES + 10):
        kept.put((number, number), b"%d" % number)
    everything = kept.page(0, 10**9, None, 10**9)
    assert len(everything) == MOST_TRADES
    assert everything[-1] == b"10"


def test_the_oldest_candles_of_a_long_recording_are_forgotten() -> None:
    kept = CandleRows()
    for number in range(MOST_CANDLES + 10):
        kept.put(f"{number:09d}", b"%d" % number)
    everything = kept.page(None, 10**9)
    assert (len(everything), everything[-1]) == (MOST_CANDLES, b"10")
    kept.put("000000003", b"older than all that is kept")
    assert kept.page(None, 10**9) == everything


async def test_tickers_and_books_come_one_a_market(replay_of: ReplayOf) -> None:
    tickers = [f'{{"market":"{symbol}", "trade_price":1.50}}' for symbol in ("KRW-BTC", "BTC-ETH")]
    whole = book(1).replace('"type":"orderbook","code"', '"market"')
    opening = [
        answer(-3.0, "/ticker/all?quote_currencies=KRW%2CBTC", page(tickers)),
        answer(-2.0, "/orderbook?markets=KRW-BTC", page([whole])),
    ]
    async with replay_of([*opening, begin()]) as server:
        one = await get(server, "/ticker?markets=BTC-ETH")
        both = await get(server, "/ticker?markets=BTC-ETH,krw-btc")
        of_quote = await get(server, "/ticker/all?quote_currencies=KRW")
        of_no_quote = await get(server, "/ticker/all?quote_currencies=USDT")
        same = await get(server, "/orderbook?markets=KRW-BTC&count=30")
        cut = await get(server, "/orderbook?markets=KRW-BTC&count=2")
        grouped = await get(server, "/orderbook?markets=KRW-BTC&level=10000")
    assert one.body == page([tickers[1]]).encode()
    assert both.body == page(tickers[::-1]).encode()
    assert of_quote.body == page([tickers[0]]).encode()
    assert of_no_quote.status == 404
    assert same.body == page([whole]).encode()
    texts: dict[str, Any] = {"parse_float": str, "parse_int": str}
    expected = json.loads(whole, **texts)
    expected["orderbook_units"] = expected["orderbook_units"][:2]
    assert json.loads(cut.body, **texts) == [expected]
    assert grouped.body == b"[]"


@pytest.mark.parametrize(
    ("target", "status", "words"),
    [
        (f"{MINUTES}?market=KRW-ETH", 404, "Code not found"),
        ("/candles/days?market=KRW-BTC", 404, "Code not found"),
        ("/trades/ticks?market=KRW-BTC", 404, "Code not found"),
        ("/ticker?markets=KRW-BTC", 404, "Code not found"),
        ("/candles/minutes/7?market=KRW-BTC", 400, "specified unit is not valid."),
        (MINUTES, 400, "Missing request parameter"),
        (f"{MINUTES}?market=KRW-BTC&count=abc", 400, "Type mismatch"),
        (f"{MINUTES}?market=KRW-BTC&count=0", 400, "Invalid parameter"),
        (f"{MINUTES}?market=KRW-BTC&to=yesterday", 400, "Invalid parameter"),
        (f"{MINUTES}?market=KRW-BTC&to=9999-12-31T23:59:59.9-12:00", 400, "Invalid parameter"),
        ("/trades/ticks?market=KRW-BTC&days_ago=8", 400, "Invalid parameter"),
        ("/nothing", 404, "no Route matched"),
    ],
)
async def test_what_was_not_recorded_is_refused_as_the_exchange_would(
    replay_of: ReplayOf, target: str, status: int, words: str
) -> None:
    async with replay_of([*OPENING, begin()]) as server:
        got = await get(server, target)
    error = json.loads(got.body)["error"]
    assert got.status == status
    assert words in error["message"]
    assert error["name"] == ("not_found" if "Route" in words else status)
    assert ("remaining-req" in got.headers) is ("Route" not in words)


async def test_a_refusal_of_the_recorder_is_not_told_to_clients(replay_of: ReplayOf) -> None:
    question = f"{MINUTES}?market=KRW-BTC&count=200"
    refusals = [answer(-0.5, question, "{}", status) for status in (429, 418, 500)]
    refusals.append(answer(-0.5, "/ticker?markets=KRW-BTC", "{}", 429))
    unknown = answer(-0.4, "/ticker?markets=KRW-NO", '{"error":1}', 404)
    async with replay_of([*OPENING, *refusals, unknown, begin()]) as server:
        assert (await get(server, question)).body == rows("3.00", "1.00")
        assert (await get(server, "/ticker?markets=KRW-BTC")).status == 404
        got = await get(server, "/ticker?markets=KRW-NO")
    assert (got.status, got.body) == (404, b'{"error":1}')
