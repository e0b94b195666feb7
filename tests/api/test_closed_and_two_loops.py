"""Calls of every kind after the end, and in a loop that is not the service's."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest

from tests.api.house import NOON, House, at, opened
from tests.api.test_every_public_call import Call, World, ended, public_calls
from tests.api.test_market_data_api import ticker
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import SYMBOL
from upbit_backbone import BackboneConfig, BackboneManager, compat
from upbit_backbone.api.home_loop import home_loop
from upbit_backbone.clock import SECOND_MS
from upbit_backbone.errors import BackboneError, ClosedError, InvalidRequestError
from upbit_backbone.protocol import DataType, Priority

LIFE = {"start", "stop", "close", "__init__", "create", "create_default", "create_configured_api"}
ALWAYS = {
    "MarketDataAPI.status": "says that it is down",
    "MarketDataAPI.oldest_wait_s": "nobody waits",
    "MarketDataAPI.screen_interval_s": "as without load, likewise",
    "MarketDataAPI.report_frame_time": "a screen goes later than its service",
    "EventBusIntegration.subscribe_to_system_events": "gives a reader that has ended",
    "EventBusIntegration.serve": "the API calls it",
    "EventBusIntegration.admitted": "lets through: the API refuses",
    "EventBusIntegration.tell": "nobody listens",
    "EventBusIntegration.oldest_wait_s": "nobody waits",
}
"""What may be called after the end, with what it does then."""
NO_MATTER_WHERE = {
    "screen_interval_s",
    "get_system_status",
    "get_performance_metrics",
    "get_system_events",
}
"""Calls that read what is known, and wait for nothing."""


def calls_of(owner: str) -> list[Call]:
    return [
        call
        for call in public_calls()
        if call.owner == owner and call.name not in LIFE and call.key not in ALWAYS
    ]


@pytest.fixture(autouse=True)
def own_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands for a service in `compat` is no service, and nobody ends it."""
    monkeypatch.setattr(compat, "_SERVICES", {})


REFUSALS: dict[type[BackboneError], tuple[str, ...]] = {
    ClosedError: ("is closed: ", "is not running: "),
    InvalidRequestError: ("runs in another event loop",),
}


async def answers(world: World, call: Call, wanted: type[BackboneError]) -> bool:
    """Whether a call does anything but refuse, as it is wanted here."""
    try:
        await ended(world, call, call.made(world, {}))
    except wanted as error:
        return not any(words in str(error) for words in REFUSALS[wanted])
    return True


async def test_every_call_after_the_end_says_closed() -> None:
    house = House(ManualClock(NOON + 30 * SECOND_MS))
    async with AsyncExitStack() as stack:
        await house.bus.start()
        await house.api.start()
        stack.push_async_callback(house.bus.stop)
        await house.api.get_markets()
        house.router.held[DataType.TICKER, SYMBOL] = ticker()
        world = World(house)
        await house.api.close()
        await house.api.stop()
        await house.bus.stop()
        tasks = asyncio.all_tasks()
        calls = calls_of("MarketDataAPI") + calls_of("EventBusIntegration")
        assert len(calls) > 15
        answered = [call for call in calls if await answers(world, call, ClosedError)]
        assert not answered
        reader = house.bus.subscribe_to_system_events()
        assert [event async for event in reader] == []
        assert house.api.status().health == "down"
        house.api.report_frame_time(0.01)
        assert asyncio.all_tasks() == tasks


