"""Latencies and counters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.protocol import LatencyStats, Priority
from upbit_backbone.telemetry.metrics import MAX_SAMPLES, WINDOW_S, CallMetrics

NOTHING = LatencyStats(0, 0.0, 0.0, 0.0, 0.0)


@given(taken_ms=st.lists(st.floats(0, 10_000), min_size=1, max_size=50))
def test_quantiles_are_those_of_the_answered_calls_in_milliseconds(taken_ms: list[float]) -> None:
    metrics = CallMetrics()
    for taken in taken_ms:
        metrics.answered(Priority.HIGH, 100.0 - taken / 1_000, 100.0, hit=False)
    stats = metrics.latency(100.0)[Priority.HIGH]
    assert stats.count == len(taken_ms)
    assert stats.p50_ms == pytest.approx(np.percentile(taken_ms, 50), abs=1e-6)
    assert stats.p95_ms == pytest.approx(np.percentile(taken_ms, 95), abs=1e-6)
    assert stats.p99_ms == pytest.approx(np.percentile(taken_ms, 99), abs=1e-6)
    assert stats.max_ms == pytest.approx(max(taken_ms), abs=1e-6)


def test_every_priority_is_counted_by_itself() -> None:
    metrics = CallMetrics()
    for priority in Priority:
        metrics.answered(priority, 1.0, 1.0 + (priority + 1) / 1_000, hit=True)
    latency = metrics.latency(2.0)
    assert [round(latency[priority].max_ms) for priority in Priority] == [1, 2, 3, 4]
    assert all(latency[priority].count == 1 for priority in Priority)


def test_calls_older_than_five_minutes_are_forgotten() -> None:
    metrics = CallMetrics()
    metrics.answered(Priority.LOW, 0.0, 9.0, hit=False)
    metrics.answered(Priority.LOW, 9.0, 10.0, hit=False)
    assert metrics.latency(9.0 + WINDOW_S)[Priority.LOW].count == 2
    assert metrics.latency(9.5 + WINDOW_S)[Priority.LOW] == LatencyStats(1, *[1_000.0] * 4)
    assert metrics.latency(11.0 + WINDOW_S)[Priority.LOW] == NOTHING
    assert metrics.requests == 2


def test_samples_are_bounded() -> None:
    metrics = CallMetrics()
    for number in range(MAX_SAMPLES + 5):
        metrics.answered(Priority.NORMAL, 0.0, number / 1e6, hit=False)
    assert metrics.latency(1.0)[Priority.NORMAL].count == MAX_SAMPLES
    assert metrics.requests == MAX_SAMPLES + 5


def test_the_hit_rate_is_of_answers_and_not_of_errors() -> None:
    metrics = CallMetrics()
    assert metrics.hit_rate == 0.0
    metrics.failed()
    assert (metrics.hit_rate, metrics.requests, metrics.errors) == (0.0, 1, 1)
    for hit in (True, True, True, False):
        metrics.answered(Priority.NORMAL, 0.0, 0.1, hit=hit)
    metrics.failed()
    assert metrics.hit_rate == 0.75
    assert (metrics.requests, metrics.errors, metrics.cache_hits) == (6, 2, 3)


def test_there_are_no_latencies_before_the_first_call() -> None:
    assert CallMetrics().latency(0.0) == dict.fromkeys(Priority, NOTHING)
