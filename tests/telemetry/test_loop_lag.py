"""How late the loop runs, and what load that is."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.eventually import eventually
from upbit_backbone.clock import SystemClock
from upbit_backbone.telemetry.loop_lag import INTERVAL_S, KEPT, LoopLagProbe


def probe_with(*lags_s: float) -> LoopLagProbe:
    probe = LoopLagProbe(SystemClock())
    probe._lags.extend(lags_s)
    return probe


@pytest.mark.parametrize(
    ("lag_ms", "load"), [(0, 0), (5, 0), (52.5, 50), (100, 100), (99.05, 99), (4_000, 100)]
)
def test_load_is_nothing_up_to_5_ms_and_everything_from_100_ms(lag_ms: float, load: float) -> None:
    assert probe_with(*[lag_ms / 1_000] * KEPT).load == pytest.approx(load)


def test_a_loop_that_was_not_measured_yet_is_not_late() -> None:
    assert (probe_with().p95_s, probe_with().load) == (0.0, 0.0)


@given(lags_s=st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_the_95th_percentile_is_not_exceeded_by_more_than_a_twentieth(lags_s: list[float]) -> None:
    kept = lags_s[-KEPT:]
    p95_s = probe_with(*lags_s).p95_s
    assert p95_s in kept
    assert sum(lag > p95_s for lag in kept) <= 0.05 * len(kept)
    assert sum(lag < p95_s for lag in kept) <= 0.95 * len(kept)


def test_samples_span_two_seconds() -> None:
    assert pytest.approx(2.0) == KEPT * INTERVAL_S
    assert probe_with(*[1.0] * KEPT, *[0.0] * KEPT).p95_s == 0.0


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
