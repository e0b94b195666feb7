"""Labels of the axes: Korean time, days marked, round prices."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ui.samples import NOON_MS
from ui.chart.ticks import price_ticks, time_ticks, volume_ticks
from ui.language import Translations
from upbit_backbone import Timeframe
from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS


def times(start_ms: int, step_ms: int, count: int) -> np.ndarray:
    return start_ms + np.arange(count, dtype=np.float64) * step_ms


def test_minutes_are_labelled_in_korean_time_and_a_new_day_stands_out(
    translations: Translations,
) -> None:
    translations.use("ko")
    # From 21:00 to 01:00 in Korea, over midnight.
    ticks = time_ticks(times(NOON_MS, MINUTE_MS, 240), 0, 8.0, Timeframe.M1)
    labels = {tick.at: (tick.label, tick.major) for tick in ticks}
    assert labels[180] == ("10-17 (금)", True)
    assert labels[60] == ("22:00", False)
    gaps = np.diff([tick.at for tick in ticks]) * 8.0
    assert gaps.min() > 50


def test_days_are_labelled_by_date_and_a_new_month_stands_out() -> None:
    ticks = time_ticks(times(NOON_MS - 12 * HOUR_MS, DAY_MS, 60), -30, 12.0, Timeframe.D1)
    assert all(-30 <= tick.at < 30 for tick in ticks)
    assert [tick.label for tick in ticks if tick.major] == ["2025-11", "2025-12"]


def test_a_label_stands_at_the_first_bar_of_its_step_even_if_minutes_are_missing() -> None:
    at = np.array([NOON_MS + n * MINUTE_MS for n in (0, 3, 8, 13, 14)], dtype=np.float64)
    ticks = time_ticks(at, 0, 100.0, Timeframe.M1)
    assert [(tick.at, tick.label) for tick in ticks][:3] == [
        (1, "21:03"),
        (2, "21:08"),
        (3, "21:13"),
    ]


def test_no_bars_have_no_labels() -> None:
    assert time_ticks(np.empty(0), 0, 8.0, Timeframe.M1) == []


@pytest.mark.parametrize(
    ("low", "high", "smallest"),
    [(157_000_000.0, 158_300_000.0, 1_000.0), (0.00093, 0.00098, 1e-6), (3_996.0, 4_004.0, 1.0)],
)
def test_prices_are_round_and_in_range(low: float, high: float, smallest: float) -> None:
    ticks = price_ticks(low, high, 500.0, smallest)
    assert 3 <= len(ticks) <= 13
    assert all(low <= tick <= high for tick in ticks)
    steps = np.diff(ticks)
    assert steps == pytest.approx(steps[0])
    assert steps[0] >= smallest * 0.999


@pytest.mark.parametrize(
    ("low", "high", "tick"),
    [
        (11.9, 13.2, 0.1),
        (1_380.0, 1_386.0, 0.5),
        (5_100.0, 5_180.0, 5.0),
        (70_000.0, 70_900.0, 50.0),
        (620_000.0, 624_000.0, 500.0),
        (0.0101, 0.0124, 0.0001),
    ],
)
@pytest.mark.parametrize("height_px", [120.0, 300.0, 500.0, 900.0])
def test_prices_on_the_axis_are_on_the_tick(
    low: float, high: float, tick: float, height_px: float
) -> None:
    ticks = price_ticks(low, high, height_px, tick)
    assert ticks
    assert [price / tick for price in ticks] == pytest.approx(
        [round(price / tick) for price in ticks], abs=1e-6
    )


@pytest.mark.parametrize("top", [0.000_9, 0.4, 1.3, 2.606, 37.0, 734_551.0, 9e9])
@pytest.mark.parametrize("height_px", [30.0, 80.0, 160.0])
def test_volumes_on_the_axis_are_round(top: float, height_px: float) -> None:
    ticks = volume_ticks(top, height_px)
    assert 1 <= len(ticks) <= 5
    for volume, label in ticks:
        assert 0 < volume <= top
        assert float(label.replace(",", "")) == pytest.approx(volume)
        assert len(label.replace(",", "").replace(".", "").strip("0")) <= 2


def test_without_any_volume_there_is_no_label() -> None:
    assert volume_ticks(0.0, 80.0) == []
