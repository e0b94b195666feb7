"""Simulated and real data never mix: identity, folder and mark."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from tests.service.conftest import ConfigOf
from upbit_backbone import BackboneConfig, MarketDataAPI, StorageOriginError
from upbit_backbone.simulator.server import Simulator


async def test_another_simulator_at_the_same_address_is_refused(
    tmp_path: Path, config_of: ConfigOf
) -> None:
    async with Simulator(seed=1) as first:
        config = config_of(first)
        async with await MarketDataAPI.create(config) as api:
            kept = await api.get_candle_data("KRW-XRP", "1m", count=5, closed_only=True)
        port = int(first.rest_url.rsplit(":", 1)[1].split("/")[0])
    async with Simulator(seed=2, port=port):
        with pytest.raises(StorageOriginError, match="simulator-1"):
            await MarketDataAPI.create(config)
    async with Simulator(seed=1, port=port), await MarketDataAPI.create(config) as api:
        end = kept[-1].open_time
        assert await api.get_candle_data("KRW-XRP", "1m", end_time=end, count=4) == kept[:-1]


async def test_each_simulator_has_a_folder_of_its_own(config_of: ConfigOf) -> None:
    async with Simulator(seed=1) as first, Simulator(seed=2) as second:
        configs = [config_of(first), config_of(second)]
        for config in configs:
            async with await MarketDataAPI.create(config) as api:
                await api.get_candle_data("KRW-XRP", "1m", count=5)
    folders = {path.name for path in configs[0].data_dir.iterdir()}
    assert folders == {config.identity for config in configs}


async def test_an_unmarked_look_alike_serves_as_a_real_exchange(tmp_path: Path) -> None:
    markets = [{"market": "KRW-BTC", "korean_name": "비트코인", "english_name": "Bitcoin"}]
    candle = {
        "market": "KRW-BTC",
        "candle_date_time_utc": "2025-09-01T00:00:00",
        "candle_date_time_kst": "2025-09-01T09:00:00",
        "opening_price": 1.0,
        "high_price": 1.0,
        "low_price": 1.0,
        "trade_price": 1.0,
        "timestamp": 1_756_684_801_000,
        "candle_acc_trade_price": 1.0,
        "candle_acc_trade_volume": 1.0,
        "unit": 1,
    }

    async def answer_markets(_: web.Request) -> web.Response:
        return web.json_response(markets)

    async def answer_candles(_: web.Request) -> web.Response:
        return web.json_response([candle])

    app = web.Application()
    app.router.add_get("/v1/market/all", answer_markets)
    app.router.add_get("/v1/candles/minutes/1", answer_candles)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    config = BackboneConfig(
        rest_url=f"http://127.0.0.1:{port}/v1",
        ws_url=f"ws://127.0.0.1:{port}/websocket/v1",
        data_dir=tmp_path,
    )
    try:
        async with await MarketDataAPI.create(config) as api:
            series = await api.get_candle_data("KRW-BTC", "1m", count=1)
            assert not series.simulated
            assert not api.get_system_status().simulated
        assert (tmp_path / f"127.0.0.1_{port}").is_dir()
    finally:
        await runner.cleanup()
    async with Simulator(port=port):
        with pytest.raises(StorageOriginError, match="without a mark"):
            await MarketDataAPI.create(config)
