"""The way of a frame: what makes it short must not change what arrives."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from tests.manual_clock import ManualClock
from tests.routing.conftest import OpenRouter, confirmed, stream
from tests.routing.fake_exchange import FakeExchange, make_ticker, make_trade
from tests.steered_loop import SteeredLoop
from upbit_backbone.clock import HOUR_MS
from upbit_backbone.protocol import DataType, Policy
from upbit_backbone.reader import Reader
from upbit_backbone.routing.connection import BUSY_S, LOOK_EVERY
from upbit_backbone.routing.stamps import LOOK_EVERY_S, Stamps


@pytest.mark.steered_time
async def test_after_a_standstill_others_have_their_turn_between_the_frames(
    open_router: OpenRouter, exchange: FakeExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteeredLoop)
    exchange.quote(make_ticker("KRW-BTC", 1.0))
    async with open_router() as router:
        reader = stream(router, DataType.TICKER)
        await confirmed(reader)
        put, frame_s, turns = router._cache.put, BUSY_S / 40, [reader.unread]

        def slow(*arguments: object, **others: object) -> bool:
            loop.leap(frame_s)
            return put(*arguments, **others)  # type: ignore[arg-type]

        async def take_turns() -> None:
            while reader.unread < 500:
                turns.append(reader.unread)
                await asyncio.sleep(0)

        monkeypatch.setattr(router._cache, "put", slow)
        exchange.stall()
        for price in range(500):
            exchange.quote(make_ticker("KRW-BTC", float(price)))
        others = asyncio.create_task(take_turns())
        exchange.resume()
        await others
    steps = [after - before for before, after in pairwise(turns)]
    assert max(steps) <= BUSY_S / frame_s + LOOK_EVERY
    assert max(steps) > LOOK_EVERY  # and not after each: that costs more than the frames


@pytest.mark.parametrize("policy", ["latest", "all"])
async def test_whoever_waits_is_woken_by_the_first_value_and_again_by_the_next(
    policy: Policy,
) -> None:
    reader = Reader(policy, lambda _: None)
    for price in (1.0, 2.0, 3.0):
        waiting = asyncio.create_task(anext(reader))
        await asyncio.sleep(0)
        assert not waiting.done()
        reader.push(make_ticker("KRW-BTC", price))
        reader.push(make_ticker("KRW-XRP", price))
        async with asyncio.timeout(2):
            assert (await waiting).price == price
        assert (await anext(reader)).symbol == "KRW-XRP"


def test_a_clock_that_was_set_back_is_noticed_within_a_second(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    stamps = Stamps(clock)
    trade = make_trade("KRW-BTC", clock.now_ms() + 30_000, 1)
    assert stamps.mended(trade) == (trade, True)
    clock.set_wall(clock.now_ms() - HOUR_MS)
    clock.advance(LOOK_EVERY_S)
    mended, trusted = stamps.mended(trade)
    assert not trusted
    assert mended.exchange_time < trade.exchange_time
    assert len(caplog.records) == 1


def test_a_clock_that_was_set_forward_is_noticed_at_once(clock: ManualClock) -> None:
    stamps = Stamps(clock)
    assert stamps.mended(make_trade("KRW-BTC", clock.now_ms(), 1))[1]
    clock.set_wall(clock.now_ms() + HOUR_MS)
    trade = make_trade("KRW-BTC", clock.now_ms() + 30_000, 2)
    assert stamps.mended(trade) == (trade, True)
