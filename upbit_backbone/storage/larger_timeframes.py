"""Candles of a larger timeframe from stored smaller ones: the same numbers, without a request."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.storage.coverage import LIVE, Coverage
from upbit_backbone.storage.spans import Range, SpanSet

OVER_MS = 60_000
"""A period is built only when it was over for so long: late trades still change its candles."""
MAX_SMALLER = 50_000
"""Periods read to build a range: a page of 200 hours takes 12,000 minutes, which are read in
less time than a page is asked for."""
_MOST_DECIMALS = 9
_EXACT_BELOW = 2.0**53
"""Whole numbers below are exact in a float, and so are their sums."""


def smaller_of(timeframe: Timeframe) -> Iterator[Timeframe]:
    """Timeframes whose candles lie whole in one of this, the largest first."""
    if timeframe is Timeframe.Y1:
        yield Timeframe.MO1
    length_ms = timeframe.fixed_ms
    for other in reversed(tuple(Timeframe)):
        other_ms = other.fixed_ms
        if other_ms is None or other is timeframe:
            continue
        if length_ms is None:
            # Months begin within weeks, and at midnight.
            if other is not Timeframe.W1:
                yield other
        elif other_ms < length_ms and length_ms % other_ms == 0:
            yield other


def buildable(
    known: Coverage, timeframe: Timeframe, smaller: Timeframe, span: Range, now_ms: int
) -> list[Range]:
    """The parts of a range of which the smaller candles are all known, and settled.

    Args:
        known: Of the smaller timeframe.
        timeframe: Of the candles to build; the range is on its grid.
        smaller: Of those that are stored.
        span: What is wanted.
        now_ms: The exchange's time.
    """
    settled = SpanSet()
    for one in known.between(*span):
        # Before a listing there is nothing, after a delisting nobody was asked.
        if one.state in ("complete", "empty", "before_listing") and one.evidence != LIVE:
            settled.add(one.start_ms, one.end_ms)
    found = []
    for part in settled:
        start_ms = timeframe.ceil_ms(part.start_ms)
        end_ms = timeframe.floor_ms(min(part.end_ms, now_ms - OVER_MS))
        if start_ms < end_ms and (end_ms - start_ms) // smaller.typical_ms <= MAX_SMALLER:
            found.append(Range(start_ms, end_ms))
    return found


def aggregated(rows: CandleSeries, timeframe: Timeframe) -> CandleSeries:
    """Candles of a larger timeframe, each of all the smaller ones that open in its period."""
    if not len(rows):
        return CandleSeries.empty(
            rows.symbol, timeframe, source=rows.source, simulated=rows.simulated
        )
    opens = _opens(rows.time, timeframe)
    starts = np.flatnonzero(np.append(True, np.diff(opens) > 0))
    ends = np.append(starts[1:], len(rows)) - 1
    count = len(starts)
    return CandleSeries(
        rows.symbol,
        timeframe,
        [
            opens[starts],
            rows.open[starts],
            np.maximum.reduceat(rows.high, starts),
            np.minimum.reduceat(rows.low, starts),
            rows.close[ends],
            _sums(rows.volume, starts),
            _sums(rows.value, starts),
            np.ones(count, bool),
            np.zeros(count, bool),
        ],
        source=rows.source,
        simulated=rows.simulated,
    )


def _sums(
    numbers: npt.NDArray[np.float64], starts: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """Sums of the groups that begin at `starts`, with the digits that the exchange would give.

    It adds decimals, not binary fractions. Where all numbers of a group have few enough digits
    they are added as whole numbers of the smallest digit, which is exact; else the sum is the
    number nearest to the true one.
    """
    sums = np.zeros(len(starts))
    open_groups = np.ones(len(starts), bool)
    for decimals in range(_MOST_DECIMALS + 1):
        scale = 10.0**decimals
        units = np.rint(numbers * scale)
        totals = np.add.reduceat(units, starts)
        exact = np.logical_and.reduceat(units / scale == numbers, starts)
        done = open_groups & exact & (totals < _EXACT_BELOW)
        sums[done] = totals[done] / scale
        open_groups &= ~done
        if not open_groups.any():
            return sums
    ends = np.append(starts[1:], len(numbers))
    for at in np.flatnonzero(open_groups).tolist():
        sums[at] = math.fsum(numbers[starts[at] : ends[at]].tolist())
    return sums


def _opens(times: npt.NDArray[np.int64], timeframe: Timeframe) -> npt.NDArray[np.int64]:
    fixed_ms = timeframe.fixed_ms
    if fixed_ms is None:
        return np.array([timeframe.floor_ms(at) for at in times.tolist()], np.int64)
    origin_ms = timeframe.floor_ms(0) % fixed_ms
    return times - (times - origin_ms) % fixed_ms
