"""What belongs to the whole of the API: its loop, its end, its figures, and who waits."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import aiohttp
import pytest

from tests.api.house import NOON, House, opened
from tests.api.test_market_data_api import ticker
from tests.coordinator.test_turns import LoopClock
from tests.eventually import eventually
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import SYMBOL
from upbit_backbone.api.load_manager import LoadReading
from upbit_backbone.api.market_data_api import MarketDataAPI
from upbit_backbone.clock import SECOND_MS
from upbit_backbone.errors import (
    BackboneError,
    ClosedError,
    InvalidRequestError,
    SystemOverloadedError,
)
from upbit_backbone.protocol import BackboneRequest, DataType, Priority


@pytest.fixture
def noon() -> ManualClock:
    return ManualClock(NOON + 30 * SECOND_MS)


def set_load(house: House, load: float) -> None:
    """By what memory is used: 1,000 bytes are 100."""
    reading = LoadReading(rss_bytes=round(load * 10))
    house.monitor.load.observe(reading, house.clock.monotonic())


async def test_a_second_loop_is_refused_with_a_sentence(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.router.held[DataType.TICKER, SYMBOL] = ticker()
        assert await house.api.get_ticker_data(SYMBOL) == ticker()
        told: list[BackboneError] = []

        async def calls() -> None:
            for call in (
                house.api.get_ticker_data(SYMBOL),
                house.api.get_ticker_data("KRW-XRP"),
                house.api.get_orderbook_data(SYMBOL),
                house.api.get_candle_data(SYMBOL, "1m"),
                house.api.get_markets(),
            ):
                try:
                    await call
                except BackboneError as error:
                    told.append(error)
            try:
                house.api.stream_ticker(SYMBOL)
            except BackboneError as error:
                told.append(error)

        thread = threading.Thread(target=lambda: asyncio.run(calls()))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert [type(error) for error in told] == [InvalidRequestError] * 6
        assert "this service runs in another event loop" in str(told[0])
        assert await house.api.get_ticker_data(SYMBOL) == ticker(), "nothing is broken by it"


async def test_after_the_end_every_call_says_closed(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.router.held[DataType.TICKER, SYMBOL] = ticker()
        api = house.api
        await api.stop()
        for call in (
            api.get_ticker_data(SYMBOL),
            api.get_orderbook_data(SYMBOL),
            api.get_trade_data(SYMBOL),
            api.get_candle_data(SYMBOL, "1m"),
            api.get_indicator(SYMBOL, "RSI"),
            api.get_markets(),
        ):
            with pytest.raises(ClosedError):
                await call
        for ask in (
            api.get_system_status,
            api.get_performance_metrics,
            api.get_system_events,
            lambda: api.stream_ticker(SYMBOL),
        ):
            with pytest.raises(ClosedError):
                ask()


async def test_closing_waits_for_answers_that_are_on_their_way(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.exists(*range(-10, 1))
        going = asyncio.Event()

        async def hold(_: BackboneRequest) -> None:
            await going.wait()

        house.exchange.before_answer = hold
        normal = asyncio.create_task(house.api.get_candle_data(SYMBOL, "1m", count=5))
        low = asyncio.create_task(
            house.api.get_candle_data(SYMBOL, "1m", count=7, priority=Priority.LOW)
        )
        await eventually(lambda: len(house.exchange.requests) == 2)
        stop = asyncio.create_task(house.api.stop())
        with pytest.raises(ClosedError, match="is closed"):
            await low
        assert not stop.done()
        going.set()
        assert len(await normal) == 5
        await stop


@pytest.mark.steered_time
async def test_what_is_not_answered_in_two_seconds_ends_with_the_service() -> None:
    async with opened(ManualClock(NOON)) as house:

        async def never(_: BackboneRequest) -> None:
            await asyncio.Event().wait()

        house.exchange.before_answer = never
        call = asyncio.create_task(house.api.get_candle_data(SYMBOL, "1m", count=5))
        await asyncio.sleep(0.01)
        began_s = asyncio.get_running_loop().time()
        await house.api.stop()
        assert asyncio.get_running_loop().time() - began_s == pytest.approx(2, abs=0.1)
        with pytest.raises(ClosedError):
            await call
        errors = house.monitor.calls
        errors.drain(0.0)
        assert errors.totals["errors.ClosedError"] == 1


@pytest.mark.steered_time
async def test_above_90_high_waits_and_critical_does_not() -> None:
    clock = LoopClock()
    async with opened(clock) as house:  # type: ignore[arg-type]
        house.exchange.held[DataType.TICKER, SYMBOL] = ticker(2.0)
        house.router.peek = lambda *_: None  # type: ignore[method-assign]
        house.router.held[DataType.TICKER, SYMBOL] = ticker(1.0)
        set_load(house, 95)
        assert await house.api.get_ticker_data(SYMBOL, Priority.CRITICAL) == ticker(1.0)
        began_s = clock.monotonic()
        with pytest.raises(SystemOverloadedError, match=r"HIGH has to wait \(load 95 %") as caught:
            await house.api.get_ticker_data(SYMBOL, Priority.HIGH)
        assert clock.monotonic() - began_s == pytest.approx(5, abs=0.1)
        assert caught.value.retry_after_s is not None
        waiting = asyncio.create_task(house.api.get_ticker_data(SYMBOL, Priority.HIGH))
        for _ in range(12):
            await asyncio.sleep(0.25)
            set_load(house, 10)
        assert await waiting == ticker(2.0)


async def test_an_answer_from_memory_knows_no_load(noon: ManualClock) -> None:
    async with opened(noon) as house:
        house.router.held[DataType.TICKER, SYMBOL] = ticker()
        set_load(house, 100)
        with house.bus.emergency_throttle():
            for priority in Priority:
                assert await house.api.get_ticker_data(SYMBOL, priority) == ticker()


async def test_a_call_that_waits_for_a_slot_is_known_to_wait(noon: ManualClock) -> None:
    async with opened(noon, max_concurrent_requests=1) as house:
        house.exists(*range(-10, 1))
        going = asyncio.Event()

        async def hold(_: BackboneRequest) -> None:
            await going.wait()

        house.exchange.before_answer = hold
        calls = [
            asyncio.create_task(
                house.api.get_candle_data(SYMBOL, "1m", count=count, priority=Priority.HIGH)
            )
            for count in (3, 4)
        ]
        await eventually(lambda: len(house.exchange.requests) == 1)
        noon.advance(0.07)
        waits_s = house.api.oldest_wait_s(noon.monotonic())
        assert waits_s == {Priority.HIGH: pytest.approx(0.07)}
        going.set()
        await asyncio.gather(*calls)
        assert house.api.oldest_wait_s(noon.monotonic()) == {}


async def test_frames_and_events_are_part_of_the_figures(noon: ManualClock) -> None:
    async with opened(noon) as house:
        for _ in range(20):
            house.api.report_frame_time(0.004)
        assert house.api.get_performance_metrics().frame_p95_ms == pytest.approx(4.0)
        with house.api.event_bus.emergency_throttle("a test"):
            (event,) = house.api.get_system_events()
        assert event.sentence == "LOW is paused: a test"
        assert [one.kind for one in house.api.get_system_events(event.number)] == ["load"]


async def test_a_file_of_settings_opens_a_service_with_figures_for_prometheus(
    tmp_path: Path,
) -> None:
    settings = tmp_path / "settings.toml"
    folder = tmp_path / "data"
    settings.write_text(f'exchange = "simulator"\ndata_dir = "{folder}"\nmetrics_port = 0\n')
    async with await MarketDataAPI.create_configured_api(settings) as api:
        await api.get_ticker_data("KRW-BTC")
        (url,) = (
            event.sentence.rpartition(" ")[2]
            for event in api.get_system_events()
            if "figures are served" in event.sentence
        )
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{url}/metrics") as answer:
                text = await answer.text()
                assert "upbit_backbone_" in text
            async with session.get(f"{url}/health") as answer:
                assert (await answer.json())["identity"] == "simulator-1"
                assert answer.status == 200
    with pytest.raises(InvalidRequestError):
        await MarketDataAPI.create_configured_api(tmp_path / "nowhere.toml")
