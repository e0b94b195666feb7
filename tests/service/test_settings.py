"""Each setting does something: what, is shown here, or in the test that is named."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.running import NOWHERE, run_json
from tests.eventually import eventually
from tests.manual_clock import ManualClock
from tests.project.source_rules import REPOSITORY
from tests.service.conftest import ConfigOf
from upbit_backbone.api.monitor import MEASURED_EVERY_S
from upbit_backbone.config import SETTINGS, BackboneConfig
from upbit_backbone.errors import (
    DeadlineError,
    RateLimitedError,
    SystemOverloadedError,
    TransportError,
)
from upbit_backbone.manager import BackboneManager
from upbit_backbone.models import CandleSeries
from upbit_backbone.protocol import BackboneRequest, DataType, Priority
from upbit_backbone.simulator.faults import Fault
from upbit_backbone.simulator.server import Simulator
from upbit_backbone.storage import maintenance_plan
from upbit_backbone.storage.database import FILE_NAME

HERE = "service/test_settings.py::test_"
SHOWN_BY = {
    "exchange": HERE + "the_simulator_in_the_process_is_the_seed_s_market",
    "simulator_seed": HERE + "the_simulator_in_the_process_is_the_seed_s_market",
    "rest_url": HERE + "the_exchange_at_the_addresses_is_asked_and_streamed_from",
    "ws_url": HERE + "the_exchange_at_the_addresses_is_asked_and_streamed_from",
    "replay": HERE + "what_is_replayed_is_stored_under_the_name_of_its_recording",
    "data_dir": HERE + "the_simulator_in_the_process_is_the_seed_s_market",
    "critical_reserve": HERE + "what_is_reserved_is_kept_for_critical",
    "max_concurrent_requests": HERE + "calls_beyond_the_limit_wait",
    "memory_limit_mb": HERE + "candles_in_memory_give_way_to_the_limit_on_the_process",
    "symbols_per_request": HERE + "a_request_names_so_many_markets_at_most",
    "pinned": HERE + "a_pinned_series_is_kept_and_one_that_is_not_listed_is_told_of",
    "storage_limit_mb": HERE + "what_is_stored_goes_as_the_limits_say",
    "keep_1s_days": HERE + "what_is_stored_goes_as_the_limits_say",
    "metrics_port": HERE + "figures_are_served_where_a_port_is_set",
    "auto_optimization": HERE
    + "memory_is_filled_and_streams_are_opened_unless_that_is_switched_off",
    "environment_detection": "bottom/test_config.py"
    "::test_without_environment_detection_nothing_is_measured",
    "circuit_breaker_enabled": HERE + "nothing_is_asked_during_a_block_unless_that_is_switched_off",
    "auto_retry_enabled": HERE + "what_was_not_reached_is_asked_again_unless_that_is_switched_off",
    "fallback_mode_enabled": HERE
    + "the_stream_answers_while_requests_fail_unless_that_is_switched_off",
}
"""Through the whole service, but for what it does not know: cut a setting's way to the part that
it is for, and its test fails."""
NOON = datetime(2025, 9, 15, 12, tzinfo=UTC)
SOON_S = 0.3


@asynccontextmanager
async def running(config: BackboneConfig) -> AsyncIterator[BackboneManager]:
    manager = BackboneManager(config)
    await manager.initialize()
    try:
        yield manager
    finally:
        await manager.shutdown()


def counter(manager: BackboneManager, layer: str, name: str) -> float:
    return manager.get_layer_status(layer).counters[name]


async def candles(
    manager: BackboneManager,
    hour: int,
    priority: Priority = Priority.NORMAL,
    timeout: float | None = None,
) -> CandleSeries:
    """Some that nobody has asked for before."""
    end = NOON - timedelta(hours=hour)
    return await manager.api.get_candle_data(
        "KRW-XRP", "1m", end_time=end, priority=priority, count=20, timeout=timeout
    )


def test_each_setting_has_a_test_that_shows_what_it_does() -> None:
    assert set(SHOWN_BY) == set(SETTINGS)
    for place in SHOWN_BY.values():
        file, _, name = place.partition("::")
        assert f"def {name}(" in (REPOSITORY / "tests" / file).read_text(encoding="utf-8"), place


async def test_the_simulator_in_the_process_is_the_seed_s_market(
    config_of: ConfigOf, as_recorded: Simulator
) -> None:
    folder = config_of(as_recorded).data_dir
    manager = BackboneManager(
        BackboneConfig(exchange="simulator", simulator_seed=7, data_dir=folder)
    )
    await manager.initialize()
    try:
        status = manager.api.get_system_status()
        assert (status.identity, status.simulated) == ("simulator-7", True)
        assert manager._origin.mark == "simulator-7"  # what it says of itself
        assert (folder / "simulator-7").is_dir()
    finally:
        await manager.shutdown()


@pytest.mark.parametrize("enabled", [True, False])
async def test_what_was_not_reached_is_asked_again_unless_that_is_switched_off(
    as_recorded: Simulator,
    config_of: ConfigOf,
    enabled: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    manager = BackboneManager(replace(config_of(as_recorded), auto_retry_enabled=enabled))
    await manager.initialize()
    try:
        as_recorded.faults.add(Fault(kind="503", group="candles", count=1))
        asked = manager.api.get_candle_data("KRW-XRP", "1m", end_time=NOON, count=20)
        if enabled:
            assert len(await asked) == 20
        else:
            with pytest.raises(TransportError):
                await asked
    finally:
        await manager.shutdown()


@pytest.mark.parametrize("enabled", [True, False])
async def test_memory_is_filled_and_streams_are_opened_unless_that_is_switched_off(
    simulator: Simulator, config_of: ConfigOf, enabled: bool
) -> None:
    async with running(replace(config_of(simulator), auto_optimization=enabled)) as manager:
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert ("warm-up" in names) is enabled
        await manager.api.get_ticker_data("KRW-XRP", Priority.CRITICAL)
        assert counter(manager, "layer_1", "automatic_streams") == enabled


async def test_the_exchange_at_the_addresses_is_asked_and_streamed_from(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    assert await BackboneManager.reachable(config_of(simulator))
    async with running(config_of(simulator)) as manager:
        asked = await manager.api.get_ticker_data("KRW-XRP")
        async with asyncio.timeout(5):
            async for streamed in manager.api.stream_ticker("KRW-XRP"):
                if streamed.source == "websocket":
                    break
    assert (asked.source, asked.simulated, streamed.simulated) == ("rest", True, True)


async def test_what_is_replayed_is_stored_under_the_name_of_its_recording(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    config = replace(config_of(simulator), replay="replay-0123abcd")
    async with running(config) as manager:
        assert manager.api.get_system_status().identity == "replay-0123abcd"
        assert (config.data_dir / "replay-0123abcd" / FILE_NAME).exists()
    # Its time may run at another speed than that of this computer.
    local = ManualClock()
    manager = BackboneManager(config, clock=local)
    local.advance(1)
    local.set_wall(local.now_ms() + 9_000)
    assert manager._clock.now_ms() == local.now_ms()
    assert manager._clock.jumps == 0


async def test_what_is_reserved_is_kept_for_critical(
    as_recorded: Simulator, config_of: ConfigOf
) -> None:
    async with running(replace(config_of(as_recorded), critical_reserve=9)) as manager:
        await candles(manager, 1, Priority.CRITICAL)
        # Of ten requests a second one is left for all others.
        asked = [candles(manager, hour, Priority.HIGH, timeout=SOON_S) for hour in (2, 3, 4)]
        given = await asyncio.gather(*asked, return_exceptions=True)
        assert any(isinstance(one, DeadlineError) for one in given)
        await candles(manager, 5, Priority.CRITICAL)


async def test_calls_beyond_the_limit_wait(as_recorded: Simulator, config_of: ConfigOf) -> None:
    async with running(replace(config_of(as_recorded), max_concurrent_requests=1)) as manager:
        await candles(manager, 1)
        late = Fault(kind="latency", group="candles", count=2, ms=1.5 * SOON_S * 1_000)
        as_recorded.faults.add(late)
        both = (Priority.HIGH, Priority.NORMAL)
        before = counter(manager, "layer_1", "requests")
        slow = asyncio.gather(*(candles(manager, 2 + one, one) for one in both))
        while counter(manager, "layer_1", "requests") < before + 2:
            await asyncio.sleep(0)
        more = (candles(manager, 4 + one, one, timeout=SOON_S) for one in both)
        for given in await asyncio.gather(*more, return_exceptions=True):
            assert isinstance(given, DeadlineError | SystemOverloadedError)
        await slow


async def test_a_request_names_so_many_markets_at_most(
    simulator: Simulator, config_of: ConfigOf
) -> None:
    symbols = ("KRW-BTC", "KRW-ETH", "KRW-XRP")
    config = replace(config_of(simulator), symbols_per_request=2, auto_optimization=False)
    async with running(config) as manager:
        before = counter(manager, "layer_1", "requests")
        await asyncio.gather(*map(manager.api.get_ticker_data, symbols))
        assert counter(manager, "layer_1", "requests") - before == 2
        # One call for a list of markets, as a program on the bus may make it.
        request = BackboneRequest(DataType.TICKER, symbols, max_age=0.0)
        response = await manager._coordinator.fetch(request)
        assert response.metadata.split_info == "2 requests"


async def test_a_pinned_series_is_kept_and_one_that_is_not_listed_is_told_of(
    simulator: Simulator, config_of: ConfigOf, caplog: pytest.LogCaptureFixture
) -> None:
    pinned = ("KRW-BTC:1m", "KRW-BTD:1m", "KRW-BTD:1h")
    async with running(replace(config_of(simulator), pinned=pinned)) as manager:
        await eventually(lambda: counter(manager, "layer_2", "live_series") >= 1)
        await eventually(lambda: caplog.messages)
        (event,) = [one for one in manager.api.get_system_events() if one.kind == "alert"]
    (told,) = caplog.messages
    assert event.sentence == told
    assert "pinned" in told
    assert "'KRW-BTD'" in told


async def test_what_is_stored_goes_as_the_limits_say(
    as_recorded: Simulator,
    config_of: ConfigOf,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(maintenance_plan, "IDLE_S", 0.0)
    config = replace(config_of(as_recorded), auto_optimization=False)
    async with running(config) as manager:
        await candles(manager, 1)
        await manager.api.get_candle_data("KRW-XRP", "1s", end_time=NOON, count=20)
    with closing(sqlite3.connect(config.data_dir / config.identity / FILE_NAME)) as file:
        file.execute("CREATE TABLE ballast AS SELECT zeroblob(17 << 20) AS large")
        file.commit()
    for limited, seconds_and_minutes in (
        (config, 0),
        (replace(config, keep_1s_days=1), 20),
        (replace(config, storage_limit_mb=16), 20),
    ):
        async with running(limited) as manager:
            await manager._storage._maintenance._look()
            assert counter(manager, "layer_2", "removed_candles") == seconds_and_minutes


@pytest.mark.parametrize("enabled", [True, False])
async def test_nothing_is_asked_during_a_block_unless_that_is_switched_off(
    as_recorded: Simulator, config_of: ConfigOf, enabled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(
        config_of(as_recorded), circuit_breaker_enabled=enabled, auto_retry_enabled=False
    )
    async with running(config) as manager:
        as_recorded.faults.add(Fault(kind="418", group="candles", count=1))
        with pytest.raises(RateLimitedError):
            await candles(manager, 1)
        before = counter(manager, "layer_1", "requests")
        with pytest.raises(RateLimitedError):
            await candles(manager, 2)
        assert counter(manager, "layer_1", "requests") == before + (not enabled)
    # The next program has to know of it.
    assert (config.data_dir / config.identity / "block.json").exists()


@pytest.mark.parametrize("enabled", [True, False])
async def test_the_stream_answers_while_requests_fail_unless_that_is_switched_off(
    simulator: Simulator, config_of: ConfigOf, enabled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(
        config_of(simulator),
        fallback_mode_enabled=enabled,
        auto_retry_enabled=False,
        auto_optimization=False,
    )
    async with running(config) as manager:
        reader = manager.api.stream_ticker("KRW-BTC")
        await anext(reader)
        await eventually(lambda: manager.api.get_system_status().connection == "live")
        simulator.faults.add(Fault(kind="503", group="ticker"))
        asked = manager.api.get_ticker_data("KRW-XRP")
        if enabled:
            assert (await asked).source == "websocket"
        else:
            with pytest.raises(TransportError):
                await asked
        reader.close()


async def test_candles_in_memory_give_way_to_the_limit_on_the_process(
    as_recorded: Simulator, config_of: ConfigOf, caplog: pytest.LogCaptureFixture
) -> None:
    # Any Python with numpy takes more: nothing is left for candles, and only CRITICAL may ask.
    async with running(replace(config_of(as_recorded), memory_limit_mb=16)) as manager:
        first = await candles(manager, 1, Priority.CRITICAL)
        await eventually(lambda: counter(manager, "layer_2", "memory_bytes") == 0)
        before = counter(manager, "layer_1", "requests")
        again = await candles(manager, 1, Priority.CRITICAL)
        assert again.close.tolist() == first.close.tolist()
        assert counter(manager, "layer_1", "requests") == before
        with pytest.raises(SystemOverloadedError, match=r"memory: .* MB of 16 MB"):
            await candles(manager, 2, Priority.HIGH, timeout=SOON_S / 3)
    assert "memory_limit_mb is 16" in caplog.text


async def test_with_room_candles_stay_in_memory(
    as_recorded: Simulator, config_of: ConfigOf
) -> None:
    manager = BackboneManager(replace(config_of(as_recorded), memory_limit_mb=1 << 16))
    await manager.initialize()
    try:
        await manager.api.get_candle_data("KRW-XRP", "1m", end_time=NOON)
        await asyncio.sleep(2 * MEASURED_EVERY_S)
        assert manager.get_layer_status("layer_2").counters["memory_bytes"] > 0
        # A new store has its share at once; later it is told once a second.
        assert manager._running._build_storage()._memory._limit_bytes == 1 << 34
    finally:
        await manager.shutdown()


@pytest.mark.parametrize("wanted", [True, False])
async def test_figures_are_served_where_a_port_is_set(
    as_recorded: Simulator, config_of: ConfigOf, tmp_path: Path, wanted: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = replace(config_of(as_recorded), metrics_port=port if wanted else None)
    manager = BackboneManager(config)
    await manager.initialize()
    try:
        variable = {"UPBIT_BACKBONE_METRICS_PORT": str(port)}
        if wanted:
            told = await asyncio.to_thread(
                run_json, tmp_path, "status", exchange=NOWHERE, environment=variable
            )
            assert (told["running"], told["identity"]) == (True, config.identity)
        else:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
    finally:
        await manager.shutdown()
