"""What was stored is in memory soon after the start; the start does not wait for it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.eventually import eventually
from tests.service.conftest import ConfigOf
from upbit_backbone import manager
from upbit_backbone.errors import StorageUnavailableError
from upbit_backbone.manager import BackboneManager
from upbit_backbone.simulator.server import Simulator
from upbit_backbone.storage.storage import Storage

NOON = datetime(2025, 9, 15, 12, tzinfo=UTC)


async def test_after_a_start_memory_holds_what_was_stored_without_a_request(
    as_recorded: Simulator, config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "WARM_UP_AFTER_S", 0.0)
    first = BackboneManager(config_of(as_recorded))
    await first.initialize()
    await first.api.get_candle_data("KRW-XRP", "1m", NOON - timedelta(hours=3), NOON)
    await first.shutdown()
    second = BackboneManager(config_of(as_recorded))
    await second.initialize()
    try:
        await eventually(lambda: second.get_layer_status("layer_2").counters["memory_bytes"])
        before = second.get_layer_status("layer_1").counters["requests"]
        _, metadata = await second.api.get_candle_data(
            "KRW-XRP", "1m", NOON - timedelta(hours=1), NOON, with_metadata=True
        )
        assert metadata.path == "peek"
        assert second.get_layer_status("layer_1").counters["requests"] == before
    finally:
        await second.shutdown()


async def test_memory_that_cannot_be_filled_keeps_nothing_from_starting_or_stopping(
    as_recorded: Simulator, config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "WARM_UP_AFTER_S", 0.0)
    tried = asyncio.Event()

    async def fail(_: Storage, **__: object) -> int:
        tried.set()
        raise StorageUnavailableError("the disk is gone")

    async def hang(_: Storage, **__: object) -> int:
        tried.set()
        await asyncio.Event().wait()
        return 0

    for broken in (fail, hang):
        tried.clear()
        monkeypatch.setattr(Storage, "warm_up_cache", broken)
        service = BackboneManager(config_of(as_recorded))
        async with asyncio.timeout(5):
            await service.initialize()
            try:
                await tried.wait()
                assert len(await service.api.get_candle_data("KRW-XRP", "1m", end_time=NOON)) == 200
                assert service._tasks.failure is None
            finally:
                await service.shutdown()


def test_the_first_page_of_a_chart_goes_before() -> None:
    assert manager.WARM_UP_AFTER_S >= 1.0
