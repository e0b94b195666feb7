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
from upbit_backbone.errors import BackboneError, ClosedError, SlowConsumerError
from upbit_backbone.models import Gap, Trade
from upbit_backbone.protocol import Priority
from upbit_backbone.reader import Reader


def reader() -> Reader:
    return Reader("all", lambda _: None)


class World:
    """A service whose streams a test ends and opens."""

    def __init__(self, clock: ManualClock, *, gaps: bool) -> None:
        self.clock = clock
        self.opened = [reader()]
        self.closed = False
        self.may_open = asyncio.Event()
        self.stream = Stream(
            self.opened[0],
            reopen=self.reopen,
            tells_gaps_of=SYMBOL if gaps else None,
            now=lambda: utc_datetime(clock.now_ms()),
        )

    async def reopen(self) -> Reader:
        await self.may_open.wait()
        if self.closed:
            raise ClosedError("the service is closed")
        self.opened.append(reader())
        return self.opened[-1]

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
    world.may_open.set()
    await asyncio.wait([task])


async def test_a_stream_goes_on_and_tells_a_reader_of_all_what_it_may_have_missed(
    clock: ManualClock,
) -> None:
    async with reading(clock, gaps=True) as (world, got):
        world.put(first := world.trade(1))
        await eventually(lambda: got == [first])
        clock.advance(2)
        world.fail(ClosedError("layer_1 is gone"))
        await eventually(lambda: world.stream.state == "stale")
        assert world.stream.reason == "layer_1 is gone"
        world.may_open.set()
        await eventually(lambda: len(world.opened) == 2)
        assert world.stream.state == "pending"
        clock.advance(3)
        world.put(second := world.trade(2))
        await eventually(lambda: len(got) == 3)
        since = first.exchange_time
        gap = Gap(SYMBOL, "unfillable", since, since + timedelta(seconds=5), "layer_1 is gone")
        assert got == [first, gap, second]


async def test_a_reader_of_the_latest_is_told_nothing(clock: ManualClock) -> None:
    async with reading(clock, gaps=False) as (world, got):
        world.may_open.set()
        world.fail(ClosedError("layer_1 is gone"))
        await eventually(lambda: len(world.opened) == 2)
        world.put(value := world.trade(1))
        await eventually(lambda: got == [value])


async def test_a_stream_ends_with_the_service_and_by_its_reader(clock: ManualClock) -> None:
    async with reading(clock, gaps=True) as (world, got):
        world.fail(ClosedError("layer_1 is gone"))
        await eventually(lambda: world.stream.state == "stale")
        world.stream.close()
        world.may_open.set()
        await eventually(lambda: len(world.opened) == 2 and world.stream.state == "closed")
        assert got == []
    world = World(clock, gaps=True)
    world.closed = True
    world.may_open.set()
    world.fail(ClosedError("the service closes"))
    with pytest.raises(ClosedError, match="the service is closed"):
        await anext(world.stream)


async def test_other_errors_are_the_readers(clock: ManualClock) -> None:
    world = World(clock, gaps=True)
    world.fail(SlowConsumerError("too slow"))
    with pytest.raises(SlowConsumerError):
        await anext(world.stream)
    alone = reader()
    alone.fail(ClosedError("over"))
    with pytest.raises(ClosedError, match="over"):
        await anext(Stream(alone))


async def test_a_stream_that_was_made_more_urgent_stays_so_when_it_is_opened_anew(
    clock: ManualClock,
) -> None:
    async with reading(clock, gaps=False) as (world, _):
        world.stream.set_priority(Priority.CRITICAL)
        world.may_open.set()
        world.fail(ClosedError("the layer is begun anew"))
        await eventually(lambda: len(world.opened) == 2)
        await asyncio.sleep(0)
        assert [one.priority for one in world.opened] == [Priority.CRITICAL] * 2
