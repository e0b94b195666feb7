"""The text of ``/metrics``."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS
from tests.telemetry.prometheus_format import families
from upbit_backbone.clock import utc_datetime
from upbit_backbone.protocol import (
    Alert,
    DataType,
    LayerStatus,
    LoadTerm,
    PerformanceMetrics,
    Priority,
    SystemHealth,
    SystemStatus,
)
from upbit_backbone.telemetry.calls import COUNTED, CallRecorder
from upbit_backbone.telemetry.prometheus import prometheus_text

BEGAN = utc_datetime(AUTUMN_2025_MS)
UNITS = ("seconds", "ratio", "total", "per_second", "value")


def status(**changes: Any) -> SystemStatus:
    layers = {
        "layer_1": LayerStatus("layer_1", "degraded", "no stream", BEGAN),
        "layer_2": LayerStatus("layer_2", "healthy", "", BEGAN),
    }
    plain = SystemStatus(
        health=SystemHealth("degraded", layers),
        identity="upbit",
        simulated=False,
        connection="polling",
        reason="no stream",
        load=40.0,
        exchange_offset_ms=250,
    )
    return msgspec.structs.replace(plain, **changes)


def figures(calls: CallRecorder | None = None, **changes: Any) -> PerformanceMetrics:
    calls = CallRecorder(Random(1), 0.0) if calls is None else calls
    plain = PerformanceMetrics(
        latency=calls.latency(),
        requests=calls.requests,
        errors=calls.errors,
        cache_hits=calls.hits,
        cache_hit_rate=0.5,
        exchange_requests=17,
        loop_lag_p95_ms=3.0,
        load=40.0,
        counters={"layer_1.requests": 17.0, "layer_1.chosen.rest.by rule": 2.0},
        windows=calls.windows(10.0),
        totals=calls.totals,
        load_terms=(LoadTerm("memory", 40.0, "memory: 400 MB of 1,000 MB"),),
        alerts=(Alert("hit rate", BEGAN, "too few"),),
        frame_p95_ms=8.0,
    )
    return msgspec.structs.replace(plain, **changes)


def busy() -> CallRecorder:
    calls = CallRecorder(Random(1), 0.0)
    for _ in range(30):
        calls.answered(Priority.HIGH, DataType.CANDLE, "direct: api → coordinator", "storage", 0.02)
    calls.failed(Priority.LOW, DataType.TRADE, "bus", "TransportError")
    calls.happened("http_429", 4)
    return calls


def value(found: dict[str, Any], name: str, **labels: str) -> float:
    return found[f"upbit_backbone_{name}"].samples[frozenset(labels.items())]


def test_every_name_is_ours_has_help_a_type_and_a_unit() -> None:
    found = families(prometheus_text(figures(busy()), status()))
    assert len(found) > 20
    for name, family in found.items():
        assert name.startswith("upbit_backbone_")
        assert name.endswith(UNITS)
        assert (family.type == "counter") == name.endswith("_total")
        assert family.help.endswith(".")


def test_the_figures_are_those_of_the_service_in_base_units() -> None:
    found = families(prometheus_text(figures(busy()), status()))
    kind = {"priority": "HIGH", "data_type": "candle", "path": "direct: api → coordinator"}
    assert value(found, "call_latency_seconds", quantile="0.99", **kind) == pytest.approx(
        0.02, rel=0.01
    )
    assert value(found, "calls_per_second", **kind) == 3.0
    assert value(found, "calls_total") == 31
    assert value(found, "answers_total", tier="storage") == 30
    assert value(found, "errors_total", error="TransportError") == 1
    assert value(found, "http_429_total") == 4
    assert value(found, "exchange_requests_total") == 17
    assert value(found, "hit_ratio") == 1.0
    assert value(found, "measured_calls_ratio") == 1.0
    assert value(found, "load_ratio") == 0.4
    assert value(found, "load_term_ratio", term="memory") == 0.4
    assert value(found, "event_loop_lag_p95_seconds") == 0.003
    assert value(found, "frame_p95_seconds") == 0.008
    assert value(found, "clock_offset_seconds") == 0.25
    assert value(found, "alert_active_ratio", alert="hit rate") == 1
    assert value(found, "layer_health_ratio", layer="layer_1", health="degraded") == 1
    assert value(found, "layer_health_ratio", layer="layer_1", health="healthy") == 0
    assert value(found, "layer_figure_value", layer="layer_1", figure="chosen.rest.by rule") == 2
    for name in COUNTED:
        assert f"upbit_backbone_{name}_total" in found


def test_a_service_that_just_began_says_so_in_the_format_too() -> None:
    bare = figures(windows={}, totals={}, load_terms=(), alerts=(), frame_p95_ms=None, counters={})
    found = families(prometheus_text(bare, status()))
    assert value(found, "calls_total") == 0
    assert "upbit_backbone_frame_p95_seconds" not in found


@given(text=st.text())
def test_any_text_in_a_label_stays_in_its_label(text: str) -> None:
    calls = CallRecorder(Random(1), 0.0)
    calls.answered(Priority.LOW, DataType.TICKER, text, "memory", 0.001)
    found = families(prometheus_text(figures(calls), status()))
    kind = {"priority": "LOW", "data_type": "ticker", "path": text}
    assert value(found, "calls_per_second", **kind) == 0.1


@pytest.mark.parametrize(
    "wrong",
    [
        "x 1",
        "# HELP x y.\nx 1\n",
        "# HELP x y.\n# TYPE x gauge\nx one\n",
        '# HELP x y.\n# TYPE x gauge\nx{a="b} 1\n',
        '# HELP x y.\n# TYPE x gauge\nx{a="b"} 1\nx{a="b"} 2\n',
        "# HELP x y.\n# TYPE x gauge\nx 1\n# HELP x y.\n# TYPE x gauge\n",
        "# HELP x y.\n# TYPE x gauge\nx-y 1\n",
    ],
)
def test_the_reader_of_these_tests_is_strict(wrong: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        families(wrong)
