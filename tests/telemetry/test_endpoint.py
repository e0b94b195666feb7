"""``/metrics`` and ``/health`` over a real socket."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from datetime import datetime

import aiohttp
import msgspec
import pytest

from tests.manual_clock import ManualClock
from tests.telemetry.prometheus_format import families
from tests.telemetry.test_prometheus import BEGAN, busy, figures, status
from upbit_backbone.errors import ClosedError, InvalidRequestError, TransportError
from upbit_backbone.protocol import (
    Health,
    LayerStatus,
    PerformanceMetrics,
    SystemHealth,
    SystemStatus,
)
from upbit_backbone.telemetry.endpoint import MetricsServer
from upbit_backbone.telemetry.events import EventLog


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class House:
    """A service whose state a test sets."""

    def __init__(self) -> None:
        self.health: Health = "healthy"
        self.closed = False
        self.server = MetricsServer(0, metrics=self.metrics, status=self.status)

    def metrics(self) -> PerformanceMetrics:
        if self.closed:
            raise ClosedError("the backbone is not running: call initialize first")
        return figures(busy())

    def status(self) -> SystemStatus:
        if self.closed:
            raise ClosedError("the backbone is not running: call initialize first")
        layers = {"layer_1": LayerStatus("layer_1", self.health, "as the test says", BEGAN)}
        return status(health=SystemHealth(self.health, layers))


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    await house.server.start()
    yield house
    await house.server.stop()


@pytest.mark.both_loops
async def test_the_figures_are_served_in_the_format() -> None:
    house = House()
    await house.server.start()
    try:
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"{house.server.url}/metrics") as answer,
        ):
            text = await answer.text()
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    finally:
        await house.server.stop()
    assert families(text)["upbit_backbone_calls_total"].samples == {frozenset(): 31.0}


@pytest.mark.parametrize(
    ("health", "expected"), [("healthy", 200), ("degraded", 200), ("starting", 503), ("down", 503)]
)
async def test_health_is_200_while_the_service_works_and_503_while_it_does_not(
    house: House, client: aiohttp.ClientSession, health: Health, expected: int
) -> None:
    house.health = health
    async with client.get(f"{house.server.url}/health") as answer:
        assert answer.status == expected
        assert answer.content_type == "application/json"
        body = msgspec.json.decode(await answer.read())
    assert (body["health"], body["identity"], body["simulated"]) == (health, "upbit", False)
    assert body["connection"] == "polling"
    layer = body["layers"]["layer_1"]
    assert (layer["health"], layer["reason"]) == (health, "as the test says")
    assert datetime.fromisoformat(layer["since"]) == BEGAN


async def test_a_service_that_is_closed_answers_503_with_the_reason(
    house: House, client: aiohttp.ClientSession
) -> None:
    house.closed = True
    async with client.get(f"{house.server.url}/health") as answer:
        assert answer.status == 503
        assert "not running" in (await answer.json())["reason"]
    async with client.get(f"{house.server.url}/metrics") as answer:
        assert answer.status == 503
        assert "not running" in await answer.text()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", 200),
        ("127.0.0.1:9", 200),
        ("[::1]:80", 200),
        ("pages.example", 403),
        ("127.0.0.1.pages.example", 403),
        ("[", 403),
    ],
)
async def test_a_page_that_gives_this_machine_another_name_is_refused(
    house: House, client: aiohttp.ClientSession, host: str, expected: int
) -> None:
    async with client.get(f"{house.server.url}/health", headers={"Host": host}) as answer:
        assert answer.status == expected


async def test_nothing_else_is_served(house: House, client: aiohttp.ClientSession) -> None:
    async with client.get(f"{house.server.url}/") as answer:
        assert answer.status == 404
    async with client.post(f"{house.server.url}/health") as answer:
        assert answer.status == 405


async def test_a_taken_port_is_told_and_keeps_nobody_from_starting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = EventLog(ManualClock())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = MetricsServer(port, metrics=figures, status=status, events=events)
        await server.start()
    sentence = (
        f"metrics cannot be served on 127.0.0.1:{port}: the port is taken; expected a free port"
        " of this machine: give another metrics_port, or 0 for any"
    )
    assert isinstance(server.failure, TransportError)
    assert str(server.failure) == sentence
    [event] = events.since(0)
    assert (event.severity, event.sentence) == ("warning", sentence)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    await server.start()
    assert server.failure is None
    await server.stop()
    await server.stop()


@pytest.mark.parametrize("port", [-1, 65_536, "9464", None, True, 1.0])
def test_what_is_no_port_is_refused_in_a_sentence(port: object) -> None:
    with pytest.raises(InvalidRequestError, match=r"metrics_port must be 1\.\.65535, or 0"):
        MetricsServer(port, metrics=figures, status=status)  # type: ignore[arg-type]
