"""Indicators as a program asks for them, on neighbours of a few lines."""

from __future__ import annotations

from math import isnan
from typing import Any

import pytest

from tests.api.house import NOON, House, opened
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import SYMBOL
from upbit_backbone.clock import SECOND_MS
from upbit_backbone.errors import (
    ClosedError,
    InvalidRequestError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.indicators import compute
from upbit_backbone.protocol import Priority


@pytest.fixture
def noon() -> ManualClock:
    return ManualClock(NOON + 30 * SECOND_MS)


def in_use(house: House) -> House:
    """With candles for some hours, the last one forming."""
    house.exists(*range(-600, 1))
    return house


async def test_the_values_are_those_of_many_candles_of_which_the_last_are_given(
    noon: ManualClock,
) -> None:
    async with opened(noon) as house:
        api = in_use(house).api
        rsi = await api.get_indicator(SYMBOL, "RSI", timeframe="1m", period=14)
        assert (rsi.name, rsi.parameters, len(rsi)) == ("RSI", {"period": 14}, 100)
        candles = await api.get_candle_data(SYMBOL, "1m", count=394)
        assert float(rsi) == compute("RSI", candles, period=14).latest
        assert rsi.candles == candles[-100:]
        assert not rsi.candles.closed[-1]
        (few,) = await api.get_indicator(SYMBOL, "sma", count=1, period=5)
        assert few == pytest.approx(candles.close[-5:].mean())


async def test_the_forming_candle_can_be_left_out(noon: ManualClock) -> None:
    async with opened(noon) as house:
        average = await in_use(house).api.get_indicator(SYMBOL, "SMA", closed_only=True, period=3)
        assert average.candles.closed.all()


async def test_a_young_market_has_what_can_be_said_of_it(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exists(*range(-15, 1))
        rsi = await house.api.get_indicator(SYMBOL, "RSI")
        assert [isnan(value) for value in rsi] == [True] * 14 + [False] * 2


async def test_the_priority_goes_down_with_the_candles(noon: ManualClock) -> None:
    async with opened(noon) as house:
        await in_use(house).api.get_indicator(SYMBOL, "RSI", priority=Priority.CRITICAL)
        asked = [request.priority for request in house.exchange.requests]
        assert asked and set(asked) == {Priority.CRITICAL}


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "RSX"},
        {"name": 5},
        {"count": 0},
        {"count": 10_001},
        {"count": 1.0},
        {"count": True},
        {"period": 1},
        {"period": "14"},
        {"perod": 14},
        {"series": 1},
        {"values": 1},
        {"timeframe": "2m"},
        {"priority": 1},
        {"timeout": -1},
        {"closed_only": "yes"},
    ],
    ids=str,
)
async def test_a_wrong_call_asks_nobody(noon: ManualClock, arguments: dict[str, Any]) -> None:
    async with opened(noon) as house:
        with pytest.raises(InvalidRequestError) as caught:
            await house.api.get_indicator(SYMBOL, **({"name": "RSI"} | arguments))
        assert "\n" not in str(caught.value)
        assert house.exchange.requests == []


async def test_what_a_candle_call_raises_an_indicator_raises(noon: ManualClock) -> None:
    async def cut_off(_: object) -> None:
        raise TransportError("cut off")

    async with opened(noon) as house:
        with pytest.raises(UnknownSymbolError):
            await house.api.get_indicator("KRW-BTCC", "RSI")
        house.exchange.before_answer = cut_off
        with pytest.raises(TransportError):
            await house.api.get_indicator(SYMBOL, "RSI", timeout=0.5)
        await house.api.stop()
        with pytest.raises(ClosedError):
            await house.api.get_indicator(SYMBOL, "RSI")
