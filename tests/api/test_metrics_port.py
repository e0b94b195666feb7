"""A metrics port that cannot be had: the service runs, says so, and serves once it can."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.eventually import eventually
from upbit_backbone import BackboneConfig, BackboneManager
from upbit_backbone.telemetry import endpoint
from upbit_backbone.telemetry.endpoint import MetricsServer


async def test_a_taken_port_is_told_in_health_and_served_once_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(endpoint, "TRY_AGAIN_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = BackboneConfig(exchange="simulator", data_dir=tmp_path, metrics_port=port)
        manager = BackboneManager(config, first_symbol="KRW-BTC")
        await manager.initialize()
        try:
            status = manager.get_layer_status("layer_4")
            assert status.health == "degraded"
            assert f"127.0.0.1:{port}: the port is taken; expected a free port" in status.reason
            health = manager.get_system_health()
            assert (health.health, health.layers["layer_4"].reason) == ("degraded", status.reason)
            assert manager.api.get_system_status().health.layers["layer_4"].reason == status.reason
            assert (await manager.api.get_ticker_data("KRW-BTC")).symbol == "KRW-BTC"
            await asyncio.sleep(0.2)  # it is tried again, and told once
            taken.close()
            await eventually(lambda: manager.get_layer_status("layer_4").health == "healthy")
            url = f"http://127.0.0.1:{port}/metrics"
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                assert answer.status == 200
            told = [one.sentence for one in manager.api.get_system_events() if str(port) in
                    one.sentence]  # fmt: skip
        finally:
            await manager.shutdown()
    firsts = [sentence.partition(" ")[0] for sentence in told]
    assert [word for word in firsts if word != "layer_4"] == ["metrics", "figures"]
    assert len([one for one in caplog.records if one.levelno >= logging.WARNING]) == 1
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_forbidden_port_is_told_and_left_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(_: web.TCPSite) -> None:
        raise PermissionError(errno.EACCES, "permission denied")

    monkeypatch.setattr(web.TCPSite, "start", refuse)
    server = MetricsServer(80, metrics=never, status=never)
    before = asyncio.all_tasks()
    await server.start()
    assert "metrics cannot be served on 127.0.0.1:80: " in str(server.failure)
    assert "permission denied; expected a free port of this machine" in str(server.failure)
    await server.stop()
    await server.stop()
    assert asyncio.all_tasks() == before, "it is not tried any more"
    assert len(caplog.records) == 1


def never() -> Any:
    raise AssertionError("nobody is served")
