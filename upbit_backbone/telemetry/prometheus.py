"""Figures of the service as text that Prometheus reads, in its format 0.0.4.

Names end in their unit: seconds, ratio (0 to 1), or total for what only grows.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, get_args

from upbit_backbone.protocol import Health, PerformanceMetrics, SystemStatus, WindowStats
from upbit_backbone.telemetry.calls import COUNTED

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "upbit_backbone_"
LATENCY_WINDOW = "5m"

Labels = Mapping[str, str]
_HELP = {
    "coalesced": "Calls that shared a request which another call had sent.",
    "retried": "Requests that were sent again.",
    "shed": "Calls that had to wait for the load, answered later or not.",
    "http_429": "Requests that the exchange refused as too many.",
    "http_418": "Times the exchange blocked this address.",
    "reconnects": "Times a stream was connected again.",
    "gaps": "Gaps in streams of trades.",
    "revisions": "Stored candles that the exchange stated differently later.",
    "cancelled": "Calls that their caller gave up.",
}


class _Family(NamedTuple):
    """All samples of one name."""

    name: str
    type: Literal["counter", "gauge"]
    help: str
    samples: Iterable[tuple[Labels, float]]


def prometheus_text(metrics: PerformanceMetrics, status: SystemStatus) -> str:
    """The whole answer of ``/metrics``."""
    families = (
        *_service(metrics, status),
        *_calls(metrics.windows.get(LATENCY_WINDOW)),
        *_totals(metrics),
        *_layers(status),
    )
    return "".join(line for family in families for line in _lines(family))


def _service(metrics: PerformanceMetrics, status: SystemStatus) -> Iterable[_Family]:
    yield _gauge("simulated_ratio", "1 if the data is not a real exchange's.", status.simulated)
    yield _gauge("load_ratio", "Discomfort of callers, 0 to 1.", metrics.load / 100)
    terms = [({"term": term.name}, term.load / 100) for term in metrics.load_terms]
    yield _Family("load_term_ratio", "gauge", "The highest of these is the load.", terms)
    yield _gauge("low_pages_per_second", "Pages that LOW really got.", metrics.low_got_pages_per_s)
    yield _gauge(
        "event_loop_lag_p95_seconds",
        "How late the event loop runs, 95th percentile of two seconds.",
        metrics.loop_lag_p95_ms / 1_000,
    )
    if metrics.frame_p95_ms is not None:
        yield _gauge(
            "frame_p95_seconds",
            "What the screen takes for a frame, 95th percentile of ten seconds.",
            metrics.frame_p95_ms / 1_000,
        )
    offset_s = status.exchange_offset_ms / 1_000
    yield _gauge("clock_offset_seconds", "How far the exchange's clock is ahead.", offset_s)
    alerts = [({"alert": alert.name}, 1.0) for alert in metrics.alerts]
    yield _Family("alert_active_ratio", "gauge", "1 for each alert that lasts now.", alerts)


def _calls(window: WindowStats | None) -> Iterable[_Family]:
    if window is None:
        return
    yield _gauge(
        "measured_calls_ratio",
        "Share of the calls whose latency was taken; below 1 quick ones are sampled.",
        window.measured,
    )
    yield _gauge(
        "hit_ratio", "Answers from memory and the store, of five minutes.", window.hit_rate
    )
    yield _gauge("error_ratio", "Calls that raised, of five minutes.", window.error_rate)
    latencies: list[tuple[Labels, float]] = []
    rates: list[tuple[Labels, float]] = []
    for call in window.calls:
        kind = {
            "priority": call.priority.name,
            "data_type": call.data_type.value,
            "path": call.path,
        }
        rates.append((kind, call.requests_per_s))
        if call.latency.count:
            latencies += (
                ({**kind, "quantile": quantile}, taken_ms / 1_000)
                for quantile, taken_ms in (
                    ("0.5", call.latency.p50_ms),
                    ("0.95", call.latency.p95_ms),
                    ("0.99", call.latency.p99_ms),
                    ("1", call.latency.max_ms),
                )
            )
    yield _Family(
        "call_latency_seconds",
        "gauge",
        "Of calls answered or ended late, of five minutes.",
        latencies,
    )
    yield _Family("calls_per_second", "gauge", "Calls, of five minutes.", rates)


def _totals(metrics: PerformanceMetrics) -> Iterable[_Family]:
    yield _counter("calls_total", "Calls of the service.", metrics.requests)
    yield _counter(
        "exchange_requests_total", "Requests to the exchange.", metrics.exchange_requests
    )
    for name, label, what in (
        ("answers", "tier", "Answered calls, by where the answer was found."),
        ("errors", "error", "Calls that raised, by the type of the error."),
    ):
        samples = [
            ({label: key.removeprefix(f"{name}.")}, total)
            for key, total in metrics.totals.items()
            if key.startswith(f"{name}.")
        ]
        yield _Family(f"{name}_total", "counter", what, samples)
    for name in COUNTED:
        yield _counter(f"{name}_total", _HELP[name], metrics.totals.get(name, 0.0))
    figures = []
    for key, value in metrics.counters.items():
        layer, _, figure = key.partition(".")
        figures.append(({"layer": layer, "figure": figure}, value))
    yield _Family(
        "layer_figure_value", "gauge", "What layers count; the unit is in the name.", figures
    )


def _layers(status: SystemStatus) -> Iterable[_Family]:
    samples = [
        ({"layer": name, "health": health}, float(layer.health == health))
        for name, layer in status.health.layers.items()
        for health in get_args(Health)
    ]
    yield _Family("layer_health_ratio", "gauge", "1 for the state that a layer is in.", samples)


def _gauge(name: str, what: str, value: float) -> _Family:
    return _Family(name, "gauge", what, [({}, value)])


def _counter(name: str, what: str, value: float) -> _Family:
    return _Family(name, "counter", what, [({}, value)])


def _lines(family: _Family) -> Iterable[str]:
    name = PREFIX + family.name
    yield f"# HELP {name} {family.help}\n"
    yield f"# TYPE {name} {family.type}\n"
    for labels, value in family.samples:
        told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{told}}} {float(value)!r}\n" if told else f"{name} {float(value)!r}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
