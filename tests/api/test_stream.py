"""A stream goes on when a layer below was begun anew, and says what may be missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from tests.eventually import eventually
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import SYMBOL
from upbit_backbone.api.stream import Stream
from upbit_backbone.clock import utc_datetime
from upbit_backbone.errors import (
    BackboneError,
    ClosedError,
    SlowConsumerError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.models import Candle, CandleState, Gap, Timeframe, Trade
from upbit_backbone.protocol import Priority
from upbit_backbone.reader import Reader

pytestmark = pytest.mark.steered_time


def reader() -> Reader:
    return Reader("all", lambda _: None)


GONE = ClosedError("layer_1 is gone")
ANEW = TransportError("layer_1 is begun anew")


class World:
    """A service whose streams a test ends and opens."""

    def __init__(self, clock: ManualClock, *, gaps: bool, works: bool = True) -> None:
        self.clock = clock
        self.opened: list[Reader] = []
        self.works = works
        self.closed = False
        self.listed: bool | Exception = True
        self.stream = Stream(
            self.subscribe,
            check=self.check,
            check_running=self.check_running,
            tells_gaps_of=SYMBOL if gaps else None,
            now_ms=clock.now_ms,
        )

    def subscribe(self) -> Reader:
        if not self.works:
            raise ANEW
        self.opened.append(reader())
        return self.opened[-1]

    def check(self) -> bool:
        if isinstance(self.listed, Exception):
            raise self.listed
        return self.listed

    def check_running(self) -> None:
        if self.closed:
            raise ClosedError("the service is closed")

    def confirm(self) -> None:
        self.opened[-1].mark("confirmed")

    def put(self, value: Trade) -> None:
        self.opened[-1].push(value)

    def fail(self, error: BackboneError) -> None:
        self.opened[-1].fail(error)

    def trade(self, number: int) -> Trade:
        now = utc_datetime(self.clock.now_ms())
        return Trade(
            symbol=SYMBOL,
            price=1.0,
            volume=1.0,
            side="BUY",
            sequential_id=number,
            late=False,
            exchange_time=now,
            received_time=now,
            source="websocket",
            simulated=False,
        )


@asynccontextmanager
async def reading(clock: ManualClock, *, gaps: bool) -> AsyncIterator[tuple[World, list[Any]]]:
    world, got = World(clock, gaps=gaps), []

    async def read() -> None:
        async for value in world.stream:
            got.append(value)  # noqa: PERF401  it is looked at meanwhile

    task = asyncio.create_task(read())
    yield world, got
    world.stream.close()
    await task


async def put_off(stream: Stream) -> None:
    """Read with little patience, and in vain."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.001)


async def test_a_stream_goes_on_and_tells_a_reader_of_all_what_it_may_have_missed(
    clock: ManualClock,
) -> None:
    async with reading(clock, gaps=True) as (world, got):
        world.confirm()
        world.put(first := world.trade(1))
        await eventually(lambda: got == [first])
        clock.advance(2)
        world.works = False
        world.fail(GONE)
        await eventually(lambda: len(got) == 2)
        since = first.exchange_time
        broken = since + timedelta(seconds=2)
        assert got.pop() == Gap(SYMBOL, "open", since, broken, "layer_1 is gone"), "told at once"
        await eventually(lambda: world.stream.reason == "layer_1 is begun anew")
        states: list[str] = [world.stream.state]
        world.works = True
        await eventually(lambda: len(world.opened) == 2)
        assert [*states, world.stream.state] == ["stale", "pending"]
        clock.advance(3)
        world.put(second := world.trade(2))
        await eventually(lambda: len(got) == 3)
        back = since + timedelta(seconds=5)
        assert got == [first, Gap(SYMBOL, "unfillable", since, back, "layer_1 is gone"), second]


