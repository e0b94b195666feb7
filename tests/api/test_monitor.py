"""The service looked at as a whole."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from random import Random

import pytest

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from upbit_backbone.api.event_bus import SystemReading
from upbit_backbone.api.monitor import Monitor
from upbit_backbone.api.waits import WaitTracker
from upbit_backbone.clock import Clock, SystemClock, utc_datetime
from upbit_backbone.models import Gap
from upbit_backbone.protocol import DataType, Health, LayerStatus, Priority
from upbit_backbone.telemetry.events import EventLog
from upbit_backbone.telemetry.loop_lag import LoopLagProbe
from upbit_backbone.telemetry.machine import Usage

LIMIT = 1_000 * 2**20


class House:
    """A monitor of layers and of a machine that a test makes up."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = ManualClock()
        used = self.clock if clock is None else clock
        self.usage = Usage(100 * 2**20, 0.0)
        self.low_s = 0.0
        self.health: Health = "healthy"
        self.counters: dict[str, dict[str, float]] = {"layer_1": {}, "layer_2": {}}
        self.lag = LoopLagProbe(used)
        self.waits = WaitTracker()
        self.events = EventLog(used)
        self.monitor = Monitor(
            clock=used,
            rng=Random(1),
            events=self.events,
            memory_limit_bytes=LIMIT,
            lag=self.lag,
            layers=self.layers,
            oldest_wait_s=self.waits.oldest_s,
            low_processor_s=lambda: self.low_s,
            usage=lambda: self.usage,
            processors=2,
        )

    def layers(self) -> dict[str, LayerStatus]:
        began = utc_datetime(AUTUMN_2025_MS)
        return {
            name: LayerStatus(name, self.health, "", began, dict(counters))
            for name, counters in self.counters.items()
        }

    def measure(self) -> None:
        self.monitor.measure(self.clock.monotonic())

    def count(self) -> None:
        self.monitor.count(self.clock.monotonic())

    @property
    def loads(self) -> dict[str, float]:
        return {term.name: round(term.load, 6) for term in self.monitor.load.terms if term.load}


def test_the_load_is_made_of_the_loop_the_waits_the_memory_and_the_processors() -> None:
    house = House()
    house.measure()
    assert house.loads == {"memory": 10.0}
    house.clock.advance(1)
    house.usage, house.low_s = Usage(500 * 2**20, 1.4), 0.4
    for tenth in range(20):
        house.lag.woke(0.043, tenth / 10)
    house.waits.begin(Priority.NORMAL, house.clock.monotonic() - 0.3)
    house.measure()
    assert house.loads == {
        "NORMAL waits": 60.0,
        "memory": 50.0,
        "processor": 50.0,
        "event loop": 40.0,
    }
    assert house.monitor.load.reason == ("a NORMAL call has waited for 300 ms, promised are 500 ms")


def test_what_layers_count_becomes_events_once() -> None:
    house = House()
    house.counters["layer_1"] = {
        "connections_lost": 3.0,
        "reconnects": 2.0,
        "gaps_opened": 3.0,
        "refused": 4.0,
        "http_429": 3.0,
        "blocks": 1.0,
        "joined": 9.0,
    }
    house.counters["layer_2"] = {"revisions": 5.0}
    at = utc_datetime(AUTUMN_2025_MS)
    house.monitor.spans.gap(Gap("KRW-BTC", "open", at, at + timedelta(seconds=3), "cut off"))
    house.count()
    house.count()
    told = [event for event in house.events.since(0) if event.kind != "health"]
    assert [(event.layer, event.severity, event.kind, event.sentence) for event in told] == [
        ("layer_1", "warning", "reconnect", "streams lost their connection: 3 time(s)"),
        ("layer_1", "warning", "ban", "the exchange blocked this address: 1 time(s)"),
        ("layer_1", "info", "reconnect", "streams were connected again: 2 time(s)"),
        (
            "layer_1",
            "warning",
            "gap",
            (
                "trades that the stream lost are read back: KRW-BTC"
                f" {at:%Y-%m-%d} 00:00:00 – 00:00:03 UTC: cut off"
            ),
        ),
    ]
    counts = house.monitor.figures().windows["10s"].counts
    assert (counts["http_429"], counts["http_418"], counts["coalesced"]) == (3, 1, 9)
    assert (counts["gaps"], counts["revisions"]) == (3, 5)


