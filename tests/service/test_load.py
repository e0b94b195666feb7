"""While others suffer LOW gives way; it comes back by itself, slowly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from tests.eventually import eventually
from tests.service.conftest import A_WEDNESDAY_MS, ConfigOf
from upbit_backbone import BackboneManager, Priority, Progress
from upbit_backbone import manager as manager_module
from upbit_backbone.api.load_manager import LoadReading
from upbit_backbone.clock import utc_datetime
from upbit_backbone.errors import SystemOverloadedError
from upbit_backbone.protocol import BackboneRequest, BackboneResponse
from upbit_backbone.routing.router import Router
from upbit_backbone.simulator.server import Simulator
from upbit_backbone.storage.storage import Storage
from upbit_backbone.telemetry.loop_lag import LoopLagProbe

SYMBOL = "KRW-BTC"
END = utc_datetime(A_WEDNESDAY_MS)


class Backfill:
    """A long load at LOW, and what was told of it."""

    def __init__(self, manager: BackboneManager, *, days: int) -> None:
        self.told: list[Progress] = []
        self.chunks = manager.api.iter_candle_chunks(
            SYMBOL, "1m", END - timedelta(days=days), END, progress=self.told.append
        )

    @property
    def done(self) -> int:
        return self.told[-1].done if self.told else 0

    async def run(self) -> None:
        async for _ in self.chunks:
            pass


@asynccontextmanager
async def loading(
    simulator: Simulator, config_of: ConfigOf, *, days: int
) -> AsyncIterator[tuple[BackboneManager, Backfill]]:
    manager = BackboneManager(config_of(simulator))
    await manager.initialize()
    backfill = Backfill(manager, days=days)
    reading = asyncio.create_task(backfill.run())
    try:
        await eventually(lambda: backfill.done > 0)
        yield manager, backfill
    finally:
        backfill.chunks.cancel()
        await reading
        await manager.shutdown()


async def test_at_95_low_pauses_and_when_it_is_calm_it_resumes_page_by_page(
    simulator: Simulator, config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with loading(simulator, config_of, days=30) as (manager, backfill):
        with monkeypatch.context() as patched:
            # A host program that keeps the loop for a tenth of a second at a time.
            patched.setattr(LoopLagProbe, "p95_s", 0.09525)
            await eventually(lambda: backfill.told[-1].state == "waiting for load")
            assert backfill.told[-1].reason == "load 95 %"
            await asyncio.sleep(0.3)  # a page may have been under way
            done = backfill.done
            low = asyncio.create_task(
                manager.api.get_candle_data(SYMBOL, "3m", count=10, priority=Priority.LOW)
            )
            with pytest.raises(
                SystemOverloadedError, match=r"NORMAL has to wait \(load 95 %, the event"
            ):
                await manager.api.get_candle_data(SYMBOL, "1h", count=10, timeout=0.3)
            with pytest.raises(SystemOverloadedError, match="HIGH has to wait"):
                await manager.api.get_candle_data(
                    SYMBOL, "1h", count=10, priority=Priority.HIGH, timeout=0.3
                )
            critical = await manager.api.get_candle_data(
                SYMBOL, "1h", count=10, priority=Priority.CRITICAL
            )
            assert len(critical) == 10
            assert backfill.done == done
            assert not low.done()
        await eventually(lambda: manager.load_manager.band == "open", timeout=10.0)
        assert manager.load_manager.low_pages_per_s == 1.0
        began_s = asyncio.get_running_loop().time()
        assert len(await low) == 10
        await eventually(lambda: backfill.done > done)
        before = manager.get_layer_status("layer_3").counters["pages"]
        await asyncio.sleep(max(0.0, began_s + 0.9 - asyncio.get_running_loop().time()))
        assert manager.get_layer_status("layer_3").counters["pages"] - before <= 1, (
            "a page a second"
        )
        assert 0 < manager.api.get_performance_metrics().low_got_pages_per_s <= 4 / 3
        await eventually(lambda: manager.load_manager.low_pages_per_s is None, timeout=10.0)
        figures = manager.api.get_performance_metrics()
        assert figures.totals["shed"] >= 3
        events = [event.sentence for event in manager.api.get_system_events()]
        assert any(sentence.startswith("load 95 %, all but CRITICAL wait") for sentence in events)
        assert any("every priority may run" in sentence for sentence in events)


async def test_a_throttle_holds_long_loads_and_says_why(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    async with loading(simulator, config_of, days=30) as (manager, backfill):
        with manager.event_bus.emergency_throttle("the trader said so"):
            await eventually(lambda: backfill.told[-1].state == "waiting for load")
            assert backfill.told[-1].reason == "the trader said so"
            await asyncio.sleep(0.3)  # a page may have been under way
            done = backfill.done
            await asyncio.sleep(0.4)
            assert backfill.done == done
        await eventually(lambda: backfill.done > done)


async def test_a_throttle_holds_short_calls_too_that_wait_for_their_turn_already(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    manager = BackboneManager(config_of(simulator))
    await manager.initialize()
    try:
        calls = [
            asyncio.create_task(
                manager.api.get_candle_data(
                    SYMBOL,
                    "1m",
                    end_time=END - timedelta(days=day),
                    count=10,
                    priority=Priority.LOW,
                )
            )
            for day in range(2, 12)
        ]
        turns = manager._running._turns
        await eventually(lambda: len(turns._waiting) >= 7)
        with manager.event_bus.emergency_throttle("the trader said so"):
            await asyncio.sleep(0.2)  # two pages may have been under way
            before = turns.pages
            await asyncio.sleep(0.6)
            assert turns.pages == before < len(calls)
        assert all(len(candles) == 10 for candles in await asyncio.gather(*calls))
    finally:
        await manager.shutdown()


async def test_what_is_measured_of_low_is_not_counted_as_load(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    async with loading(simulator, config_of, days=30) as (manager, _):
        monitor = manager._running.monitor
        before_s = monitor._low_processor_s()
        assert before_s > 0
        await eventually(lambda: monitor._low_processor_s() > before_s)
        spent_s = monitor._low_processor_s()
        manager._running.bus.emergency_throttle()
        await asyncio.sleep(0.3)
        assert monitor._low_processor_s() - spent_s < 0.1, "others are not counted"


async def test_under_load_a_chart_gets_its_pages_one_after_the_other(
    simulator: Simulator, config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, most = 0, 0
    fetch = Router.fetch

    async def counted(router: Router, request: BackboneRequest) -> BackboneResponse:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            return await fetch(router, request)
        finally:
            at_once -= 1

    monkeypatch.setattr(Router, "fetch", counted)
    manager = BackboneManager(config_of(simulator))
    await manager.initialize()
    try:
        calm = await manager.api.get_candle_data(SYMBOL, "1m", count=1_000)
        assert (len(calm), most) == (1_000, 5)
        monitor, most = manager._running.monitor, 0
        now = monitor._clock.monotonic()
        ticket = manager.api._calls.waits.begin(Priority.HIGH, now - 0.069)
        assert monitor._oldest_wait_s(now) == {Priority.HIGH: pytest.approx(0.069)}
        manager.api._calls.waits.end(Priority.HIGH, ticket)
        # As if one waited for 69 of the 100 ms that it is promised, and no longer.
        monkeypatch.setattr(monitor, "_oldest_wait_s", lambda _: {Priority.HIGH: 0.069})
        monitor.measure(now)
        busy = await manager.api.get_candle_data(SYMBOL, "5m", count=1_000)
        assert (len(busy), most) == (1_000, 1)
    finally:
        await manager.shutdown()


async def test_before_anybody_is_refused_screens_wait_longer_and_less_is_fetched_ahead(
    simulator: Simulator, config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms: list[float] = []

    def set_load(load: float) -> None:
        # It is looked at before the monitor measures again.
        reading = LoadReading(processor_share=load / 100)
        manager.load_manager.observe(reading, asyncio.get_running_loop().time())

    async def noted(_: Storage, *, most: Callable[[], float]) -> int:
        for load in (10, 55):
            set_load(load)
            rooms.append(most())
        return 0

    monkeypatch.setattr(Storage, "warm_up_cache", noted)
    monkeypatch.setattr(manager_module, "WARM_UP_AFTER_S", 0.0)
    manager = BackboneManager(config_of(simulator))
    await manager.initialize()
    try:
        await eventually(lambda: len(rooms) == 2)
        assert rooms == [manager_module.WARM_SERIES, pytest.approx(25, abs=1)]
        for load, slower in ((10, 1.0), (55, 2.5), (70, 4.0)):
            set_load(load)
            assert manager.load_manager.band == "open", "nobody is refused"
            assert manager.api.screen_interval_s(0.016) == pytest.approx(0.016 * slower)
    finally:
        await manager.shutdown()


@pytest.mark.slow
async def test_a_minute_of_low_at_full_budget_is_no_load(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    async with loading(simulator, config_of, days=90) as (manager, backfill):
        events = manager.api.event_bus.subscribe_to_system_events()
        loads: list[float] = []
        began_s = asyncio.get_running_loop().time()
        before = manager.get_layer_status("layer_3").counters["pages"]
        while asyncio.get_running_loop().time() < began_s + 60:
            await asyncio.sleep(0.25)
            loads.append(manager.load_manager.load)
        pages = manager.get_layer_status("layer_3").counters["pages"] - before
        events.close()
        told = [event async for event in events]
        bands = [event for event in told if getattr(event, "kind", "") == "load"]
        assert max(loads) < 70
        assert len(bands) <= 1
        assert pages >= 0.95 * 60 * 8 / 1.05
        assert backfill.told[-1].state == "running"
        assert manager.api.get_performance_metrics().totals["http_429"] == 0


async def test_callers_who_wait_for_the_exchanges_limit_are_load_and_one_chart_is_none(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    manager = BackboneManager(config_of(simulator))
    await manager.initialize()
    try:
        monitor = manager._running.monitor

        def waits(now: float) -> dict[str, float]:
            reading = monitor.measure(now)
            return {
                priority.name: wait_s for priority, wait_s in reading.oldest_limit_wait_s.items()
            }

        async def highest(*calls: Coroutine[Any, Any, Any]) -> dict[str, float]:
            tasks, found = [asyncio.create_task(call) for call in calls], dict[str, float]()
            for _ in range(20):
                await asyncio.sleep(0.02)
                for name, wait_s in waits(monitor._clock.monotonic()).items():
                    found[name] = max(wait_s, found.get(name, 0.0))
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            return found

        def page(number: int, priority: Priority) -> Coroutine[Any, Any, Any]:
            end = END - timedelta(days=2 + number)
            return manager.api.get_candle_data(
                SYMBOL, "1m", end_time=end, count=200, priority=priority
            )

        # Nine pages of one call beside each other: it has begun with the first.
        chart = manager.api.get_candle_data(SYMBOL, "1m", end_time=END, count=1_800)
        assert (await highest(chart)).get("NORMAL", 0.0) < 0.1
        found = await highest(*(page(number, Priority.CRITICAL) for number in range(25)))
        assert found["CRITICAL"] > 0.2
        assert not monitor.load.check_resource_availability(Priority.LOW)
        [term] = [one for one in monitor.load.terms if one.name == "CRITICAL waits"]
        assert term.load == 90
    finally:
        await manager.shutdown()
