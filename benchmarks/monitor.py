"""What the monitoring dock costs a second, page by page.

    uv run python benchmarks/monitor.py

Off-screen unless QT_QPA_PLATFORM says otherwise, 1,280 pixels wide. Each second of a run brings
a status and figures in which everything differs from the second before, which is the most that
can happen; processor time of writing and painting them is taken. The overview draws its plots
every few seconds, which is in its mean. Hidden, nothing is written.
The goal: less than 1 ms a second.
"""

from __future__ import annotations

import os
import statistics
import time
from datetime import UTC, datetime
from random import Random

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtWidgets import QApplication

from ui.monitor.panel import CALLS, COUNTS, EVENTS, LOAD, OVERVIEW, MonitorPanel
from ui.theme import apply_theme, load_theme
from upbit_backbone.clock import SystemClock
from upbit_backbone.protocol import (
    CallStats,
    DataType,
    LatencyStats,
    LayerStatus,
    LoadTerm,
    PerformanceMetrics,
    Priority,
    SystemHealth,
    SystemStatus,
    WindowStats,
)
from upbit_backbone.telemetry.calls import COUNTED, TIERS

SECONDS = 300
PAGES = {"overview": OVERVIEW, "calls": CALLS, "counts": COUNTS, "load": LOAD, "events": EVENTS}
TERMS = ("event loop", "CRITICAL waits", "HIGH waits", "NORMAL waits", "memory", "processor")
SINCE = datetime(2025, 10, 16, tzinfo=UTC)


class Seconds(SystemClock):
    """Stands still until a second passes."""

    def __init__(self) -> None:
        self._passed_s = 0

    def tick(self) -> None:
        """Let a second pass."""
        self._passed_s += 1

    def monotonic(self) -> float:
        return float(self._passed_s)

    def now_ms(self) -> int:
        return self._passed_s * 1_000


def main() -> None:
    """Print the figures."""
    app = QApplication([])
    theme = load_theme()
    apply_theme(app, theme)
    rng, clock = Random(7), Seconds()
    panel = MonitorPanel(theme, clock)
    panel.resize(1_280, 170)
    panel.show()
    measure(app, panel, clock, rng)  # so that the plots have five minutes to show
    for name, page in PAGES.items():
        panel.open_page(page)
        report(name, measure(app, panel, clock, rng))
    panel.hide()
    report("hidden", measure(app, panel, clock, rng))


def report(name: str, taken_ms: list[float]) -> None:
    """Print one page's."""
    p95, mean = statistics.quantiles(taken_ms, n=20)[-1], statistics.fmean(taken_ms)
    median = statistics.median(taken_ms)
    print(f"{name:10} {mean:.2f} ms a second, median {median:.2f} ms, p95 {p95:.2f} ms")


def measure(app: QApplication, panel: MonitorPanel, clock: Seconds, rng: Random) -> list[float]:
    """Processor time of each second, in milliseconds."""
    told = [(status(rng), figures(rng)) for _ in range(SECONDS)]
    for _ in range(5):
        app.processEvents()
    taken_ms = []
    for now, metrics in told:
        clock.tick()
        started = time.thread_time()
        panel.set_status(now)
        panel.set_metrics(metrics)
        app.processEvents()
        taken_ms.append((time.thread_time() - started) * 1_000)
    return taken_ms


def status(rng: Random) -> SystemStatus:
    """All is well."""
    layers = {
        f"layer_{number}": LayerStatus(f"layer_{number}", "healthy", "", SINCE)
        for number in range(1, 5)
    }
    health = SystemHealth("healthy", layers)
    return SystemStatus(health, "upbit", False, "live", "", rng.uniform(0, 60), 3)


def figures(rng: Random) -> PerformanceMetrics:
    """Everything at random."""
    latency = {priority: stats(rng) for priority in Priority}
    window = WindowStats(
        window_s=300.0,
        covered_s=300.0,
        requests_per_s=rng.uniform(1, 99),
        error_rate=rng.uniform(0, 0.1),
        errors={"TransportError": rng.randrange(1, 99), "DeadlineError": rng.randrange(1, 99)},
        answers={tier: rng.randrange(1, 9_999) for tier in TIERS},
        hit_rate=rng.random(),
        counts={name: float(rng.randrange(99)) for name in COUNTED},
        measured=1.0,
        calls=tuple(
            CallStats(priority, kind, "peek", stats(rng), rng.uniform(0, 99), rng.random())
            for priority in Priority
            for kind in (DataType.CANDLE, DataType.TICKER)
        ),
        latency=latency,
    )
    terms = [
        LoadTerm(name, rng.uniform(0, 60), f"{name}: {rng.randrange(999)} ms") for name in TERMS
    ]
    terms.sort(key=lambda term: -term.load)
    return PerformanceMetrics(
        latency=latency,
        requests=rng.randrange(99_999),
        errors=rng.randrange(99),
        cache_hits=rng.randrange(99_999),
        cache_hit_rate=rng.random(),
        exchange_requests=rng.randrange(9_999),
        loop_lag_p95_ms=rng.uniform(0, 9),
        load=terms[0].load,
        counters={"layer_2.file_bytes": rng.uniform(1e6, 1e9), "layer_2.stored_candles": 1e6},
        windows={"5m": window},
        totals={name: float(rng.randrange(9_999)) for name in COUNTED},
        load_terms=tuple(terms),
        frame_p95_ms=rng.uniform(0, 9),
    )


def stats(rng: Random) -> LatencyStats:
    """Of some calls."""
    p99_ms = rng.uniform(0.1, 600)
    return LatencyStats(rng.randrange(20, 9_999), p99_ms / 4, p99_ms / 2, p99_ms, p99_ms * 1.2)


if __name__ == "__main__":
    main()
