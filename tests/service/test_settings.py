"""Each setting does something: what, is shown here, or in the test that is named."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cli.running import NOWHERE, run_json
from tests.eventually import eventually
from tests.project.source_rules import REPOSITORY
from tests.service.conftest import ConfigOf
from upbit_backbone.api.monitor import MEASURED_EVERY_S
from upbit_backbone.config import SETTINGS, BackboneConfig
from upbit_backbone.errors import TransportError
from upbit_backbone.manager import BackboneManager
from upbit_backbone.models import CandleSeries
from upbit_backbone.protocol import Priority
from upbit_backbone.simulator.faults import Fault
from upbit_backbone.simulator.server import Simulator

SHOWN_BY = {
    "exchange": "service/test_settings.py::test_the_simulator_in_the_process_is_the_seed_s_market",
    "simulator_seed": "service/test_settings.py::test_the_simulator_in_the_process_is_the_seed_s",
    "rest_url": "service/test_settings.py::test_what_was_not_reached_is_asked_again_unless_that",
    "ws_url": "service/test_live_service.py::test_",
    "replay": "bottom/test_config.py::test_each_origin_of_data_has_a_name_of_its_own",
    "data_dir": "service/test_settings.py::test_the_simulator_in_the_process_is_the_seed_s_market",
    "critical_reserve": "routing/test_rate_limit.py::test_low_alone_gets_all_that_the_reserve",
    "max_concurrent_requests": "api/test_market_data_api.py::test_calls_above_the_limit_wait",
    "memory_limit_mb": "service/test_settings.py::test_candles_in_memory_give_way_to_the_limit",
    "symbols_per_request": "routing/test_batches.py::test_",
    "pinned": "storage/test_live_candles.py::test_a_pinned_series_is_kept_without_a_reader",
    "storage_limit_mb": "storage/test_retention.py::test_",
    "keep_1s_days": "storage/test_retention.py::test_",
    "metrics_port": "service/test_settings.py::test_figures_are_served_where_a_port_is_set",
    "auto_optimization": "routing/test_switches.py::test_what_is_asked_for_often_gets_a_stream",
    "environment_detection": "bottom/test_config.py::test_without_environment_detection_nothing",
    "circuit_breaker_enabled": "routing/test_switches.py::test_nothing_is_asked_during_a_block",
    "auto_retry_enabled": "service/test_settings.py::test_what_was_not_reached_is_asked_again",
    "fallback_mode_enabled": "routing/test_switches.py::test_prices_are_polled_while_the_stream",
}
NOON = datetime(2025, 9, 15, 12, tzinfo=UTC)


def test_each_setting_has_a_test_that_shows_what_it_does() -> None:
    assert set(SHOWN_BY) == set(SETTINGS)
    for place in SHOWN_BY.values():
        file, _, name = place.partition("::")
        assert f"def {name}" in (REPOSITORY / "tests" / file).read_text(encoding="utf-8"), place


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
async def test_memory_is_filled_after_the_start_unless_that_is_switched_off(
    as_recorded: Simulator, config_of: ConfigOf, enabled: bool
) -> None:
    manager = BackboneManager(replace(config_of(as_recorded), auto_optimization=enabled))
    await manager.initialize()
    try:
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert ("warm-up" in names) is enabled
    finally:
        await manager.shutdown()


async def test_candles_in_memory_give_way_to_the_limit_on_the_process(
    as_recorded: Simulator, config_of: ConfigOf, caplog: pytest.LogCaptureFixture
) -> None:
    # Any Python with numpy takes more: nothing is left for candles, and only CRITICAL may ask.
    manager = BackboneManager(replace(config_of(as_recorded), memory_limit_mb=16))
    await manager.initialize()

    def counter(layer: str, name: str) -> float:
        return manager.get_layer_status(layer).counters[name]

    async def candles() -> CandleSeries:
        return await manager.api.get_candle_data(
            "KRW-XRP", "1m", end_time=NOON, priority=Priority.CRITICAL
        )

    try:
        first = await candles()
        await eventually(lambda: counter("layer_2", "memory_bytes") == 0)
        before = counter("layer_1", "requests")
        again = await candles()
        assert again.close.tolist() == first.close.tolist()
        assert counter("layer_1", "requests") == before
    finally:
        await manager.shutdown()
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
