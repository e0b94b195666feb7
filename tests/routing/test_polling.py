"""REST in place of the stream: the router on an exchange in memory, with steered time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS
from tests.routing.conftest import OpenRouter, confirmed, read_now, stream
from tests.routing.fake_exchange import (
    FakeExchange,
    Impatient,
    SteeredClock,
    make_book,
    make_ticker,
)
from upbit_backbone.errors import RateLimitedError, TransportError
from upbit_backbone.models import Gap
from upbit_backbone.protocol import BackboneRequest, DataType, Priority
from upbit_backbone.routing.failover import POLL_AFTER_S
from upbit_backbone.routing.rest_channel import ALL_TICKERS_FROM

pytestmark = pytest.mark.steered_time

BTC, XRP, DOGE = "KRW-BTC", "KRW-XRP", "KRW-DOGE"
TICKER, TRADE, BOOK = DataType.TICKER, DataType.TRADE, DataType.ORDERBOOK
FOR_EVER = 10_000


@pytest.fixture(autouse=True)
def outages_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The guard against unexpected log lines lets a test that takes `caplog` judge them."""


def quoted(exchange: FakeExchange, *symbols: str, price: float = 1.0, after_ms: int = 0) -> None:
    for symbol in symbols:
        exchange.quote(make_ticker(symbol, price, AUTUMN_2025_MS + after_ms))
        exchange.quote(make_book(symbol, at_ms=AUTUMN_2025_MS + after_ms))


def stay_away(exchange: FakeExchange) -> None:
    """The stream is lost, and does not come back before `let_back`."""
    exchange.refuse_connect(FOR_EVER)
    exchange.cut()


def let_back(exchange: FakeExchange) -> None:
    exchange.connect_failures.clear()


