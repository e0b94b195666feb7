from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS
from tests.routing.conftest import OpenRouter, read_now, running, stream
from tests.routing.fake_exchange import FakeExchange, Impatient, SteeredClock
from upbit_backbone.clock import utc_datetime
from upbit_backbone.errors import (
    BackboneError,
    ClosedError,
    ProtocolError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.models import Candle, Gap, Timeframe
from upbit_backbone.protocol import DataType, Policy, Priority
from upbit_backbone.reader import Reader
from upbit_backbone.routing import candle_feed
from upbit_backbone.routing.rest_channel import RestChannel
from upbit_backbone.routing.router import Router

pytestmark = pytest.mark.steered_time
CANDLE = DataType.CANDLE
NOON = AUTUMN_2025_MS
LOOK_AGAIN_S = candle_feed.LOOK_AGAIN_S


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock moves by hand here, and no timer notices."""
    monkeypatch.setattr(candle_feed, "LOOK_AGAIN_S", 0.02)


def minutes(router: Router, policy: Policy = "all", timeframe: Timeframe = Timeframe.M1) -> Reader:
    return stream(router, CANDLE, policy=policy, timeframe=timeframe)


async def read_until(reader: Reader, state: str) -> list[Any]:
    """Read up to the first candle or gap in this state."""
    values = []
    async with asyncio.timeout(5):
        async for value in reader:
            values.append(value)
            if value.state == state:
                return values
    raise AssertionError(f"the stream ended before {state}: {values}")


async def test_a_candle_is_seeded_by_rest_grows_by_trades_and_closes_by_the_clock(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.trade(price=10.0)
    exchange.clock.advance(1)
    exchange.trade(price=12.0)
    async with open_router() as router:
        reader = minutes(router)
        assert exchange.sockets == []
        seeded = await anext(reader)
        assert (seeded.open, seeded.close, seeded.volume, seeded.state) == (10, 12, 2, "forming")
        assert reader.state == "confirmed"
        exchange.clock.advance(1)
        exchange.trade(price=11.0)
        grown = await anext(reader)
        assert (grown.close, grown.volume) == (11, 3)
        exchange.clock.advance(59)
        closed = await anext(reader)
        assert (closed.state, closed.closed) == ("closed", True)
        assert (closed.open, closed.high, closed.low, closed.close) == (10, 12, 10, 11)
        assert closed.open_time == utc_datetime(NOON)
        assert exchange.rest_calls == {"candles": 1}


async def test_trades_that_arrive_while_the_seed_is_read_are_counted_once(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.trade(price=10.0)
    exchange.hold_rest()
    async with open_router() as router:
        reader = minutes(router)
        await eventually(lambda: exchange.rest_waiting == 1)
        exchange.clock.advance(1)
        exchange.trade(price=11.0)
        exchange.answer_rest()
        assert (await anext(reader)).volume == 2
        exchange.clock.advance(1)
        exchange.trade(price=12.0)
        grown = await anext(reader)
        assert (grown.volume, grown.open, grown.close) == (3, 10, 12)


async def test_a_candle_that_ends_while_its_seed_is_read_is_whole_when_it_closes(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.clock.advance(58)
    exchange.trade(price=10.0)
    exchange.hold_rest()
    async with open_router() as router:
        reader = minutes(router)
        await eventually(lambda: exchange.rest_waiting == 1)
        exchange.clock.advance(1)
        exchange.trade(price=11.0)
        exchange.clock.advance(5)
        exchange.trade(price=12.0)
        exchange.answer_rest()
        first = await read_until(reader, "closed")
        closed = first[-1]
        assert closed.open_time == utc_datetime(NOON)
        assert (closed.open, closed.close, closed.volume) == (10, 11, 2)
        exchange.trade(price=13.0)
        exchange.clock.advance(60)
        (*_, following) = await read_until(reader, "closed")
        assert (following.open, following.close, following.volume) == (12, 13, 2)


async def test_what_has_arrived_is_counted_before_the_clock_closes_a_candle(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.trade(price=10.0)
    async with open_router() as router:
        reader = minutes(router)
        await anext(reader)
        exchange.trade(price=11.0, at_ms=NOON + 59_000)
        exchange.trade(price=12.0, at_ms=NOON + 59_900)
        exchange.clock.advance(70)
        values = await read_until(reader, "closed")
        assert (values[-1].close, values[-1].volume) == (12.0, 3)


async def test_after_a_short_break_the_candle_has_what_was_read_back(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wall.run()
    exchange.trade(price=10.0)
    async with open_router(Impatient(0.5)) as router:
        reader = minutes(router)
        await anext(reader)
        exchange.cut()
        await eventually(lambda: reader.state == "stale")
        exchange.trade(price=30.0)
        exchange.trade(price=20.0)
        await eventually(lambda: reader.state == "confirmed")
        exchange.clock.advance(60)
        (*_, closed) = await read_until(reader, "closed")
        assert (closed.open, closed.high, closed.close, closed.volume) == (10, 30, 20, 3)


async def test_while_trades_are_read_back_a_confirmed_stream_does_not_know_what_was_lost(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wall.run()
    exchange.trade(price=10.0)
    async with open_router(Impatient(0.5)) as router:
        reader = minutes(router)
        await anext(reader)
        await asyncio.sleep(5)
        age_ms = wall.now_ms() - (reader.complete_to_ms or 0)
        assert age_ms <= 1_100, "nobody trades, and each second the connection answers"
        exchange.cut()
        await eventually(lambda: reader.state == "stale")
        exchange.trade(price=30.0)
        lost_ms = wall.now_ms()
        exchange.hold_rest()
        await eventually(lambda: reader.state == "confirmed")
        assert reader.complete_to_ms is not None
        assert reader.complete_to_ms < lost_ms
        exchange.answer_rest()
        assert (await read_until(reader, "forming"))[-1].close == 30
        # It is read a second time, because REST lags.
        await eventually(lambda: (reader.complete_to_ms or 0) >= lost_ms)


async def test_a_connection_that_is_dead_unnoticed_is_not_called_complete(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    exchange.trade(price=10.0)
    async with open_router(Impatient(0.5)) as router:
        reader = minutes(router)
        await anext(reader)
        exchange.socket.half_open = True
        dead_ms = wall.now_ms()
        await asyncio.sleep(3)
        assert reader.state == "confirmed"
        assert reader.complete_to_ms is not None
        assert reader.complete_to_ms <= dead_ms


async def test_who_becomes_more_urgent_has_the_next_seed_and_what_was_lost_sooner(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wall.run()
    asked: list[tuple[str, Priority]] = []
    limited = RestChannel._ask

    async def noted(channel: Any, group: Any, priority: Any, *others: Any) -> Any:
        asked.append((group, getattr(priority, "priority", priority)))
        return await limited(channel, group, priority, *others)

    monkeypatch.setattr(RestChannel, "_ask", noted)
    exchange.trade(price=10.0)
    async with open_router() as router:
        reader = stream(router, CANDLE, timeframe=Timeframe.M1, priority=Priority.LOW)
        await anext(reader)
        assert asked == [("candles", Priority.LOW)]
        reader.set_priority(Priority.HIGH)
        exchange.cut()
        exchange.trade(price=20.0)
        (*_, grown) = await read_until(reader, "forming")
        await eventually(lambda: ("candles", Priority.HIGH) in asked)
        assert ("trades", Priority.HIGH) in asked
        assert grown.close == 20
        assert Priority.LOW not in [priority for _, priority in asked[1:]]


async def test_no_candle_closes_while_trades_may_be_missing(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wall.run()
    exchange.trade(price=10.0)
    async with open_router(Impatient(1.5)) as router:
        reader = minutes(router)
        await anext(reader)
        wall.advance(58)
        exchange.cut()
        await eventually(lambda: reader.state == "stale")
        exchange.trade(price=30.0)
        wall.advance(10)
        exchange.trade(price=40.0)
        await asyncio.sleep(1)
        assert reader.unread == 0, "its minute is over, and what happened at its end is unknown"
        closed = (await read_until(reader, "closed"))[-1]
        assert (closed.open, closed.close, closed.volume) == (10, 30, 2)


async def test_after_a_gap_the_candle_is_read_again_and_a_reader_of_all_hears_how_it_ended(
    open_router: OpenRouter,
    exchange: FakeExchange,
    wall: SteeredClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wall.run()
    exchange.trade(price=10.0)
    async with open_router() as router:
        every, latest = minutes(router), minutes(router, "latest")
        await anext(every)
        await eventually(lambda: latest.state == "confirmed")
        exchange.hold_rest()
        exchange.cut()
        opened = (await read_until(every, "open"))[-1]
        assert isinstance(opened, Gap)
        await eventually(lambda: every.state == "stale")
        exchange.trade(price=20.0)
        exchange.answer_rest()
        values = await read_until(every, "closed")
        assert [type(value) for value in values] == [*[Candle] * (len(values) - 1), Gap]
        assert (values[-2].high, values[-2].volume) == (20, 2)
        assert every.state == "confirmed"
        assert exchange.rest_calls["candles"] == 4
        assert not any(isinstance(value, Gap) for value in read_now(latest))


async def test_a_half_seen_candle_is_never_emitted_as_closed(
    open_router: OpenRouter, exchange: FakeExchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.trade(price=10.0)
    async with open_router(Impatient(0.02)) as router:
        reader = minutes(router)
        await anext(reader)
        exchange.hold_rest()
        exchange.cut()
        exchange.trade(price=99.0)
        exchange.clock.advance(59)
        await eventually(lambda: exchange.rest_waiting == 1)
        exchange.clock.advance(61)
        exchange.trade(price=30.0)
        exchange.answer_rest()
        exchange.clock.advance(120)
        exchange.trade(price=40.0)
        values: list[Any] = []
        async with asyncio.timeout(5):
            while not values or isinstance(values[-1], Gap) or values[-1].close != 40.0:
                values.append(await anext(reader))
        for candle in values:
            if isinstance(candle, Candle) and candle.closed:
                whole = [
                    trade.price
                    for trade in exchange.executed["KRW-BTC"]
                    if Timeframe.M1.floor_ms(_ms(trade)) == _ms_of(candle)
                ]
                assert (candle.open, candle.close, candle.volume) == (
                    whole[0],
                    whole[-1],
                    len(whole),
                )


def _ms(trade: Any) -> int:
    return int(trade.exchange_time.timestamp() * 1_000)


def _ms_of(candle: Candle) -> int:
    return int(candle.open_time.timestamp() * 1_000)


async def test_where_the_seed_fails_the_next_candle_is_built_from_its_beginning(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.trade(price=10.0)
    exchange.fail_next(TransportError("no route"))
    async with open_router() as router:
        reader = minutes(router)
        await eventually(lambda: "no route" in reader.reason)
        exchange.trade(price=11.0)
        exchange.clock.advance(60)
        exchange.trade(price=12.0)
        exchange.clock.advance(1)
        exchange.trade(price=13.0)
        exchange.clock.advance(60)
        (*_, closed) = await read_until(reader, "closed")
        assert closed.open_time == utc_datetime(NOON + 60_000)
        assert (closed.open, closed.close, closed.volume) == (12, 13, 2)


async def test_a_break_while_the_seed_is_read_is_not_overlooked(
    open_router: OpenRouter, exchange: FakeExchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.trade(price=10.0)
    exchange.hold_rest()
    async with open_router(Impatient(0.02)) as router:
        reader = minutes(router)
        await eventually(lambda: exchange.rest_waiting == 1)
        exchange.cut()
        await eventually(lambda: len(exchange.sockets) == 2 and exchange.subscribed)
        exchange.clock.advance(1)
        exchange.answer_rest()
        await eventually(lambda: exchange.rest_calls["trades"] and not exchange.rest_waiting)
        exchange.trade(price=11.0)
        await eventually(lambda: any(c.state == "forming" and c.close == 11 for c in reader._all))
        exchange.clock.advance(60)
        (*_, closed) = await read_until(reader, "closed")
        assert (closed.open, closed.close, closed.volume) == (10, 11, 2)


async def test_closing_a_pending_reader_asks_the_exchange_nothing(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    async with open_router() as router:
        reader = minutes(router)
        await eventually(lambda: exchange.subscribed)
        reader.close()
        await eventually(lambda: router.connection == "idle")
        await eventually(lambda: running(router) == {"stream hub", "stream tending"})
        assert exchange.rest_calls == {}


async def test_closing_a_candle_reader_ends_its_feed_and_lets_the_connection_go(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.trade()
    async with open_router() as router:
        async with minutes(router) as reader:
            await anext(reader)
        await eventually(lambda: router.connection == "idle")
        await eventually(lambda: running(router) == {"stream hub", "stream tending"})


@pytest.mark.both_loops
async def test_closing_the_router_ends_candle_readers_with_a_closed_error(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.trade()
    async with open_router() as router:
        reader = minutes(router)
        await anext(reader)
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        await router.stop()
        async with asyncio.timeout(2):
            with pytest.raises(ClosedError):
                await waiting


async def test_a_feed_that_breaks_ends_its_reader(
    open_router: OpenRouter,
    exchange: FakeExchange,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exchange.trade()

    async def broken(*_: Any, **__: Any) -> Any:
        raise KeyError("a bug")

    monkeypatch.setattr(exchange, "candles", broken)
    async with open_router() as router:
        reader = minutes(router)
        async with asyncio.timeout(2):
            with pytest.raises(ClosedError):
                await anext(reader)


@pytest.mark.both_loops
@pytest.mark.parametrize("timeframe", [Timeframe.W1, Timeframe.MO1, Timeframe.Y1])
async def test_long_candles_are_built_under_qt_whose_timers_are_short(
    open_router: OpenRouter, exchange: FakeExchange, timeframe: Timeframe
) -> None:
    # Qt's timers count milliseconds in 32 bits: 24.8 days.
    exchange.trade(price=10.0)
    async with open_router() as router:
        reader = minutes(router, timeframe=timeframe)
        assert (await anext(reader)).open == 10
        exchange.clock.advance(1)
        exchange.trade(price=11.0)
        assert (await anext(reader)).close == 11


async def test_waiting_for_trades_leaves_no_long_timers_behind(
    open_router: OpenRouter, exchange: FakeExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candle_feed, "LOOK_AGAIN_S", LOOK_AGAIN_S)
    # qasync keeps the timer of a cancelled wait until it fires: one a trade, for a day.
    delays: list[float] = []
    exchange.trade()
    async with open_router() as router:
        reader = minutes(router, timeframe=Timeframe.D1)
        await anext(reader)
        loop = asyncio.get_running_loop()
        call_at = loop.call_at

        def noted(when: float, *arguments: Any, **others: Any) -> Any:
            delays.append(when - loop.time())
            return call_at(when, *arguments, **others)

        monkeypatch.setattr(loop, "call_at", noted)
        for _ in range(3):
            exchange.clock.advance(1)
            exchange.trade()
            await anext(reader)
        await eventually(lambda: delays)
    assert max(delays) <= 1.0


async def test_a_candle_closes_soon_after_the_wall_clock_was_set(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.trade()
    async with open_router() as router:
        reader = minutes(router, timeframe=Timeframe.D1)
        await anext(reader)
        exchange.clock.advance(2 * 86_400)
        async with asyncio.timeout(3):
            assert (await anext(reader)).state == "closed"


async def test_a_seed_that_failed_is_tried_again_without_losing_what_was_built(
    open_router: OpenRouter, exchange: FakeExchange
) -> None:
    exchange.trade(price=10.0)
    exchange.fail_next(TransportError("no route"))
    async with open_router() as router:
        reader = minutes(router)
        await reader.confirmed()
        exchange.clock.advance(2)
        exchange.trade(price=12.0)
        exchange.clock.advance(4)
        seeded = await anext(reader)
        assert (seeded.open, seeded.close, seeded.volume, seeded.state) == (10, 12, 2, "forming")
        exchange.trade(price=11.0)
        grown = await anext(reader)
        assert (grown.close, grown.volume) == (11, 3)
        assert exchange.rest_calls == {"candles": 2}


@pytest.mark.parametrize(
    "error", [ProtocolError("garbled"), UnknownSymbolError("KRW-BTC"), TransportError("no route")]
)
async def test_one_wrong_answer_to_the_seed_does_not_cost_the_candle_of_the_day(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock, error: BackboneError
) -> None:
    wall.run()
    exchange.trade(price=10.0)
    exchange.fail_next(error)
    async with open_router() as router:
        reader = minutes(router, timeframe=Timeframe.D1)
        await reader.confirmed()
        seeded = await anext(reader)
        assert (seeded.open, seeded.volume, seeded.state) == (10, 1, "forming")
        assert reader.reason == ""


async def test_a_seed_that_fails_for_long_is_asked_less_and_less_and_once_a_minute_at_last(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    exchange.trade(price=10.0)
    exchange.rest_down = ProtocolError("garbled")
    async with open_router(hanging_s=2_000) as router:
        reader = minutes(router, timeframe=Timeframe.D1)
        await reader.confirmed()
        asked = []
        for _ in range(10):
            await asyncio.sleep(60)
            asked.append(exchange.rest_calls["candles"])
        assert asked[0] == 4, "at once, and after 5, 15 and 35 s"
        assert asked[-1] - asked[-6] == 5
        exchange.rest_down = None
        async with asyncio.timeout(90):
            assert (await anext(reader)).volume == 1


async def test_a_second_whose_seed_lacked_trades_is_revised_though_two_others_have_closed(
    open_router: OpenRouter, exchange: FakeExchange, wall: SteeredClock
) -> None:
    wall.run()
    exchange.trade(price=10.0)
    wall.advance(0.9)
    lacking = exchange.trade(price=30.0, streamed=False)
    exchange.executed["KRW-BTC"].remove(lacking)
    async with open_router() as router:
        reader = minutes(router, timeframe=Timeframe.S1)
        assert (await anext(reader)).high == 10
        # REST tells of it later than the stream would have.
        exchange.executed["KRW-BTC"].append(lacking)
        for price in (11.0, 12.0):
            await asyncio.sleep(0.5)
            exchange.trade(price=price)
            await asyncio.sleep(0.5)
        *before, revised = await read_until(reader, "revised")
        assert [candle.state for candle in before].count("closed") == 2
        assert revised.open_time == utc_datetime(NOON)
        assert (revised.high, revised.close, revised.volume) == (30, 30, 2)