def test_layers_are_followed() -> None:
    house = House()
    house.count()
    house.health = "down"
    house.clock.advance(3)
    house.count()
    assert house.monitor.health["layer_1"].health == "down"
    assert house.monitor.health["layer_3"].health == "starting"
    assert house.events.since(0)[-1].sentence == "layer_2 is down; it was healthy for 3 s"


def test_figures_hold_everything_that_is_known() -> None:
    house = House()
    house.counters["layer_1"] = {"requests": 12.0}
    calls = house.monitor.calls
    for tier in ("memory", "memory", "storage", "exchange"):
        calls.answered(Priority.HIGH, DataType.TICKER, "peek", tier, 0.002)
    calls.failed(Priority.HIGH, DataType.TICKER, "direct: api → router", "DeadlineError")
    house.monitor.frames.drawn(0.008, house.clock.monotonic())
    house.usage = Usage(800 * 2**20, 0.0)
    house.measure()
    house.clock.advance(1)
    figures = house.monitor.figures()
    assert (figures.requests, figures.errors, figures.cache_hits) == (5, 1, 3)
    assert figures.cache_hit_rate == 0.75
    assert figures.exchange_requests == 12
    assert figures.counters == {"layer_1.requests": 12.0}
    assert figures.latency[Priority.HIGH].p50_ms == pytest.approx(2, rel=0.01)
    assert figures.windows.keys() == {"10s", "5m", "1h"}
    assert figures.windows["10s"].errors == {"DeadlineError": 1}
    assert (figures.load, figures.load_band) == (80.0, "low waits")
    assert figures.load_terms[0].name == "memory"
    assert figures.frame_p95_ms == 8.0
    assert figures.totals["answers.storage"] == 1
    assert figures.alerts == ()


def test_broken_promises_and_a_lasting_load_are_alerts() -> None:
    house = House()
    house.usage = Usage(LIMIT, 0.0)
    for _ in range(32):
        for _ in range(10):
            house.monitor.calls.answered(
                Priority.CRITICAL, DataType.TICKER, "direct: api → router", "exchange", 0.07
            )
        house.clock.advance(1)
        house.measure()
        house.count()
    names = {alert.name for alert in house.monitor.alerts.active}
    assert names == {"load", "slow CRITICAL", "hit rate"}
    assert house.monitor.figures().alerts == house.monitor.alerts.active


@pytest.mark.both_loops
async def test_it_looks_by_itself_until_it_is_cancelled() -> None:
    house = House(SystemClock())
    house.usage = Usage(LIMIT, 0.0)
    house.counters["layer_1"] = {"reconnects": 1.0}
    running = asyncio.create_task(house.monitor.run())
    await eventually(lambda: house.monitor.load.band == "critical only")
    await eventually(lambda: "reconnect" in [event.kind for event in house.events.since(0)])
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


def test_this_process_is_looked_at_by_default() -> None:
    clock = SystemClock()
    monitor = Monitor(
        clock=clock,
        rng=Random(1),
        events=EventLog(clock),
        memory_limit_bytes=1 << 40,
        lag=LoopLagProbe(clock),
        layers=dict,
        oldest_wait_s=WaitTracker().oldest_s,
    )
    monitor.measure(clock.monotonic())
    [memory] = [term for term in monitor.load.terms if term.name == "memory"]
    assert memory.load > 0


def test_whoever_asks_for_figures_takes_no_reading_and_changes_nothing() -> None:
    readings: list[SystemReading] = []
    house = House()
    house.monitor._on_reading = readings.append
    house.measure()
    house.count()
    for _ in range(10):
        house.clock.advance(0.1)
        house.counters["layer_1"]["reconnects"] = house.counters["layer_1"].get("reconnects", 0) + 1
        figures = house.monitor.figures()
    assert len(readings) == 1, "once a second, whoever asks how often"
    assert figures.totals["reconnects"] == 10, "what is told is of now"
    house.count()
    assert len(readings) == 2
