"""The whole service on the endless simulated market: calls, streams, metadata, shutdown."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest

from tests.service.conftest import A_WEDNESDAY_MS, ConfigOf
from upbit_backbone import (
    BackboneConfig,
    BackboneManager,
    ClosedError,
    InvalidRequestError,
    MarketDataAPI,
    Priority,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.clock import utc_datetime
from upbit_backbone.simulator.server import Simulator

_NOW = utc_datetime(A_WEDNESDAY_MS)


async def _connections(simulator: Simulator) -> int:
    async with aiohttp.ClientSession() as session, session.get(simulator.control_url) as answer:
        return int((await answer.json())["connections"])


@pytest.mark.both_loops
async def test_the_four_calls_answer_with_marked_data(config_of: ConfigOf) -> None:
    # Opened here and not by a fixture: between a fixture and its test qasync's loop does not
    # run, while pytest-qt lets Qt's timers fire.
    async with (
        Simulator(first_symbol="KRW-BTC") as simulator,
        await MarketDataAPI.create(config_of(simulator)) as api,
    ):
        candles = await api.get_candle_data("KRW-BTC", "1m", count=450)
        ticker = await api.get_ticker_data("KRW-BTC", Priority.CRITICAL)
        book = await api.get_orderbook_data("KRW-BTC", Priority.HIGH, depth=15)
        trades = await api.get_trade_data("KRW-BTC", count=700)
    assert len(candles) == 450
    assert candles.simulated
    assert ticker.simulated
    assert ticker.high >= ticker.price >= ticker.low
    assert len(book.asks) == len(book.bids) == 15
    assert book.asks[0].price > book.bids[0].price
    assert len({trade.sequential_id for trade in trades}) == 700
    assert all(a.exchange_time <= b.exchange_time for a, b in pairwise(trades))


async def test_the_second_time_memory_answers(simulator: Simulator, config_of: ConfigOf) -> None:
    async with await MarketDataAPI.create(config_of(simulator)) as api:
        cold, asked = await api.get_candle_data("KRW-BTC", "1m", count=1_000, with_metadata=True)
        warm, held = await api.get_candle_data("KRW-BTC", "1m", count=1_000, with_metadata=True)
    assert (len(cold), len(warm)) == (1_000, 1_000)
    assert (asked.source_layer, asked.cache_hit, asked.source) == ("layer_1", False, "rest")
    assert asked.split_info == "5 pages"
    assert (held.source_layer, held.cache_hit, held.path) == ("layer_2", True, "peek")


async def test_trades_of_a_range_are_all_trades_of_that_range(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    end = _NOW.replace(second=0, microsecond=0) - timedelta(minutes=3)
    start = end - timedelta(minutes=45)
    async with await MarketDataAPI.create(config_of(simulator)) as api:
        trades = await api.get_trade_data("KRW-BTC", start, end)
        candles = await api.get_candle_data("KRW-BTC", "1m", start, end)
    assert all(start <= trade.exchange_time < end for trade in trades)
    assert sum(trade.volume for trade in trades) == pytest.approx(candles.volume.sum(), rel=1e-12)
    assert max(trade.price for trade in trades) == candles.high.max()


async def test_the_live_candle_agrees_with_the_one_read_afterwards(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    async with await MarketDataAPI.create(config_of(simulator)) as api:
        closed = []
        async with api.stream_candles("KRW-BTC", "1s", policy="all") as stream:
            async for candle in stream:
                if candle.state == "closed":
                    closed.append(candle)
                if len(closed) == 3:
                    break
        # Second candles are not served by this simulator yet, so trades are the judge.
        start, end = closed[0].open_time, closed[-1].open_time + timedelta(seconds=1)
        trades = await api.get_trade_data("KRW-BTC", start, end)
    for candle in closed:
        inside = [
            trade
            for trade in trades
            if candle.open_time <= trade.exchange_time < candle.open_time + timedelta(seconds=1)
        ]
        prices = [trade.price for trade in inside]
        assert (candle.open, candle.close) == (prices[0], prices[-1])
        assert (candle.high, candle.low) == (max(prices), min(prices))
        assert candle.volume == pytest.approx(sum(trade.volume for trade in inside), rel=1e-12)


async def test_a_stream_keeps_the_ticker_fresh_and_ends_with_its_last_reference(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    async with await MarketDataAPI.create(config_of(simulator)) as api:
        async for ticker in api.stream_ticker("KRW-BTC"):
            assert ticker.source == "websocket"
            break
        else:
            raise AssertionError("the stream ended by itself")
        # One request of CRITICAL would be worth a stream of its own.
        _, metadata = await api.get_ticker_data("KRW-BTC", Priority.HIGH, with_metadata=True)
        assert (metadata.cache_hit, metadata.source_layer) == (True, "layer_1")
        assert metadata.age_s is not None
        assert metadata.age_s < 2
        assert await _connections(simulator) == 1
        gc.collect()
        async with asyncio.timeout(5):
            while await _connections(simulator):
                await asyncio.sleep(0.01)


async def test_order_books_stream_best_prices_first(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    async with await MarketDataAPI.create(config_of(simulator)) as api:
        async with api.stream_orderbook("KRW-BTC") as stream:
            book = await anext(stream)
        assert [level.price for level in book.asks] == sorted(level.price for level in book.asks)
        assert book.asks[0].price > book.bids[0].price > book.bids[-1].price
        assert (book.source, book.simulated) == ("websocket", True)


async def test_every_layer_is_healthy_and_after_shutdown_nothing_answers(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    manager = BackboneManager(config_of(simulator))
    await manager.initialize()
    api = manager.api
    health = manager.get_system_health()
    assert {name: status.health for name, status in health.layers.items()} == {
        f"layer_{number}": "healthy" for number in (1, 2, 3, 4)
    }
    status = api.get_system_status()
    assert (status.simulated, status.connection) == (True, "live")
    await manager.shutdown()
    await manager.shutdown()
    with pytest.raises(ClosedError):
        await api.get_ticker_data("KRW-BTC")
    with pytest.raises(ClosedError):
        _ = manager.api


async def test_an_unknown_symbol_is_answered_with_the_closest_ones(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    async with await MarketDataAPI.create(config_of(simulator)) as api:
        with pytest.raises(UnknownSymbolError, match="KRW-BTC") as caught:
            await api.get_candle_data("BTC-KRW", "1m")
        assert caught.value.suggestions[0] == "KRW-BTC"
        with pytest.raises(InvalidRequestError, match="unknown timeframe '2m'"):
            await api.get_candle_data("KRW-BTC", "2m")
        with pytest.raises(InvalidRequestError, match="lies in the future"):
            await api.get_candle_data("KRW-BTC", "1m", start_time=_NOW + timedelta(hours=1))


async def test_starting_offline_is_no_error_and_stored_data_is_served(
    simulator: Simulator, config_of: ConfigOf, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(simulator)
    async with await MarketDataAPI.create(config) as api:
        online = await api.get_candle_data("KRW-BTC", "1m", count=100, closed_only=True)
    await simulator.close()
    async with await MarketDataAPI.create(config) as api:
        assert api.get_system_status().connection == "offline"
        assert api.get_system_status().health.health == "down"
        assert api.get_system_status().simulated, "the store remembers whose data it is"
        end = online[50].open_time
        stored = await api.get_candle_data("KRW-BTC", "1m", end_time=end, count=50)
        assert stored == online[:50]
        assert (await api.get_markets())[0].symbol == "KRW-BTC"
        with pytest.raises(TransportError) as caught:
            await api.get_candle_data("KRW-BTC", "1m", end_time=end, count=80)
        assert caught.value.partial == online[:50]
        assert caught.value.missing[0].end == online[0].open_time
        partial, metadata = await api.get_candle_data(
            "KRW-BTC", "1m", end_time=end, count=80, with_metadata=True
        )
        assert partial == online[:50]
        assert metadata.missing
        with pytest.raises(TransportError):
            await api.get_ticker_data("KRW-BTC")


async def test_a_simulator_in_this_process_needs_no_address(tmp_path: Path) -> None:
    config = BackboneConfig(exchange="simulator", simulator_seed=7, data_dir=tmp_path)
    async with await MarketDataAPI.create(config) as api:
        series = await api.get_candle_data("KRW-XRP", "5m", count=10)
        assert api.get_system_status().identity == "simulator-7"
    assert len(series) == 10
    assert (tmp_path / "simulator-7" / "market.sqlite3").is_file()


async def test_a_cancelled_start_leaves_nothing_behind(tmp_path: Path) -> None:
    config = BackboneConfig(exchange="simulator", data_dir=tmp_path)
    for delay_s in (0.0, 0.01, 0.03, 0.1):
        manager = BackboneManager(config)
        start = asyncio.create_task(manager.initialize(), name="start")
        await asyncio.sleep(delay_s)
        start.cancel()
        await asyncio.wait([start])
        await manager.shutdown()


async def test_low_pages_of_the_store_and_of_long_loads_wait_in_one_line(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    manager = BackboneManager(config_of(simulator))
    await manager.initialize()
    try:
        assert manager._storage is not None
        assert manager._coordinator is not None
        low_turn = manager._storage._low_turn
        assert isinstance(low_turn, partial)
        assert low_turn.func.__self__ is manager._coordinator._pages._turns  # type: ignore[attr-defined]
    finally:
        await manager.shutdown()
