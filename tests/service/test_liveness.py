"""A dead connection is noticed, a quiet market is not taken for one."""

from __future__ import annotations

import asyncio

import pytest

from tests.eventually import eventually
from tests.service.conftest import A_WEDNESDAY_MS, ConfigOf
from upbit_backbone import MarketDataAPI, Orderbook, Priority
from upbit_backbone.clock import FrozenClock, SystemClock
from upbit_backbone.simulator.faults import Fault
from upbit_backbone.simulator.server import Simulator


async def test_a_quiet_book_on_a_living_connection_stays_fresh_and_on_a_dead_one_does_not(
    config_of: ConfigOf, caplog: pytest.LogCaptureFixture
) -> None:
    # Under a clock that stands still nothing happens on the market: only pongs come.
    async with (
        Simulator(clock=FrozenClock(A_WEDNESDAY_MS), first_symbol="KRW-BTC") as simulator,
        await MarketDataAPI.create(config_of(simulator)) as api,
        api.stream_orderbook("KRW-BTC") as stream,
    ):
        book = await anext(stream)
        assert isinstance(book, Orderbook)
        clock = SystemClock()
        quiet_until = clock.monotonic() + 3.5
        while clock.monotonic() < quiet_until:
            _, metadata = await api.get_orderbook_data(
                "KRW-BTC", Priority.CRITICAL, with_metadata=True
            )
            assert metadata.cache_hit
            await asyncio.sleep(0.1)
        assert api.get_system_status().connection == "live"
        asked = api.get_performance_metrics().counters["layer_1.requests"]

        died = clock.monotonic()
        simulator.faults.add(Fault(kind="half-open"))
        await eventually(lambda: stream.state == "stale", timeout=8)
        assert clock.monotonic() - died < 5.5
        assert "a ping was not answered" in caplog.text
        # What was known is now too old for a trading bot: it is asked again, by REST.
        await api.get_orderbook_data("KRW-BTC", Priority.CRITICAL)
        assert api.get_performance_metrics().counters["layer_1.requests"] > asked
