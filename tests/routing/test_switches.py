"""What settings switch off in layer 1: automatic streams, standing in, obeying a block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.eventually import eventually
from tests.routing.conftest import stream
from tests.routing.fake_exchange import FakeExchange, Impatient, SteeredClock, make_ticker
from upbit_backbone.errors import BackboneError, RateLimitedError, TransportError
from upbit_backbone.protocol import BackboneRequest, DataType, Priority
from upbit_backbone.routing.channel_choice import Choice, Reason
from upbit_backbone.routing.failover import POLL_AFTER_S
from upbit_backbone.routing.router import Router

pytestmark = pytest.mark.steered_time

XRP = "KRW-XRP"


@pytest.fixture(autouse=True)
def faults_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The guard against unexpected log lines lets a test that takes `caplog` judge them."""


@asynccontextmanager
async def opened(
    exchange: FakeExchange, wall: SteeredClock, **switches: Any
) -> AsyncIterator[Router]:
    router = Router(exchange, clock=wall, rng=Impatient(), critical_reserve=2, **switches)
    await router.start()
    try:
        async with asyncio.timeout(60):
            yield router
    finally:
        await router.stop()


def ask(**others: Any) -> BackboneRequest:
    return BackboneRequest(DataType.TICKER, (XRP,), **others)


@pytest.mark.parametrize("automatic", [True, False])
async def test_what_is_asked_for_often_gets_a_stream_unless_that_is_switched_off(
    exchange: FakeExchange, wall: SteeredClock, automatic: bool
) -> None:
    wall.run()
    exchange.quote(make_ticker(XRP, 1.0))
    async with opened(exchange, wall, automatic_streams=automatic) as router:
        for _ in range(5):
            await router.fetch(ask(max_age=0.5, priority=Priority.CRITICAL))
            await asyncio.sleep(1.0)
        assert exchange.subscribed is automatic


@pytest.mark.parametrize("fallbacks", [True, False])
async def test_prices_are_polled_while_the_stream_is_away_unless_that_is_switched_off(
    exchange: FakeExchange, wall: SteeredClock, fallbacks: bool
) -> None:
    wall.run()
    exchange.quote(make_ticker(XRP, 1.0))
    exchange.refuse_connect(1_000)
    async with opened(exchange, wall, fallbacks=fallbacks) as router:
        reader = stream(router, DataType.TICKER, XRP, policy="latest")
        await asyncio.sleep(POLL_AFTER_S + 5.0)
        assert (router.connection == "polling") is fallbacks
        assert bool(reader.unread) is fallbacks
        reader.close()


@pytest.mark.parametrize("error", [TransportError("away"), RateLimitedError("away: 429")])
@pytest.mark.parametrize("fallbacks", [True, False])
async def test_the_socket_answers_while_rest_fails_unless_that_is_switched_off(
    exchange: FakeExchange, wall: SteeredClock, fallbacks: bool, error: BackboneError
) -> None:
    wall.run()
    exchange.quote(make_ticker(XRP, 1.0))
    async with opened(exchange, wall, fallbacks=fallbacks, automatic_streams=False) as router:
        exchange.quote(make_ticker("KRW-BTC", 1.0))
        reader = stream(router, DataType.TICKER, "KRW-BTC")
        await eventually(lambda: router.connection == "live")
        exchange.fail_next(error, error)
        if fallbacks:
            response = await router.fetch(ask(max_age=0.5))
            assert response.metadata.source == "websocket"
        else:
            with pytest.raises(type(error), match="away"):
                await router.fetch(ask(max_age=0.5))
        reader.close()


@pytest.mark.parametrize("first", ["rest", "websocket"])
async def test_while_neither_channel_answers_the_cause_is_told_in_time(
    exchange: FakeExchange, wall: SteeredClock, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall.run()
    async with opened(exchange, wall, automatic_streams=False) as router:
        exchange.quote(make_ticker("KRW-BTC", 1.0))
        reader = stream(router, DataType.TICKER, "KRW-BTC")
        await eventually(lambda: router.connection == "live")
        exchange.mute = True
        if first == "websocket":
            choice = Choice("websocket", Reason.FASTEST)
            monkeypatch.setattr(router, "_choose", lambda *_, **__: choice)
        exchange.fail_next(TransportError("away"), TransportError("away"))
        deadline_s = wall.monotonic() + 1.0
        with pytest.raises(TransportError, match="away"):
            await router.fetch(ask(max_age=0.5, priority=Priority.CRITICAL, deadline=deadline_s))
        assert wall.monotonic() <= deadline_s + 0.04
        reader.close()


@pytest.mark.parametrize("obeyed", [True, False])
async def test_nothing_is_asked_during_a_block_unless_that_is_switched_off(
    exchange: FakeExchange, wall: SteeredClock, obeyed: bool
) -> None:
    exchange.quote(make_ticker(XRP, 1.0))
    async with opened(
        exchange, wall, circuit_breaker=obeyed, fallbacks=False, automatic_streams=False
    ) as router:
        exchange.fail_next(RateLimitedError("418", blocked=True, retry_after_s=60.0))
        with pytest.raises(RateLimitedError):
            await router.fetch(ask(max_age=0.5))
        if obeyed:
            with pytest.raises(RateLimitedError, match="nothing is asked before"):
                await router.fetch(ask(max_age=0.5))
        else:
            assert (await router.fetch(ask(max_age=0.5))).success
        assert router.status().counters["http_429"] == 0, "a block is none"
        assert router.status().counters["requests"] == (1 if obeyed else 2)
