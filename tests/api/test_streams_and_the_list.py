"""What may be streamed is looked up as it is for a call, though a stream is opened at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.api.house import House, opened
from tests.coordinator.fake_store import FakeStore
from tests.eventually import eventually
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import SYMBOL, market
from upbit_backbone.api.market_data_api import LIST_AGAIN_S, LIST_IS_NEW_S
from upbit_backbone.errors import ClosedError, TransportError, UnknownSymbolError
from upbit_backbone.protocol import BackboneRequest, MarketList, Subscription

pytestmark = pytest.mark.steered_time
NEW, NOWHERE = "KRW-NEW", "KRW-WHO"


def subscribed(house: House) -> list[tuple[str, ...]]:
    return [one.request.symbols for one in house.exchange.subscriptions]


async def test_what_a_new_list_lacks_is_refused_at_once_and_what_an_old_one_lacks_is_asked(
    clock: ManualClock,
) -> None:
    async with opened(clock) as house:
        clock.advance(LIST_IS_NEW_S)
        with pytest.raises(UnknownSymbolError):
            house.api.stream_trades(NEW)
        clock.advance(1)
        house.exchange.listed += (market(NEW),)
        with pytest.raises(UnknownSymbolError) as caught:
            house.api.stream_trades("krw-btc")
        assert caught.value.suggestions[0] == SYMBOL, "however old the list is"
        streams = [house.api.stream_trades(symbol, policy="all") for symbol in (NEW, NOWHERE)]
        assert subscribed(house) == [], "nothing is asked for what may not exist"
        assert f"asked whether it lists {NEW}" in streams[0].reason
        values = [asyncio.create_task(anext(stream)) for stream in streams]
        with pytest.raises(UnknownSymbolError, match=NOWHERE):
            await values[1]
        await eventually(lambda: house.exchange.subscriptions)
        house.exchange.subscriptions[0].values.put_nowait("a trade")
        assert await values[0] == "a trade"
        assert subscribed(house) == [(NEW,)]
        assert streams[1].state == "closed"


class Below:
    """Lists as the layers below have them: one held for ten minutes, or one stored long ago."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.held = MarketList(house.exchange.listed, house.clock.monotonic())
        self.cut_off = False
        self.asked = 0
        house.store.markets = self.markets  # type: ignore[method-assign]

    async def markets(self, *, max_age_s: float = 600.0) -> MarketList:
        now = self.house.clock.monotonic()
        if now - self.held.asked_s >= max_age_s:
            self.asked += 1
            if self.cut_off:
                return MarketList(self.held.markets, error=TransportError("cut off"))
            self.held = MarketList(self.house.exchange.listed, now)
        return self.held


async def test_a_list_is_as_old_as_it_is_and_not_as_when_it_was_handed_over(
    clock: ManualClock,
) -> None:
    async with opened(clock) as house:
        below = Below(house)
        house.exchange.listed += (market(NEW),)
        clock.advance(2 * LIST_IS_NEW_S)
        assert NEW not in [one.symbol for one in await house.api.get_markets()]
        stream = house.api.stream_trades(NEW, policy="all")
        trade = asyncio.create_task(anext(stream))
        await eventually(lambda: house.exchange.subscriptions)
        house.exchange.subscriptions[0].values.put_nowait("a trade")
        assert await trade == "a trade"
        assert below.asked == 1
        # What is known for less than a minute is believed, and asked for by nobody.
        clock.advance(LIST_IS_NEW_S / 2)
        for _ in range(3):
            with pytest.raises(UnknownSymbolError):
                await house.api.get_ticker_data(NOWHERE)
            with pytest.raises(UnknownSymbolError):
                house.api.stream_ticker(NOWHERE)
        assert below.asked == 1
        stream.close()


async def test_a_stored_list_proves_of_no_market_that_it_is_not_listed(clock: ManualClock) -> None:
    async with opened(clock) as house:
        below = Below(house)
        below.cut_off = True
        house.exchange.listed += (market(NEW),)
        clock.advance(3_600)
        assert [one.symbol for one in await house.api.get_markets()] == [SYMBOL, "KRW-XRP"]
        stream, unknown = (house.api.stream_trades(one, policy="all") for one in (NEW, NOWHERE))
        trades = [asyncio.create_task(anext(one)) for one in (stream, unknown)]
        for _ in range(3):
            clock.advance(LIST_AGAIN_S)
            await asyncio.sleep(1)
        assert (stream.state, unknown.state) == ("stale", "stale")
        assert stream.reason == f"the exchange is asked whether it lists {NEW} by now: cut off"
        for call in (house.api.get_ticker_data(NEW), house.api.get_candle_data(NEW, "1m")):
            with pytest.raises(TransportError, match="cut off") as caught:
                await call
            assert NEW in str(caught.value)
        below.cut_off = False
        clock.advance(LIST_AGAIN_S)
        await eventually(lambda: house.exchange.subscriptions)
        house.exchange.subscriptions[0].values.put_nowait("a trade")
        assert await trades[0] == "a trade"
        with pytest.raises(UnknownSymbolError, match=NOWHERE):
            await trades[1]
        stream.close()


async def test_without_a_list_a_stream_begins_and_ends_when_it_is_known_not_to_be_listed(
    clock: ManualClock,
) -> None:
    house = House(clock)
    reached, asked = asyncio.Event(), 0

    async def offline(_: BackboneRequest) -> None:
        nonlocal asked
        asked += 1
        if not reached.is_set():
            raise TransportError("not reached")

    house.exchange.before_answer = offline
    await house.bus.start()
    await house.api.start()
    unknown, known = (house.api.stream_ticker(symbol) for symbol in (NOWHERE, SYMBOL))
    values = [asyncio.create_task(anext(stream)) for stream in (unknown, known)]
    assert subscribed(house) == [(NOWHERE,), (SYMBOL,)]
    await asyncio.sleep(1)
    assert asked == 1, "two streams ask once"
    reached.set()
    clock.advance(LIST_AGAIN_S)
    with pytest.raises(UnknownSymbolError, match=NOWHERE):
        await values[0]
    assert house.exchange.subscriptions[0].state == "closed"
    house.exchange.subscriptions[1].values.put_nowait("a ticker")
    assert await values[1] == "a ticker"
    known.close()
    await house.api.stop()
    await house.bus.stop()


async def test_a_stream_whose_layer_is_begun_anew_waits_and_ends_with_the_service(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def subscribe(store: FakeStore, request: BackboneRequest) -> Subscription:
        raise TransportError("layer_1 failed and is begun anew")

    async with opened(clock) as house:
        with monkeypatch.context() as patch:
            patch.setattr(FakeStore, "subscribe", subscribe)
            streams: list[Any] = [
                house.api.stream_ticker(SYMBOL),
                house.api.stream_candles(SYMBOL, "1m", policy="all"),
            ]
        assert [stream.state for stream in streams] == ["stale"] * 2
        value = asyncio.create_task(anext(streams[0]))
        await eventually(lambda: house.exchange.subscriptions)
        house.exchange.subscriptions[0].values.put_nowait("a ticker")
        assert await value == "a ticker"
        waiting = asyncio.create_task(anext(streams[1]))
        monkeypatch.setattr(FakeStore, "subscribe", subscribe)
        await asyncio.sleep(0)
        house.exchange.subscriptions[0].close()
        await house.api.stop()
        with pytest.raises(ClosedError, match="service is closed"):
            await waiting
