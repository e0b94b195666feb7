"""REST and the socket as one: what is streamed by itself, what answers while one of them is away,
and what is fresh. On an exchange in memory; waiting takes no time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS
from tests.routing.conftest import (
    Market,
    OpenRouter,
    confirmed,
    read_now,
    stream,
    trading,
)
from tests.routing.fake_exchange import (
    FakeExchange,
    Impatient,
    SteeredClock,
    make_book,
    make_ticker,
)
from upbit_backbone.errors import (
    BackboneError,
    DataUnavailableError,
    RateLimitedError,
    StaleDataError,
    TransportError,
)
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.protocol import BackboneRequest, DataType, Priority
from upbit_backbone.routing.interest import IDLE_S
from upbit_backbone.routing.router import Router
from upbit_backbone.routing.stream_hub import CHECK_LISTING_S, LISTING_EVERY_S

pytestmark = pytest.mark.steered_time

BTC, XRP, DOGE = "KRW-BTC", "KRW-XRP", "KRW-DOGE"
CANDLE, TICKER, TRADE, BOOK = (
    DataType.CANDLE,
    DataType.TICKER,
    DataType.TRADE,
    DataType.ORDERBOOK,
)
CRITICAL = Priority.CRITICAL


@pytest.fixture(autouse=True)
def faults_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The guard against unexpected log lines lets a test that takes `caplog` judge them."""


def ask(data_type: DataType, symbol: str = XRP, **others: Any) -> BackboneRequest:
    return BackboneRequest(data_type, (symbol,), **others)


def peek(router: Router, wall: SteeredClock, data_type: DataType, max_age_s: float = 2.0) -> Any:
    return router.peek(data_type, XRP, None, None, None, None, max_age_s, wall.monotonic())


def watched(exchange: FakeExchange, *, kind: Any = "ticker", symbol: str = XRP) -> bool:
    return exchange.subscribed and exchange.socket.wants(kind, symbol)


# What is asked for often is streamed.