async def test_a_new_layer_gives_no_trade_twice_and_a_quiet_market_is_told_the_end(
    clock: ManualClock,
) -> None:
    async with reading(clock, gaps=True) as (world, got):
        first, late = world.trade(7), world.trade(3)
        for trade in (first, late):
            world.put(trade)
        await eventually(lambda: got == [first, late])
        world.fail(GONE)
        clock.advance(1)
        await eventually(lambda: len(world.opened) == 2)
        world.put(first)  # what an exchange begins with: its newest trade
        await eventually(lambda: len(got) == 4)
        assert [gap.state for gap in got[2:]] == ["open", "unfillable"]
        world.fail(GONE)
        await eventually(lambda: len(world.opened) == 3)
        await asyncio.sleep(0.3)
        assert [gap.state for gap in got[4:]] == ["open"], "it is not in force yet"
        assert got[4].start == got[3].end, "what was told as lost is not told again"
        world.confirm()
        await eventually(lambda: len(got) == 6)
        assert got[5].state == "unfillable", "although nobody trades"
        world.put(world.trade(8))
        await eventually(lambda: len(got) == 7)


async def test_a_reader_who_is_put_off_while_a_layer_is_begun_anew_reads_on_after_it(
    clock: ManualClock,
) -> None:
    for gaps in (False, True):
        world = World(clock, gaps=gaps)
        world.works = False
        world.fail(GONE)
        if gaps:
            assert (await anext(world.stream)).state == "open"
        for _ in range(3):
            await put_off(world.stream)
            assert world.stream.state == "stale"
            assert "layer_1" in world.stream.reason
        world.works = True
        while len(world.opened) == 1:
            await put_off(world.stream)
        world.put(value := world.trade(1))
        if gaps:
            assert (await anext(world.stream)).state == "unfillable"
        else:
            assert await anext(world.stream) == value
        world.stream.close()
        assert [one async for one in world.stream] == [], "also what was held"


async def test_two_who_read_one_stream_both_read_on(clock: ManualClock) -> None:
    world = World(clock, gaps=False)
    values = [asyncio.create_task(anext(world.stream)) for _ in range(2)]
    await asyncio.sleep(0)
    world.fail(GONE)
    await eventually(lambda: len(world.opened) == 2)
    trades = [world.trade(number) for number in range(2)]
    for trade in trades:
        world.put(trade)
    assert sorted(await asyncio.gather(*values), key=trades.index) == trades
    assert len(world.opened) == 2
    world.stream.close()


async def test_what_was_lost_keeps_a_stream_from_being_complete_until_it_was_told(
    clock: ManualClock,
) -> None:
    world = World(clock, gaps=True)
    opened_ms = clock.now_ms()
    told_ms: list[int | None] = [None]
    world.opened[0]._complete_to_ms = lambda: told_ms[0]
    clock.advance(5)
    told_ms[0] = clock.now_ms()
    assert world.stream.complete_to_ms == told_ms[0]
    world.fail(GONE)
    assert (await anext(world.stream)).state == "open"
    assert world.stream.complete_to_ms == opened_ms
    while len(world.opened) == 1:
        await put_off(world.stream)
    clock.advance(5)
    told_ms[0] = clock.now_ms()
    world.opened[1]._complete_to_ms = lambda: told_ms[0]
    assert world.stream.complete_to_ms == opened_ms, "it is in force, and the end is not told"
    world.confirm()
    assert (await anext(world.stream)).state == "unfillable"
    assert world.stream.complete_to_ms == told_ms[0]


async def test_candles_that_wait_to_be_read_do_not_hide_when_the_layer_was_lost(
    clock: ManualClock,
) -> None:
    world = World(clock, gaps=True)
    clock.advance(60)
    minute = utc_datetime(Timeframe.M1.floor_ms(clock.now_ms()))
    for closed in (True, False):
        start = minute - timedelta(minutes=1) if closed else minute
        state: CandleState = "closed" if closed else "forming"
        candle = Candle(SYMBOL, Timeframe.M1, start, 1, 1, 1, 1, 1, 1, closed=closed, state=state)
        world.opened[0].push(candle)
    world.fail(GONE)
    clock.advance(600)  # its reader was busy
    assert [(await anext(world.stream)).open_time for _ in range(2)][1] == minute
    gap = await anext(world.stream)
    assert (gap.start, gap.state) == (minute, "open")
    world.stream.close()


