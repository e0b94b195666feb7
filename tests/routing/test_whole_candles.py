"""A stream of candles tells which periods it saw whole, when it is asked to."""

from __future__ import annotations

import asyncio
from unittest.mock import ANY

import pytest

from tests.manual_clock import AUTUMN_2025_MS
from tests.routing.conftest import OpenRouter
from tests.routing.fake_exchange import FakeExchange, SteeredClock
from upbit_backbone.clock import MINUTE_MS, epoch_ms
from upbit_backbone.models import Candle, Gap, Timeframe
from upbit_backbone.protocol import BackboneRequest, DataType, Subscription, Whole
from upbit_backbone.routing import candle_feed

pytestmark = pytest.mark.steered_time
NOON = AUTUMN_2025_MS


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock moves by hand here, and no timer notices."""
    monkeypatch.setattr(candle_feed, "LOOK_AGAIN_S", 0.02)


async def told_whole(stream: Subscription) -> tuple[list[Candle], tuple[int, int]]:
    """The candles before the next `Whole`, and its range in minutes."""
    candles: list[Candle] = []
    async with asyncio.timeout(5):
        async for value in stream:
            if isinstance(value, Whole):
                start, end = epoch_ms(value.start) - NOON, epoch_ms(value.end) - NOON
                return candles, (start // MINUTE_MS, end // MINUTE_MS)
            candles.append(value)
    raise AssertionError("the stream ended")


async def test_silent_minutes_are_told_to_have_been_seen_whole(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.trade(price=10.0)
    async with open_router() as router:
        request = BackboneRequest(
            DataType.CANDLE, ("KRW-BTC",), Timeframe.M1, policy="all", proofs=True
        )
        async with router.subscribe(request) as stream:
            candles, span = await told_whole(stream)
            assert span == (0, 0)
            assert [candle.state for candle in candles] == ["forming"]
            exchange.clock.advance(61)
            candles, span = await told_whole(stream)
            assert span == (0, 1)
            assert candles[-1].state == "closed"
            exchange.clock.advance(120)
            candles, span = await told_whole(stream)
            assert span == (1, 3)
            assert candles == []


async def test_after_a_gap_within_a_period_it_is_told_again_from_where_it_is_whole(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wall.run()
    exchange.trade(price=10.0)
    async with open_router() as router:
        request = BackboneRequest(
            DataType.CANDLE, ("KRW-BTC",), Timeframe.D1, policy="all", proofs=True
        )
        async with router.subscribe(request) as stream:
            assert await told_whole(stream) == ([ANY], (0, 0))
            exchange.hold_rest()
            exchange.cut()
            assert isinstance(await anext(stream), Gap)
            exchange.trade(price=20.0)
            exchange.answer_rest()
            told, span = await told_whole(stream)
            assert span == (0, 0), "the day is still the same"
            assert told[-1].volume == 2
