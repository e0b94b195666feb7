"""Where the axes carry labels, and which: pure functions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QLocale

from ui.chart.bars import FloatColumn
from ui.moments import KST_OFFSET_MS, korean_time
from upbit_backbone.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from upbit_backbone.models import Timeframe

_TIME_STEPS_MS = (
    *(n * SECOND_MS for n in (1, 5, 15, 30)),
    *(n * MINUTE_MS for n in (1, 2, 5, 10, 15, 30)),
    *(n * HOUR_MS for n in (1, 2, 3, 6, 12)),
    *(n * DAY_MS for n in (1, 2, 7)),
)
_MONTH_STEPS = (1, 2, 3, 6, 12, 24, 60)
_MONTH_MS = 30 * DAY_MS
_TIME_LABEL_PX = 74.0
_PRICE_LABEL_PX = 46.0
_VOLUME_LABEL_PX = 34.0


class TimeTick(NamedTuple):
    """A label under the bar with the index `at`; `major` where a day, month or year begins."""

    at: int
    label: str
    major: bool


def time_ticks(
    times: FloatColumn, first: int, px_per_bar: float, timeframe: Timeframe
) -> list[TimeTick]:
    """Labels for bars in view, in Korean time.

    Args:
        times: Open times of the bars, one before the first in view included if there is one:
            a label stands where a new step begins, which only the bar before it tells.
        first: Index of the first of `times`.
        px_per_bar: Width of a bar.
        timeframe: Of the bars.
    """
    if not len(times):
        return []
    local = times.astype(np.int64) + KST_OFFSET_MS
    bars_per_label = max(1.0, _TIME_LABEL_PX / px_per_bar)
    wanted_ms = bars_per_label * timeframe.typical_ms
    step = next((step for step in _TIME_STEPS_MS if step >= wanted_ms), None)
    days = local // DAY_MS
    months = local.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
    if step is None:
        count = next((n for n in _MONTH_STEPS if n * _MONTH_MS >= wanted_ms), _MONTH_STEPS[-1])
        starts, majors = _changes(months // count), _changes(months // 12)
    elif step >= DAY_MS:
        starts, majors = _changes(days // (step // DAY_MS)), _changes(months)
    else:
        starts, majors = _changes(local // step), _changes(days)
    if len(times) == 1:
        majors = {0}  # nothing stands before it, and without a label it would be of no time
    chosen = _spaced(majors, starts, px_per_bar)
    return [
        TimeTick(
            first + position, _time_label(int(times[position]), step, position in majors), major
        )
        for position, major in chosen
    ]


def price_ticks(low: float, high: float, height_px: float, tick: float) -> list[float]:
    """Round prices between `low` and `high` that a market with this tick could show."""
    if not high > low or height_px <= 0:
        return []
    rough = max((high - low) * _PRICE_LABEL_PX / height_px, tick)
    return _multiples(low, high, _round_step(rough, tick))


def volume_ticks(top: float, height_px: float) -> list[tuple[float, str]]:
    """Round volumes between 0 and `top` with their labels, 0 itself left out."""
    if not top > 0 or height_px <= 0:
        return []
    # At least one: no two neighbours of the round steps are more than twice apart.
    step = _round_step(min(top * _VOLUME_LABEL_PX / height_px, top / 2), None)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if round(step, decimals) != step:
        decimals += 1
    return [(volume, f"{volume:,.{decimals}f}") for volume in _multiples(step, top, step)]


def _round_step(least: float, tick: float | None) -> float:
    """The next of 1, 2, 2.5, 5, 10, … from `least` up that is a multiple of `tick`."""
    power = 10.0 ** math.floor(math.log10(least))
    candidates = [factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0, 20.0, 50.0, 100.0)]
    for step in candidates:
        if step < least * 0.999:
            continue
        ticks = 1.0 if tick is None else step / tick
        if abs(ticks - round(ticks)) < 1e-6 * ticks:
            return step
    # A tick that no round number is a multiple of: its own multiples then.
    assert tick is not None
    return tick * math.ceil(least / tick - 1e-9)


def _multiples(low: float, high: float, step: float) -> list[float]:
    decimals = max(0, 2 - math.floor(math.log10(step)))
    return [
        # Multiples of 0.1 are not exact; their noise would show as digits.
        round(n * step, decimals)
        for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _changes(values: npt.NDArray[np.int64]) -> set[int]:
    return set((np.flatnonzero(np.diff(values)) + 1).tolist())


def _spaced(majors: set[int], starts: set[int], px_per_bar: float) -> list[tuple[int, bool]]:
    """Positions far enough apart, those of a day before those of an hour."""
    taken: list[tuple[int, bool]] = []
    room = _TIME_LABEL_PX * 0.8 / px_per_bar
    for position in sorted(majors):
        if not taken or position - taken[-1][0] >= room:
            taken.append((position, True))
    kept = np.array([position for position, _ in taken], dtype=np.int64)
    last = -math.inf
    for position in sorted(starts - majors):
        near = bool(len(kept)) and float(np.abs(kept - position).min()) < room
        if not near and position - last >= room:
            taken.append((position, False))
            last = position
    return sorted(taken)


def _time_label(ms: int, step_ms: int | None, major: bool) -> str:
    moment = korean_time(ms)
    if step_ms is None:
        return f"{moment:%Y}" if major else f"{moment:%Y-%m}"
    if step_ms >= DAY_MS:
        return f"{moment:%Y-%m}" if major else f"{moment:%m-%d}"
    if major:
        day = QLocale().dayName(moment.isoweekday(), QLocale.FormatType.ShortFormat)
        return f"{moment:%m-%d} ({day})"
    return f"{moment:%H:%M:%S}" if step_ms < MINUTE_MS else f"{moment:%H:%M}"
