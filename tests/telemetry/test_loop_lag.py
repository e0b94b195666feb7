"""How late the loop runs, and what load that is."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.eventually import eventually
from upbit_backbone.clock import SystemClock
from upbit_backbone.telemetry.loop_lag import INTERVAL_S, QUIET_S, SPAN_S, LoopLagProbe


def probe_with(*lags_s: float) -> LoopLagProbe:
    """One that slept and woke so much late, again and again."""
    probe, now = LoopLagProbe(SystemClock()), 0.0
    for lag_s in lags_s:
        now += INTERVAL_S + lag_s
        probe.woke(lag_s, now)
    return probe


@pytest.mark.parametrize(
    ("lag_ms", "load"), [(0, 0), (5, 0), (52.5, 50), (100, 100), (99.05, 99), (4_000, 100)]
)
def test_load_is_nothing_up_to_5_ms_and_everything_from_100_ms(lag_ms: float, load: float) -> None:
    assert probe_with(*[lag_ms / 1_000] * 30).load == pytest.approx(load)


@pytest.mark.parametrize(("stall_s", "every_s"), [(1.0, 3.2), (0.5, 2.6), (0.3, 2.0)])
def test_a_stall_counts_for_all_who_were_due_meanwhile(stall_s: float, every_s: float) -> None:
    quiet = [0.001] * round((every_s - stall_s) / INTERVAL_S)
    probe = probe_with(*quiet, *[0.001] * 20, stall_s)
    assert probe.load == 100.0, "everybody was held up"
    assert probe.p95_s == pytest.approx(stall_s, abs=2 * INTERVAL_S)
    lates = sorted(lag_s for _, lag_s in probe._lags)
    assert sum(late_s > QUIET_S for late_s in lates) == round(stall_s / INTERVAL_S)


@pytest.mark.parametrize("usual_s", [0.0, 0.001, 0.004])
def test_one_short_hiccup_in_two_seconds_is_no_load(usual_s: float) -> None:
    for later in range(20):
        lags_s = [*[usual_s] * 30, 0.09, *[usual_s] * later]
        assert probe_with(*lags_s).load == 0.0
    assert probe_with(*[usual_s] * 30, 0.09, 0.09).load > 80, "two are one in ten"


def test_a_loop_that_was_not_measured_yet_is_not_late() -> None:
    assert (probe_with().p95_s, probe_with().load) == (0.0, 0.0)


@given(lags_s=st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_the_95th_percentile_is_not_exceeded_by_more_than_a_twentieth(lags_s: list[float]) -> None:
    probe = probe_with(*lags_s)
    kept = [lag_s for _, lag_s in probe._lags]
    p95_s = probe.p95_s
    assert p95_s in kept
    first_s, (last_s, last_lag_s) = probe._lags[0][0], probe._lags[-1]
    spanned = 1 + (last_s + last_lag_s - first_s) / INTERVAL_S
    assert sum(lag > p95_s for lag in kept) <= 0.05 * spanned + 1e-6
    assert sum(lag < p95_s for lag in kept) <= 0.95 * len(kept)


@given(lags_s=st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_samples_span_two_seconds_of_time_however_late_the_loop_runs(lags_s: list[float]) -> None:
    probe = probe_with(*lags_s)
    dues = [due_s for due_s, _ in probe._lags]
    now = dues[-1] + probe._lags[-1][1]
    assert dues == sorted(dues)
    assert min(dues) >= now - SPAN_S - INTERVAL_S - 1e-6
    assert len(dues) <= 2 + SPAN_S / INTERVAL_S
    assert probe_with(*lags_s, *[0.0] * 25).p95_s == 0.0


class LateClock(SystemClock):
    """Every look at it finds 0.3 s gone: as if the loop had been held up."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def monotonic(self) -> float:
        self._now_s += 0.3
        return self._now_s


@pytest.mark.both_loops
async def test_the_probe_measures_how_much_later_it_wakes_until_cancelled() -> None:
    probe = LoopLagProbe(LateClock())
    running = asyncio.create_task(probe.run())
    await eventually(lambda: probe._lags)
    assert probe.p95_s == pytest.approx(0.2)
    assert probe.load == 100.0
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


@pytest.mark.both_loops
async def test_what_a_start_costs_is_no_load() -> None:
    clock = LateClock()
    probe = LoopLagProbe(clock, start_s=1.0)
    running = asyncio.create_task(probe.run())
    looked: list[float] = []

    def measured() -> bool:
        looked.append(clock._now_s)
        return bool(probe._lags)

    await eventually(measured)
    assert looked[-1] > 1.5, "a second, and one interval more"
    assert probe.p95_s == pytest.approx(0.2)
    running.cancel()
    await asyncio.wait([running])
