"""An API on neighbours of a few lines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from tests.coordinator.fake_store import FakeStore, NoChance
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.storage.fake_exchange import SYMBOL, FakeExchangeSource, market
from upbit_backbone.api.event_bus import EventBusIntegration
from upbit_backbone.api.market_data_api import MarketDataAPI
from upbit_backbone.api.monitor import Monitor
from upbit_backbone.clock import MINUTE_MS, Clock, utc_datetime
from upbit_backbone.coordinator.coordinator import Coordinator
from upbit_backbone.telemetry.events import EventLog
from upbit_backbone.telemetry.loop_lag import LoopLagProbe
from upbit_backbone.telemetry.machine import Usage

NOON = AUTUMN_2025_MS + 12 * 60 * MINUTE_MS
M = MINUTE_MS


def nothing_of_it() -> Any:
    raise AssertionError("not asked in these tests")


def watched(clock: Clock, *, slots: int = 100) -> tuple[Monitor, EventBusIntegration]:
    """What an API needs beside its layers, of a machine that has nothing else to do."""
    events = EventLog(clock)
    monitor = Monitor(
        clock=clock,
        rng=NoChance(),
        events=events,
        memory_limit_bytes=1_000,
        lag=LoopLagProbe(clock),
        layers=dict,
        oldest_wait_s=lambda _: {},
        usage=lambda: Usage(0, 0.0),
        processors=1,
    )
    bus = EventBusIntegration(clock=clock, events=events, load=monitor.load, slots=slots)
    return monitor, bus


class House:
    """An API on a coordinator on a store and an exchange that are fakes, and a fake router."""

    def __init__(self, clock: ManualClock, *, max_concurrent_requests: int = 100) -> None:
        self.clock = clock
        self.exchange = FakeExchangeSource(clock)
        self.exchange.listed = (market(SYMBOL), market("KRW-XRP"))
        self.router = FakeExchangeSource(clock)
        self.store = FakeStore(self.exchange)
        self.monitor, self.bus = watched(clock, slots=max_concurrent_requests)
        self.api = MarketDataAPI(
            router=self.router,
            coordinator=Coordinator(self.store, clock=clock, rng=NoChance()),
            clock=clock,
            bus=self.bus,
            monitor=self.monitor,
            system_status=nothing_of_it,
            max_concurrent_requests=max_concurrent_requests,
        )

    def exists(self, *minutes: int) -> None:
        self.exchange.opens.update(NOON + n * M for n in minutes)


@asynccontextmanager
async def opened(clock: ManualClock, **settings: int) -> AsyncIterator[House]:
    house = House(clock, **settings)
    await house.bus.start()
    await house.api.start()
    try:
        await house.api.get_markets()
        async with house.api:
            yield house
    finally:
        await house.bus.stop()


def at(minute: float) -> datetime:
    return utc_datetime(NOON + int(minute * M))