async def test_a_stream_that_is_asked_for_while_a_layer_is_begun_anew_waits_for_it(
    clock: ManualClock,
) -> None:
    world = World(clock, gaps=True, works=False)
    assert (world.stream.state, world.stream.reason) == ("stale", str(ANEW))
    assert world.stream.complete_to_ms is None
    world.stream.set_priority(Priority.CRITICAL)
    value = asyncio.create_task(anext(world.stream))
    await asyncio.sleep(0)
    world.works = True
    await eventually(lambda: world.opened)
    assert world.opened[0].priority is Priority.CRITICAL
    world.put(trade := world.trade(1))
    assert await value == trade, "nothing was promised before: there is no gap"
    world.stream.close()
    waits = World(clock, gaps=False, works=False)
    reads = asyncio.create_task(anext(waits.stream, None))
    await asyncio.sleep(0)
    waits.stream.close()
    assert await reads is None, "closing ends the waiting"
    assert (waits.stream.state, waits.stream.reason) == ("closed", "closed by its reader")


async def test_a_stream_of_what_turns_out_not_to_be_listed_ends_with_the_error(
    clock: ManualClock,
) -> None:
    world = World(clock, gaps=False)
    world.listed = False
    unsure = Stream(world.subscribe, check=world.check)
    await put_off(unsure)
    world.listed = UnknownSymbolError("KRW-WHO")
    with pytest.raises(UnknownSymbolError, match="KRW-WHO"):
        await anext(unsure)
    assert (unsure.state, world.opened[-1].state) == ("closed", "closed")
    world.listed = TransportError("the exchange is asked whether it lists it")
    opened = len(world.opened)
    waits = Stream(world.subscribe, check=world.check)
    await put_off(waits)
    assert (waits.reason, len(world.opened)) == (str(world.listed), opened), "not subscribed to"
    world.listed = True
    while len(world.opened) == opened:
        await put_off(waits)
    waits.close()
    world.listed = False
    streamed = Stream(world.subscribe, check=world.check)
    world.put(trade := world.trade(1))
    assert await anext(streamed) == trade
    world.listed = UnknownSymbolError("KRW-WHO")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(streamed), 1)
    assert streamed.state == "pending", "it was listed: the layer that streams tells of its end"


async def test_a_reader_of_the_latest_is_told_nothing(clock: ManualClock) -> None:
    async with reading(clock, gaps=False) as (world, got):
        world.fail(GONE)
        await eventually(lambda: len(world.opened) == 2)
        world.put(value := world.trade(1))
        await eventually(lambda: got == [value])


async def test_what_breaks_off_as_soon_as_it_is_opened_does_not_hold_the_loop(
    clock: ManualClock,
) -> None:
    opened: list[Reader] = []

    def subscribe() -> Reader:
        opened.append(reader())
        opened[-1].fail(GONE)
        return opened[-1]

    stream = Stream(subscribe)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.6)
    assert len(opened) == 3
    stream.close()


async def test_a_stream_ends_with_the_service_and_by_its_reader(clock: ManualClock) -> None:
    async with reading(clock, gaps=False) as (world, got):
        world.works = False
        world.fail(GONE)
        await eventually(lambda: world.stream.state == "stale")
        world.stream.close()
        assert (world.stream.state, got) == ("closed", [])
    world = World(clock, gaps=True)
    world.closed = True
    world.fail(ClosedError("the stream ended with its layer"))
    with pytest.raises(ClosedError, match="the service is closed"):
        await anext(world.stream)
    assert world.stream.state == "closed"
    assert [value async for value in world.stream] == []


async def test_other_errors_are_the_readers(clock: ManualClock) -> None:
    world = World(clock, gaps=True)
    world.fail(SlowConsumerError("too slow"))
    with pytest.raises(SlowConsumerError):
        await anext(world.stream)
    assert [value async for value in world.stream] == [], "that was its end"
    assert len(world.opened) == 1


async def test_a_stream_that_was_made_more_urgent_stays_so_when_it_is_opened_anew(
    clock: ManualClock,
) -> None:
    async with reading(clock, gaps=False) as (world, _):
        world.stream.set_priority(Priority.CRITICAL)
        world.fail(GONE)
        await eventually(lambda: len(world.opened) == 2)
        assert [one.priority for one in world.opened] == [Priority.CRITICAL] * 2
