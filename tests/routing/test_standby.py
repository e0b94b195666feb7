"""A second connection on suspicion, and what was lost on the first: with steered time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.eventually import eventually
from tests.routing.conftest import (
    Market,
    OpenRouter,
    confirmed,
    read_now,
    stream,
    trading,
)
from tests.routing.fake_exchange import FakeExchange, Impatient, SteeredClock
from upbit_backbone.errors import TransportError
from upbit_backbone.models import Gap, Trade
from upbit_backbone.protocol import DataType
from upbit_backbone.routing.failover import SUSPECT_AGAIN_S
from upbit_backbone.routing.rhythm import BLOCKS_TO_JUDGE, GAPS_PER_BLOCK

pytestmark = pytest.mark.steered_time

BTC, XRP = "KRW-BTC", "KRW-XRP"
TICKER, TRADE, BOOK = DataType.TICKER, DataType.TRADE, DataType.ORDERBOOK
LONGEST_BOTH_S = 5.0
"""Two connections are never subscribed for longer."""
EVERY_S = 0.5
LEARNED_S = (BLOCKS_TO_JUDGE + 1) * GAPS_PER_BLOCK * EVERY_S
"""After so long the rhythm of a market with a trade each half second is known."""


@pytest.fixture
def btc(exchange: FakeExchange) -> Market:
    return Market(exchange, BTC)


@pytest.fixture
def xrp(exchange: FakeExchange) -> Market:
    return Market(exchange, XRP)


def ids(values: list[Any]) -> list[int]:
    return [value.sequential_id for value in values if isinstance(value, Trade)]


def open_sockets(exchange: FakeExchange) -> int:
    return sum(socket.open for socket in exchange.sockets)


class Watch:
    """Notes for how long two connections were open at once."""

    longest_s = 0.0
    most = 0


@asynccontextmanager
async def watching(exchange: FakeExchange) -> AsyncIterator[Watch]:
    watch = Watch()

    async def look() -> None:
        since_s: float | None = None
        while True:
            open_now, now = open_sockets(exchange), exchange.clock.monotonic()
            watch.most = max(watch.most, open_now)
            since_s = (since_s or now) if open_now > 1 else None
            if since_s is not None:
                watch.longest_s = max(watch.longest_s, now - since_s)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(look(), name="watch")
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_symbol_that_falls_silent_while_the_reference_flows_is_taken_over(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    btc: Market,
    xrp: Market,
) -> None:
    wall.run()
    btc.trade()
    xrp.trade()
    async with open_router(hanging_s=400) as router, trading(btc, xrp, every_s=EVERY_S):
        every = stream(router, TRADE, XRP)
        await confirmed(every)
        await asyncio.sleep(LEARNED_S)
        assert (router.connection, len(exchange.sockets)) == ("live", 1)
        first = exchange.sockets[0]
        first.deaf = {("trade", XRP), ("ticker", XRP)}
        silent_s = wall.monotonic()
        async with watching(exchange) as watch:
            await eventually(lambda: router.connection == "suspicious", timeout=20)
            assert 8 <= wall.monotonic() - silent_s <= 15
            assert f"of {XRP} is silent for" in router.status().reason
            assert every.state == "stale"
            assert "silent for" in every.reason
            await eventually(lambda: router.connection == "live")
            await asyncio.sleep(5)
        assert (watch.most, open_sockets(exchange)) == (2, 1)
        assert watch.longest_s < 1.0, "its snapshots came at once"
        assert not first.open
        await eventually(lambda: router.status().counters["gaps_closed"] == 1)
        await asyncio.sleep(1)
        values = read_now(every)
        assert ids(values) == [trade.sequential_id for trade in xrp.trades[1:]]
        assert not any(isinstance(value, Gap) for value in values)
        assert router.status().counters["standbys"] == 1
        assert router.status().counters["reconnects"] == 0
        assert [one.state for one in router.transitions] == [
            "connecting",
            "live",
            "suspicious",
            "live",
        ]


async def test_a_quiet_market_costs_a_look_and_nothing_else(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    btc: Market,
    xrp: Market,
) -> None:
    wall.run()
    btc.trade()
    xrp.trade()
    async with open_router(hanging_s=600) as router, trading(btc):
        every = stream(router, TRADE, XRP)
        await confirmed(every)
        async with trading(xrp, every_s=EVERY_S):
            await asyncio.sleep(LEARNED_S)
        async with watching(exchange) as watch:
            await eventually(lambda: router.status().counters["standbys"] == 1, timeout=20)
            await eventually(lambda: router.connection == "live")
        assert watch.longest_s <= LONGEST_BOTH_S
        await asyncio.sleep(15)
        age_s = router.peek_age_s(TICKER, XRP, None, None, wall.monotonic())
        assert age_s is not None
        assert age_s < 2, "it is quiet, and nothing else"
        await asyncio.sleep(SUSPECT_AGAIN_S)
        assert router.status().counters["standbys"] == 1, "it is quiet, that is known now"
        assert router.status().counters["gaps_opened"] == 0
        values = read_now(every)
        assert ids(values) == [trade.sequential_id for trade in xrp.trades]
        assert not any(isinstance(value, Gap) for value in values)
        assert open_sockets(exchange) == 1
        xrp.trade()
        await eventually(lambda: every.unread == 1)


async def test_while_the_whole_connection_is_silent_no_single_market_is_suspected(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    btc: Market,
    xrp: Market,
) -> None:
    wall.run()
    btc.trade()
    xrp.trade()
    async with open_router(hanging_s=400) as router:
        every = stream(router, TRADE, XRP)
        await confirmed(every)
        async with trading(btc, xrp, every_s=EVERY_S):
            await asyncio.sleep(LEARNED_S)
        await asyncio.sleep(100)
        assert router.status().counters["standbys"] == 0
        assert router.connection == "live"


async def test_a_suspected_value_grows_old_though_the_connection_lives(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    btc: Market,
    xrp: Market,
) -> None:
    wall.run()
    btc.trade()
    xrp.trade()
    async with open_router(hanging_s=400) as router, trading(btc, xrp, every_s=EVERY_S):
        await confirmed(stream(router, TICKER, XRP, policy="latest"))
        await asyncio.sleep(LEARNED_S)
        exchange.refuse_connect(1)  # no standby is to be had
        exchange.sockets[0].deaf = {("ticker", XRP)}

        def age_s() -> float:
            age = router.peek_age_s(TICKER, XRP, None, None, wall.monotonic())
            assert age is not None
            return age

        await asyncio.sleep(5)
        assert age_s() < 1
        await eventually(lambda: router.status().counters["standbys"] == 1, timeout=20)
        assert age_s() > 8
        assert router.connection == "live"
        exchange.sockets[0].deaf.clear()
        await asyncio.sleep(1)
        assert age_s() < 1


@pytest.mark.parametrize("fault", ["mute", "refused"])
async def test_a_standby_that_is_not_had_in_time_is_given_up_and_the_first_serves_on(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    btc: Market,
    xrp: Market,
    fault: str,
) -> None:
    wall.run()
    btc.trade()
    xrp.trade()
    async with open_router(hanging_s=400) as router, trading(btc, every_s=EVERY_S):
        every = stream(router, TRADE, XRP)
        await confirmed(every)
        async with trading(xrp, every_s=EVERY_S):
            await asyncio.sleep(LEARNED_S)
        read_now(every)
        if fault == "mute":
            exchange.mute, exchange.deaf = True, {("ticker", BTC)}
        else:
            exchange.refuse_connect(1)
        async with watching(exchange) as watch:
            await eventually(lambda: router.status().counters["standbys"] == 1, timeout=20)
            await eventually(lambda: router.connection == "live", timeout=6)
            await asyncio.sleep(1)
        assert watch.longest_s <= LONGEST_BOTH_S
        assert exchange.sockets[0].open
        assert open_sockets(exchange) == 1
        trade = xrp.trade()
        assert await anext(every) == trade
        assert every.state == "confirmed"
        assert router.status().counters["reconnects"] == 0


async def test_where_the_suspected_connection_ends_the_standby_takes_over_at_once(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    caplog: pytest.LogCaptureFixture,
    btc: Market,
    xrp: Market,
) -> None:
    wall.run()
    btc.trade()
    xrp.trade()
    async with (
        open_router(Impatient(30.0), hanging_s=400) as router,
        trading(btc, every_s=EVERY_S),
    ):
        every = stream(router, TRADE, XRP)
        await confirmed(every)
        async with trading(xrp, every_s=EVERY_S):
            await asyncio.sleep(LEARNED_S)
        exchange.mute = True  # so that the standby takes its time
        await eventually(lambda: len(exchange.sockets) == 2, timeout=20)
        await asyncio.sleep(0.5)
        exchange.mute = False
        lost = xrp.trade(streamed=False)
        exchange.sockets[0].fail(TransportError("gone"))
        await asyncio.sleep(4)
        assert lost.sequential_id in ids(read_now(every))
        xrp.trade()
        await eventually(lambda: every.unread)
        assert open_sockets(exchange) == 1
        assert router.connection == "live"


async def test_a_trade_lost_on_the_way_is_proved_by_the_tickers_sums_and_delivered_late(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    btc: Market,
    xrp: Market,
) -> None:
    wall.run()
    btc.trade()
    xrp.trade()
    async with open_router(hanging_s=200) as router, trading(btc, xrp, every_s=EVERY_S):
        every, latest = stream(router, TRADE, XRP), stream(router, TRADE, XRP, policy="latest")
        await confirmed(every, latest)
        await asyncio.sleep(20)
        read_now(every)
        async with watching(exchange) as watch:
            lost, lost_s = xrp.trade(streamed=False), wall.monotonic()
            await eventually(lambda: lost.sequential_id in ids(read_now(every)) or None, timeout=10)
            assert wall.monotonic() - lost_s < 5
            await asyncio.sleep(LONGEST_BOTH_S + 1)
        assert watch.longest_s <= LONGEST_BOTH_S
        assert router.status().counters["trades_read_back"] == 1
        assert router.status().counters["gaps_closed"] == 1
        assert router.status().counters["standbys"] == 1
        assert latest.state == "confirmed"


async def test_where_nothing_was_lost_the_sums_agree_and_nothing_is_suspected(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    btc: Market,
    xrp: Market,
) -> None:
    wall.run()
    btc.trade()
    xrp.trade()
    async with open_router(hanging_s=200) as router, trading(btc, xrp, every_s=EVERY_S):
        every = stream(router, TRADE, XRP)
        await confirmed(every)
        await asyncio.sleep(120)
        assert ids(read_now(every)) == [trade.sequential_id for trade in xrp.trades[1:]]
        counters = router.status().counters
        assert (counters["gaps_opened"], counters["standbys"], counters["reconnects"]) == (0, 0, 0)
        assert exchange.rest_calls["trades"] == 0
