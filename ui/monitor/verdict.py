"""Whether all is well, in one line: what a glance at the monitor is for."""

from __future__ import annotations

from typing import NamedTuple

from ui.monitor.words import alert_sentence, connection_word, health_word, layer_name, translate
from ui.service_words import service_words
from upbit_backbone.protocol import Health, PerformanceMetrics, SystemStatus

_WORTH_A_WORD = 40.0
"""Above this load the service does with less, and it is told why."""
_LAYERS = ("layer_1", "layer_2", "layer_3", "layer_4")


class Verdict(NamedTuple):
    """The gravest of what is wrong now."""

    health: Health
    text: str
    details: str
    """What the service says of it; empty where that is no more."""


def verdict(status: SystemStatus | None, metrics: PerformanceMetrics | None) -> Verdict:
    """Judge: what stands still is worse than what limps, and that worse than an alert.

    That LOW waits for the load is no complaint: it is there to wait. It is told all the same.
    """
    if status is None:
        return Verdict("starting", translate("MonitorPanel", "Starting"), "")
    return (
        _layer_in(status, "down")
        or _no_exchange(status)
        or _layer_in(status, "degraded")
        or _limping(status, metrics)
        or _layer_in(status, "starting")
        or _well(metrics)
    )


def _layer_in(status: SystemStatus, health: Health) -> Verdict | None:
    for name in _LAYERS:
        layer = status.health.layers[name]
        if layer.health == health:
            text = translate("MonitorPanel", "{0}: {1}")
            found = text.format(layer_name(name), health_word(health))
            return Verdict(health, found, service_words(layer.reason))
    return None


def _no_exchange(status: SystemStatus) -> Verdict | None:
    if status.connection != "offline":
        return None
    text = translate("MonitorPanel", "The exchange is not reached")
    return Verdict("down", text, service_words(status.reason))


def _limping(status: SystemStatus, metrics: PerformanceMetrics | None) -> Verdict | None:
    if status.connection != "live":
        text = translate("MonitorPanel", "No live stream: {0}")
        found = text.format(connection_word(status.connection))
        return Verdict("degraded", found, service_words(status.reason))
    if metrics is None:
        return None
    if metrics.load_band == "critical only":
        text = translate("MonitorPanel", "Overloaded: only CRITICAL runs")
        return Verdict("degraded", text, _worst(metrics))
    if metrics.alerts:
        text = translate("MonitorPanel", "Alert: {0}")
        sentences = [service_words(one.sentence) for one in metrics.alerts]
        named = zip(metrics.alerts, sentences, strict=True)
        alerts = "; ".join(alert_sentence(one.name, sentence) for one, sentence in named)
        return Verdict("degraded", text.format(alerts), "; ".join(sentences))
    return None


def _well(metrics: PerformanceMetrics | None) -> Verdict:
    if metrics is not None and metrics.load_band == "low waits":
        text = translate("MonitorPanel", "All is well; LOW waits for the load")
        return Verdict("healthy", text, _worst(metrics))
    why = "" if metrics is None or metrics.load <= _WORTH_A_WORD else _worst(metrics)
    return Verdict("healthy", translate("MonitorPanel", "All is well"), why)


def _worst(metrics: PerformanceMetrics) -> str:
    return service_words(metrics.load_terms[0].sentence) if metrics.load_terms else ""
