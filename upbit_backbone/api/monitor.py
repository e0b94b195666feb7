"""Looks at the running service: its load a few times a second, its figures once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from upbit_backbone.api.event_bus import SystemReading
from upbit_backbone.api.load_manager import LoadReading, SystemLoadManager
from upbit_backbone.clock import Clock, utc_datetime
from upbit_backbone.protocol import (
    EventKind,
    LayerStatus,
    PerformanceMetrics,
    Priority,
    SelfAudit,
    Severity,
    Tier,
)
from upbit_backbone.surroundings import usable_processors
from upbit_backbone.tasks import KeptTask
from upbit_backbone.telemetry.alerts import Alerts
from upbit_backbone.telemetry.calls import TIERS, CallRecorder, hit_rate, layer_totals
from upbit_backbone.telemetry.events import EventLog, SpanEvents
from upbit_backbone.telemetry.frames import FrameTimes
from upbit_backbone.telemetry.layer_health import LayerHealthTracker
from upbit_backbone.telemetry.loop_lag import LoopLagProbe
from upbit_backbone.telemetry.machine import ProcessorMeter, Usage, process_usage

MEASURED_EVERY_S: Final = 0.25
COUNTED_EVERY_S: Final = 1.0
_TOLD: Final[Mapping[str, tuple[str, Severity, EventKind, str]]] = {
    "http_418": ("layer_1", "warning", "ban", "the exchange blocked this address: {times} time(s)"),
    "connections_lost": (
        "layer_1",
        "warning",
        "reconnect",
        "streams lost their connection: {times} time(s)",
    ),
    "reconnects": ("layer_1", "info", "reconnect", "streams were connected again: {times} time(s)"),
}
"""What layers count and a person should read of: layer, severity, kind and sentence. Gaps and
revisions are told with their names (`SpanEvents`)."""


class Monitor:
    """Holds everything that the service knows of itself, and keeps it up to date.

    Attributes:
        calls: Where every call is told of.
        events: What happened lately.
        spans: Where layers tell of gaps and revised candles.
        health: How each layer is doing, and since when.
        frames: Where the screen tells of its frames.
        load: Who may begin work now.
        alerts: What a person should know of as long as it lasts.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        rng: Random,
        events: EventLog,
        memory_limit_bytes: int,
        lag: LoopLagProbe,
        layers: Callable[[], Mapping[str, LayerStatus]],
        oldest_wait_s: Callable[[float], Mapping[Priority, float]],
        oldest_limit_wait_s: Callable[[float], Mapping[Priority, float]] = lambda now: {},
        low_processor_s: Callable[[], float] = lambda: 0.0,
        low_got_pages_per_s: Callable[[], float] = lambda: 0.0,
        on_reading: Callable[[SystemReading], None] = lambda reading: None,
        self_audit: Callable[[], SelfAudit | None] = lambda: None,
        usage: Callable[[], Usage] | None = None,
        processors: int | None = None,
    ) -> None:
        """Take what is looked at; nothing is asked before `run`.

        Args:
            clock: This machine's time.
            rng: Chooses samples of calls.
            events: Where it is written what happens.
            memory_limit_bytes: What the process may take.
            lag: Measures the event loop; runs beside.
            layers: The layers' own words, by name; those that do not run are left out.
            oldest_wait_s: As `LoadReading.oldest_wait_s`.
            oldest_limit_wait_s: As `LoadReading.oldest_limit_wait_s`.
            low_processor_s: Processor time that work for LOW took since the start. Without it
                LOW's share counts as load: LOW then yields too early, never too late.
            low_got_pages_per_s: How many pages a second LOW really gets.
            on_reading: Told once a second what the service takes of the machine.
            self_audit: As `Storage.self_audit`.
            usage: What the process takes; by default the system is asked.
            processors: How many it may use; by default the system is asked.
        """
        self._clock = clock
        self._lag = lag
        self._layers = layers
        self._oldest_wait_s = oldest_wait_s
        self._oldest_limit_wait_s = oldest_limit_wait_s
        self._low_processor_s = low_processor_s
        self._low_got_pages_per_s = low_got_pages_per_s
        self._usage = process_usage() if usage is None else usage
        self._meter = ProcessorMeter(usable_processors() if processors is None else processors)
        self._counters: dict[str, float] = {}
        self._lost_before = 0.0
        self.events = events
        self.spans = SpanEvents()
        self.calls = CallRecorder(rng, clock.monotonic())
        self.health = LayerHealthTracker(
            events, clock, ("layer_1", "layer_2", "layer_3", "layer_4")
        )
        self.frames = FrameTimes()
        self.load = SystemLoadManager(memory_limit_bytes=memory_limit_bytes, events=events)
        self.alerts = Alerts(events, clock)
        self._on_reading = on_reading
        self._self_audit = self_audit
        self._used: Usage | None = None
        self._tasks = (
            KeptTask(lag.run, name="loop lag probe"),
            KeptTask(self.run, name="monitor"),
        )

    async def start(self) -> None:
        """Begin to look."""
        for task in self._tasks:
            task.start()

    async def stop(self) -> None:
        """Look no more. May be called twice."""
        for task in self._tasks:
            await task.stop()

    @property
    def failure(self) -> str:
        """Why nobody looks at this moment; empty while somebody does."""
        failures = (task.failure for task in self._tasks)
        return next((f"the service is not watched: {one}" for one in failures if one), "")

    async def run(self) -> None:
        """Look until cancelled."""
        counted_s = self._clock.monotonic()
        while True:
            await asyncio.sleep(MEASURED_EVERY_S)
            now = self._clock.monotonic()
            self.measure(now)
            if now - counted_s >= COUNTED_EVERY_S:
                counted_s = now
                self.count(now)

    def measure(self, now: float) -> LoadReading:
        """Take a reading of the load."""
        usage = self._used = self._usage()
        self._meter.measured(usage.processor_s, self._low_processor_s(), now)
        reading = LoadReading(
            loop_lag_p95_s=self._lag.p95_s,
            oldest_wait_s=self._oldest_wait_s(now),
            oldest_limit_wait_s=self._oldest_limit_wait_s(now),
            rss_bytes=usage.rss_bytes,
            processor_share=self._meter.share,
            low_share=self._meter.low_share,
        )
        self.load.observe(reading, now)
        self.alerts.observe_load(self.load.holds_above, self.load.reason, now)
        return reading

    def count(self, now: float) -> None:
        """Count calls and what layers counted, and look whether promises are kept."""
        self._take(now)
        self.alerts.observe_calls(self.calls.kinds("5m", now), now)
        answers = self.calls.answers("5m")
        self.alerts.observe_hits(hit_rate(answers), sum(answers.values()), now)
        if self._used is not None:
            self._on_reading(self._reading(self._used))

    def _take(self, now: float) -> None:
        """Take what layers say of themselves, and what was told of calls."""
        layers = self._layers()
        for status in layers.values():
            self.health.observe(status.name, status.health, status.reason)
        self._counters = {
            f"{name}.{key}": value
            for name, status in layers.items()
            for key, value in status.counters.items()
        }
        new = self._connections_lost() | self.calls.observe(layer_totals(self._counters))
        for name, times in new.items():
            if name in _TOLD:
                layer, severity, kind, sentence = _TOLD[name]
                self.events.add(layer, severity, kind, sentence.format(times=times))
        self.spans.tell(self.events)
        self.calls.drain(now)

    def _connections_lost(self) -> dict[str, int]:
        total, before = self._counters.get("layer_1.connections_lost", 0.0), self._lost_before
        self._lost_before = total
        # Lower than before: it is a new layer's.
        times = round(total - before if total >= before else total)
        return {"connections_lost": times} if times else {}

    def _reading(self, used: Usage) -> SystemReading:
        return SystemReading(
            time=utc_datetime(self._clock.now_ms()),
            processor_share=self._meter.share,
            memory_bytes=used.rss_bytes,
            loop_lag_p95_s=self._lag.p95_s,
            load=self.load.load,
            band=self.load.band,
        )

    def figures(self) -> PerformanceMetrics:
        """Everything, now."""
        now = self._clock.monotonic()
        self._take(now)
        totals = self.calls.totals
        answers: dict[Tier, float] = {tier: totals[f"answers.{tier}"] for tier in TIERS}
        frame_p95_s = self.frames.p95_s(now)
        return PerformanceMetrics(
            latency=self.calls.latency(),
            requests=self.calls.requests,
            errors=self.calls.errors,
            cache_hits=self.calls.hits,
            cache_hit_rate=hit_rate(answers),
            exchange_requests=int(self._counters.get("layer_1.requests", 0.0)),
            loop_lag_p95_ms=self._lag.p95_s * 1_000,
            load=self.load.load,
            counters=self._counters,
            windows=self.calls.windows(now),
            totals=totals,
            load_band=self.load.band,
            low_pages_per_s=self.load.low_pages_per_s,
            low_got_pages_per_s=self._low_got_pages_per_s(),
            load_terms=self.load.terms,
            alerts=self.alerts.active,
            frame_p95_ms=None if frame_p95_s is None else frame_p95_s * 1_000,
            self_audit=self._self_audit(),
        )
