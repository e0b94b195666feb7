"""How far a load has come, as a pure function of what was told when."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from upbit_backbone.coordinator.progress import SPEED_OVER_S, ProgressMeter
from upbit_backbone.models import Timeframe


def meter(total: int = 1_000) -> ProgressMeter:
    return ProgressMeter("KRW-BTC", Timeframe.M1, total, 100.0)


def loaded(counted: ProgressMeter, now: float, periods: int, candles: int) -> None:
    """So many periods more are finished, all of them asked of the exchange."""
    done = counted.at(now).done + periods
    counted.advance(now, done, 1_000, candles, asked=periods, new=candles)


def test_nothing_is_known_before_the_first_page() -> None:
    progress = meter().at(100.0)
    assert (progress.done, progress.total, progress.candles) == (0, 1_000, 0)
    assert (progress.candles_per_s, progress.time_left_s) == (0.0, None)
    assert (progress.state, progress.reason, progress.until) == ("running", "", None)


def test_speed_and_time_left_are_those_of_the_last_seconds() -> None:
    counted = meter()
    loaded(counted, 101.0, 200, 150)
    progress = counted.at(101.0)
    assert (progress.done, progress.candles, progress.candles_per_s) == (200, 150, 150.0)
    assert progress.time_left_s == pytest.approx(4.0)
    loaded(counted, 101.0 + SPEED_OVER_S, 100, 100)
    loaded(counted, 101.0 + 2 * SPEED_OVER_S, 100, 100)
    late = counted.at(101.0 + 2 * SPEED_OVER_S)
    assert late.candles_per_s == pytest.approx(100 / SPEED_OVER_S), "the quick start is forgotten"
    assert late.time_left_s == pytest.approx(600 / (100 / SPEED_OVER_S))


def test_a_load_that_stands_still_takes_ever_longer() -> None:
    counted = meter()
    loaded(counted, 101.0, 200, 200)
    before, after = counted.at(102.0).time_left_s, counted.at(120.0).time_left_s
    assert before is not None
    assert after is not None
    assert after > before


def test_what_was_stored_before_is_no_speed_and_its_time_does_not_count() -> None:
    counted = meter()
    counted.advance(104.0, 610, 1_000, 610, asked=0, new=0)
    progress = counted.at(104.0)
    assert (progress.done, progress.candles, progress.new) == (610, 610, 0)
    assert (progress.candles_per_s, progress.time_left_s) == (0.0, None)
    loaded(counted, 106.0, 100, 90)
    progress = counted.at(106.0)
    assert (progress.candles, progress.new, progress.candles_per_s) == (700, 90, 45.0)
    assert progress.time_left_s == pytest.approx(290 / 50)


def test_what_cannot_be_had_leaves_the_total() -> None:
    counted = meter(10_000)
    counted.advance(104.0, 0, 800, 0, asked=0, new=0)
    assert (counted.at(104.0).total, counted.at(104.0).time_left_s) == (800, None)
    counted.advance(106.0, 200, 800, 200, asked=200, new=200)
    assert counted.at(106.0).time_left_s == pytest.approx(6.0)


def test_at_the_end_no_time_is_left() -> None:
    counted = meter()
    loaded(counted, 101.0, 1_000, 900)
    assert counted.at(101.0).time_left_s == 0.0
    assert meter(0).at(100.0).time_left_s == 0.0


def test_a_state_is_told_when_it_changes() -> None:
    counted = meter()
    until = datetime(2025, 9, 15, tzinfo=UTC)
    assert not counted.enter("running")
    assert counted.enter("rate-limited", "too fast", until)
    assert not counted.enter("rate-limited", "too fast", until)
    progress = counted.at(100.0)
    assert (progress.state, progress.reason, progress.until) == ("rate-limited", "too fast", until)
    with pytest.raises(AttributeError):
        progress.done = 1  # type: ignore[misc]
    assert msgspec.json.encode(progress.reason) == b'"too fast"'
