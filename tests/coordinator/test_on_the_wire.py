"""The coordinator in its house, against the simulator: what is really asked."""

from __future__ import annotations

from pathlib import Path
from random import Random

import aiohttp
import pytest

from upbit_backbone import BackboneConfig, BackboneManager, DataType, Priority
from upbit_backbone.clock import ShiftedClock, utc_datetime
from upbit_backbone.protocol import BackboneRequest
from upbit_backbone.simulator.server import Simulator

NIGHT_MS = 1_757_894_430_000
"""2025-09-15T00:00:30Z, inside the recordings."""


def requests_of(manager: BackboneManager) -> int:
    return int(manager.get_layer_status("layer_1").counters["requests"])


async def served(simulator: Simulator, group: str) -> int:
    """How many requests of a group the exchange answered, in its own words."""
    async with aiohttp.ClientSession() as http, http.get(simulator.control_url) as answer:
        return int((await answer.json())["served"].get(group, 0))


@pytest.mark.parametrize("data_type", [DataType.TICKER, DataType.ORDERBOOK])
async def test_189_symbols_in_tens_are_19_requests_on_the_wire(
    tmp_path: Path, data_type: DataType
) -> None:
    clock = ShiftedClock(NIGHT_MS)
    async with Simulator(clock=clock) as simulator:
        config = BackboneConfig(
            rest_url=simulator.rest_url,
            ws_url=simulator.ws_url,
            data_dir=tmp_path,
            symbols_per_request=10,
        )
        manager = BackboneManager(config, clock=clock, rng=Random(1))
        await manager.initialize()
        try:
            symbols = tuple(market.symbol for market in await manager.api.get_markets())[:189]
            request = BackboneRequest(data_type, symbols, max_age=0.0)
            number = await manager.event_bus.publish_data_request(request)
            response = await manager.event_bus.answer(number)
            assert [value.symbol for value in response.data] == list(symbols)
            assert await served(simulator, data_type.value) == 19
            assert response.metadata.split_info == "19 requests"
        finally:
            await manager.shutdown()


async def test_a_thousand_cold_candles_are_five_requests_and_none_the_second_time(
    tmp_path: Path,
) -> None:
    clock = ShiftedClock(NIGHT_MS)
    end = utc_datetime(NIGHT_MS - 3_630_000)
    start = utc_datetime(NIGHT_MS - 3_630_000 - 1_000 * 60_000)
    async with Simulator(as_recorded=True, clock=clock) as simulator:
        config = BackboneConfig(
            rest_url=simulator.rest_url, ws_url=simulator.ws_url, data_dir=tmp_path
        )
        for requests in (5, 0):
            manager = BackboneManager(config, clock=clock, rng=Random(1))
            await manager.initialize()
            try:
                before = requests_of(manager)
                series, metadata = await manager.api.get_candle_data(
                    "KRW-XRP", "1m", start, end, Priority.NORMAL, with_metadata=True
                )
                assert (len(series), metadata.missing) == (1_000, ())
                assert requests_of(manager) - before == requests
                assert metadata.split_info == ("5 pages" if requests else None)
            finally:
                await manager.shutdown()