async def test_the_third_request_in_ten_seconds_subscribes_and_the_second_does_not(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    exchange.quote(make_ticker(XRP, 1.0))
    async with open_router(hanging_s=60) as router:
        for _ in range(2):
            await router.fetch(ask(TICKER, max_age=0.5))
            await asyncio.sleep(1)
        await router.fetch(ask(TICKER, DOGE))
        assert exchange.sockets == []
        await asyncio.sleep(9)
        await router.fetch(ask(TICKER, max_age=0.5))
        await asyncio.sleep(1)
        assert exchange.sockets == [], "the first one was eleven seconds ago"
        for _ in range(2):
            await router.fetch(ask(TICKER, max_age=0.5))
            await asyncio.sleep(1)
        await eventually(lambda: watched(exchange))
        asked = exchange.rest_calls["ticker"]
        await asyncio.sleep(5)
        exchange.quote(make_ticker(XRP, 2.0, AUTUMN_2025_MS + 30_000))
        await eventually(lambda: peek(router, wall, TICKER).price == 2.0)
        answer = await router.fetch(ask(TICKER, max_age=0.5))
        assert answer.metadata.source == "cache"
        assert exchange.rest_calls["ticker"] == asked
        assert not watched(exchange, symbol=DOGE)
        assert router.status().counters["automatic_streams"] == 1


async def test_one_request_of_critical_subscribes(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    exchange.quote(make_book(XRP))
    async with open_router() as router:
        await router.fetch(ask(BOOK, priority=CRITICAL))
        await eventually(lambda: watched(exchange, kind="orderbook"))


async def test_hits_from_memory_count_as_requests(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    exchange.quote(make_ticker(XRP, 1.0))
    async with open_router() as router:
        await router.fetch(ask(TICKER))
        for _ in range(2):
            assert peek(router, wall, TICKER, 5.0) is not None
        await eventually(lambda: watched(exchange))


async def test_what_nobody_asks_for_any_more_is_dropped_after_five_minutes(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    exchange.quote(make_ticker(XRP, 1.0))
    exchange.quote(make_ticker(BTC, 1.0))
    async with open_router(hanging_s=2_000) as router:
        keeper = stream(router, TICKER, BTC)
        await router.fetch(ask(TICKER, priority=CRITICAL))
        await eventually(lambda: watched(exchange))
        for _ in range(10):  # hits from memory keep it
            await asyncio.sleep(IDLE_S / 3)
            assert peek(router, wall, TICKER) is not None
        await asyncio.sleep(IDLE_S - 3)
        assert watched(exchange)
        await asyncio.sleep(6)
        assert not watched(exchange)
        assert router.connection == "live"
        await asyncio.sleep(3)
        assert peek(router, wall, TICKER) is None, "nobody watches it: it ages"
        assert keeper.state == "confirmed"


async def test_when_nothing_is_asked_for_any_more_the_connection_goes(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    exchange.quote(make_ticker(XRP, 1.0))
    async with open_router(hanging_s=1_000) as router:
        await router.fetch(ask(TICKER, priority=CRITICAL))
        await eventually(lambda: router.connection == "live")
        await asyncio.sleep(IDLE_S - 3)
        assert exchange.socket.open
        await asyncio.sleep(6)
        assert router.connection == "idle"
        assert not exchange.socket.open


# What is fresh.


async def test_a_quiet_book_on_a_living_socket_is_served_and_on_a_half_open_one_is_not(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    exchange.quote(make_book(XRP))
    async with open_router(Impatient(0.5), hanging_s=1_000) as router:
        await confirmed(stream(router, BOOK, XRP, policy="latest"))
        await asyncio.sleep(600)
        assert exchange.socket.pings >= 550, "nothing else came in ten minutes"
        asked = sum(exchange.rest_calls.values())
        answer = await router.fetch(ask(BOOK, priority=CRITICAL))
        assert answer.metadata.source == "cache"
        assert answer.metadata.age_s is not None
        assert answer.metadata.age_s < 2
        assert sum(exchange.rest_calls.values()) == asked
        assert peek(router, wall, BOOK) is not None
        exchange.socket.half_open = True
        exchange.refuse_connect(100)
        exchange.rest_down = TransportError("no route")
        await asyncio.sleep(3)
        assert router.connection == "live", "nobody knows it yet"
        assert peek(router, wall, BOOK) is None
        with pytest.raises((StaleDataError, TransportError)):
            await router.fetch(ask(BOOK, priority=CRITICAL))


async def test_after_half_open_rest_answers_critical(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    exchange.quote(make_book(XRP))
    async with open_router(Impatient(0.5), hanging_s=100) as router:
        await confirmed(stream(router, BOOK, XRP, policy="latest"))
        await asyncio.sleep(20)
        exchange.socket.half_open = True
        await asyncio.sleep(3)
        exchange.values["orderbook", XRP] = make_book(XRP, rows=7, at_ms=wall.now_ms())
        answer = await router.fetch(ask(BOOK, priority=CRITICAL))
        assert len(answer.data[0].asks) == 7, "not the old one"
        assert answer.metadata.source == "rest"


# REST is away.


def newest_candle(symbol: str = XRP) -> CandleSeries:
    rows = [[AUTUMN_2025_MS, 1.0, 3.0, 1.0, 2.0, 5.0, 10.0]]
    return CandleSeries.from_rows(
        symbol,
        Timeframe.M1,
        rows,
        closed_before_ms=AUTUMN_2025_MS,
        source="websocket",
        simulated=False,
    )


LATEST: dict[DataType, dict[str, Any]] = {
    TICKER: {},
    BOOK: {},
    TRADE: {"count": 1},
    CANDLE: {"count": 1, "timeframe": Timeframe.M1},
}


@pytest.mark.parametrize("data_type", list(LATEST))
@pytest.mark.parametrize(
    "error",
    [
        TransportError("no route"),
        RateLimitedError("418", blocked=True, retry_after_s=600.0),
    ],
    ids=["down", "blocked"],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["cold", "streamed by another"])
async def test_while_rest_is_away_the_socket_answers_what_it_can(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    data_type: DataType,
    error: BackboneError,
    streamed: bool,
) -> None:
    wall.run()
    exchange.quote(make_ticker(XRP, 2.0))
    exchange.quote(make_book(XRP))
    exchange.quote(newest_candle())
    exchange.quote(make_ticker(DOGE, 1.0))
    trade = exchange.trade(XRP)
    async with open_router(hanging_s=60) as router:
        # During a block no new connection is opened: this one serves.
        await confirmed(stream(router, TICKER, DOGE, policy="latest"))
        exchange.rest_down = error
        with pytest.raises(BackboneError):  # now it is known
            await router.fetch(ask(CANDLE, count=200, timeframe=Timeframe.M1))
        if streamed:
            kind = DataType.TRADE if data_type is CANDLE else data_type
            await confirmed(stream(router, kind, XRP, policy="latest"))
            await asyncio.sleep(5)
        answer = await router.fetch(ask(data_type, **LATEST[data_type]))
        assert answer.metadata.source in ("websocket", "cache")
        (value,) = answer.data
        if data_type is TRADE:
            assert value.sequential_id == trade.sequential_id
        elif data_type is CANDLE:
            assert (value.high, value.close) == (3.0, 2.0)
        else:
            assert value.symbol == XRP
        assert router.status().health == "degraded"


async def test_what_only_rest_has_fails_by_name_while_it_is_blocked(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    exchange.trade(XRP)
    exchange.rest_down = RateLimitedError("418", blocked=True, retry_after_s=60.0)
    async with open_router() as router:
        for request in (
            ask(CANDLE, count=200, timeframe=Timeframe.M1),
            ask(TRADE, count=500),
            ask(BOOK, level=10_000),
        ):
            with pytest.raises(RateLimitedError) as caught:
                await router.fetch(request)
            assert caught.value.retry_after_s == pytest.approx(60.0, abs=1)
        assert sum(exchange.rest_calls.values()) == 1


@pytest.mark.parametrize("data_type", list(LATEST))
async def test_with_both_channels_down_the_error_names_the_cause(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock, data_type: DataType
) -> None:
    wall.run()
    exchange.refuse_connect(1_000)
    exchange.rest_down = TransportError("no route to the exchange")
    async with open_router(Impatient(0.2), hanging_s=60) as router:
        for _ in range(3):
            began_s = wall.monotonic()
            with pytest.raises(TransportError) as caught:
                await router.fetch(ask(data_type, **LATEST[data_type]))
            assert str(caught.value)
            assert wall.monotonic() - began_s <= 4, "a caller does not wait for ever"
            await asyncio.sleep(1)
        assert router.status().health == "down"
        exchange.rest_down = None
        exchange.trade(XRP)
        await asyncio.sleep(6)
        await router.fetch(ask(data_type, **LATEST[data_type]))


# The other channel is away.


async def test_while_the_socket_is_away_rest_answers(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    exchange.quote(make_ticker(XRP, 2.0))
    async with open_router(Impatient(30.0), hanging_s=60) as router:
        await confirmed(stream(router, TICKER, XRP, policy="latest"))
        exchange.refuse_connect(100)
        exchange.cut()
        await eventually(lambda: router.connection == "reconnecting")
        answer = await router.fetch(ask(TICKER, priority=CRITICAL, max_age=0.0))
        assert answer.metadata.source == "rest"


# Symbols that are not there.


async def test_the_streams_of_a_symbol_that_is_delisted_end_with_the_reason(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    btc = Market(exchange, BTC)
    exchange.quote(make_ticker(XRP, 1.0))
    exchange.trade(XRP)
    async with open_router(hanging_s=2_000) as router, trading(btc, every_s=5.0):
        kept = stream(router, TICKER, BTC, policy="latest")
        ended = stream(router, TICKER, XRP), stream(router, TRADE, XRP)
        candles = stream(router, CANDLE, XRP, timeframe=Timeframe.M1)
        await confirmed(kept, *ended, candles)
        exchange.listed.remove(XRP)
        await asyncio.sleep(LISTING_EVERY_S + 5)
        for reader in (*ended, candles):
            assert reader.state == "closed"
            read_now(reader)
            with pytest.raises(DataUnavailableError, match="KRW-XRP is not listed"):
                await anext(reader)
        assert kept.state == "confirmed"
        assert not watched(exchange)
        assert not watched(exchange, kind="trade")


async def test_a_symbol_that_never_was_listed_ends_its_stream_within_a_minute(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    exchange.quote(make_ticker(BTC, 1.0))
    async with open_router(hanging_s=200) as router:
        wrong, right = stream(router, TICKER, "KRW-NONE"), stream(router, TICKER, BTC)
        unborn = stream(router, TRADE, DOGE)  # listed, and nobody ever traded it
        await asyncio.sleep(2 * CHECK_LISTING_S)
        assert wrong.state == "closed"
        with pytest.raises(DataUnavailableError, match="KRW-NONE"):
            await anext(wrong)
        assert right.state == "confirmed"
        assert unborn.state == "pending"
        await asyncio.sleep(100)
        assert exchange.rest_calls["market"] <= 6


async def test_where_the_listing_cannot_be_read_no_stream_ends(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    exchange.quote(make_ticker(BTC, 1.0))
    async with open_router(hanging_s=200) as router:
        reader, pending = stream(router, TICKER, BTC), stream(router, TICKER, "KRW-NONE")
        await confirmed(reader)
        exchange.rest_down = TransportError("no route")
        await asyncio.sleep(100)
        assert (reader.state, pending.state) == ("confirmed", "pending")