async def test_two_seconds_without_a_stream_and_everything_watched_is_two_calls_a_second(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    quoted(exchange, BTC, XRP, DOGE)
    async with open_router(Impatient(0.4)) as router:
        tickers = [stream(router, TICKER, symbol, policy="latest") for symbol in (BTC, XRP)]
        books = [stream(router, BOOK, symbol, policy="latest") for symbol in (XRP, DOGE)]
        await confirmed(*tickers, *books)
        stay_away(exchange)
        await eventually(lambda: router.connection == "reconnecting")
        lost_s = wall.monotonic()
        assert {reader.state for reader in (*tickers, *books)} == {"stale"}
        await eventually(lambda: exchange.rest_calls["ticker"])
        assert POLL_AFTER_S <= wall.monotonic() - lost_s <= POLL_AFTER_S + 1.1
        assert router.connection == "polling"
        exchange.rest_calls.clear()
        exchange.asked_for.clear()
        await asyncio.sleep(4.5)
        assert exchange.rest_calls["ticker"] in (4, 5)
        assert exchange.rest_calls["orderbook"] in (4, 5)
        assert set(exchange.asked_for) == {(BTC, XRP), (DOGE, XRP)}
        assert {reader.state for reader in (*tickers, *books)} == {"confirmed"}
        assert tickers[0].reason == "polled by REST once a second: refused"
        assert router.status().reason.startswith("polled by REST once a second")
        assert router.status().counters["polls"] >= 5


async def test_trades_are_polled_for_readers_alone_and_come_once(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    quoted(exchange, BTC)
    trades = [exchange.trade(XRP)]
    async with open_router(Impatient(0.4), hanging_s=60) as router:
        every = stream(router, TRADE, XRP)
        latest = stream(router, TRADE, XRP, policy="latest")
        await confirmed(every, latest)
        stay_away(exchange)
        await eventually(lambda: router.connection == "polling")
        exchange.trade(BTC)
        for _ in range(20):
            trades.append(exchange.trade(XRP))
            await asyncio.sleep(0.5)
        assert read_now(latest)[-1].sequential_id >= trades[-4].sequential_id
        assert "polled by REST" in every.reason
        let_back(exchange)
        await eventually(lambda: router.connection == "live")
        trades.append(exchange.trade(XRP))
        await eventually(lambda: router.status().counters["gaps_closed"] == 1)
        values = read_now(every)
        assert [value.sequential_id for value in values if not isinstance(value, Gap)] == [
            trade.sequential_id for trade in trades
        ]
        assert not any(isinstance(value, Gap) for value in values)
        assert (BTC,) not in exchange.asked_for, "nobody reads its trades"


async def test_trades_come_by_rest_where_there_never_was_a_stream(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    exchange.trade(XRP)
    exchange.refuse_connect(FOR_EVER)
    async with open_router(Impatient(0.4), hanging_s=60) as router:
        await asyncio.sleep(1)
        every = stream(router, TRADE, XRP)
        await eventually(lambda: router.connection == "polling")
        trades = []
        for _ in range(10):
            await asyncio.sleep(1)
            trades.append(exchange.trade(XRP))
        await asyncio.sleep(2)
        assert every.state == "confirmed"
        let_back(exchange)
        await eventually(lambda: router.connection == "live")
        await eventually(lambda: router.status().counters["gaps_closed"] == 1)
        assert [trade.sequential_id for trade in read_now(every)] == [
            trade.sequential_id for trade in trades
        ], "what happened before it came is none of its business"


async def test_readers_are_given_what_has_changed(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    quoted(exchange, BTC)
    async with open_router(Impatient(0.4), hanging_s=60) as router:
        reader = stream(router, TICKER, BTC)
        await confirmed(reader)
        stay_away(exchange)
        await eventually(lambda: router.connection == "polling")
        await asyncio.sleep(5)
        read_now(reader)
        await asyncio.sleep(5)
        assert read_now(reader) == [], "nothing has changed"
        quoted(exchange, BTC, price=2.0, after_ms=60_000)
        await asyncio.sleep(5)
        assert [ticker.price for ticker in read_now(reader)] == [2.0]
        held = router.peek(TICKER, BTC, None, None, None, None, 2.0, wall.monotonic())
        assert held is not None, "what is polled once a second is fresh"


async def test_the_stream_comes_back_by_itself_and_polling_ends(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    quoted(exchange, BTC)
    async with open_router(Impatient(0.4), hanging_s=60) as router:
        reader = stream(router, TICKER, BTC)
        await confirmed(reader)
        stay_away(exchange)
        await eventually(lambda: "polled" in reader.reason)
        let_back(exchange)
        await eventually(lambda: router.connection == "live")
        assert (reader.state, reader.reason) == ("confirmed", "")
        await asyncio.sleep(1.1)
        asked = exchange.rest_calls["ticker"]
        await asyncio.sleep(10)
        assert exchange.rest_calls["ticker"] == asked
        assert [one.state for one in router.transitions] == [
            "connecting",
            "live",
            "reconnecting",
            "polling",
            "live",
        ]
        assert router.status().health == "healthy"


async def test_what_cannot_be_polled_is_marked_stale_and_the_rest_is_not(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall.run()
    quoted(exchange, BTC)

    async def fails(*_: Any, **__: Any) -> Any:
        raise TransportError("no books today")

    monkeypatch.setattr(exchange, "orderbooks", fails)
    async with open_router(Impatient(0.4), hanging_s=60) as router:
        ticker, book = stream(router, TICKER), stream(router, BOOK)
        await confirmed(ticker, book)
        stay_away(exchange)
        await eventually(lambda: router.connection == "polling")
        await asyncio.sleep(3)
        assert ticker.state == "confirmed"
        assert book.state == "stale"
        assert book.reason == "refused; polling does not keep up: no books today"


async def test_where_rest_fails_too_readers_are_stale_and_health_is_down(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    quoted(exchange, BTC)
    async with open_router(Impatient(0.4), hanging_s=60) as router:
        ticker, trade = stream(router, TICKER), stream(router, TRADE)
        exchange.trade()
        await confirmed(ticker, trade)
        exchange.rest_down = TransportError("no route")
        stay_away(exchange)
        await eventually(lambda: router.connection == "polling")
        await asyncio.sleep(3)
        assert (ticker.state, trade.state) == ("stale", "stale")
        assert "polling does not keep up: no route" in trade.reason
        assert (router.status().health, router.status().reason) == ("down", "no route")
        exchange.rest_down = None
        await confirmed(ticker, trade)
        assert router.status().health == "degraded"


async def test_all_tickers_are_one_call_however_many(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    symbols = [f"KRW-{number}" for number in range(ALL_TICKERS_FROM)]
    exchange.listed += symbols
    quoted(exchange, *symbols)
    async with open_router(Impatient(0.4), hanging_s=60) as router:
        readers = [stream(router, TICKER, symbol, policy="latest") for symbol in symbols]
        await confirmed(*readers)
        stay_away(exchange)
        await eventually(lambda: router.connection == "polling")
        await asyncio.sleep(3.5)
        assert exchange.rest_calls["all tickers"] in (3, 4)
        assert exchange.rest_calls["ticker"] == 0
        assert {reader.state for reader in readers} == {"confirmed"}


async def test_what_the_system_watches_by_itself_is_polled_as_well(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    quoted(exchange, BTC, XRP)
    async with open_router(Impatient(0.4), hanging_s=60) as router:
        await router.fetch(BackboneRequest(TICKER, (XRP,), priority=Priority.CRITICAL))
        await eventually(lambda: router.connection == "live")
        stay_away(exchange)
        await eventually(lambda: router.connection == "polling")
        await asyncio.sleep(5)
        assert router.peek(TICKER, XRP, None, None, None, None, 2.0, wall.monotonic()) is not None


async def test_during_a_block_nothing_is_polled_and_after_it_the_stream_comes_back(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    quoted(exchange, BTC)
    async with open_router(Impatient(0.4), hanging_s=200) as router:
        reader = stream(router, TICKER)
        await confirmed(reader)
        exchange.refuse_connect(
            1, RateLimitedError("blocked: 418", blocked=True, retry_after_s=60.0)
        )
        exchange.cut()
        await eventually(lambda: router.connection == "blocked", timeout=100)
        await asyncio.sleep(50)
        assert router.connection == "blocked"
        assert exchange.rest_calls["ticker"] == 0
        assert len(exchange.connected_at) == 2
        assert reader.state == "stale"
        assert "418" in reader.reason
        assert "418" in router.status().reason
        await eventually(lambda: router.connection == "live", timeout=30)
        await confirmed(reader)
        assert len(exchange.connected_at) == 3


async def test_when_the_last_reader_leaves_polling_ends(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    quoted(exchange, BTC)
    async with open_router(Impatient(0.4), hanging_s=60) as router:
        reader = stream(router, TICKER)
        await confirmed(reader)
        stay_away(exchange)
        await eventually(lambda: router.connection == "polling")
        reader.close()
        await eventually(lambda: router.connection == "idle")
        asked = exchange.rest_calls["ticker"]
        await asyncio.sleep(10)
        assert exchange.rest_calls["ticker"] <= asked + 1
        assert router.status().health == "healthy"