async def test_what_is_being_read_ends_with_the_service(tmp_path: Path) -> None:
    config = BackboneConfig(exchange="simulator", data_dir=tmp_path)
    manager = BackboneManager(config, first_symbol="KRW-BTC")
    await manager.initialize()
    api, bus, load = manager.api, manager.event_bus, manager.load_manager
    going = asyncio.Event()

    async def read(stream: Any) -> int:
        read = 0
        async for _ in stream:
            read += 1
            going.set()
        return read

    streams = {
        "ticker": api.stream_ticker("KRW-BTC"),
        "orderbook": api.stream_orderbook("KRW-BTC"),
        "trades": api.stream_trades("KRW-BTC", policy="all"),
        "candles": api.stream_candles("KRW-BTC", "1m"),
        "chunks": api.iter_candle_chunks("KRW-BTC", "1m", at(-1_000_000)),
        "events": bus.subscribe_to_system_events(),
    }
    readers = {name: asyncio.create_task(read(stream)) for name, stream in streams.items()}
    throttle = bus.emergency_throttle("so that the chunks wait")
    async with asyncio.timeout(10):
        await going.wait()
    await manager.shutdown()
    async with asyncio.timeout(5):
        ends = await asyncio.gather(*readers.values(), return_exceptions=True)
    for name, end in zip(readers, ends, strict=True):
        wanted = int if name == "events" else ClosedError
        assert isinstance(end, wanted), (name, end)
    throttle.release()
    for ask in (
        lambda: manager.api,
        lambda: manager.event_bus,
        lambda: manager.load_manager,
        manager.get_system_health,
        lambda: manager.get_layer_status("layer_1"),
        lambda: api.stream_ticker("KRW-BTC"),
    ):
        with pytest.raises(ClosedError):
            ask()
    with pytest.raises(ClosedError):
        await api.get_ticker_data("KRW-BTC")
    assert load.check_resource_availability(Priority.LOW) in (True, False), "only a judgement"
    await manager.shutdown()


def test_another_loop_of_the_same_thread_is_refused_even_what_memory_holds() -> None:
    with asyncio.Runner() as first, asyncio.Runner() as second:
        stack = AsyncExitStack()
        house: House = first.run(
            stack.enter_async_context(opened(ManualClock(NOON + 30 * SECOND_MS)))
        )
        house.router.held[DataType.TICKER, SYMBOL] = ticker()
        house.router.held[DataType.ORDERBOOK, SYMBOL] = object()
        assert first.run(house.api.get_ticker_data(SYMBOL)) == ticker()
        streams = [
            first.run(_called(house.api.stream_ticker, SYMBOL)),
            first.run(_called(house.api.iter_candle_chunks, SYMBOL, "1m", at(-30))),
            first.run(_called(house.bus.subscribe_to_system_events)),
        ]

        async def elsewhere() -> None:
            world = World(house)
            tasks = asyncio.all_tasks()
            calls = calls_of("MarketDataAPI")
            calls += [one for one in calls_of("EventBusIntegration") if "publish" in one.name]
            calls = [call for call in calls if call.name not in NO_MATTER_WHERE]
            answered = [call for call in calls if await answers(world, call, InvalidRequestError)]
            assert not answered
            for stream in streams:
                with pytest.raises(InvalidRequestError, match="runs in another event loop"):
                    await anext(stream)
            assert asyncio.all_tasks() == tasks

        second.run(elsewhere())
        assert first.run(house.api.get_ticker_data(SYMBOL)) == ticker(), "nothing is broken by it"
        streams.clear()
        first.run(stack.aclose())


def test_a_stream_is_refused_where_no_loop_runs() -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        house: House = runner.run(
            stack.enter_async_context(opened(ManualClock(NOON + 30 * SECOND_MS)))
        )
        with pytest.raises(InvalidRequestError, match="runs in another event loop"):
            house.api.stream_ticker(SYMBOL)
        with pytest.raises(InvalidRequestError, match="runs in another event loop"):
            house.api.iter_candle_chunks(SYMBOL, "1m", at(-30))
        runner.run(house.api.stop())
        runner.run(stack.aclose())
        with pytest.raises(ClosedError):
            house.api.stream_ticker(SYMBOL)


async def _called(call: Any, *arguments: Any) -> Any:
    return call(*arguments)


@pytest.mark.both_loops
async def test_a_loop_knows_its_thread_while_it_runs() -> None:
    home = home_loop(asyncio.get_running_loop())
    assert home._thread_id == get_ident()
    assert await asyncio.to_thread(lambda: home._thread_id == get_ident()) is False
