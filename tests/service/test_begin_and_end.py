"""It begins whoever answers in the place of the exchange, and ends however often it is asked to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.service.conftest import A_WEDNESDAY_MS, ConfigOf
from upbit_backbone import BackboneConfig, BackboneManager, MarketDataAPI
from upbit_backbone.clock import ShiftedClock
from upbit_backbone.errors import BackboneError, StorageOriginError, UnknownSymbolError
from upbit_backbone.origin import MARK_HEADER
from upbit_backbone.simulator.server import Simulator
from upbit_backbone.supervision import SupervisedLayer

SYMBOL = "KRW-BTC"
GARBLED = (
    (200, "text/html", "<html>Welcome to our hotel: log in</html>"),
    (200, "application/json", '{"this": "is no list"}'),
    (200, "application/json", "[]"),
    (403, "text/plain", "forbidden"),
    (404, "application/json", "{}"),
)
"""Status, kind and body of what may stand where the exchange was."""


@asynccontextmanager
async def in_its_place(
    port: int, status: int, kind: str, body: str, *, mark: str | None = None
) -> AsyncIterator[None]:
    headers = None if mark is None else {MARK_HEADER: mark}

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, content_type=kind, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


def at_port(simulator: Simulator, tmp_path: Path) -> tuple[BackboneConfig, int]:
    config = BackboneConfig(
        rest_url=simulator.rest_url, ws_url=simulator.ws_url, data_dir=tmp_path / "data"
    )
    return config, int(simulator.rest_url.rpartition(":")[2].partition("/")[0])


async def test_it_begins_offline_whatever_answers_in_the_place_of_the_exchange(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Simulator(clock=ShiftedClock(A_WEDNESDAY_MS), first_symbol=SYMBOL) as simulator:
        config, port = at_port(simulator, tmp_path)
        async with await MarketDataAPI.create(config) as api:
            stored = await api.get_candle_data(SYMBOL, "1m", count=30, closed_only=True)
            markets = {market.symbol for market in await api.get_markets()}
    for answer in GARBLED:
        caplog.clear()
        mark = None if "html" in answer[1] else simulator.name
        async with (
            in_its_place(port, *answer, mark=mark),
            await MarketDataAPI.create(config) as api,
        ):
            assert {market.symbol for market in await api.get_markets()} == markets
            status = api.get_system_status()
            if answer[2] != "[]":
                assert (status.connection, status.health.health) == ("offline", "down"), answer
            held, _ = await api.get_stored_candles(SYMBOL, "1m", count=30)
            assert held.close.tolist() == stored.close.tolist()
            with pytest.raises(BackboneError):
                await api.get_ticker_data(SYMBOL, timeout=0.2)
    async with in_its_place(port, *GARBLED[2], mark="another"):
        with pytest.raises(StorageOriginError, match="another"):
            await MarketDataAPI.create(config)


async def test_a_page_for_people_fixes_nothing_and_a_stream_ends_once_the_list_is_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Simulator(clock=ShiftedClock(A_WEDNESDAY_MS), first_symbol=SYMBOL) as simulator:
        config, port = at_port(simulator, tmp_path)
    async with in_its_place(port, *GARBLED[0]):
        api = await MarketDataAPI.create(config)
    async with api, Simulator(clock=ShiftedClock(A_WEDNESDAY_MS), first_symbol=SYMBOL, port=port):
        with pytest.raises(UnknownSymbolError, match="KRW-BTCC"):
            async with asyncio.timeout(10), api.stream_ticker("KRW-BTCC") as mistyped:
                await anext(mistyped)
        assert (await api.get_ticker_data(SYMBOL)).simulated


async def test_closing_is_finished_by_the_next_call_and_waited_for_by_another(
    simulator: Simulator, config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping, may_stop = asyncio.Event(), asyncio.Event()
    stop = SupervisedLayer.stop

    async def slow_stop(layer: SupervisedLayer[Any]) -> None:
        if layer.name == "layer_2":
            stopping.set()
            await may_stop.wait()
        await stop(layer)

    monkeypatch.setattr(SupervisedLayer, "stop", slow_stop)
    tasks = asyncio.all_tasks()
    api = await MarketDataAPI.create(config_of(simulator))
    first = asyncio.create_task(api.close())
    await stopping.wait()
    others = [asyncio.create_task(api.close()) for _ in range(2)]
    await asyncio.sleep(0.05)
    assert not any(one.done() for one in others), "they wait for the first"
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    await asyncio.sleep(0.05)
    assert not any(one.done() for one in others), "and do what it has left"
    may_stop.set()
    await asyncio.gather(*others)
    await api.close()
    assert asyncio.all_tasks() == tasks


async def test_who_initializes_twice_has_one_service(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    manager = BackboneManager(config_of(simulator))
    await asyncio.gather(manager.initialize(), manager.initialize())
    api = manager.api
    await manager.initialize()
    assert manager.api is api
    hubs = [task for task in asyncio.all_tasks() if task.get_name() == "stream hub"]
    assert len(hubs) == 1
    await asyncio.gather(manager.shutdown(), manager.shutdown())
    await manager.initialize()
    assert manager.api is not api
    assert (await manager.api.get_ticker_data(SYMBOL)).symbol == SYMBOL
    await manager.shutdown()
