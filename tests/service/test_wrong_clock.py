"""A computer whose clock is wrong, and an exchange whose stamps are."""

from __future__ import annotations

import pytest

from tests.eventually import eventually
from tests.service.conftest import A_WEDNESDAY_MS, ConfigOf
from upbit_backbone import MarketDataAPI, Priority, Trade
from upbit_backbone.clock import ShiftedClock, SystemClock, epoch_ms
from upbit_backbone.manager import BackboneManager
from upbit_backbone.simulator.faults import Fault
from upbit_backbone.simulator.server import Simulator

SLOW_MS = 30_400


class SetClock:
    """A wall clock that somebody sets while the program runs."""

    def __init__(self, start_ms: int) -> None:
        self._clock = ShiftedClock(start_ms)
        self.by_ms = 0

    def now_ms(self) -> int:
        return self._clock.now_ms() + self.by_ms

    def monotonic(self) -> float:
        return self._clock.monotonic()


async def test_a_clock_that_is_slow_or_set_meanwhile_is_survived_and_told_once(
    config_of: ConfigOf, caplog: pytest.LogCaptureFixture
) -> None:
    truth, wrong = ShiftedClock(A_WEDNESDAY_MS), SetClock(A_WEDNESDAY_MS - SLOW_MS)
    async with Simulator(clock=truth, first_symbol="KRW-BTC") as simulator:
        manager = BackboneManager(config_of(simulator), clock=wrong)
        await manager.initialize()
        try:
            api = manager.api
            for offset_ms in (SLOW_MS, SLOW_MS - 60_000):
                wrong.by_ms = SLOW_MS - offset_ms
                assert abs(api.get_system_status().exchange_offset_ms - offset_ms) < 1_100
                [*_, newest] = await api.get_candle_data("KRW-BTC", "1m", count=3)
                assert not newest.closed
                assert epoch_ms(newest.open_time) == truth.now_ms() // 60_000 * 60_000
            async with api.stream_trades("KRW-BTC") as trades:
                trade = await anext(trades)
                assert isinstance(trade, Trade)
        finally:
            await manager.shutdown()
    told = [record.message for record in caplog.records if "clock is" in record.message]
    assert told == [
        "this computer's clock is 30 s slow: the exchange's time is used",
        "this computer's clock is 30 s fast: the exchange's time is used",
    ]
    assert {record.levelname for record in caplog.records if "stamped" in record.message} == set()


async def test_stamps_in_microseconds_are_read_counted_and_told_once(
    config_of: ConfigOf, caplog: pytest.LogCaptureFixture
) -> None:
    clock = SystemClock()
    async with Simulator(first_symbol="KRW-BTC") as simulator:
        simulator.faults.add(Fault(kind="microseconds"))
        async with (
            await MarketDataAPI.create(config_of(simulator)) as api,
            api.stream_ticker("KRW-BTC", policy="all") as tickers,
        ):
            for _ in range(2):
                ticker = await anext(tickers)
                assert epoch_ms(ticker.exchange_time) <= clock.now_ms() + 1_000
            held = await api.get_ticker_data("KRW-BTC", Priority.CRITICAL)
            assert held.exchange_time >= ticker.exchange_time
            await eventually(
                lambda: api.get_performance_metrics().counters["layer_1.stamp_faults"] >= 2
            )
    told = [record.message for record in caplog.records if "microseconds" in record.message]
    about = "a ticker of KRW-BTC was stamped in microseconds: divided by 1,000"
    assert [about in message for message in told].count(True) == 1
    assert len(told) == len(set(told))
