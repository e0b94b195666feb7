"""Steps of latencies, and sums that forget."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from upbit_backbone.protocol import LatencyStats
from upbit_backbone.telemetry.windows import (
    LONGEST_S,
    SIGNIFICANT_DIGITS,
    UNIT_S,
    WINDOWS,
    LatencyScale,
    RollingCounts,
    RollingHistogram,
    Window,
)

SCALE = LatencyScale()
SMALL = Window("small", 6, 2)
LATENCIES = st.lists(st.floats(0, 100), min_size=1, max_size=60)


def counted(taken_s: list[float]) -> tuple[np.ndarray, np.ndarray]:
    steps = Counter(SCALE.step(units) for units in SCALE.rounded(taken_s))
    return np.array(list(steps)), np.array(list(steps.values()), dtype=np.uint32)


def counts_of(taken_s: list[float]) -> np.ndarray:
    counts = np.zeros(SCALE.steps, dtype=np.uint32)
    if taken_s:
        steps, times = counted(taken_s)
        counts[steps] = times
    return counts


@given(taken_s=LATENCIES)
def test_quantiles_are_exceeded_by_no_more_calls_than_they_say(taken_s: list[float]) -> None:
    judge = HdrHistogram(1, round(LONGEST_S / UNIT_S), SIGNIFICANT_DIGITS)
    stats = SCALE.stats(counts_of(taken_s))
    told_ms = (stats.p50_ms, stats.p95_ms, stats.p99_ms, stats.max_ms)
    ranked = sorted(int(taken / UNIT_S) for taken in taken_s)
    ranks = [-(-len(ranked) * percent // 100) for percent in (50, 95, 99, 100)]
    expected = [judge.get_highest_equivalent_value(ranked[rank - 1]) for rank in ranks]
    assert told_ms == pytest.approx([units * UNIT_S * 1_000 for units in expected])
    assert stats.count == len(taken_s)


@given(taken_s=st.floats(UNIT_S * 200, LONGEST_S))
def test_a_latency_is_told_to_one_hundredth(taken_s: float) -> None:
    stats = SCALE.stats(counts_of([taken_s]))
    assert taken_s * 1_000 - UNIT_S * 1_000 <= stats.max_ms <= taken_s * 1_010


@pytest.mark.parametrize(("taken_s", "told_ms"), [(-1.0, 0.0), (0.0, 0.0), (86_400.0, 3_600_000.0)])
def test_latencies_off_the_scale_fall_on_its_ends(taken_s: float, told_ms: float) -> None:
    stats = SCALE.stats(counts_of([taken_s]))
    assert stats.max_ms == pytest.approx(told_ms, rel=0.01)


def test_nothing_counted_is_nothing_told() -> None:
    assert SCALE.stats(counts_of([])) == LatencyStats(0, 0.0, 0.0, 0.0, 0.0)


@given(
    told=st.lists(st.tuples(st.floats(0, 5), st.floats(0, 0.1)), max_size=40),
    later_s=st.floats(0, 20),
)
def test_a_window_holds_what_its_intervals_hold_and_nothing_older(
    told: list[tuple[float, float]], later_s: float
) -> None:
    histogram = RollingHistogram(SMALL, SCALE.steps)
    counts = RollingCounts(SMALL, 0.0)
    at, all_told = 0.0, []
    for gap_s, taken_s in told:
        at += gap_s
        all_told.append((at, taken_s))
        histogram.add(*counted([taken_s]), at)
        counts.add("calls", 1, at)
    now = at + later_s
    histogram.advance(now)
    counts.advance(now)
    oldest_s = (now // SMALL.interval_s - SMALL.intervals + 1) * SMALL.interval_s
    kept = [taken_s for at, taken_s in all_told if at >= oldest_s]
    assert (histogram.counts == counts_of(kept)).all()
    assert counts["calls"] == len(kept)
    assert counts.counted == (("calls",) if kept else ())


def test_an_interval_that_is_open_when_time_leaps_is_forgotten_in_its_time() -> None:
    histogram = RollingHistogram(SMALL, SCALE.steps)
    histogram.add(*counted([0.5]), 1.0)
    histogram.advance(5.9)
    assert histogram.counts.sum() == 1
    histogram.advance(6.0)
    assert histogram.counts.sum() == 0


@given(
    phase_s=st.floats(0, 1),
    gaps_s=st.lists(st.floats(0.2, 3.0), min_size=1, max_size=60),
)
def test_a_rate_is_exact_whenever_one_counts(phase_s: float, gaps_s: list[float]) -> None:
    counts, now = RollingCounts(Window("10s", 10, 1), phase_s), phase_s
    for gap_s in gaps_s:
        now += gap_s
        counts.add("calls", 100 * gap_s, now)  # a hundred a second
        assert counts["calls"] / counts.covered_s(now) == pytest.approx(100)
    assert counts.covered_s(now) <= min(now - phase_s, 10 + max(gaps_s)) + 1e-6


@given(started_s=st.floats(0, 100), share=st.floats(0, 3))
@settings(max_examples=30)
def test_a_window_covers_its_span_less_at_most_an_interval_once_it_ran_so_long(
    started_s: float, share: float
) -> None:
    for window in WINDOWS:
        counts, step_s = RollingCounts(window, started_s), window.interval_s / 3
        steps = int(share * window.intervals)
        for step in range(steps + 1):
            now = started_s + step * step_s
            counts.advance(now)
        after_s = now - started_s
        covered_s = counts.covered_s(now)
        assert covered_s <= min(after_s, window.span_s + step_s) + 1e-6
        assert covered_s >= min(after_s, window.span_s - window.interval_s) - 1e-6


def test_the_memory_of_a_window_is_what_is_said_of_it() -> None:
    histogram = RollingHistogram(SMALL, SCALE.steps)
    empty = histogram.size_bytes
    assert (SCALE.steps, empty) == (3_840, 30_720)
    for interval in range(50):
        histogram.add(*counted([0.001, 0.002, 0.003]), interval * SMALL.interval_s)
    # The open interval is not among the closed ones.
    assert histogram.size_bytes == empty + (SMALL.intervals - 1) * 3 * 6
