"""What fails is begun anew, in the middle of traffic: the bus, and each layer in turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from tests.eventually import eventually
from tests.service.conftest import A_WEDNESDAY_MS, ConfigOf
from upbit_backbone import BackboneManager, Priority, Progress, TransportError
from upbit_backbone.api.chunks import ChunkStream
from upbit_backbone.api.market_data_api import MarketDataAPI
from upbit_backbone.clock import utc_datetime
from upbit_backbone.errors import ClosedError
from upbit_backbone.models import Gap
from upbit_backbone.simulator.server import Simulator

SYMBOL = "KRW-BTC"
END = utc_datetime(A_WEDNESDAY_MS)
ALL_TRADED = 990
"""Somebody traded in each of so many minutes before the end."""
LAYERS = ("layer_1", "layer_2", "layer_3", "layer_4")


@asynccontextmanager
async def running(simulator: Simulator, config_of: ConfigOf) -> AsyncIterator[BackboneManager]:
    manager = BackboneManager(config_of(simulator))
    await manager.initialize()
    try:
        yield manager
    finally:
        await manager.shutdown()


def cancel_task(name: str) -> None:
    """End a task of the service as a fault would."""
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == name]
    assert tasks, name
    for task in tasks:
        task.cancel()


async def begun_anew(manager: BackboneManager, layer: str) -> None:
    """Until a layer has failed once and works again."""
    await eventually(
        lambda: manager.get_layer_status(layer).counters.get("restarts") == 1, timeout=10.0
    )


class Traffic:
    """Callers of every priority, each asking again as soon as it is answered."""

    def __init__(self, api: MarketDataAPI) -> None:
        self._api = api
        self._going = True
        self.answered = 0
        self.paths: set[str] = set()
        self.errors: list[Exception] = []
        self._minutes = 0

    async def call(self, priority: Priority) -> None:
        while self._going:
            self._minutes += 3
            start = END - timedelta(minutes=self._minutes)
            series, metadata = await self._api.get_candle_data(
                SYMBOL, "1m", start, start + timedelta(minutes=3), priority, with_metadata=True
            )
            # A page that was lost would be named there instead of raised.
            assert not metadata.missing, metadata.missing
            assert len(series) == 3 or self._minutes > ALL_TRADED
            self.paths.add(metadata.path.partition(":")[0])
            await self._api.get_ticker_data(SYMBOL, priority)
            self.answered += 2
            await asyncio.sleep(0.002)

    async def run(self, meanwhile: Callable[[], Any]) -> None:
        """Have traffic while something is done; errors of callers are kept."""
        calls = [asyncio.create_task(self.call(priority)) for priority in Priority]
        try:
            await meanwhile()
        finally:
            self._going = False
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(outcome, Exception):
                    self.errors.append(outcome)

    async def more(self, calls: int) -> None:
        """Until so many more were answered."""
        wanted = self.answered + calls
        await eventually(lambda: self.answered >= wanted, timeout=30.0)


async def test_the_bus_stops_in_the_middle_of_traffic_and_nothing_is_lost(
    simulator: Simulator, config_of: ConfigOf, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(simulator, config_of) as manager:
        traffic = Traffic(manager.api)

        async def stop_it() -> None:
            await eventually(lambda: traffic.paths == {"direct", "bus"}, timeout=10.0)
            cancel_task("event bus")
            await eventually(lambda: manager.get_layer_status("layer_4").health == "degraded")
            assert "calls go down directly" in manager.get_layer_status("layer_4").reason
            await eventually(lambda: manager.get_layer_status("layer_4").health == "healthy")
            traffic.paths.clear()
            await eventually(lambda: "bus" in traffic.paths, timeout=10.0)

        await traffic.run(stop_it)
        assert traffic.errors == []
        sentences = [event.sentence for event in manager.api.get_system_events()]
        assert any("the event bus failed" in sentence for sentence in sentences)
        assert "the event bus works again" in sentences


KILLS = {
    "the stream hub": ("layer_1", "stream hub"),
    "what looks after the stream": ("layer_1", "stream tending"),
    "the store's writer": ("layer_2", "storage writer"),
    "what reads the store's own pages": ("layer_2", "storage tending"),
}


@pytest.mark.parametrize(
    ("layer", "task"),
    [
        pytest.param(*kill, id=name, marks=[pytest.mark.slow] * name.startswith("what"))
        for name, kill in KILLS.items()
    ],
)
async def test_a_layer_whose_task_is_gone_is_built_anew_under_traffic(
    simulator: Simulator,
    config_of: ConfigOf,
    caplog: pytest.LogCaptureFixture,
    layer: str,
    task: str,
) -> None:
    async with running(simulator, config_of) as manager:
        traffic = Traffic(manager.api)

        async def kill_it() -> None:
            await traffic.more(8)
            cancel_task(task)
            await begun_anew(manager, layer)
            await traffic.more(8)

        await traffic.run(kill_it)
        assert traffic.errors == []
        assert manager.get_system_health().health == "healthy"
        told = [event for event in manager.api.get_system_events() if event.layer == layer]
        assert [event.severity for event in told if event.kind == "health"][-2:] == [
            "error",
            "info",
        ]
    said = [record for record in caplog.records if record.name == "upbit_backbone.supervision"]
    assert [record.levelname for record in said] == ["WARNING"], "said once"
    assert "ERROR" not in [record.levelname for record in caplog.records]


async def test_each_layer_that_is_stopped_comes_back(
    simulator: Simulator, config_of: ConfigOf, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(simulator, config_of) as manager:
        for name, layer in zip(LAYERS, manager._running.supervised, strict=False):
            await layer.layer.stop()
            start = END - timedelta(hours=3)
            candles = await manager.api.get_candle_data(SYMBOL, "1m", start, END)
            assert len(candles) == 180
            ticker = await manager.api.get_ticker_data(SYMBOL, max_age=0.0)
            assert ticker.symbol == SYMBOL
            await begun_anew(manager, name)
        for name in ("monitor", "loop lag probe", "watch over layer_1"):
            cancel_task(name)
        await eventually(lambda: manager.get_layer_status("layer_4").health == "degraded")
        assert "the service is not watched" in manager.get_layer_status("layer_4").reason
        await eventually(lambda: manager.get_system_health().health == "healthy")


async def test_a_closed_session_is_replaced(
    simulator: Simulator, config_of: ConfigOf, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(simulator, config_of) as manager:
        await manager._running.routing.layer._session.close()
        ticker = await manager.api.get_ticker_data(SYMBOL, max_age=0.0)
        assert ticker.symbol == SYMBOL


async def test_calls_with_little_time_hear_which_layer_failed(
    simulator: Simulator, config_of: ConfigOf, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(simulator, config_of) as manager:
        cancel_task("stream hub")
        await eventually(lambda: not manager._running.routing.works)
        with pytest.raises(TransportError, match="layer_1 failed and is begun anew: the task"):
            await manager.api.get_ticker_data(SYMBOL, Priority.CRITICAL, timeout=0.2)
        assert manager.api.get_system_status().connection == "offline"
        await manager.api.get_ticker_data(SYMBOL, Priority.CRITICAL)


async def test_streams_outlive_the_layers_below(
    simulator: Simulator, config_of: ConfigOf, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(simulator, config_of) as manager:
        api = manager.api
        got: dict[str, list[Any]] = {}
        streams = {
            "tickers": api.stream_ticker(SYMBOL),
            "trades": api.stream_trades(SYMBOL, policy="all"),
            "candles": api.stream_candles(SYMBOL, "1m"),
            "all candles": api.stream_candles(SYMBOL, "1m", policy="all"),
        }

        async def read(name: str, patience_s: float | None) -> None:
            values = got.setdefault(name, [])
            while True:
                try:
                    values.append(await asyncio.wait_for(anext(streams[name]), patience_s))
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    assert streams[name].state != "closed"

        def gaps(name: str) -> list[Gap]:
            return [value for value in got[name] if isinstance(value, Gap)]

        def all_go_on(before: dict[str, int]) -> bool:
            return all(len(got[name]) > count for name, count in before.items())

        reading = [
            asyncio.create_task(read(name, None if "all" in name else 0.05)) for name in streams
        ]
        await eventually(lambda: len(got) == 4 and all(got.values()), timeout=10.0)
        for layer in ("layer_1", "layer_2"):
            cancel_task("stream hub" if layer == "layer_1" else "storage writer")
            if layer == "layer_1":
                await eventually(lambda: not manager._running.routing.works)
                new = api.stream_ticker(SYMBOL)
                assert (new.state, new.reason[:14]) == ("stale", "layer_1 failed")
                streams["new"] = new
                reading.append(asyncio.create_task(read("new", 0.05)))
                await eventually(lambda: gaps("trades") and gaps("all candles"))
                assert not manager._running.routing.works, "told at once"
            await begun_anew(manager, layer)
            before = {name: len(values) for name, values in got.items()}
            # This market may rest for a while.
            await eventually(partial(all_go_on, before), timeout=30.0)
        for stream in streams.values():
            stream.close()
        await asyncio.gather(*reading)
        lost, ended = gaps("trades")
        assert (lost.state, ended.state) == ("open", "unfillable")
        assert lost.start == ended.start <= lost.end < ended.end
        assert [gap.state for gap in gaps("all candles")] == ["open", "unfillable"] * 2
        ids = [trade.sequential_id for trade in got["trades"] if not isinstance(trade, Gap)]
        assert len(set(ids)) == len(ids), "no trade twice"


async def test_closing_answers_what_was_asked_and_ends_low_at_once(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    manager = BackboneManager(config_of(simulator))
    await manager.initialize()
    api = manager.api
    low = asyncio.create_task(
        api.get_candle_data(SYMBOL, "1m", END - timedelta(days=30), END, Priority.LOW)
    )
    await asyncio.sleep(0.2)
    normal = asyncio.create_task(api.get_candle_data(SYMBOL, "1m", count=400))
    await asyncio.sleep(0)
    await manager.shutdown()
    with pytest.raises(ClosedError):
        await low
    assert len(await normal) == 400
    for call in (api.get_ticker_data(SYMBOL), api.get_markets()):
        with pytest.raises(ClosedError):
            await call
    for ask in (api.get_system_status, api.get_performance_metrics, manager.get_system_health):
        with pytest.raises(ClosedError):
            ask()


async def test_a_long_load_goes_on_when_its_layer_was_lost_in_the_middle(
    simulator: Simulator, config_of: ConfigOf, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(simulator, config_of) as manager:
        told: list[Progress] = []
        chunks = manager.api.iter_candle_chunks(
            SYMBOL, "1m", END - timedelta(minutes=2_000), END, Priority.NORMAL, progress=told.append
        )
        opens: list[int] = []
        async for series in chunks:
            if not opens:
                cancel_task(f"chunks of {SYMBOL} 1m")  # a fault of that task's own
                await manager._running.coordinator.layer.stop()
            opens += series.time.tolist()
        whole = await manager.api.get_candle_data(SYMBOL, "1m", END - timedelta(minutes=2_000), END)
        assert opens == whole.time.tolist(), "nothing twice, nothing lost"
        assert [one.state for one in told].count("waiting") == 1
        assert (told[-1].state, told[-1].done) == ("done", told[-1].total)
        assert manager.get_layer_status("layer_3").counters["restarts"] == 1
        left = manager.api.iter_candle_chunks(SYMBOL, "1m", END - timedelta(days=30), END)
        await anext(left)
    with pytest.raises(ClosedError, match="the market-data service is closed"):
        await drained(left)


async def drained(chunks: ChunkStream) -> None:
    async for _ in chunks:
        pass
